"""Formulas as MathML, made while building by docutils' own converter.

Every current browser draws MathML itself: no script runs, nothing is fetched, and a formula has the
colour of its text in the light and the dark theme.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.errors import SphinxError

# A function and its argument, where no parenthesis follows: TeX sets a thin space there.
_APPLIED = re.compile(r"<mo>(?:&ApplyFunction;|\u2061)</mo>(?!\s*<mo[^>]*>[(\[{|])")
# Brackets that docutils lets grow to the height of the line, as after a left command.
_BRACKET = re.compile("<mo>([\u27e8\u27e9\u2016])</mo>")
_THIN = '<mspace width="0.1667em"></mspace>'


def _converted(node: Any, as_block: bool) -> str:
    source = node.astext()
    try:
        converted = latex2mathml.tex2mathml(source, as_block=as_block)
    except MathError as error:
        raise SphinxError(f"no MathML for the formula {source!r}: {error}") from error
    converted = _BRACKET.sub(r'<mo stretchy="false">\1</mo>', converted)
    return _APPLIED.sub(lambda match: match.group() + _THIN, converted)


def _inline(translator: Any, node: Any) -> None:
    # A word joiner, so that no line begins with the comma after a formula.
    translator.body.append(_converted(node, as_block=False) + "\u2060")
    raise nodes.SkipNode


def _block(translator: Any, node: Any) -> None:
    # Wide formulas scroll by themselves on a narrow screen.
    translator.body.append(f'<div class="math-block">{_converted(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Offer the renderer "mathml"."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
