"""The pictures of the demo, drawn without pyplot, whose state belongs to the caller."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .experiments import KINDS, Distortion, EntropyCurves, ProductReport, guaranteed_eps
from .optional import require

# Okabe and Ito's colours, told apart by colour-blind readers too.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.titlesize": 11,
    "figure.titlesize": 13,
}
_DPI = 130


class Plots:
    """Draws into a folder; raises `Missing` at once where matplotlib is not installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[Path] = []
        self._matplotlib: Any = require("matplotlib", purpose="picture", package="matplotlib")
        self._figure: Any = require("matplotlib.figure", purpose="picture", package="matplotlib")
        # A figure without a pyplot window saves PNG through the Agg canvas.
        require("matplotlib.backends.backend_agg", purpose="picture", package="matplotlib")

    def _new(self, rows: int, columns: int, width: float, height: float, **options: Any) -> Any:
        figure = self._figure.Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **options)

    def _save(self, figure: Any, name: str) -> None:
        path = self._folder / name
        figure.savefig(path, dpi=_DPI)
        self.files.append(path)

    def entropy(self, curves: EntropyCurves) -> None:
        """Part (b): a panel a layer, entropy over length for both scales."""
        layers = next(iter(curves.curves.values())).shape[1]
        columns = min(3, layers)
        rows = -(-layers // columns)
        lengths = np.array(curves.lengths)
        with self._matplotlib.rc_context(_STYLE):
            figure, axes = self._new(
                rows, columns, 3.4 * columns, 2.7 * rows + 0.8, sharex=True, sharey=True
            )
            for layer, axis in enumerate(axes.flat):
                if layer >= layers:
                    axis.set_visible(False)
                    continue
                axis.plot(
                    lengths, np.log(lengths), ":", color=_GREY, label="ln n, the largest possible"
                )
                for (name, values), colour, mark in zip(
                    curves.curves.items(), (_BLUE, _ORANGE), "os", strict=True
                ):
                    axis.plot(
                        lengths,
                        values[:, layer],
                        color=colour,
                        marker=mark,
                        markersize=4.5,
                        label=f"{name} scale",
                    )
                axis.set_title(f"layer {layer + 1}")
                axis.set_xscale("log", base=2)
                axis.set_xticks(lengths, [str(n) for n in lengths])
                axis.set_ylim(bottom=0)
            for axis in axes[-1]:
                axis.set_xlabel("length n in tokens")
            for axis in axes[:, 0]:
                axis.set_ylabel("entropy in nats")
            handles, labels = axes[0, 0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=3)
            figure.suptitle("Entropy of attention over the length of the text: flatter with LogN")
            self._save(figure, "entropy.png")

    def products(self, reports: Sequence[ProductReport]) -> None:
        """Part (c): how far the embeddings move, and which neighbours stay."""
        colours = (_ORANGE, _BLUE, _GREEN)
        with self._matplotlib.rc_context(_STYLE):
            figure, axes = self._new(1, 2, 10.2, 3.8, width_ratios=(3, 2))
            left, right = axes[0]
            for report, colour in zip(reports, colours, strict=True):
                moved = np.sort(1.0 - report.cosines)
                share = np.arange(1, len(moved) + 1) / len(moved)
                left.plot(moved, 100 * share, color=colour, linewidth=2, label=report.method)
            left.set_xscale("log")
            left.set_ylim(0, 101)
            left.set_xlabel("1 - cosine similarity to the exact embedding (left is better)")
            left.set_ylabel("share of sentences, %")
            left.set_title("Embeddings with approximate products")
            left.legend(title="method", loc="lower right")

            for i, (report, colour) in enumerate(zip(reports, colours, strict=True)):
                for group, kept in enumerate((report.nearest_kept, report.ten_kept)):
                    place = group + (i - 1) * 0.27
                    right.bar(place, 100 * kept, width=0.25, color=colour)
                    right.text(place, 100 * kept + 1, f"{100 * kept:.0f}", ha="center")
            right.set_xticks([0, 1], ["the nearest", "the ten nearest"])
            right.grid(axis="x", visible=False)
            right.set_ylim(0, 108)
            right.set_yticks(range(0, 101, 20))
            right.set_ylabel("kept, %")
            right.set_title("Neighbours that stay")
            figure.suptitle("Every linear layer of the encoder through slipstick.mitchell.matmul")
            self._save(figure, "mitchell.png")

    def projections(self, parts: Mapping[str, tuple[int, Sequence[Distortion]]]) -> None:
        """Part (d): a panel a data set, given as title -> (number of points, distortions)."""
        with self._matplotlib.rc_context(_STYLE):
            figure, axes = self._new(1, len(parts), 5.2 * len(parts), 4.4, sharey=True)
            for axis, (title, (n_points, rows)) in zip(axes[0], parts.items(), strict=True):
                axis.axhline(1.0, color=_GREY, linewidth=0.8)
                for kind, colour, shift in zip(
                    KINDS, (_BLUE, _ORANGE), (0.965, 1.035), strict=True
                ):
                    ours = [row for row in rows if row.kind == kind]
                    place = np.array([row.n_components * shift for row in ours])
                    ends = [row.smallest for row in ours], [row.largest for row in ours]
                    middle = [row.low for row in ours], [row.high for row in ours]
                    axis.vlines(place, *ends, color=colour, linewidth=1.2)
                    axis.vlines(place, *middle, color=colour, linewidth=4.5, label=kind)
                dimensions = sorted({row.n_components for row in rows})
                fine = np.unique(
                    np.geomspace(dimensions[0], dimensions[-1] * 1.12, 200).astype(int)
                )
                bounds = [(k, guaranteed_eps(n_points, int(k))) for k in fine]
                proven = np.array([(k, eps) for k, eps in bounds if eps is not None])
                if len(proven):
                    for sign in (-1, 1):
                        axis.plot(
                            proven[:, 0],
                            1 + sign * proven[:, 1],
                            "--",
                            color="black",
                            linewidth=1.2,
                            label="Johnson-Lindenstrauss bound 1 ± ε" if sign > 0 else None,
                        )
                axis.set_xscale("log", base=2)
                axis.set_xticks(dimensions, [str(k) for k in dimensions])
                axis.minorticks_off()
                axis.set_xlabel("dimensions after the projection")
                axis.set_title(title)
                axis.set_ylim(bottom=0)
            axes[0, 0].set_ylabel("squared distance after / before")
            handles, labels = axes[0, 0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=3)
            figure.suptitle("All pairwise distances (thin: all pairs, thick: the middle 90 %)")
            self._save(figure, "projection.png")
