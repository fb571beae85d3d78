"""Training, decoding and packed sequences beside torch."""

import bench_results
import matplotlib.pyplot as plt

bench_results.use_style()
groups = ("forward + backward", "decode", "varlen")
rows = []
for group in groups:
    for case in bench_results.timings("attention", group):
        peers = [name for name in case.others if name.startswith("torch")]
        if peers:
            rows.append((case.case.removeprefix("attention "), {"torch": case.ratio(*peers)}))

figure, ax = plt.subplots(figsize=(8.6, 0.3 * len(rows) + 0.9))
bench_results.bars(ax, rows, {"torch": bench_results.PEERS[0]})
ax.set_xlabel("time of torch / slipstick")
plt.show()
