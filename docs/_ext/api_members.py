"""Which members of a class autodoc leaves out: fields of tuples, and what comes from elsewhere."""

from __future__ import annotations

import collections
from typing import Any

# A field of a NamedTuple: its docstring is "Alias for field number 0".
_FIELD = type(collections.namedtuple("_Example", "field").field)


def _module(member: Any) -> str:
    """Return where a function, a method or a property was written, or nothing."""
    for inner in ("fget", "func", "__func__"):
        member = getattr(member, inner, member)
    owner = getattr(member, "__objclass__", member)
    return getattr(owner, "__module__", None) or ""


def _skip(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    elsewhere = callable(member) and not _module(member).startswith("slipstick")
    return True if isinstance(member, _FIELD) or elsewhere else None


def setup(app: Any) -> dict[str, bool]:
    """Connect."""
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
