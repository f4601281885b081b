"""What a worker says to the one command of its host, and what that may answer.

A request is a line of JSON on standard input, which then stays open: its end is the request to end. Answers are lines
of JSON on standard output; the last of them is done, refused or failed, and behind it stand as many bytes as it says.

Whoever asks may be anybody who got hold of the worker's account, and what answers has the rights to measure. So this
is a list of what may be asked, and the rest is refused: no paths, no build arguments, no programs of the asker's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from lab.errors import UsageError

LONGEST_REQUEST_BYTES = 64 << 10
MOST_BYTES = 1 << 30
"""Of one result."""
ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,150}")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}")
OPTION = re.compile(r"(--[a-z-]+)=([A-Za-z0-9.,%=_+#-]+)")
OPTIONS = (
    "--on", "--blocks", "--budget", "--sessions", "--precision", "--detect", "--seed", "--metrics", "--memory",
    "--cpus", "--pids", "--caches", "--factor", "--idle", "--exclude-noisy", "--placement",
)  # fmt: skip
"""Of lab compare. What names files, programs or build arguments is not among them: it would run as root there."""


class Do(StrEnum):
    """What may be asked: build the image and tell its digest; measure; forget results that have arrived."""

    PREPARE = "prepare"
    MEASURE = "measure"
    FORGET = "forget"


class State(StrEnum):
    """What is told of a task, here and in the sweep's ledger. The last three are the ends."""

    PENDING = "pending"
    WAITING = "waiting"
    MEASURING = "measuring"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


ENDS = (State.DONE, State.REFUSED, State.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """``lab`` and ``files`` are digests of lab's own files and of the application's folder, ``image`` of its image,
    all as the sweep has them; an empty ``image`` is not known yet. ``ids``: the tasks to measure or to forget.
    """

    do: Do
    ids: tuple[str, ...]
    scenario: str = ""
    options: tuple[str, ...] = ()
    lab: str = ""
    files: str = ""
    image: str = ""
    busy: float = 0.25
    patience_seconds: float = 3600.0

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def parse(line: bytes) -> Request:
    """The request in ``line``. Raises UsageError for all that is not exactly one."""
    try:
        raw = json.loads(line)
        asked = Request(
            **{**raw, "do": Do(raw["do"]), "ids": _texts(raw["ids"]), "options": _texts(raw.get("options", []))}
        )
        numbers = float(asked.busy), float(asked.patience_seconds)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"this is no request: {error}", hint="lab sweep host is for lab's own workers") from error
    if not asked.ids or not all(ID.fullmatch(each) for each in asked.ids):
        raise UsageError("a request names tasks by their ids", hint="lower case letters, digits, dots, hyphens")
    if asked.do is Do.FORGET:
        return asked
    if len(asked.ids) != 1 or not all(isinstance(text, str) for text in (asked.lab, asked.files, asked.image)):
        raise UsageError("a request is about one task", hint="lab sweep host is for lab's own workers")
    if not isinstance(asked.scenario, str) or not NAME.fullmatch(asked.scenario):
        raise UsageError(f"{asked.scenario!r} is no scenario's name", hint="a folder is not taken from elsewhere")
    if not (0 < numbers[0] < float("inf") and 0 <= numbers[1] <= 7 * 24 * 3600):
        raise UsageError("busy or patience is no sensible number", hint="docs/sweeping.md shows a plan")
    check_options(asked.options)
    return asked


def check_options(options: Sequence[str]) -> None:
    """Raise UsageError for an option of lab compare that a sweep may not give, written as ``--name=value``."""
    for word in options:
        found = OPTION.fullmatch(word)
        if found is None or found[1] not in OPTIONS or found[2].startswith("arg."):
            raise UsageError(
                f"{word} is not a sweep's to give",
                hint=f"{' '.join(OPTIONS)}, without paths or build arguments",
            )


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError("a list of texts is missing")
    return tuple(value)


def answer(state: State, why: str = "", **more: Any) -> bytes:
    """One line. ``why`` is for a person to read."""
    return json.dumps({"state": state, "why": why, **more}).encode() + b"\n"


def read_answer(line: bytes) -> Mapping[str, Any]:
    """Raises ValueError when it is none."""
    raw = json.loads(line)
    if not isinstance(raw, dict) or not isinstance(raw.get("why"), str):
        raise ValueError("not an answer")
    size = raw.get("bytes", 0)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MOST_BYTES:
        raise ValueError(f"a result of {size} bytes")
    return {**raw, "state": State(raw["state"]), "bytes": size}
