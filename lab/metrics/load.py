"""How it answers when it is asked a lot."""

from __future__ import annotations

from collections.abc import Iterator

from lab.metrics.base import Metric, Observation, Subject
from lab.metrics.clients.wrk import PERCENTILES
from lab.results.record import Status


class Load(Metric):
    """Answered requests per second, and latency percentiles in seconds, as the client sees them.

    The clock is wrk's: from its first request to the end of the scenario's duration; a latency runs from the
    request's first byte sent to the response's last byte received. Any error makes the sample a failed one:
    fast wrong answers are no throughput. Left out: the boot, and the queue an open-loop client would build.
    """

    name = "load"
    order = 40

    def loaded(self, subject: Subject) -> Iterator[Observation]:
        result = subject.load()
        if result is None:
            return
        status = Status.FAILED if result.failed or not result.requests else Status.OK
        text = "" if status is Status.OK else f"{result.failed} of {result.requests} requests failed"
        yield Observation(
            quantity="load.requests_per_second",
            value=result.requests_per_second,
            unit="requests/s",
            status=status,
            text=text,
            detail={
                "requests": result.requests,
                "duration_seconds": result.duration_seconds,
                "errors": dict(result.errors),
                "client_cpu_seconds": result.client_cpu_seconds,
                "max_latency_seconds": result.latency_seconds["max"],
            },
        )
        for percentile in PERCENTILES:
            yield Observation(
                quantity=f"load.latency.{percentile}",
                value=result.latency_seconds[percentile],
                unit="seconds",
                status=status,
                text=text,
                detail={"requests": result.requests},
            )
