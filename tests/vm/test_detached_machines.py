"""Living with detached virtual machines: the verbs and the survival are those of containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from detached import (
    LAB,
    Detached,
    assert_nothing_left,
    check_every_verb,
    check_survival,
    detached,
    kill,
    launcher_of,
    session_of,
)
from host_state import wait_until
from tiny import tiny_image

from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.home import home
from lab.hypervisor.snapshot import STATE
from lab.images.store import Store
from lab.supervisor import record as records

CROWD, MACHINES, STARTERS = 50, 3, 8
STARTER = """
import sys
from lab.commands.running.detached import run_detached
from lab.commands.running.wanted import Wanted
from lab.model import Limits
for word in sys.argv[1:]:
    backend, name = word.split("=")
    run_detached(
        Wanted(
            what="tiny", command=["sleep", "600"], backend=backend, environment={}, limits=Limits(), knobs={},
            name=name,
        )
    )
"""


@pytest.fixture(scope="module", autouse=True)
def image(lab_home: Path) -> str:
    return tiny_image(Store.open(lab_home)).name


@pytest.fixture
def instances() -> Iterator[Detached]:
    with detached() as made:
        yield made


@pytest.mark.parametrize("backend", ["microvm", pytest.param("vm", marks=pytest.mark.nightly)])
def test_every_verb(backend: str, instances: Detached) -> None:
    check_every_verb(instances, backend)


def test_supervisor_and_launcher_are_killed(instances: Detached) -> None:
    """QEMU connects again to whoever takes over; not even the exit code is lost, since the guest tells it. A machine
    that was restored goes on from files of the session, which are taken over with it.
    """
    ended = check_survival(instances, "microvm", "both", "--knob", "start=restore", supervisor=True, launcher=True)
    assert ended.exit_code == 5


def test_the_supervisor_is_killed_while_its_machine_is_saved(instances: Detached) -> None:
    """It has promised nothing yet: the command fails, and guest, name, what was written of its RAM are gone."""
    name = instances.name("early")
    words = ["run", "-d", "--on", "microvm", "--knob", "start=restore", "--name", name, "tiny"]
    with subprocess.Popen([*LAB, *words], stdout=-1, stderr=-1, text=True) as process:
        assert wait_until(lambda: stored_session(name), 240)
        session = stored_session(name)
        state = home() / "tmp" / session / "microvm-saved-1.d" / STATE
        assert wait_until(lambda: state.exists() and state.stat().st_size, 240)
        for pid in ControlGroup.open(group_of(session, "microvm-saved-1")).processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)  # it does not get any further
        record = records.stored(name)
        assert record is not None
        assert record.condition is records.Condition.STARTING
        kill(record.supervisor.number)
        out, errors = process.communicate(timeout=250)
    assert (process.returncode, out) == (125, "")
    assert f"the supervisor of {name} died" in errors
    assert not records.folder(name).exists()
    assert_nothing_left(replace(record, session=session))


def stored_session(name: str) -> str:
    """That of an instance which is being started."""
    record = records.stored(name)
    return session_of(record.supervisor.number) if record else ""


def test_qemu_is_killed_while_it_has_no_supervisor(instances: Detached) -> None:
    """Nobody hears how the guest ended; the launcher sees that it did, and cleans up."""
    record = instances.run("alone", "--on", "microvm", "tiny", "--", "sleep", "600")
    kill(record.supervisor.number)
    assert wait_until(lambda: "supervisor lost" in instances.status("alone"))
    os.kill(record.first.number, signal.SIGKILL)
    assert wait_until(lambda: instances.status("alone").startswith("Exited (?)"))
    assert_nothing_left(record)


@pytest.mark.nightly
def test_a_crowd_started_by_several_processes_at_once(instances: Detached) -> None:
    """Fifty containers and three machines from eight processes neither collide nor leak."""
    wanted = [("container", f"c{number}") for number in range(CROWD)]
    for number in range(MACHINES):
        wanted.insert(number, ("microvm", f"m{number}"))
    words = [f"{backend}={instances.name(word)}" for backend, word in wanted]
    starters = [
        subprocess.Popen([sys.executable, "-c", STARTER, *words[number::STARTERS]], stdout=-1, stderr=-1)
        for number in range(STARTERS)
    ]
    for starter in starters:
        _, errors = starter.communicate(timeout=250)
        assert starter.returncode == 0, errors.decode()
    found = [instances.record(word) for _, word in wanted]
    assert all(record.runs for record in found)
    assert len({record.session for record in found}) == len({record.first for record in found}) == CROWD + MACHINES
    names = [record.name for record in found]
    assert len(instances.lab("top", "--once", *names).stdout.splitlines()) == 1 + CROWD + MACHINES
    os.kill(found[0].first.number, signal.SIGKILL)  # a QEMU, under its supervisor's eyes
    assert wait_until(lambda: instances.status("m0").startswith("Exited (137)"))
    assert "died" in instances.record("m0").error
    kill(*(one for record in found[-3:] for one in (record.supervisor.number, launcher_of(record))))
    assert instances.lab("rm", "-f", *names).stdout.split() == names
    for record in found:
        assert_nothing_left(record)
    assert not [name for name in records.root().iterdir() if name.name in names]
