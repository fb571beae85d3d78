"""Formulas as MathML, made while building by docutils' own converter.

Every current browser draws MathML itself: no script runs, nothing is fetched, and a formula has the
colour of its text in the light and the dark theme.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.errors import SphinxError


def _converted(node: Any, as_block: bool) -> str:
    source = node.astext()
    try:
        return latex2mathml.tex2mathml(source, as_block=as_block)
    except MathError as error:
        raise SphinxError(f"no MathML for the formula {source!r}: {error}") from error


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(_converted(node, as_block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: Any) -> None:
    # Wide formulas scroll by themselves on a narrow screen.
    translator.body.append(f'<div class="math-block">{_converted(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Offer the renderer "mathml"."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
