"""Whatever is killed: `lab ps` tells the truth, the instance goes on if it can, and `lab clean` mends the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from contract import request
from detached import LAB, Detached, assert_nothing_left, check_survival, detached, kill, launcher_of, what_is_left
from host_state import RUNTIME, wait_until
from tiny import tiny_image

from lab.backends.engine import dockerd
from lab.backends.libpod import podman
from lab.backends.site import Site
from lab.backends.support.base import SiteBackend
from lab.errors import ExitUnknown, LabError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.home import home
from lab.images.store import Origin, Store
from lab.instance import Survivor
from lab.network.network import Network
from lab.supervisor import record as records


@pytest.fixture(scope="module", autouse=True)
def image(lab_home: Path) -> str:
    return tiny_image(Store.open(lab_home)).name


@pytest.fixture
def instances() -> Iterator[Detached]:
    with detached() as made:
        yield made


def test_the_supervisor_is_killed(instances: Detached) -> None:
    """The launcher goes on as the parent, so that nothing is lost, the exit code neither."""
    ended = check_survival(instances, "container", "one", supervisor=True, launcher=False)
    assert ended.exit_code == 5


def test_the_launcher_is_killed(instances: Detached) -> None:
    ended = check_survival(instances, "container", "two", supervisor=False, launcher=True)
    assert ended.exit_code is None
    assert "not known" in instances.lab("wait", ended.name, code=1).stderr


@pytest.mark.parametrize("backend", ["process", "container", pytest.param("runc", marks=pytest.mark.nightly)])
def test_supervisor_and_launcher_are_killed(
    backend: str, instances: Detached, missing: Callable[[str], None]
) -> None:
    """The network is gone with them, and made anew; only the exit code can't be known."""
    if backend == "runc" and shutil.which("runc") is None:
        missing("runc")
    ended = check_survival(instances, backend, "both", supervisor=True, launcher=True)
    assert ended.exit_code is None
    assert instances.status("both").startswith("Exited (?)")


@pytest.mark.nightly
@pytest.mark.parametrize(("supervisor", "launcher"), [(True, False), (False, True), (True, True)])
def test_docker_knows_the_exit_code_whoever_is_killed(
    supervisor: bool, launcher: bool, instances: Detached, missing: Callable[[str], None]
) -> None:
    """Its Engine is the parent, and nobody's of lab's: a new supervisor asks it."""
    if dockerd.lacking():
        missing(f"{dockerd.lacking()}, which is Debian's docker.io")
    ended = check_survival(instances, "docker", "docked", supervisor=supervisor, launcher=launcher)
    assert ended.exit_code == 5


@pytest.mark.nightly
@pytest.mark.parametrize(("supervisor", "launcher"), [(True, False), (False, True), (True, True)])
def test_podman_knows_the_exit_code_whoever_is_killed(
    supervisor: bool, launcher: bool, instances: Detached, missing: Callable[[str], None]
) -> None:
    """A conmon is the parent, and nobody's of lab's: it writes the code down."""
    if lacking := podman.lacking():
        missing(lacking)
    ended = check_survival(instances, "podman", "podded", supervisor=supervisor, launcher=launcher)
    assert ended.exit_code == 5


def test_several_commands_meet_a_lost_supervisor_at_once(instances: Detached) -> None:
    """One of them has it replaced, the others wait for that."""
    record = instances.run("busy", "tiny", "--", "sleep", "600")
    kill(record.supervisor.number)
    assert wait_until(lambda: "supervisor lost" in instances.status("busy"))
    words = [*LAB, "exec", record.name, "echo", "here"]
    commands = [subprocess.Popen(words, stdout=-1, stderr=-1, text=True) for _ in range(4)]
    heard = [command.communicate(timeout=250) for command in commands]
    assert [out for out, _ in heard] == ["here\n"] * 4, heard
    assert sum("taken over" in err for _, err in heard) == 1


def test_its_image_is_in_use_and_its_name_may_lead_elsewhere(instances: Detached, lab_home: Path) -> None:
    """Nobody removes the layers below a living instance, supervised or not; it is taken over with its own image."""
    store = Store.open(lab_home)
    tiny, name = store.find("tiny"), f"tiny-{instances.name('image')}"
    store.add_image(name, config=replace(tiny.config, stop_signal="SIGINT"), layers=tiny.layers, origin=Origin.BUILT)
    script = "trap 'exit 4' INT; trap 'exit 5' TERM; while :; do sleep 0.05; done"
    record = instances.run("kept", name, "--", "sh", "-c", script)
    kill(record.supervisor.number)
    assert wait_until(lambda: "supervisor lost" in instances.status("kept"))
    assert "is used by process" in instances.lab("image", "rm", name, code=1).stderr
    store.add_image(name, config=tiny.config, layers=tiny.layers, origin=Origin.BUILT)  # as another build would
    instances.lab("stop", "-t", "30", record.name)
    assert instances.record("kept").exit_code == 4
    store.untag({f"{name}:latest"})


def test_it_ends_while_it_has_no_supervisor(instances: Detached) -> None:
    """The launcher writes the exit code down, and cleans up."""
    record = instances.run("alone", "tiny", "--", "sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done")
    kill(record.supervisor.number)
    assert wait_until(lambda: "supervisor lost" in instances.status("alone"))
    instances.lab("exec", record.name, "true")  # adopted once …
    kill(instances.record("alone").supervisor.number)  # … and lost again
    assert wait_until(lambda: "supervisor lost" in instances.status("alone"))
    os.kill(record.first.number, signal.SIGTERM)
    assert wait_until(lambda: instances.status("alone").startswith("Exited (6)"))
    assert_nothing_left(record)
    assert f"settled instance {record.name}: its supervisor died before it" in instances.lab("clean").stdout
    stored = records.stored(record.name)
    assert stored is not None
    assert (stored.state, stored.exit_code) == (records.State.EXITED, 6)


@pytest.mark.alone
def test_everything_is_killed(instances: Detached) -> None:
    record = instances.run("dead", "tiny", "--", "sleep", "600")
    kill(record.supervisor.number, launcher_of(record), record.first.number)
    assert wait_until(lambda: instances.status("dead").startswith("Exited (?)"))
    assert what_is_left(record), "the test is worth nothing if something has cleaned up already"
    shown = instances.lab("clean", "--dry-run").stdout
    assert f"would remove session {record.session}: cgroup lab/{record.session}" in shown
    assert f"would settle instance {record.name}" in shown
    cleaned = instances.lab("clean").stdout
    assert f"removed session {record.session}: cgroup lab/{record.session}" in cleaned
    assert_nothing_left(record)
    assert f"instance {record.name}" not in instances.lab("clean").stdout


@pytest.mark.alone
@pytest.mark.parametrize("emptied", [False, True])
def test_the_machine_is_restarted(instances: Detached, emptied: bool) -> None:
    """What was recorded under another boot is over, whatever processes have its numbers now; /run may be empty."""
    record = instances.run("old", "tiny", "--", "sleep", "600")
    kill(record.supervisor.number, launcher_of(record))
    for path in (records.folder(record.name) / records.RECORD, RUNTIME / record.session / "owner.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "the one before"}))
    assert instances.status("old") == "Exited (?)"
    kill(record.first.number)  # it would not have survived
    ControlGroup.open(group_of(record.session)).remove()
    if emptied:
        shutil.rmtree(RUNTIME / record.session)
    scratch = home() / "tmp" / record.session
    assert scratch.is_dir()
    cleaned = instances.lab("clean").stdout
    assert f"settled instance {record.name}: the host was restarted" in cleaned
    assert not (RUNTIME / record.session).exists()
    assert not scratch.exists()
    assert "does not run" in instances.lab("exec", record.name, "true", code=1).stderr


def test_one_that_never_started_is_forgotten(instances: Detached) -> None:
    """Its starter died while the name was reserved."""
    record = instances.run("half", "tiny", "--", "true")
    instances.lab("wait", record.name)
    assert wait_until(lambda: not record.supervisor.lives()), "who waits hears of the end a moment before it"
    place = records.folder(record.name) / records.RECORD
    place.write_text(json.dumps({**json.loads(place.read_text()), "state": "created"}))
    assert instances.status("half") == "Never started"
    assert f"settled instance {record.name}: it never started" in instances.lab("clean").stdout
    assert not place.exists()


def test_a_backend_that_knows_nothing_of_adoption_can_still_stop_and_remove(tmp_path: Path, lab_home: Path) -> None:
    """What `SiteBackend.adopt` gives to each: here to a container, as if it were some other thing."""
    with Site.open() as site:
        backend = site.backend("container")
        wanted = request(
            site, Store.open(lab_home).find("tiny"), "bare", "sleep", "600", logs=tmp_path, detached=True
        )
        instance = backend.launch(wanted)
        pid = min(instance.cgroup.processes())
        survivor = Survivor(
            pid=pid, address=instance.address, accelerator=instance.accelerator, timeline=instance.timeline
        )
        bare = SiteBackend.adopt(backend, wanted, survivor)
        assert bare.wait(0) is None
        with pytest.raises(LabError, match="can't run commands"):
            bare.execute(["true"])
        bare.signal(signal.SIGTERM)
        with pytest.raises(ExitUnknown):
            bare.wait(120)
        bare.stop()
        bare.stop()
        assert not bare.cgroup.exists()
        with pytest.raises(LabError, match="has ended"):
            SiteBackend.adopt(backend, wanted, survivor)
        with pytest.raises(LabError, match="host's own network"):
            Network.adopt(os.open("/proc/self/ns/net", os.O_RDONLY))
        with suppress(LabError):  # the other has removed its files already
            instance.stop()
