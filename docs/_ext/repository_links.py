"""Links of Markdown pages to files of the repository that lie outside the documentation.

On the repository's own pages they lead to the file. Here a file that these pages include is linked
to its page, and of another one the path is shown.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)\)")
_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "cpp/attention/README.md": "kernels/attention.md",
    "cpp/mitchell/README.md": "kernels/mitchell.md",
    "cpp/projection/README.md": "kernels/projection.md",
}


def _rewrite(app: Any, docname: str, source: list[str]) -> None:
    docs = Path(app.srcdir).resolve()
    folder = (docs / docname).parent

    def replace(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = Path(os.path.normpath(folder / target))
        if path.is_relative_to(docs) or not path.exists():
            return match.group()  # a page, or a mistake that Sphinx will report
        name = str(path.relative_to(docs.parent))
        if name in _PAGES:
            return f"[{text}]({os.path.relpath(docs / _PAGES[name], folder)})"
        return f"`{name}`" if text.strip("`") in name else f"{text} (`{name}`)"

    if app.env.doc2path(docname).suffix == ".md":
        source[0] = _LINK.sub(replace, source[0])


def setup(app: Any) -> dict[str, bool]:
    """Connect."""
    app.connect("source-read", _rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
