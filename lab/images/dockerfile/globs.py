r"""Docker's two kinds of file patterns as regular expressions: Go's ``path.Match``, and that with ``**``.

COPY and ADD match their sources name by name with Go's path.Match: ``*`` and ``?`` stay within a name, ``\`` quotes
one character, ``[a-z]`` and ``[^a-z]`` are sets. ``.dockerignore``, ``--exclude`` and ``--parents`` know ``**`` too,
which stands for any number of directories. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

WILDCARDS = frozenset("*?[\\")


class BadPattern(ValueError):
    """A set that is not closed or empty, a range without an end, or a backslash with nothing behind it."""


def has_wildcards(pattern: str) -> bool:
    """Whether ``pattern`` has to be matched rather than looked up."""
    return not WILDCARDS.isdisjoint(pattern)


@lru_cache(maxsize=512)
def name_pattern(pattern: str) -> re.Pattern[str]:
    """One path component's pattern, to be used with ``fullmatch``. Raises BadPattern."""
    return re.compile(_Translation(pattern, crosses=False).run(), re.DOTALL)


@lru_cache(maxsize=512)
def path_pattern(pattern: str) -> re.Pattern[str]:
    """A whole path's pattern in which ``**`` crosses directories, for ``fullmatch``. Raises BadPattern."""
    return re.compile(_Translation(pattern, crosses=True).run(), re.DOTALL)


@dataclass(slots=True)
class _Translation:
    pattern: str
    crosses: bool
    at: int = 0

    def run(self) -> str:
        out = []
        while self.at < len(self.pattern):
            out.append(self._next())
        return "".join(out)

    def _next(self) -> str:
        character = self.pattern[self.at]
        self.at += 1
        if character == "*":
            return self._star()
        if character == "?":
            return "[^/]"
        if character == "[":
            return self._set()
        return re.escape(self._quoted() if character == "\\" else character)

    def _star(self) -> str:
        if not self.crosses or not self.pattern.startswith("*", self.at):
            return "[^/]*"
        self.at += 1
        self.at += self.pattern.startswith("/", self.at)
        return ".*" if self.at == len(self.pattern) else "(?:.*/)?"

    def _set(self) -> str:
        negated = self.pattern.startswith("^", self.at)
        self.at += negated
        members: list[str] = []
        while not (members and self.pattern.startswith("]", self.at)):
            low = high = self._member()
            if self.pattern.startswith("-", self.at):
                self.at += 1
                high = self._member()
            members.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
        self.at += 1
        inside = "".join(members)
        if not inside:  # nothing but reversed ranges: no character is in the set
            return "[^/]" if negated else "(?!)"
        return f"[^/{inside}]" if negated else f"(?!/)[{inside}]"

    def _member(self) -> str:
        if self.pattern[self.at : self.at + 1] in ("", "-", "]"):
            raise BadPattern(self.pattern)
        character = self.pattern[self.at]
        self.at += 1
        return self._quoted() if character == "\\" else character

    def _quoted(self) -> str:
        if self.at == len(self.pattern):
            raise BadPattern(self.pattern)
        self.at += 1
        return self.pattern[self.at - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One pattern, and whether it takes files back."""

    pattern: re.Pattern[str]
    include: bool


@dataclass(frozen=True, slots=True)
class Patterns:
    """Rules in their order; the last one that matches a path or a directory above it decides."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, lines: Sequence[str]) -> Patterns:
        """Patterns as ``.dockerignore`` and ``--exclude`` have them; ``!`` takes back. Raises BadPattern."""
        rules = []
        for line in lines:
            include = line.startswith("!")
            pattern = clean(line.removeprefix("!").strip())
            if include and pattern == ".":
                raise BadPattern(line)
            if pattern != ".":
                rules.append(Rule(pattern=path_pattern(pattern), include=include))
        return cls(tuple(rules))

    def matches(self, path: str) -> bool:
        """Whether ``path`` (relative, ``/`` between names) is meant."""
        if not self.rules:
            return False
        parts = path.split("/")
        whole = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
        matched = False
        for rule in self.rules:
            if rule.include == matched and any(rule.pattern.fullmatch(one) for one in whole):
                matched = not rule.include
        return matched

    @property
    def takes_back(self) -> bool:
        """Whether a file can escape the rules inside a directory that does not: it must be walked all the same."""
        return any(rule.include for rule in self.rules)


def clean(path: str) -> str:
    """Go's ``path.Clean`` without the leading slash: ``.`` for the root itself; ``..`` at the front stays."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part == ".." and path.startswith("/") and not parts:
            continue
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts) or "."
