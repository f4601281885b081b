"""Instances are in a cpuset of lab's whoever starts them, and it goes with the session, after SIGKILL too."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import contract
import pytest
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

from lab.backends.site import Site
from lab.errors import UsageError
from lab.experiment import placing
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import Unused
from lab.host.placement import topology
from lab.host.session.ledger import clean_stale

ALLOWED = sorted(topology.usable())
ASKED = f"{ALLOWED[0]}/{ALLOWED[0]}/{ALLOWED[-1]}"
FORGETFUL = f"""
from lab.backends.site import Site
from lab.experiment import placing
site = Site.open()
assert placing.reserve(site, {ASKED!r}, None)
print(site.session.id, flush=True)
input()
"""
SECONDS = 30


def exists(session: str) -> bool:
    path = group_of(session)
    return any(ControlGroup.open(path, hierarchies=tree).exists() for tree in (None, Unused.detect()))


@pytest.mark.parametrize("backend", ["container", "runc"])
def test_instances_are_kept_to_their_cpus(backend: str, tmp_path: Path) -> None:
    before = snapshot()
    with Site.open() as site:
        session = site.session.id
        placement = placing.reserve(site, ASKED, None)
        image = tiny_image(site.store)
        for name in ("one", "another"):  # the session's group stays when the first one has ended
            request = contract.request(site, image, name, "sleep", "60", logs=tmp_path)
            with placing.placed(site, placement), site.backend(backend).launch(request) as instance:
                instance.wait_executed()
                assert placing.where(instance) == f"{ALLOWED[-1]}"
        assert exists(session)
    assert not exists(session)
    assert_unchanged(before)


def test_nothing_is_left_of_a_lab_that_was_killed() -> None:
    before = snapshot()
    with subprocess.Popen(
        [sys.executable, "-c", FORGETFUL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout
        session = lab.stdout.readline().strip()
        assert exists(session)
        lab.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + SECONDS
    while exists(session) and time.monotonic() < deadline:
        clean_stale()  # one that is killed so early may have no launcher yet that would do it
        time.sleep(0.05)
    assert not exists(session)
    assert_unchanged(before)


def test_what_lab_may_not_use_is_refused() -> None:
    with Site.open() as site, pytest.raises(UsageError):
        placing.reserve(site, f"{ALLOWED[0]}/{ALLOWED[0]}/{ALLOWED[-1] + 4096}", None)
