"""The noise sentinel: how quiet the host is while it is measured, told by a computation that never changes.

Once per block the helper's fixed computation runs on the bare host, without any boundary and with nothing of lab's
beside it: whenever it takes longer, it is the host that became slower. Before every instance a look at what the
kernel says: pressure, steal, load average, clock. All are samples of the metric ``host``, which belong to no arm; no
statistic of the arms includes them. They are what the findings about the host are made of, and what
``--exclude-noisy`` goes by.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator

from lab.errors import LabError
from lab.host.command import run
from lab.host.identity.privilege import is_system_wide
from lab.host.survey import quiet
from lab.inside.build import program
from lab.isolation.breakout import ask_broken_out
from lab.metrics.base import Observation
from lab.metrics.cpu import COMPUTE_CHECKSUM, COMPUTE_ROUNDS, COMPUTE_TIMEOUT_SECONDS
from lab.results.record import Status


class Sentinel:
    """Looks at the host, and remembers the last look: what is a share of time, is one of the time since then.

    With ``isolation`` the first look asks as well what an escaped process reaches, where this is root, the control of
    it.
    """

    def __init__(self, *, isolation: bool = False) -> None:
        self._last = quiet.read()
        self._asks = isolation and is_system_wide()

    def compute(self) -> Iterator[Observation]:
        """``host.compute``: wall seconds of the fixed computation. ``host.others``: processors others used meanwhile.

        A computation that fails is an observation without a value.
        """
        before, own = quiet.read(), _children_seconds()
        try:
            answer = run([program(), "compute", str(COMPUTE_ROUNDS)], timeout_seconds=COMPUTE_TIMEOUT_SECONDS).stdout
            right = json.loads(answer).get("checksum") == COMPUTE_CHECKSUM
        except (LabError, ValueError) as error:
            yield Observation(
                quantity="host.compute", value=None, unit="seconds", status=Status.FAILED, text=str(error)
            )
            return
        after, own = quiet.read(), _children_seconds() - own
        seconds = after.at - before.at
        yield Observation(
            quantity="host.compute",
            value=seconds if right else None,
            unit="seconds",
            status=Status.OK if right else Status.FAILED,
            text="" if right else "a wrong checksum",
            detail={"cpu_seconds": own, "rounds": COMPUTE_ROUNDS},
        )
        busy = after.busy_since(before)
        if busy is not None:
            yield Observation(quantity="host.others", value=max(0.0, busy - own / seconds), unit="1")

    def look(self) -> Iterator[Observation]:
        """Steal since the last look, pressure over the last 10 s, load average over the last minute, clock; the first
        time ``breakout.*``, see `lab.isolation.breakout`.
        """
        if self._asks:
            self._asks = False
            yield from ask_broken_out()
        found, last = quiet.read(), self._last
        self._last = found
        values = {
            "host.steal": found.stolen_since(last),
            **{f"host.pressure.{name}": share for name, share in found.pressure.items()},
            "host.load": found.load_average,
        }
        for quantity, value in values.items():
            if value is not None:
                yield Observation(quantity=quantity, value=value, unit="1")
        if found.frequency_hertz is not None:
            yield Observation(quantity="host.frequency", value=found.frequency_hertz, unit="hertz")


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
