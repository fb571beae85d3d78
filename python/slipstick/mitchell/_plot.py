"""The picture of an error report, drawn without pyplot, whose state belongs to the caller."""

from __future__ import annotations

import re
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slipstick.mitchell._pairs import (
    FRACTION_BITS,
    float_products,
    grid,
    integer_pairs,
    significands,
)

if TYPE_CHECKING:
    from slipstick.mitchell._report import ErrorReport

_CELLS = 256  # a side, at most
_BARS = 120
# Okabe and Ito's colours, told apart by colour-blind readers too.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#6E6E6E"
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "figure.titlesize": 13,
    "legend.frameon": False,
}
_DPI = 130


def plot(report: ErrorReport, path: str | PathLike[str] | None) -> Any:
    """Draw a report; see `ErrorReport.plot`."""
    matplotlib, backend, figures = (
        _matplotlib(name) for name in ("", ".backends.backend_agg", ".figure")
    )
    with matplotlib.rc_context(_STYLE):
        figure = figures.Figure(figsize=(11.4, 4.9), layout="constrained")
        backend.FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        _draw_map(report, figure, left)
        _draw_histogram(report, right)
        figure.suptitle(_title(report))
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
        if path is not None:
            figure.savefig(path, dpi=_DPI)
    return figure


def _matplotlib(module: str) -> Any:
    try:
        return import_module(f"matplotlib{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise  # one that is there but broken keeps its own traceback
        raise ImportError(
            "ErrorReport.plot: the package matplotlib must be installed, got none: "
            "run `pip install matplotlib`"
        ) from None


def _title(report: ErrorReport) -> str:
    # Of a checksum, as much as tells tables apart.
    name = re.sub(r"(sha256=[0-9a-f]{12})[0-9a-f]+", r"\1...", report.method)
    kind = report.bits
    if not isinstance(kind, str):
        kind = f"{kind}-bit {'signed' if report.signed else 'unsigned'} integers"
    return f"Relative error of {name}, {kind}"


def _draw_map(report: ErrorReport, figure: Any, axis: Any) -> None:
    errors, note = _mantissa_errors(report)
    percent = 100 * errors
    largest = float(np.abs(percent).max()) or 1.0
    # The first mantissa runs to the right.
    image = axis.imshow(
        percent.T,
        origin="lower",
        extent=(0, 1, 0, 1),
        cmap="RdBu_r",
        vmin=-largest,
        vmax=largest,
        interpolation="nearest",
    )
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axis.set_xticks(ticks, ["0", "0.25", "0.5", "0.75", "1"])
    axis.set_yticks(ticks, ["0", "0.25", "0.5", "0.75", "1"])
    axis.set_xlabel("x, fraction of the first operand $2^k (1 + x)$")
    axis.set_ylabel("y, fraction of the second operand")
    axis.set_title(note)
    bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03)
    bar.set_label("relative error, %")
    bar.outline.set_visible(False)


def _mantissa_errors(report: ErrorReport) -> tuple[NDArray[np.float64], str]:
    """RE over x (rows) and y, and which operands they belong to."""
    method, bits = report._method, report.bits
    if isinstance(bits, str):
        m = FRACTION_BITS[bits]
        side = min(_CELLS, 2**m)
        # From the middle of each cell: at its corner wide formats would show round numbers alone.
        fraction = (2 * np.arange(side) + 1) * 2**m // (2 * side)
        a, b = grid(*[significands(bits, fraction)] * 2)
        product, exact = float_products(method, a, b)
        return ((product - exact) / exact).reshape(side, side), "Over the two mantissas"
    # Operands with the highest leading one have all bits of a fraction; -2^(n-1) has none.
    m = bits - 2 if report.signed else bits - 1
    side = min(_CELLS, 2**m)
    fraction = (2 * np.arange(side) + 1) * 2**m // (2 * side)
    pairs = integer_pairs(method, bits, report.signed, *grid(*[fraction + 2**m] * 2))
    note = f"Over the two mantissas (operands {2**m} to {2 ** (m + 1) - 1})"
    return pairs.relative_errors().reshape(side, side), note


def _draw_histogram(report: ErrorReport, axis: Any) -> None:
    start, counts = report._histogram
    edges = 100 * (start + np.arange(len(counts) + 1) / 2**16)
    used = np.flatnonzero(counts)
    low, high = (float(edges[used[0]]), float(edges[used[-1] + 1])) if len(used) else (0.0, 1.0)
    bars = np.linspace(low, high, _BARS + 1)
    place = np.clip(np.searchsorted(bars, edges[:-1], side="right") - 1, 0, _BARS - 1)
    shares = 100 * np.bincount(place, weights=counts, minlength=_BARS) / max(1, counts.sum())
    axis.bar(bars[:-1], shares, width=np.diff(bars), align="edge", color=_BLUE, linewidth=0)
    top = 0.87  # the legend has the room above
    axis.axvline(0, ymax=top, color=_GREY, linewidth=0.8)
    mean, quantiles = 100 * report.bias, [100 * value for value in report.quantiles]
    axis.axvline(mean, ymax=top, color=_ORANGE, linewidth=1.8, label=f"mean {mean:.3g} %")
    for at, name in ((quantiles[0], "5 % and 95 % quantiles"), (quantiles[4], None)):
        axis.axvline(at, ymax=top, color="black", linewidth=1.2, linestyle=":", label=name)
    axis.set_xlabel("relative error, %")
    axis.set_ylabel("share of pairs, %")
    axis.set_ylim(0, float(shares.max()) / (top - 0.02) or 1)
    how = "a sample of" if report.sample_size is not None else "all"
    axis.set_title(f"Histogram of {how} {report.relative_pairs:,} pairs")
    axis.legend(loc="upper center", ncols=2)
