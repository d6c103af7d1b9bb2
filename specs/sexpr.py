"""S-expressions with positions: the syntax shared by VNN-LIB 1.0 and 2.0.

The reader is a shift-reduce loop: each closing parenthesis hands the items of its form to a `reduce` function and keeps
what that returns. There is no recursion, so nesting depth is limited by memory only, and no tree is built of what a
reduction has already understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import SpecError

#: A reduction: (items, offset of each item, offset of the opening parenthesis) -> value of the form.
Reduce = Callable[[list[Any], list[int], int], Any]

NUMBER_PATTERN = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
NUMBER = re.compile(NUMBER_PATTERN)

_COMMENT = re.compile(r";[^\r\n]*")
_COMMENT_OR_STRING = re.compile(r'("(?:[^"\\\r\n]|\\[^\r\n])*")|;[^\r\n]*')
_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK = re.compile(r"\s*", re.ASCII)
_TOKEN = re.compile(
    r"""[()]                                            # a parenthesis
    | "(?:[^"\\\r\n]|\\[^\r\n])*"                      # a string
    | [A-Za-z_][A-Za-z0-9_]*+\s*+\[[^\[\]()"\n]*\]      # an element of a tensor, X[0,1]
    | \[[^\[\]()"\n]*\]                                 # a shape
    | [^\s()"\[\]]+                                     # a name, number or operator
    | ["\[\]]                                           # what starts none of these
    """,
    re.ASCII | re.VERBOSE,
)


@dataclass(frozen=True)
class Source:
    """A specification's text, comments blanked, with the name to give it in messages.

    Comments run to the end of their line, so removing them moves no other token to another line or column. A line ends
    with a line feed, a carriage return, or both.
    """

    name: str
    text: str

    @classmethod
    def of(cls, name: str, text: str) -> Source:
        """The source of `text`, without its comments."""
        if ";" not in text:
            return cls(name, text)
        if '"' not in text:
            return cls(name, _COMMENT.sub("", text))
        return cls(name, _COMMENT_OR_STRING.sub(lambda match: match[1] or "", text))

    def error(self, offset: int, message: str) -> SpecError:
        """The error `message` at character `offset`, as ``file:line:column: message``."""
        offset = min(offset, len(self.text))
        line, start = 1, 0
        for end in _LINE_END.finditer(self.text, 0, offset):
            line, start = line + 1, end.end()
        return SpecError(f"{self.name}:{line}:{offset - start + 1}: {message}")

    def mention(self, name: str) -> int:
        """The offset of the last mention of a variable, to point a message at."""
        last = 0
        for match in re.finditer(rf"(?<![\w\]]){re.escape(name)}(?![\w\[])", self.text):
            last = match.start()
        return last


def skip_blank(text: str, position: int) -> int:
    """The offset of the next character that is not white space."""
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def read_form(source: Source, position: int, reduce: Reduce) -> tuple[Any, int]:
    """Read the form whose parenthesis opens at `position`; return its reduced value and the offset after it.

    Raises:
        SpecError: if no form starts there or its parentheses do not close.
    """
    text = source.text
    if text[position] != "(":
        problem = "a ')' too many" if text[position] == ")" else "expected '('"
        raise source.error(position, f"{problem}; a query is a list of forms such as (assert ...)")
    open_forms: list[tuple[list[Any], list[int], int]] = []
    items: list[Any] = []
    offsets: list[int] = []
    start = position
    for match in _TOKEN.finditer(text, position):
        token = match[0]
        if token == "(":
            open_forms.append((items, offsets, start))
            items, offsets, start = [], [], match.start()
        elif token == ")":
            value, opened = reduce(items, offsets, start), start
            items, offsets, start = open_forms.pop()
            if not open_forms:
                return value, match.end()
            items.append(value)
            offsets.append(opened)
        else:
            if token in ('"', "[", "]"):
                raise source.error(match.start(), f"stray {token}; is its partner missing?")
            items.append(token)
            offsets.append(match.start())
    raise source.error(
        open_forms[1][2] if len(open_forms) > 1 else start,
        f"the parenthesis opened here is never closed ({len(open_forms)} missing at the end of the file)",
    )
