"""The backend ``gvisor``: the contract that every backend keeps, a kernel in user space, and nothing left behind.

runsc is the host's, if it is new enough, or Debian 13's, fetched once.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import contract
import pytest
from detached import detached
from host_state import assert_unchanged, descendants, snapshot, told_of, wait_until
from killed import check_a_killed_lab_leaves_nothing
from usable import fixtures, heard_until

from lab import record
from lab.backends.gvisor import Gvisor
from lab.backends.site import Site
from lab.backends.support.host import HostInstance
from lab.backends.support.programs.ocicontainer import OciContainer
from lab.backends.support.resources import InstanceResources
from lab.errors import BackendUnavailable, LabError, LaunchError, UsageError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.images.store import Image
from lab.instance import Instance, LaunchRequest
from lab.isolation import battery
from lab.isolation.registry import probes
from lab.model import Limits, TerminalSize, Volume
from lab.runtime.config import capabilities
from lab.runtime.config.model import Capabilities, Config, MountConfig
from lab.studies.compare.measure.parity import verify_manifest

GVISOR = "gvisor"
READY, SLEEPS = "echo ready; while :; do sleep 0.05; done", "echo ready; exec sleep 1000"


usable, site, image = fixtures(Gvisor)


def launch(site: Site, image: Image, script: str, logs: Path, **more: object) -> HostInstance:
    wanted = contract.request(site, image, "one", "sh", "-c", script, logs=logs, **more)
    instance = site.backend(GVISOR).launch(wanted)
    assert isinstance(instance, HostInstance)
    return instance


def test_output_and_exit_code(site: Site, image: Image, tmp_path: Path) -> None:
    contract.check_exit_code_and_output(site, GVISOR, image, tmp_path)


def test_a_server_for_the_client_and_through_a_published_port(site: Site, image: Image, tmp_path: Path) -> None:
    with contract.serve(site, GVISOR, image, tmp_path) as instance:
        contract.check_port_is_found(site, GVISOR, instance)
        contract.check_serves(site, instance)
        contract.check_commands(instance)
        contract.check_a_child_left_behind(instance)
        contract.check_limits(site, GVISOR, instance)
        contract.check_accounted(instance)
        contract.check_writes_stay(site, GVISOR, image, tmp_path, instance)
    contract.check_gone(site, instance)


def test_another_kernel_answers_and_all_of_it_is_in_the_instances_group(
    site: Site, image: Image, tmp_path: Path
) -> None:
    with launch(site, image, READY, tmp_path) as instance:
        seen = instance.execute(["cat", "/proc/version"]).stdout.decode()
        assert seen.strip() != Path("/proc/version").read_text().strip()
        lines = told_of(instance.cgroup.processes(), "cmdline").values()
        assert {line.partition("\0")[0] for line in lines} >= {"runsc-sandbox", "runsc-gofer"}
    contract.check_gone(site, instance)


def test_two_copies_at_once(site: Site, image: Image, tmp_path: Path) -> None:
    first = contract.request(site, image, "one", "sleep", "600", logs=tmp_path / "one")
    second = contract.request(site, image, "two", "sleep", "600", logs=tmp_path / "two")
    with site.backend(GVISOR).launch(first) as one, site.backend(GVISOR).launch(second) as two:
        assert one.address != two.address
        assert not one.cgroup.processes() & two.cgroup.processes()
        reached = one.execute(["ping", "-c", "1", "-W", "5", str(two.address)])
        assert reached.exit_code in (0, 1), "raw sockets are closed; the address is its own"
    contract.check_gone(site, one)


def test_stopping_asks_first_and_kills_what_is_deaf(site: Site, image: Image, tmp_path: Path) -> None:
    with launch(site, image, f"trap 'echo asked; exit 5' TERM; {READY}", tmp_path / "asked") as instance:
        assert wait_until((tmp_path / "asked/stdout.log").read_bytes)
    assert instance.wait(0) == 5
    assert (tmp_path / "asked/stdout.log").read_bytes() == b"ready\nasked\n"
    deaf = launch(site, image, f"trap '' TERM; {READY}", tmp_path / "deaf")
    assert wait_until((tmp_path / "deaf/stdout.log").read_bytes)
    deaf.stop(grace_seconds=0.1)
    assert deaf.wait(0) == 137
    contract.check_gone(site, deaf)


@pytest.mark.parametrize(
    ("argv", "code"), [("/absent", 127), pytest.param("/etc/passwd", 126, marks=pytest.mark.nightly)]
)
def test_what_cannot_be_executed_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, argv: str, code: int
) -> None:
    """Several times: its processes and runsc, which leaves them to lab, end together, in any order."""
    before, children_before = snapshot(), descendants()
    for turn in range(8):
        with pytest.raises(LaunchError) as caught:
            site.backend(GVISOR).launch(contract.request(site, image, "bad", argv, logs=tmp_path / str(turn)))
        assert caught.value.exit_code == code
        assert descendants() <= children_before, "a process, or what is left of one"
    assert_unchanged(before)


@pytest.mark.parametrize("step", ["endpoint", "publish", "launch"])
def test_a_failure_at_any_step_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[str, tuple[object, str]] = {
        "endpoint": (InstanceResources, "make_endpoint"),
        "publish": (InstanceResources, "_publish"),
        "launch": (OciContainer, "launch"),
    }
    before = snapshot()

    def fail(*_: object, **__: object) -> None:
        raise LabError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(*steps[step], fail)
        with pytest.raises(LaunchError, match="injected"):
            launch(site, image, "true", tmp_path)
    assert_unchanged(before)
    with launch(site, image, "exit 0", tmp_path) as instance:  # and the name is free again
        assert instance.wait(120) == 0


def test_a_limit_that_cannot_be_set_stops_the_launch(site: Site, image: Image, tmp_path: Path) -> None:
    with pytest.raises(LabError):
        launch(site, image, "true", tmp_path, limits=Limits(cpus=0.0001))
    assert site.network.links() == {"lo", "lab0"}


def test_the_files_and_the_image_are_the_same(site: Site, image: Image, tmp_path: Path) -> None:
    expected = site.store.manifest(image)
    wanted = contract.request(site, image, "manifest", logs=tmp_path / "logs")
    assert verify_manifest(site.backend(GVISOR), wanted, expected, 60) == expected.digest


def test_volumes(site: Site, image: Image, tmp_path: Path) -> None:
    """What is written to one is the host's; what is read-only stays as it is."""
    for name in ("data", "seen"):
        (tmp_path / name).mkdir()
    volumes = (
        Volume(source=str(tmp_path / "data"), target="/data"),
        Volume(source=str(tmp_path / "seen"), target="/seen", read_only=True),
    )
    script = "echo written >/data/file; touch /seen/file && exit 1; exit 0"
    with launch(site, image, script, tmp_path / "logs", volumes=volumes) as instance:
        assert instance.wait(120) == 0
    assert (tmp_path / "data/file").read_text() == "written\n"
    assert list((tmp_path / "seen").iterdir()) == []


def test_commands_with_streams_of_their_own(site: Site, image: Image, tmp_path: Path) -> None:
    """They end when they are closed, and what can't be executed is refused with the shell's code."""
    read, write = os.pipe()
    with launch(site, image, SLEEPS, tmp_path) as instance:
        assert wait_until(lambda: sleeping(instance) == 1)
        begun = instance.begin(["sh", "-c", f"trap 'exit 9' USR1; {READY}"], stdin=None, stdout=write, stderr=write)
        assert os.read(read, 64) == b"ready\n"
        begun.signal(signal.SIGUSR1)
        assert begun.wait(120) == 9
        begun.close()
        left = instance.begin(["sh", "-c", SLEEPS], stdin=None, stdout=write, stderr=write)
        assert os.read(read, 64) == b"ready\n"
        assert wait_until(lambda: sleeping(instance) == 2)
        left.close()
        assert sleeping(instance) == 1, "the application, and nothing else"
        with pytest.raises(LaunchError) as caught:
            instance.begin(["/absent"], stdin=None, stdout=write, stderr=write)
        assert caught.value.exit_code == 127
    os.close(read)
    os.close(write)


def sleeping(instance: HostInstance) -> int:
    """How many inside execute what SLEEPS comes to: a fork of a shell has the same words as the shell at first."""
    return instance.execute(["sh", "-c", "cat /proc/[0-9]*/cmdline"]).stdout.count(b"sleep\x001000\0")


def test_a_terminal_for_the_application_and_for_a_command(site: Site, image: Image, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        size = TerminalSize(rows=33, columns=77)
        script = "test -t 0 && echo terminal; stty size; read line; echo got $line; sleep 600"
        more = {"terminal": size, "stdin": theirs.fileno(), "stdout": theirs.fileno()}
        with launch(site, image, script, tmp_path, **more) as instance:
            said = heard_until(ours, "33 77")
            assert "terminal" in said
            ours.sendall(b"word\n")
            assert "got word" in heard_until(ours, "got word")
            begun = instance.begin(
                ["sh", "-c", "stty size; echo end"],
                stdin=None, stdout=theirs.fileno(), stderr=theirs.fileno(),
                terminal=TerminalSize(rows=11, columns=22),
            )  # fmt: skip
            assert "11 22" in heard_until(ours, "end")
            assert begun.wait(120) == 0
            begun.close()


HELD_BACK = ("mount", "mount-namespace", "set-hostname")


@pytest.mark.parametrize("has_every_capability", [False, True])
def test_what_capabilities_hold_back_the_same_kernel_does_with_them(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_every_capability: bool
) -> None:
    """The control of what the battery says of it: EPERM is for want of a capability, and of nothing else."""

    def privileged(self: Gvisor, request: LaunchRequest, namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        made, every = usual(self, request, namespace, mounts), capabilities.held()
        held = Capabilities(bounding=every, effective=every, permitted=every)
        return record.replace(made, process=record.replace(made.process, capabilities=held))

    usual = Gvisor.config
    if has_every_capability:
        monkeypatch.setattr(Gvisor, "config", privileged)
    chosen = [probe for probe in probes() if probe.id in HELD_BACK]
    with launch(site, image, "sleep 600", tmp_path) as instance:
        seen = {each.quantity: each for each in battery.ask_all(instance, site.backend(GVISOR), chosen=chosen)}
    assert {each.text for each in seen.values()} == {"guest" if has_every_capability else "no"}, seen
    if not has_every_capability:
        assert {each.detail["mechanism"] for each in seen.values()} == {"capability"}
        assert all(each.detail["as_expected"] for each in seen.values())


def test_a_limit_that_ends_it_is_an_answer(site: Site, image: Image, tmp_path: Path) -> None:
    """And another copy is asked what is left."""
    backend = site.backend(GVISOR)
    chosen = [probe for probe in probes() if probe.id in ("memory-limit", "pids-limit")]
    names = iter(("two", "three"))

    def again() -> Instance:
        return backend.launch(contract.request(site, image, next(names), "sleep", "600", logs=tmp_path))

    with launch(site, image, "sleep 600", tmp_path) as instance:
        seen = list(battery.ask_all(instance, backend, chosen=chosen, again=again))
    assert [(each.text, each.detail["as_expected"]) for each in seen] == [("effective", True)] * 2
    assert battery.ended(seen)


@pytest.mark.nightly
def test_by_ptrace(site: Site, image: Image, tmp_path: Path) -> None:
    with launch(site, image, "exit 4", tmp_path, knobs={"platform": "ptrace"}) as instance:
        assert instance.wait(120) == 4


def test_a_platform_that_is_not_proven_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.backends.sentry.platforms.last_proof", lambda _: None)
    with pytest.raises(BackendUnavailable, match="platform=kvm"):
        Gvisor.settle({"platform": "kvm"})


def test_a_program_of_another_kind_or_age_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    verbs = "create start state kill delete"
    other.write_text(f"#!/bin/sh\necho 'runsc version 0.0~20221219.0'; echo {verbs}\n")
    other.chmod(0o755)
    with pytest.raises(UsageError, match="older than"):
        Gvisor.settle({"binary": str(other)})


@pytest.mark.alone
def test_a_killed_lab_leaves_nothing(image: Image, tmp_path: Path) -> None:
    def look(session: str) -> None:
        assert len(ControlGroup.open(group_of(session)).processes()) > 2

    check_a_killed_lab_leaves_nothing(GVISOR, tmp_path / "logs", look)


def test_a_detached_one_is_lived_with_and_taken_over(image: Image) -> None:
    """Its supervisor is killed, and the next one goes on with it: commands, its port, its end."""
    before = snapshot()
    with detached() as instances:
        record = instances.run("own", "--on", GVISOR, "tiny", "--", "sleep", "600")
        assert instances.lab("exec", record.name, "echo", "inside").stdout == "inside\n"
        os.kill(record.supervisor.number, signal.SIGKILL)
        assert wait_until(lambda: not record.supervisor.lives())
        assert instances.lab("exec", record.name, "echo", "again").stdout == "again\n"
        instances.lab("stop", record.name)
        assert instances.record("own").error == ""
    assert_unchanged(before)
