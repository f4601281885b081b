r"""Variables and quotes in the words of a Dockerfile (Dockerfile reference, "Environment replacement").

``$X``, ``${X}``, and with an operator: ``:-`` ``-`` default, ``:+`` ``+`` instead, ``:?`` ``?`` error, ``#`` ``##``
without the shortest or longest prefix, ``%`` ``%%`` suffix, ``/`` ``//`` replaced once or everywhere. With the colon
an empty variable counts as unset. In the patterns of the last three ``*`` and ``?`` are wild. Single quotes keep
everything, double quotes keep spaces, the escape character keeps one character. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lab.errors import DockerfileError

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
SPECIAL = frozenset("@*#?-$!0")  # a shell's own parameters: none is ever set in a Dockerfile


def expand(word: str, variables: Mapping[str, str], *, escape: str = "\\", line: int | None = None) -> str:
    """``word`` with quotes removed and variables replaced; an unset one is empty. Raises DockerfileError."""
    return _Expansion(word, variables, escape, line).run()


def expand_words(
    text: str, variables: Mapping[str, str], *, escape: str = "\\", line: int | None = None
) -> list[str]:
    """As `expand`, then split at spaces: a variable may hold several words."""
    return expand(text, variables, escape=escape, line=line).split()


def expand_document(text: str, variables: Mapping[str, str], *, escape: str = "\\", line: int | None = None) -> str:
    """As `expand` for a here-document: quotes and escapes stay, though what they protect is still protected."""
    return _Expansion(text, variables, escape, line, keep=True).run()


class _Expansion:
    def __init__(
        self, text: str, variables: Mapping[str, str], escape: str, line: int | None, *, keep: bool = False
    ) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._line = line
        self._keep_quotes = keep
        self._keep_escapes = keep
        self._at = 0

    def run(self) -> str:
        return self._until("")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        self._at += 1
        return character

    def _until(self, end: str) -> str:
        """Expand up to the unquoted character ``end`` (or the end of the text for ""), which is consumed."""
        out: list[str] = []
        while character := self._take():
            if character == end:
                return "".join(out)
            if character == "'":
                out.append(self._single_quoted())
            elif character == '"':
                out.append(self._double_quoted())
            elif character == self._escape:
                out.append((character if self._keep_escapes else "") + self._take())
            elif character == "$":
                out.append(self._variable())
            else:
                out.append(character)
        if end:
            raise self._error(f"{end!r} is missing")
        return "".join(out)

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise self._error("a single quote is not closed")
        inside = self._text[self._at : end]
        self._at = end + 1
        return f"'{inside}'" if self._keep_quotes else inside

    def _double_quoted(self) -> str:
        quote = '"' if self._keep_quotes else ""
        out: list[str] = [quote]
        while character := self._take():
            if character == '"':
                return "".join(out) + quote
            if character == "$":
                out.append(self._variable())
            elif character == self._escape and self._peek() in ('"', "$", self._escape):
                out.append((character if self._keep_escapes else "") + self._take())
            else:
                out.append(character)
        raise self._error("a double quote is not closed")

    def _variable(self) -> str:
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._take()
        name = self._name()
        if not name:
            raise self._error("a variable has no name")
        value = self._variables.get(name)
        operator = self._take()
        if operator == "}":
            return value or ""
        if operator in ("#", "%"):
            return self._trimmed(operator, value or "")
        if operator == "/":
            return self._replaced(value or "")
        return self._conditional(name, value, operator)

    def _conditional(self, name: str, value: str | None, operator: str) -> str:
        present = value is not None
        colon = operator == ":"
        if colon:
            present = bool(value)
            operator = self._take()
        if operator not in ("-", "+", "?"):
            raise self._error(f"unsupported operator {':' if colon else ''}{operator} after {name}")
        word = self._until("}")
        if operator == "-":
            return (value or "") if present else word
        if operator == "+":
            return word if present else ""
        if not present:
            raise self._error(f"{name}: {word or ('is empty' if value is not None else 'is not set')}")
        return value or ""

    def _pattern(self, end: str) -> str:
        """A pattern up to ``end``, its escapes kept for whoever matches it."""
        kept, self._keep_escapes = self._keep_escapes, True
        try:
            return self._until(end)
        finally:
            self._keep_escapes = kept

    def _trimmed(self, operator: str, value: str) -> str:
        greedy = self._peek() == operator
        if greedy:
            self._take()
        pattern = _shell_pattern(self._pattern("}"), self._escape, greedy=greedy)
        if operator == "#":
            found = re.match(pattern, value, re.DOTALL)
            return value[found.end() :] if found else value
        starts = range(len(value) + 1) if greedy else range(len(value), -1, -1)
        matcher = re.compile(pattern, re.DOTALL)
        return next((value[:at] for at in starts if matcher.fullmatch(value, at)), value)

    def _replaced(self, value: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._take()
        pattern = _shell_pattern(self._pattern("/"), self._escape, greedy=True)
        replacement = self._until("}")
        if pattern == "":
            return value
        return re.sub(pattern, lambda _: replacement, value, count=0 if everywhere else 1, flags=re.DOTALL)

    def _name(self) -> str:
        start = self._at
        if self._peek() in SPECIAL and self._peek():
            return self._take()
        while self._peek() in NAME_CHARACTERS and self._peek():
            self._at += 1
            if self._text[start].isdigit() and not self._peek().isdigit():
                break  # a positional parameter, as in a shell
        return self._text[start : self._at]

    def _error(self, what: str) -> DockerfileError:
        return DockerfileError(f"{what} in {self._text!r}", line=self._line, hint="see the Dockerfile reference")


def _shell_pattern(pattern: str, escape: str, *, greedy: bool) -> str:
    """A shell's pattern as a regular expression: ``*`` and ``?`` are wild, the escape character quotes one."""
    out = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            out.append(".*" if greedy else ".*?")
        elif character == "?":
            out.append(".")
        else:
            out.append(re.escape(next(characters, escape) if character == escape else character))
    return "".join(out)
