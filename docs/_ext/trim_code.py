"""Examples without the blank line at their end, which doctest wants before a fence."""

from __future__ import annotations

from typing import Any

from docutils import nodes


def _trim(app: Any, doctree: nodes.document) -> None:
    for block in doctree.findall(nodes.literal_block):
        if len(block.children) == 1 and isinstance(block.children[0], nodes.Text):
            trimmed = nodes.Text(block.astext().rstrip())
            block.rawsource = str(trimmed)  # highlighting looks at both
            block.replace(block.children[0], trimmed)


def setup(app: Any) -> dict[str, bool]:
    """Connect."""
    app.connect("doctree-read", _trim)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
