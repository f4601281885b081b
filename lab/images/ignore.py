"""``.dockerignore``: which files of the context an image can't see (Dockerfile reference, ".dockerignore file").

Each line is a pattern relative to the context; ``*`` and ``?`` stay within a name, ``**`` crosses them, ``!`` takes
files back, ``#`` starts a comment; the last matching line decides. A pattern that matches a directory covers what is
in it. Pure, except for `read`.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line: a whole-path regular expression, and whether it takes files back."""

    pattern: re.Pattern[str]
    include: bool


@dataclass(frozen=True, slots=True)
class Ignore:
    """The rules in their order."""

    rules: tuple[Rule, ...] = ()

    def ignores(self, path: str) -> bool:
        """Whether the context's file ``path`` (relative, ``/`` between names) is left out."""
        parents = [path]
        while head := posixpath.dirname(parents[-1]):
            parents.append(head)
        ignored = False
        for rule in self.rules:
            if rule.include == ignored and any(rule.pattern.fullmatch(one) for one in parents):
                ignored = not rule.include
        return ignored

    @property
    def takes_back(self) -> bool:
        """Whether a file can be visible inside an ignored directory, so that it must be walked all the same."""
        return any(rule.include for rule in self.rules)


def parse(text: str) -> Ignore:
    """The rules of a .dockerignore file's text."""
    rules = []
    for raw in text.removeprefix("\ufeff").splitlines():
        line = raw.strip()
        if not line or raw.startswith("#"):
            continue
        include = line.startswith("!")
        pattern = posixpath.normpath(line.removeprefix("!").strip()).lstrip("/")
        if pattern not in ("", "."):
            rules.append(Rule(pattern=translate(pattern), include=include))
    return Ignore(tuple(rules))


def read(context: Path, dockerfile: Path) -> Ignore:
    """``<dockerfile>.dockerignore`` where it exists, else ``.dockerignore`` of the context, else nothing."""
    for candidate in (dockerfile.with_name(dockerfile.name + ".dockerignore"), context / ".dockerignore"):
        if candidate.is_file():
            return parse(candidate.read_text("utf-8", "replace"))
    return Ignore()


def translate(pattern: str) -> re.Pattern[str]:
    r"""A glob of Docker's as a regular expression; ``\`` quotes one character, ``[a-z]`` and ``[^a-z]`` are sets."""
    out = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
            continue
        if pattern.startswith("**", at):
            out.append(".*")
            at += 2
            continue
        character = pattern[at]
        at += 1
        if character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[" and (end := pattern.find("]", at + 1)) > 0:
            members = pattern[at:end]
            negated = members[:1] == "^"
            body = re.sub(r"([\\\]\[&~|^])", r"\\\1", members[1:] if negated else members)
            out.append(f"[{'^/' if negated else ''}{body}]")
            at = end + 1
        elif character == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(character))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error:  # a reversed range such as [z-a] matches nothing in Docker's globs either
        return re.compile(r"(?!)")
