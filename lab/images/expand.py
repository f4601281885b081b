r"""Variables and quotes in the words of a Dockerfile (Dockerfile reference, "Environment replacement").

``$X``, ``${X}``, ``${X:-default}``, ``${X:+instead}``, and both without the colon, which then ask whether X is set
rather than non-empty. Single quotes keep everything, double quotes keep spaces, the escape character keeps one
character. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.errors import DockerfileError

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def expand(word: str, variables: Mapping[str, str], *, escape: str = "\\", line: int | None = None) -> str:
    """``word`` with quotes removed and variables replaced; an unset one is empty. Raises DockerfileError."""
    return _Expansion(word, variables, escape, line).run()


def expand_words(
    text: str, variables: Mapping[str, str], *, escape: str = "\\", line: int | None = None
) -> list[str]:
    """As `expand`, then split at spaces: a variable may hold several words."""
    return expand(text, variables, escape=escape, line=line).split()


class _Expansion:
    def __init__(self, text: str, variables: Mapping[str, str], escape: str, line: int | None) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._line = line
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
                out.append(self._take())
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
        return inside

    def _double_quoted(self) -> str:
        out: list[str] = []
        while character := self._take():
            if character == '"':
                return "".join(out)
            if character == "$":
                out.append(self._variable())
            elif character == self._escape and self._peek() in ('"', "$", self._escape):
                out.append(self._take())
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
        modifier = self._take()
        if modifier == "}":
            return value or ""
        present = value is not None
        if modifier == ":":
            present = bool(value)
            modifier = self._take()
        if modifier not in ("-", "+"):
            raise self._error(f"${{{name}…}} has a modifier that is not supported; :- and :+ are")
        alternative = self._until("}")
        if modifier == "-":
            return (value or "") if present else alternative
        return alternative if present else ""

    def _name(self) -> str:
        start = self._at
        while self._peek() in NAME_CHARACTERS and self._peek():
            self._at += 1
            if self._at - start == 1 and self._text[start].isdigit():
                break  # $1 is one positional parameter, as in a shell
        return self._text[start : self._at]

    def _error(self, what: str) -> DockerfileError:
        return DockerfileError(f"{what} in {self._text!r}", line=self._line, hint="see the Dockerfile reference")
