"""The committed results of the benchmarks: read, compared and drawn."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from picture_style import STYLE

RESULTS = Path(__file__).parent.parent.parent / "bench" / "results"
OWN = "#0b5c77"
PEERS = ("#d1495b", "#edae49", "#66a182", "#8d6a9f", "#8c8c8c")


class Timing(NamedTuple):
    """A case: the seconds of slipstick's contender and of the others."""

    case: str
    threads: int
    own: float
    others: dict[str, float]

    def ratio(self, *names: str) -> float:
        """Return how many times slipstick's seconds the fastest of the named contenders takes."""
        return min(self.others[name] for name in names if name in self.others) / self.own


def path_of(name: str) -> Path:
    """Return the newest result whose file name ends in a name, as "attention"."""
    found = sorted(RESULTS.glob(f"*-milan-{name}.json"))
    if not found:
        raise FileNotFoundError(f"no result of {name} in {RESULTS}")
    return found[-1]


@cache
def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path_of(name).read_text())
    return content


def timings(name: str, contains: str = "") -> list[Timing]:
    """Return the cases of a result whose name contains a text."""
    return [
        Timing(
            row["case"],
            row.get("threads", 2),
            next(iter(row["seconds"].values())),
            dict(list(row["seconds"].items())[1:]),
        )
        for row in _content(name)["timings"]
        if contains in row["case"]
    ]


def figures(name: str) -> dict[str, float]:
    """Return the figures of a result that has no timings."""
    return dict(_content(name)["figures"])


def machine(name: str) -> str:
    """Say on which machine, with which versions and from which commit a result is."""
    facts = _content(name)["machine"]
    known = ("numpy", "torch", "scikit-learn", "onnxruntime", "openvino", "zentorch", "jax")
    versions = ", ".join(
        f"{package} {facts[package]}"
        for package in (*known, "scipy", "faiss-cpu")
        if package in facts
    )
    level = next(line for line in facts["slipstick"].splitlines() if "level active" in line).split()
    compiler = next(line for line in facts["slipstick"].splitlines() if "compiler" in line).split()
    day = path_of(name).name[:10]
    return (
        f"{facts['cpu']} (Milan), two shared cores, level {level[-1]}, {' '.join(compiler[1:])}; "
        f"{versions}; commit {facts['commit']}, {day}"
    )


def use_style() -> None:
    """Draw like the gallery."""
    import matplotlib

    matplotlib.rcParams.update(STYLE)


def bars(ax: Any, rows: list[tuple[str, dict[str, float]]], colors: dict[str, str]) -> None:
    """Draw a group of horizontal bars a row: ratios to slipstick, on a logarithmic axis.

    A bar that goes to the right of 1 says that the peer takes longer.
    """
    height = 0.8 / max(len(values) for _, values in rows)
    for place, (_, values) in enumerate(rows):
        for number, (name, ratio) in enumerate(values.items()):
            y = place + (number - (len(values) - 1) / 2) * height
            ax.barh(y, ratio - 1, height * 0.9, left=1, color=colors[name])
            right = ratio >= 1
            ax.annotate(
                f"{ratio:.2f}" if 0.1 <= ratio < 10 else f"{ratio:.2g}",
                (ratio, y),
                (4 if right else -4, 0),
                textcoords="offset points",
                va="center",
                ha="left" if right else "right",
                fontsize=8,
            )
    ax.set_xscale("log")
    low = min(min(values.values()) for _, values in rows)
    high = max(max(values.values()) for _, values in rows)
    ax.set_xlim(min(0.8, low / 1.5), max(1.25, high * 1.6))
    ax.axvline(1, color=OWN, linewidth=1.5)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(False, axis="y")
    ticks = [
        t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if low / 1.5 <= t <= high * 1.6
    ]
    ax.set_xticks(sorted({1, *ticks}), [f"{t:g}" for t in sorted({1, *ticks})])
    ax.minorticks_off()


def legend(ax: Any, colors: dict[str, str], **keywords: Any) -> None:
    """Name the colours of bars."""
    from matplotlib.patches import Patch

    ax.legend(
        handles=[Patch(color=color, label=name) for name, color in colors.items()], **keywords
    )
