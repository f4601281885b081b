"""A plan of what is measured again, when, and how much of it is kept: a TOML file.

scenario = "web-app"                                # a name, or a folder beside the plan
options = ["--on", "process,container", "--budget", "10m"]      # of lab compare
results = "results"                                 # beside the plan; this is the default

[when]                                              # at least one of these
kernel = true                                       # another release or build of it
lab = true                                          # another version or commit of lab
files = true                                        # the application's folder: names, contents, modes
packages = ["qemu-system-x86", "runc"]              # of Debian's, their versions
images = ["python:3.12"]                            # in lab's store, their digests
commits = ["../application"]                        # what is checked out there
every = "24h"                                       # since the last run began
at = ["03:30"]                                      # times of day on this host

[keep]
disk = "10G"                                        # of this plan's own runs; the oldest are dropped

[polite]
busy = 0.25                                         # processors that others may use: above it, it waits
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path
from typing import Any

from lab.errors import UsageError
from lab.host.units import parse_bytes, parse_seconds

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
OWN_OPTIONS = ("--out", "--json", "--resume", "--open", "--factors", "--help", "-h")
"""Of lab compare's options those that a plan decides itself, or that measure nothing."""
FLAGS = ("kernel", "lab", "files")
LISTS = ("packages", "images", "commits")
KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("scenario", "options", "results", "when", "keep", "polite"),
    "when": (*FLAGS, *LISTS, "every", "at"),
    "keep": ("disk",),
    "polite": ("busy",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``every_seconds`` and ``keep_bytes`` are None where there is no such bound; ``busy`` counts processors."""

    path: Path
    scenario: str
    options: tuple[str, ...] = ()
    results: Path
    flags: frozenset[str] = frozenset()
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    every_seconds: float | None = None
    at: tuple[time, ...] = ()
    keep_bytes: int | None = None
    busy: float = 0.25

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def folder(self) -> Path:
        """Where its paths begin."""
        return self.path.parent


def read(path: Path) -> Plan:
    """The plan in the file ``path``. Raises UsageError with what is wrong in it."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", hint="docs/watching.md shows a plan") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint="TOML: https://toml.io") from error
    if not NAME.fullmatch(path.stem):
        raise UsageError(f"{path.stem!r} is no name for a plan", hint="letters, digits, dots and hyphens")
    return _Reader(path.absolute(), raw).plan()


class _Reader:
    """Each complaint names the file and the key."""

    def __init__(self, path: Path, raw: Mapping[str, Any]) -> None:
        self._path, self._raw = path, raw

    def plan(self) -> Plan:
        tables = {name: self._table(name) for name in KEYS}
        whole, when = tables[""], tables["when"]
        if not isinstance(whole.get("scenario"), str) or not whole["scenario"]:
            raise self._wrong("scenario", "a scenario's name or a folder")
        options = self._texts(whole, "options", "")
        if taken := [word for word in options if word.partition("=")[0] in OWN_OPTIONS]:
            raise UsageError(
                f"{self._path}: {taken[0]} is not a plan's to give", hint="lab watch decides that itself"
            )
        results = whole.get("results", "results")
        if not isinstance(results, str):
            raise self._wrong("results", "a folder")
        for name in FLAGS:
            if not isinstance(when.get(name, False), bool):
                raise self._wrong(f"when.{name}", "true or false")
        if not any(when.values()):
            raise UsageError(
                f"{self._path}: nothing says when to measure", hint=f"[when] with {', '.join(KEYS['when'])}"
            )
        return Plan(
            path=self._path, scenario=self._scenario(whole["scenario"]), options=options,
            results=self._path.parent / results, flags=frozenset(name for name in FLAGS if when.get(name)),
            named={name: self._texts(when, name, "when.") for name in LISTS},
            every_seconds=parse_seconds(every) if (every := self._text(when, "every", "when.", "24h")) else None,
            at=tuple(sorted(map(self._clock, self._texts(when, "at", "when.")))),
            keep_bytes=parse_bytes(disk) if (disk := self._text(tables["keep"], "disk", "keep.", "10G")) else None,
            busy=self._busy(tables["polite"].get("busy", 0.25)),
        )  # fmt: skip

    def _table(self, name: str) -> Mapping[str, Any]:
        found = self._raw.get(name, {}) if name else self._raw
        if not isinstance(found, dict):
            raise self._wrong(name, "a table")
        if unknown := sorted(set(found) - set(KEYS[name])):
            known = ", ".join(KEYS[name])
            raise UsageError(
                f"{self._path}: there is no {name and name + '.'}{unknown[0]}", hint=f"there are {known}"
            )
        return found

    def _texts(self, table: Mapping[str, Any], key: str, of: str) -> tuple[str, ...]:
        found = table.get(key, [])
        if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
            raise self._wrong(of + key, "a list of texts")
        return tuple(found)

    def _text(self, table: Mapping[str, Any], key: str, of: str, example: str) -> str:
        """Empty where the table lacks it."""
        found = table.get(key, "")
        if not isinstance(found, str) or (key in table and not found):
            raise self._wrong(of + key, f"a text like {example}")
        return found

    def _clock(self, text: str) -> time:
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
            raise self._wrong("when.at", "times of day like 03:30")
        return time.fromisoformat(text)

    def _busy(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self._wrong("polite.busy", "a number of processors above 0")
        return float(value)

    def _scenario(self, word: str) -> str:
        """A folder is one beside the plan, and a name one of those beside it: a service works in another directory
        than the person who wrote it.
        """
        folder = self._path.parent
        beside = (place for place in (folder / word, folder / "scenarios" / word) if (place / "Dockerfile").is_file())
        return str(next(beside, word))

    def _wrong(self, key: str, wanted: str) -> UsageError:
        return UsageError(f"{self._path}: {key} has to be {wanted}", hint="docs/watching.md shows a plan")
