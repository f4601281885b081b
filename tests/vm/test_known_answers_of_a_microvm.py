"""The metrics find what an application was built to cost behind a kernel of its own, too: one boot of it, one of its
twin without the known part.

Under emulation a second of processor time is whatever the host made of it: it has an order here and no ceiling. Times
have floors, and a ceiling that leaves room for the known part once more. The host's kernel is in tests/container.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from known import Found, Parts, measure

from lab.backends.site import Site

MIB = 1 << 20
KNOWN = Parts(
    delay_ms=250, touch_mib=100, burn_ms=2000, idle_burn_ms=10, answer_ms=20, answer_burn_ms=2, linger_ms=100,
    job_delay_ms=200, job_burn_ms=300,
)  # fmt: skip
TOUCHED = 100 * MIB
ALIKE = 0.95
"""So far clocks of host and guest tick alike: a guest's kernel takes its processor's measure as it boots, and an
emulated one's is that of a host which may be busy.
"""


@pytest.mark.nightly
def test_a_microvm_shows_the_known_part(tmp_path: Path, missing: Callable[[str], None]) -> None:
    with Site.open() as site:
        for check in site.backend("microvm").check():
            if not check.ok:
                missing(f"{check.name} ({check.found})")

        twin = measure(site, "microvm", "twin", Parts(), tmp_path)
        found = measure(site, "microvm", "known", KNOWN, tmp_path)
    times_are_found(found, twin)
    memory_is_found(found, twin)


def times_are_found(found: Found, twin: Found) -> None:
    """By the host's clock, though the application waits by the guest's: both tick alike."""
    assert found["boot.listening"] >= ALIKE * 2.25
    assert found["boot.listening"] - found.wall_seconds <= twin["boot.listening"] + 2.25
    assert found["cpu.boot"] > twin["cpu.boot"]
    assert found["boot.responded"] >= ALIKE * 0.02
    assert found["load.requests_per_second"] <= 50 / ALIKE
    assert found["load.latency.p50"] >= ALIKE * 0.02
    assert found["work.seconds"] >= ALIKE * 0.5
    assert found["work.seconds"] - found["work.wall"] <= twin["work.seconds"] + 2.0  # beside other work
    assert found["teardown.total"] >= ALIKE * 0.1
    assert found["cpu.per_1000_requests"] > twin["cpu.per_1000_requests"]


def memory_is_found(found: Found, twin: Found) -> None:
    """The guest itself sees it to a few pages. The host sees pages that this guest ever touched, so what the twin's
    kernel had touched and freed hides a part, and the code that QEMU translated, which grows with what ran.
    """
    for state in ("idle", "after-load"):
        used = found[f"memory.guest.used@{state}"] - twin[f"memory.guest.used@{state}"]
        assert used == pytest.approx(TOUCHED, abs=8 * MIB)
        for name in ("pss", "rss", "cgroup.anon"):
            grown = found[f"memory.{name}@{state}"] - twin[f"memory.{name}@{state}"]
            assert grown == pytest.approx(TOUCHED, abs=48 * MIB), name
