"""What it costs to cross from a program into what serves it: calls, faults, switches, pipes, sockets, files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lab.errors import LabError
from lab.host.clock import now
from lab.host.command import tail
from lab.metrics.base import Metric, Observation, Subject
from lab.results.record import Status

TIMEOUT_SECONDS = 300.0
CLOCKS_APART = 0.05
"""The clock inside may differ from the host's by so much of what was measured, and by the way in and out."""

NANOSECONDS = 1e-9


class Crossings(Metric):
    """``crossings.NAME``, in seconds for one operation: the median of the batches of one instance, done by the same
    machine code behind every boundary (``lab/inside/crossings/``), after the load and the scenario's own work.

    The clock is the instance's CLOCK_MONOTONIC, in a guest the guest's: the way in and out takes longer than most
    crossings do a thousand times. It is held against the host's: when the two differ over all of it by more than 5 %
    and the way in and out, every value is a failed one. The detail has the clock's least step and what reading it
    costs (``clock_step_seconds``, ``clock_cost_seconds``), in which no batch is lost, the kernel's name for its
    source, the least batch, the quartiles, and what the first operation took alone. A processor's time that others
    of the host had is in some batches, in most it is not.

    What an instance has not, a system call, a tmpfs, a second processor, is an observation without a value, and says
    why. Left out: what was cold; the disk behind the page cache, but in ``root.fsync`` and ``root.direct``; and every
    system that lab did not make.
    """

    name = "crossings"
    order = 60
    on_request = True

    def loaded(self, subject: Subject) -> Iterator[Observation]:
        if subject.instance.opaque:
            return
        started = now()
        subject.instance.inside("version", timeout_seconds=TIMEOUT_SECONDS)
        way_seconds, started = now() - started, now()
        done = subject.instance.inside("crossings", timeout_seconds=TIMEOUT_SECONDS)
        seconds = now() - started
        try:
            found = json.loads(done.stdout)
            yield from observations(found, seconds, way_seconds)
        except (ValueError, KeyError) as error:
            raise LabError(
                f"the crossings could not be measured inside {subject.instance.name}: "
                f"the helper ended with exit code {done.exit_code}",
                detail=tail(done.stderr),
            ) from error


def observations(found: dict[str, Any], seconds: float, way_seconds: float) -> Iterator[Observation]:
    """What the helper said; ``seconds`` it took by the host's clock, ``way_seconds`` the way in and out alone.

    Raises KeyError for what it can't have said.
    """
    wrong = clocks_apart(float(found["seconds"]), seconds, way_seconds)
    clock = {
        "clock_step_seconds": found["clock"]["step"] * NANOSECONDS,
        "clock_cost_seconds": found["clock"]["cost"] * NANOSECONDS,
        "clock_source": found["clock"]["source"],
    }
    for name, said in found["crossings"].items():
        about = {key: said[key] for key in ("of", "file_system") if key in said}
        value, text = None, missing(said)
        if not text and said["median"] > 0:
            value, text = said["median"] * NANOSECONDS, wrong
            about |= {"batches": said["batches"], "per_batch": said["per_batch"], **clock} | {
                f"{key}_seconds": said[key] * NANOSECONDS for key in ("least", "quarter", "three_quarters", "first")
            }
        elif not text:
            text = "shorter than what has to be taken off it"
        yield Observation(
            quantity=f"crossings.{name}",
            value=value,
            unit="seconds",
            text=text,
            status=Status.FAILED if wrong and value is not None else Status.OK,
            detail=about,
        )


def missing(said: dict[str, Any]) -> str:
    """Why there is no such crossing: ``fsync: EINVAL``; "" when there is."""
    if "absent" not in said:
        return ""
    return f"{said['absent']}: {said['name']}" if said["name"] else str(said["absent"])


def clocks_apart(inside_seconds: float, seconds: float, way_seconds: float) -> str:
    """What is wrong when the clock inside and the host's don't agree about the same work; "" when they do."""
    allowed = CLOCKS_APART * seconds + 0.1
    if -allowed <= seconds - inside_seconds <= allowed + 3 * way_seconds:
        return ""
    return f"the clock inside counted {inside_seconds:.2f} s, the host's {seconds:.2f} s"
