"""Forward attention beside five peers: ratios of time against the length."""

import bench_results
import matplotlib.pyplot as plt

bench_results.use_style()
PEERS = dict(
    zip(("torch", "onnxruntime", "openvino", "zentorch", "jax"), bench_results.PEERS, strict=True)
)

figure, axes = plt.subplots(2, 2, figsize=(8.6, 6.2), sharex=True, sharey=True)
for row, dim in zip(axes, (64, 128), strict=True):
    for ax, order in zip(row, ("full", "causal"), strict=True):
        cases = [
            (int(case.case.split(" N")[1].split()[0]), case)
            for case in bench_results.timings("attention", f"attention float32 d{dim} N")
            if case.case.endswith(order)
        ]
        for peer, color in PEERS.items():
            ratios = [case.others[peer] / case.own for _, case in cases]
            ax.plot([n for n, _ in cases], ratios, "o-", ms=4, color=color, label=peer)
        ax.axhline(1, color=bench_results.OWN, linewidth=1.5)
        ax.set_title(f"{order}, head dimension {dim}")
for ax in axes.flat:
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_yticks([1, 2, 3, 5], ["1", "2", "3", "5"])
    ax.minorticks_off()
    ticks = [128, 512, 2048, 8192]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
for ax in axes[1]:
    ax.set_xlabel("queries = keys")
for ax in axes[:, 0]:
    ax.set_ylabel("time of the peer / slipstick")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
plt.show()
