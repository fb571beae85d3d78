"""How the pictures of the gallery and of the results look."""

from __future__ import annotations

from typing import Any

STYLE = {
    "figure.figsize": (7.2, 4.0),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "font.size": 10,
}


def reset(gallery_conf: dict[str, Any], fname: str) -> None:
    """Set the style before each example of the gallery."""
    import matplotlib

    matplotlib.rcParams.update(STYLE)
