"""What a build says while it works; who listens decides how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """Step ``number`` of ``total``, from the Dockerfile's line ``line``."""

    number: int
    total: int
    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished:
    """``note`` says what is worth knowing of the result: where a base came from."""

    number: int
    cached: bool
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Bytes a RUN wrote to its standard output or error."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something slow has begun, or something is odd but no error."""

    text: str


Event = StepStarted | StepFinished | Output | Note
Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """Nobody listens."""
