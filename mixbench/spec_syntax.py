"""What stands in a spec text: names, parameters and values, read once from left to right."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

from mixbench.values import shown

DEEPEST = 20  # brackets in brackets
_BLANKS = re.compile(r"\s*")
_WORD = re.compile(r"[^\s,()\[\]{}'\"=]+")
_QUOTED = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")


@dataclass(frozen=True)
class Word:
    """A text without quotes; what it means depends on where it stands."""

    text: str


@dataclass(frozen=True)
class Quoted:
    """A text in quotes, without them."""

    text: str


@dataclass(frozen=True)
class Several:
    """Values in brackets, `[...]` or, where `tuple`, `(...)`."""

    values: tuple[Value, ...]
    tuple: bool


@dataclass(frozen=True)
class Call:
    """A name with parameters in brackets, in order; a parameter given twice stands twice."""

    name: str
    parameters: tuple[tuple[str, Value], ...]


Value = Word | Quoted | Several | Call


def read_list(text: str) -> list[Value]:
    """The values of a text, which commas separate; one comma may end it. ValueError in words."""
    reader = _Reader(text)
    values: list[Value] = []
    while not reader.at_end:
        values.append(reader.value(0))
        if not reader.at_end:
            reader.take(",")
    return values


class _Reader:
    """The place up to which a text was read."""

    def __init__(self, text: str):
        self._text = text
        self._at = 0
        self._skip()

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._text)

    @property
    def _next(self) -> str:
        """The next character; '' at the end."""
        return self._text[self._at : self._at + 1]

    def _skip(self) -> None:
        match = _BLANKS.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        """What stands here of a pattern, and the blanks behind it, read."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        self._skip()
        return match.group()

    def take(self, mark: str) -> None:
        """Read a mark that has to stand here."""
        if self._next != mark:
            raise self._mistake(self._instead(mark))
        self._at += 1
        self._skip()

    def _instead(self, mark: str) -> str:
        """What is wrong where a mark has to stand and another character does."""
        if self.at_end:  # a comma is looked for between values alone, which a bracket holds
            return "a bracket is not closed"
        if self._next in (")", "]"):
            return f"{shown(self._next)} closes no bracket"
        return "braces hold no values" if self._next in ("{", "}") else f"{shown(mark)} is missing"

    def value(self, depth: int) -> Value:
        """Read a value."""
        if depth > DEEPEST:
            raise self._mistake(f"more than {DEEPEST} brackets in each other")
        if self._next in ("'", '"'):
            return self._quoted()
        if self._next in ("(", "["):
            return self._several(depth)
        word = self._match(_WORD)
        if word is None:
            braces = self._next in ("{", "}")
            raise self._mistake("braces hold no values" if braces else "a value is missing")
        return self._call(word, depth) if self._next == "(" else Word(word)

    def _quoted(self) -> Quoted:
        begin, quoted = self._at, self._match(_QUOTED)
        if quoted is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a backslash that escapes nothing
                try:
                    text = ast.literal_eval(quoted)
                    if "\0" not in text:  # which no file nor path holds
                        return Quoted(text)
                except (SyntaxError, ValueError):
                    pass
            self._at = begin
        raise self._mistake("a quotation that does not end, that Python cannot read or with a NUL")

    def _several(self, depth: int) -> Several:
        opening = self._next
        closing = ")" if opening == "(" else "]"
        self.take(opening)
        values = []
        while self._next != closing:
            values.append(self.value(depth + 1))
            if self._next != closing:
                self.take(",")
        self.take(closing)
        return Several(tuple(values), tuple=opening == "(")

    def _call(self, name: str, depth: int) -> Call:
        self.take("(")
        parameters = []
        while self._next != ")":
            parameters.append(self._parameter(name, depth))
            if self._next != ")":
                self.take(",")
        self.take(")")
        return Call(name, tuple(parameters))

    def _parameter(self, name: str, depth: int) -> tuple[str, Value]:
        begin = self._at
        word = self._match(_WORD)
        if word is not None and self._next == "=":
            self.take("=")
            return word, self.value(depth + 1)
        if self._next in ("", "{", "}", "]"):
            raise self._mistake(self._instead(")"))
        if word is None and self._next in ",=":
            raise self._mistake("a parameter is missing")
        self._at = begin
        given = self._text[begin : begin + 80].split(",")[0]
        raise ValueError(f"write parameters as name=value: {shown(given)} in {name} has no name")

    def _mistake(self, what: str) -> ValueError:
        where = f"at {shown(self._text[self._at :][:20])}" if not self.at_end else "at its end"
        return ValueError(
            f"cannot read strategy {shown(self._text)} ({what} {where}): write name or "
            "name(key=value, ...)"
        )


def written(value: Value) -> str:
    """A value as it is written, for a sentence."""
    if isinstance(value, Word):
        return value.text
    if isinstance(value, Quoted):
        return repr(value.text)
    if isinstance(value, Several):
        inner = ", ".join(map(written, value.values[:20]))
        return f"({inner})" if value.tuple else f"[{inner}]"
    return f"{value.name}({', '.join(f'{key}={written(part)}' for key, part in value.parameters)})"
