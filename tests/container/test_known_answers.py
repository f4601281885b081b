"""Every metric finds what an application was built to cost, in a container, and by night outside and in another's.

A twin of it does everything but the known part. What remains between the two is the backend's own cost, which has
a bound and a reason each. The floors are exact: nothing answers before it is due. The ceilings may need another
attempt on a busy host, which only ever makes things later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from known import Found, Parts, measure, until_quiet

from lab.backends.site import Site

MIB = 1 << 20
TOUCHED = 100 * MIB
KNOWN = Parts(
    delay_ms=250, touch_mib=100, burn_ms=2000, idle_burn_ms=10, answer_ms=20, answer_burn_ms=2, linger_ms=100,
    job_delay_ms=200, job_burn_ms=300,
)  # fmt: skip
TABLES = ("pss", "rss", "mapped", "cgroup.usage", "cgroup.anon", "working_set")
PAGE_TABLES_AND_BATCHES = 2 * MIB
"""A page of page table per 2 MiB, and up to 64 pages that each processor charges in advance (memcg's batches)."""
CLOCK = 0.001
"""Seconds between listen(2) and the application's own look at the clock."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site.open() as opened:
        yield opened


@pytest.mark.parametrize(
    "backend",
    [
        "container",
        pytest.param("process", marks=pytest.mark.nightly),
        pytest.param("runc", marks=pytest.mark.nightly),
    ],
)
def test_every_metric_finds_the_known_part(
    site: Site, backend: str, tmp_path: Path, missing: Callable[[str], None]
) -> None:
    for check in site.backend(backend).check():
        if not check.ok:
            missing(f"{check.name} ({check.found})")

    def attempt(number: int) -> None:
        twin = measure(site, backend, f"twin-{backend}-{number}", Parts(), tmp_path)
        found = measure(site, backend, f"known-{backend}-{number}", KNOWN, tmp_path)
        times_are_found(found, twin)
        processor_time_is_found(found, twin)
        memory_is_found(found, twin)
        answers_are_found(found)

    until_quiet(attempt)


def times_are_found(found: Found, twin: Found) -> None:
    """Its own cost: from execve to main, and the client's look at the port every few milliseconds."""
    assert found["boot.listening"] >= 2.25
    own = found["boot.listening"] - found.wall_seconds
    assert -CLOCK <= own <= twin["boot.listening"] + 0.1
    assert found["boot.responded"] >= 0.02
    assert found["boot.total"] >= found["boot.listening"] + found["boot.responded"]
    assert found["teardown.total"] >= 0.1
    assert found["teardown.total"] - 0.1 <= twin["teardown.total"] + 0.15
    assert found["work.seconds"] >= found["work.wall"] >= 0.5
    assert found["work.seconds"] - found["work.wall"] <= twin["work.seconds"] + 0.1


def processor_time_is_found(found: Found, twin: Found) -> None:
    """Its own cost: what sets the boundary up is charged before the application runs, in twin and known alike."""
    assert found.cpu_seconds >= 2.0
    own = found["cpu.boot"] - found.cpu_seconds
    assert -CLOCK <= own <= twin["cpu.boot"] + 0.04  # 2 % of what it burnt
    assert 0.06 <= found["cpu.idle@idle"] <= 0.11  # 10 ms after each 90; a late wake-up makes the pauses longer
    assert twin["cpu.idle@idle"] < 0.03
    assert 1.98 <= found["cpu.per_1000_requests"] <= 2.0 + twin["cpu.per_1000_requests"] + 0.4
    assert 0.3 <= found["work.cpu"] <= 0.3 + twin["work.cpu"] + 0.1


def memory_is_found(found: Found, twin: Found) -> None:
    """Its own cost: page tables, and what processors charge in advance. The host's MemAvailable is not judged: all
    programs of the host move it.
    """
    for state in ("idle", "after-load"):
        for name in TABLES:
            quantity = f"memory.{name}@{state}"
            assert found[quantity] - twin[quantity] == pytest.approx(TOUCHED, abs=PAGE_TABLES_AND_BATCHES), quantity
        for name in ("cgroup.file", "cgroup.kernel"):  # it is anonymous memory that was touched
            quantity = f"memory.{name}@{state}"
            if quantity in found:
                assert abs(found[quantity] - twin[quantity]) < PAGE_TABLES_AND_BATCHES, quantity


def answers_are_found(found: Found) -> None:
    """One connection, an answer 20 ms after each question: 50 per second are the most there can be."""
    assert 25 <= found["load.requests_per_second"] <= 50
    for percentile in ("p50", "p75", "p90", "p95", "p99"):
        assert found[f"load.latency.{percentile}"] >= 0.02
    assert found["load.latency.p50"] <= 0.03
