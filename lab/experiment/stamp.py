"""From what a metric saw to a sample: where it came from, stamped on every observation of one instance."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError, NotReady
from lab.experiment.plan import PlannedArm
from lab.metrics.base import Observation
from lab.model import Accelerator
from lab.results.record import Sample, Status

WARM_UP = 0
"""The block number of the first session's warm-up instances; measured blocks count from 1, further warm-ups down."""


@dataclass(slots=True, kw_only=True)
class Stamp:
    """What every sample of one instance has in common."""

    arm: PlannedArm
    block: int
    position: int
    instance: str
    image: str
    session: int = 1
    accelerator: Accelerator = Accelerator.NATIVE
    kernel: str = ""

    def sample(self, seen: Observation) -> Sample:
        """One observation, with where it came from."""
        return Sample(
            metric=seen.quantity.partition(".")[0],
            quantity=seen.quantity,
            value=seen.value,
            unit=seen.unit,
            backend=self.arm.backend,
            arm=self.arm.label,
            block=self.block,
            position=self.position,
            instance=self.instance,
            status=seen.status,
            state=seen.state,
            warmup=self.block <= WARM_UP,
            session=self.session,
            accelerator=self.accelerator,
            kernel=self.kernel,
            image=self.image,
            at=time.time(),
            resolution=seen.resolution,
            text=seen.text,
            detail=seen.detail,
        )


def failure(quantity: str, unit: str, error: LabError, **detail: Any) -> Observation:
    """What an instance did not give that did not come up, or fell over: censored, not forgotten."""
    return Observation(
        quantity=quantity,
        value=None,
        unit=unit,
        status=Status.TIMEOUT if isinstance(error, NotReady) else Status.FAILED,
        text=error.message,
        detail={**detail, "hint": error.hint, "tail": error.detail},
    )
