"""Matrix products of Mitchell's kind beside exact ones."""

import bench_results
import matplotlib.pyplot as plt

bench_results.use_style()
PEER = "best exact product"
COLORS = {PEER: bench_results.PEERS[0]}


def rows(contains: str, prefix: str) -> list:
    """Return the cases, with the better one of NumPy's and torch's exact products."""
    return [
        (case.case.removeprefix(prefix), {PEER: case.ratio("numpy", "torch")})
        for case in bench_results.timings("mitchell", contains)
    ]


shapes = rows("matmul float32 ", "matmul float32 ")
methods = [row for row in shapes if row[0].startswith("1024^3")]
methods = [(name.removeprefix("1024^3, "), value) for name, value in methods]
shapes = [row for row in shapes if not row[0].startswith("1024^3")]
figure, axes = plt.subplots(
    2,
    1,
    figsize=(8.6, 0.3 * (len(shapes) + len(methods)) + 1.6),
    height_ratios=[len(shapes), len(methods)],
)
bench_results.bars(axes[0], shapes, COLORS)
axes[0].set_title("method mitchell, float32, by shape and data")
bench_results.bars(axes[1], methods, COLORS)
axes[1].set_title("other methods, float32, 1024 x 1024 x 1024")
axes[1].set_xlabel("time of the best exact product / slipstick")
plt.show()
