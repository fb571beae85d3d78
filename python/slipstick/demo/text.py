"""English prose that every Python has: the help topics of `pydoc`, cut into sentences."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from .optional import require

Item = TypeVar("Item")

# A sentence ends at . ! or ? before white space and a capital, but not after "e.g." or "i.e.".
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z\"*(])")
# Lines are also wrapped after the hyphen of a compound word, which takes no space.
_LINE_END = re.compile(r"(?<!\w-)\n")
_MIN_WORDS, _MAX_WORDS = 6, 60


def topics() -> Mapping[str, str]:
    """Return the help topics of the running Python, topic -> text (about 465 kB)."""
    module: Any = require("pydoc_data.topics", purpose="text to embed", package="a complete Python")
    found: Mapping[str, str] = module.topics
    return found


def sentences(texts: Iterable[str]) -> list[str]:
    r"""Cut `texts` into distinct sentences of 6 to 60 words, in order of first appearance.

    The rule: a paragraph is a run of lines between blank lines, and it is prose if no line of it is
    indented (code, grammar, tables and list items are) and no line is an underline. Its lines are
    joined and cut after ``.``, ``!`` or ``?`` before a capital. A piece is a sentence if it
    begins with a capital letter and ends with one of those three marks.

    >>> sentences(["A title\n*******\n\nThis sentence has no less than\neight words. Too short."])
    ['This sentence has no less than eight words.']
    """
    found: dict[str, None] = {}
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", text):
            lines = paragraph.strip("\n").split("\n")
            if any(line[:1].isspace() or not re.search(r"\w", line) for line in lines):
                continue
            prose = _LINE_END.sub(" ", "\n".join(lines)).replace("\n", "")
            for piece in _SENTENCE_END.split(prose):
                words = len(piece.split())
                if (
                    _MIN_WORDS <= words <= _MAX_WORDS
                    and piece[0].isupper()
                    and piece.endswith((".", "!", "?"))
                ):
                    found.setdefault(piece)
    return list(found)


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """`count` items at even distances (all of them if there are fewer), so every topic is heard."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
