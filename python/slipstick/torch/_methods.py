"""Methods of multiplication and their gradients as operators hold them: as text."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch

from slipstick import mitchell
from slipstick._numbers import given, is_number
from slipstick.mitchell import Method
from slipstick.mitchell._methods import as_method

Gradient = Literal["mimic", "exact", "straight-through"]
Correction = Literal["gain"] | float | None

GRADIENTS = ("mimic", "exact", "straight-through")
_FRACTION_BITS = {
    torch.float64: 52,
    torch.float32: 23,
    torch.float16: 10,
    torch.bfloat16: 7,
}
# Tables that were given, by their repr: it names their entries by hash, so that equal ones share a
# place, and a graph that holds the text finds them. 128 KiB each at most, kept.
_tables: dict[str, Method] = {}


def text_of(function: str, method: str | Method) -> str:
    """Return a method as text: its name, or a call that makes it.

    Raises
    ------
    TypeError, ValueError
        For what is no method; `function` is named in the error.
    """
    found = as_method(function, method)
    if isinstance(method, str):
        return method
    return _text_of_table(found) if isinstance(found, mitchell.Table) else repr(found)


def _text_of_table(table: mitchell.Table) -> str:
    text = repr(table)
    _tables.setdefault(text, table)
    return text


# torch.compile takes the text as a constant and guards the table, whose hash it could not trace.
# What torch.compiler.assume_constant_result does too, after an import of seconds.
_text_of_table._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=256)
def method_of(text: str) -> Method:
    """Return the method of a text that `text_of` made, in this process or another."""
    if text in mitchell.methods():
        return as_method("mitchell", text)
    if text in _tables:
        return _tables[text]
    if text.startswith("Table("):
        raise ValueError(
            f"slipstick: `method` must be a table that this process has used, got {given(text)}"
        )
    try:
        call: Any = ast.parse(text, mode="eval").body
        kind = getattr(mitchell, call.func.id)
        method = kind(**{word.arg: ast.literal_eval(word.value) for word in call.keywords})
    except (SyntaxError, AttributeError, TypeError, ValueError):
        method = None
    if not isinstance(method, Method):
        raise ValueError(f"slipstick: `method` must be the text of a method, got {given(text)}")
    return method


def chosen(arguments: Sequence[Any]) -> tuple[str, str]:
    """Return method and gradient; those that have their default are not among the arguments."""
    method = arguments[0] if arguments else "mitchell"
    return method, arguments[1] if len(arguments) > 1 else "mimic"


def check_gradient(function: str, gradient: Any) -> None:
    """Refuse what is not the name of a gradient."""
    if not isinstance(gradient, str) or gradient not in GRADIENTS:
        expected = ", ".join(repr(name) for name in GRADIENTS)
        message = f"{function}: `gradient` must be one of {expected}, got {given(gradient)}"
        raise ValueError(message) if isinstance(gradient, str) else TypeError(message)


def check_derivative(function: str, method: Method, gradient: str, dtype: torch.dtype) -> None:
    """Refuse the exact gradient of a method that has none, before the backward pass does."""
    if gradient == "exact" and method.derivative(_FRACTION_BITS.get(dtype, 23)) is None:
        raise ValueError(
            f"{function}: `gradient` must be 'mimic' or 'straight-through' for a method that drops "
            f"bits of its operands, got 'exact' with {method!r}"
        )


def correction_of(function: str, correction: Any) -> tuple[bool, float]:
    """Return whether the factor is the inverse gain, and the factor otherwise."""
    if correction is None:
        return False, 1.0
    if isinstance(correction, str) and correction == "gain":
        return True, 1.0
    if is_number(correction):
        return False, float(correction)
    message = f"{function}: `correction` must be None, 'gain' or a number, got {given(correction)}"
    raise ValueError(message) if isinstance(correction, str) else TypeError(message)
