"""Hamming search beside faiss, singular values beside torch and scikit-learn."""

import bench_results
import matplotlib.pyplot as plt

bench_results.use_style()
FAISS, TORCH, SKLEARN = "faiss, its faster index", "torch.svd_lowrank", "scikit-learn"
COLORS = dict(zip((FAISS, TORCH, SKLEARN), bench_results.PEERS, strict=False))

hamming = [
    (
        case.case.replace(" of 1 M codes of ", ", "),
        {FAISS: case.ratio("faiss, heap", "faiss, counting")},
    )
    for case in bench_results.timings("projection-lsh", "top ")
]
svd = [
    (
        case.case.removeprefix("svd 4000x3000 float32, "),
        {TORCH: case.ratio("torch"), SKLEARN: case.ratio("scikit-learn")},
    )
    for case in bench_results.timings("projection-svd", "iterations")
]
figure, axes = plt.subplots(2, 1, figsize=(8.6, 7.2), height_ratios=[len(hamming), 1.4 * len(svd)])
bench_results.bars(axes[0], hamming, COLORS)
axes[0].set_title("the nearest of a million binary codes")
bench_results.bars(axes[1], svd, COLORS)
axes[1].set_title("randomised SVD of 4000 x 3000 float32, 50 values")
axes[1].set_xlabel("time of the peer / slipstick")
bench_results.legend(figure, COLORS, loc="outside lower center", ncols=3)
plt.show()
