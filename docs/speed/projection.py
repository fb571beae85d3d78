"""Projection beside scikit-learn and NumPy."""

import bench_results
import matplotlib.pyplot as plt

bench_results.use_style()
FIT = "scikit-learn, fit + transform"
TRANSFORM = "scikit-learn or NumPy, matrix given"
COLORS = {FIT: bench_results.PEERS[0], TRANSFORM: bench_results.PEERS[1]}


def rows(contains: str) -> list:
    """Return the cases, with the fastest peer of either sort."""
    result = []
    for case in bench_results.timings("projection", contains):
        fits = [name for name in case.others if "fit" in name]
        given = [name for name in case.others if "fit" not in name]
        values = {FIT: case.ratio(*fits), TRANSFORM: case.ratio(*given)}
        result.append((case.case.split()[0], values))
    return result


dense = rows("dense 1000x10000 to 256 float32")
sparse = rows("CSR")
figure, axes = plt.subplots(
    2,
    1,
    figsize=(8.6, 0.42 * (len(dense) + len(sparse)) + 1.9),
    height_ratios=[len(dense), len(sparse)],
)
bench_results.bars(axes[0], dense, COLORS)
axes[0].set_title("dense, 1000 x 10,000 to 256 components, float32")
bench_results.bars(axes[1], sparse, COLORS)
axes[1].set_title("CSR, 20,000 x 100,000 with 2 million nonzeros, to 256")
axes[1].set_xlabel("time of the fastest peer / slipstick")
bench_results.legend(axes[0], COLORS, loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=2)
plt.show()
