"""What a metric or a probe says; the experiment adds where and when and makes a Sample of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.results.record import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One value of one quantity; the fields mean what they mean in `lab.results.record.Sample`."""

    quantity: str
    value: float | None
    unit: str
    state: str = ""
    resolution: float = 0.0
    text: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    status: Status = Status.OK
