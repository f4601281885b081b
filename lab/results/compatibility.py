"""Which scenario works behind which boundary: a table of cells, each of them found out by running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from lab.model import Accelerator

SCHEMA = 1


class Outcome(StrEnum):
    """What became of a scenario on a backend. Only what failed did not work; a reservation is no failure."""

    WORKS = "works"
    BUT = "works but"
    FAILS = "fails"


class Step(StrEnum):
    """The steps of a trial, in order."""

    IMAGE = "image"  # built, and what it leaves open settled
    PREPARE = "prepare"  # what a backend makes once per image, and whether it can keep the limits
    START = "start"
    READY = "ready"
    CHECK = "check"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One scenario on one backend.

    ``reasons`` say what the reservation is, or why it failed at ``failed_at``; ``detail`` has the evidence, a log's
    tail. ``ready_seconds`` is the time from the request until it was ready, of one start.
    """

    scenario: str
    backend: str
    outcome: Outcome
    accelerator: Accelerator
    reasons: tuple[str, ...] = ()
    failed_at: Step | None = None
    detail: str = ""
    ready_seconds: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """``checks`` says of each scenario what was looked at; cells are missing where the run ended early.

    ``host``, ``versions``, ``started`` and ``command_line`` are as in `lab.results.record.Run`.
    """

    started: str
    command_line: tuple[str, ...]
    scenarios: tuple[str, ...]
    backends: tuple[str, ...]
    checks: Mapping[str, str]
    cells: tuple[Cell, ...]
    host: Mapping[str, Any]
    versions: Mapping[str, str]
    complete: bool

    def cell(self, scenario: str, backend: str) -> Cell | None:
        """None where it was not come to."""
        return next((each for each in self.cells if (each.scenario, each.backend) == (scenario, backend)), None)

    def as_json(self) -> dict[str, Any]:
        """The whole as one object."""
        return {"kind": "matrix", "schema": SCHEMA, **asdict(self)}
