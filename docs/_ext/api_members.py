"""Which members of a class autodoc leaves out."""

from __future__ import annotations

import collections
from typing import Any

# A field of a NamedTuple: its docstring is "Alias for field number 0".
_FIELD = type(collections.namedtuple("_Example", "field").field)


def _skip(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    return True if isinstance(member, _FIELD) else None


def setup(app: Any) -> dict[str, bool]:
    """Connect."""
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
