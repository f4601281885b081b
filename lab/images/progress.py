"""What a build says while it works; who listens decides how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """Step ``number`` of ``total``, from the Dockerfile's line ``line``; ``stage`` is "" in a build with only one."""

    number: int
    total: int
    line: int
    text: str
    stage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished:
    """``note`` says what is worth knowing of the result: where a base came from."""

    number: int
    cached: bool
    seconds: float
    note: str = ""
    stage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Bytes a RUN wrote to its standard output or error."""

    data: bytes
    stage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something slow has begun, or something is odd but no error."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """The Dockerfile does what it says, and its author may not have meant it; ``rule`` is BuildKit's name for it."""

    line: int
    rule: str
    text: str


Event = StepStarted | StepFinished | Output | Note | Warned
Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Nobody listens."""
