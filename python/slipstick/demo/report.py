"""What the demo prints: tables on stdout, progress on stderr."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """One rewritten line on a terminal; elsewhere one line when the step begins."""

    def __init__(self, title: str, total: int, stream: TextIO | None = None) -> None:
        self._title = title
        self._total = total
        self._done = 0
        # Looked up per step, because test runners replace sys.stderr.
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()

    def __enter__(self) -> Self:
        sys.stdout.flush()  # or a pipe shows the steps long before the tables between them
        if self._live:
            self._show()
        else:
            print(f"... {self._title}", file=self._stream, flush=True)
        return self

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self._done += count
        if self._live:
            self._show()

    def _show(self) -> None:
        share = self._done / self._total if self._total else 1.0
        bar = "#" * round(20 * share)
        line = f"{_CLEAR_LINE}[{bar:<20}] {self._title} {self._done}/{self._total}"
        print(line, end="", file=self._stream, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            print(_CLEAR_LINE, end="", file=self._stream, flush=True)


def heading(text: str) -> None:
    """Print `text` underlined, after an empty line."""
    print(f"\n{text}\n{'-' * len(text)}")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    groups: Sequence[tuple[str, int]] = (),
) -> str:
    """Lay out a right-aligned text table; `groups` titles runs of columns as (title, columns)."""
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = []
    if groups:
        line, first = [], 0
        for title, count in groups:
            width = sum(widths[first : first + count]) + 2 * (count - 1)
            line.append(title.center(width, "-") if title else " " * width)
            first += count
        lines.append("  ".join(line).rstrip())
    lines += [
        "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells
    ]
    return "\n".join(lines)
