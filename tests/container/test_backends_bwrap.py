"""The backend ``bwrap``: what a sandbox of bubblewrap's is made of, and that nothing is left of one.

The contract that every backend on the host's kernel keeps is in test_backends_host.py. bwrap is the host's, if it has
one, or Debian's, fetched once.
"""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import contract
import pytest
from detached import detached
from host_state import assert_unchanged, descendants, snapshot, told_of, wait_until
from killed import check_a_killed_lab_leaves_nothing, names_in
from tiny import fill
from usable import fixtures, heard_until

from lab.backends.bubble.sandbox import Sandbox
from lab.backends.bwrap import Bwrap
from lab.backends.site import Site
from lab.backends.support.host import HostInstance
from lab.errors import LabError, LaunchError
from lab.host.cgroup.delegation import group_of
from lab.hypervisor.jail.confinement import Confinement
from lab.images.store import Image, Origin
from lab.isolation import battery
from lab.isolation.registry import probes
from lab.model import ImageConfig, TerminalSize, Volume
from lab.studies.compare.measure.parity import verify_manifest

BWRAP = "bwrap"
READY = "echo ready; while :; do sleep 0.05; done"


usable, site, image = fixtures(Bwrap)


def launch(
    site: Site, image: Image, script: str, logs: Path, *, name: str = "one", uid: int = 0, **more: object
) -> HostInstance:
    wanted = contract.as_user(contract.request(site, image, name, "sh", "-c", script, logs=logs, **more), uid)
    instance = site.backend(BWRAP).launch(wanted)
    assert isinstance(instance, HostInstance)
    return instance


def application(instance: HostInstance, words: str) -> int:
    """The process in its group with these words in its command line that no other such one has started."""
    lines = told_of(instance.cgroup.processes(), "cmdline")
    found = [pid for pid, line in lines.items() if words in line and "inside" not in line]
    parents = {pid: int(said.rpartition(")")[2].split()[1]) for pid, said in told_of(found, "stat").items()}
    return next(
        pid for pid, parent in parents.items() if parent not in found
    )  # a fork has its words until it executes


def capabilities(pid: int) -> tuple[int, ...]:
    """Permitted, effective and ambient (capabilities(7)): what is bounding or inheritable is none that it has."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(said[name], 16) for name in ("CapPrm", "CapEff", "CapAmb"))


@pytest.mark.parametrize("uid", [0, 4321])
@pytest.mark.parametrize(("knobs", "filters"), [({}, 0), ({"filter": "on"}, 1)])
def test_its_processes_are_held_as_is_said(
    site: Site, image: Image, tmp_path: Path, uid: int, knobs: dict[str, str], filters: int
) -> None:
    """No capability, no new privileges, and a filter only where one is given; the application, and a command."""
    with launch(site, image, READY, tmp_path, uid=uid, knobs=knobs) as instance:
        assert wait_until((tmp_path / "stdout.log").read_bytes)
        pid = application(instance, READY)
        held = Confinement.of(pid)
        assert (held.uid, held.no_new_privs, held.supplementary) == (uid, True, ())
        assert held.filters == filters
        assert capabilities(pid) == (0, 0, 0)
        for namespace in ("net", "pid", "mnt", "ipc", "uts", "cgroup"):
            own = Path("/proc/self/ns", namespace).readlink()
            assert Path(f"/proc/{pid}/ns", namespace).readlink() != own, namespace
        assert Path(f"/proc/{pid}/ns/user").readlink() == Path("/proc/self/ns/user").readlink()
        status = instance.execute(["cat", "/proc/self/status"]).stdout.decode()
        said = dict(line.split(":", 1) for line in status.splitlines())
        assert (int(said["CapPrm"], 16), int(said["CapEff"], 16), int(said["NoNewPrivs"])) == (0, 0, 1)
        assert int(said["Seccomp"]) == 2 * filters


def test_root_that_drops_nothing_keeps_all(site: Site, image: Image, tmp_path: Path) -> None:
    with launch(site, image, READY, tmp_path, knobs={"capabilities": "all"}) as instance:
        assert wait_until((tmp_path / "stdout.log").read_bytes)
        assert capabilities(application(instance, READY))[:2] == capabilities(os.getpid())[:2]
        inside = instance.execute(["sh", "-c", "hostname elsewhere && hostname"])
        assert inside.stdout == b"elsewhere\n"
    assert socket.gethostname() != "elsewhere"


def test_its_environment_is_not_on_a_command_line_nor_bwraps(site: Site, image: Image, tmp_path: Path) -> None:
    """An image's LD_PRELOAD would have the host's root load it."""
    with launch(site, image, READY, tmp_path) as instance:
        assert wait_until((tmp_path / "stdout.log").read_bytes)
        assert not any("good day" in line for line in told_of(instance.cgroup.processes(), "cmdline").values())
        outer = [pid for pid, name in told_of(instance.cgroup.processes(), "comm").items() if name == "bwrap"]
        assert len(outer) == 1
        assert b"GREETING" not in Path(f"/proc/{outer[0]}/environ").read_bytes()
        assert instance.execute(["sh", "-c", "echo $GREETING"]).stdout == b"good day\n"


def test_an_application_of_another_user_hears_its_stop_signal(site: Site, image: Image, tmp_path: Path) -> None:
    script = "trap 'echo asked; exit 5' TERM; id -u; echo ready; while :; do sleep 0.05; done"
    with launch(site, image, script, tmp_path, uid=4321) as instance:
        assert wait_until(lambda: b"ready" in (tmp_path / "stdout.log").read_bytes())
    assert instance.wait(0) == 5
    assert (tmp_path / "stdout.log").read_bytes() == b"4321\nready\nasked\n"


def test_a_working_directory_that_the_image_lacks_is_made(site: Site, image: Image, tmp_path: Path) -> None:
    wanted = contract.request(site, image, "one", "pwd", logs=tmp_path)
    wanted = replace(wanted, process=replace(wanted.process, working_directory="/made/for/it"))
    with site.backend(BWRAP).launch(wanted) as instance:
        assert instance.wait(120) == 0
    assert (tmp_path / "stdout.log").read_text() == "/made/for/it\n"


def test_a_working_directory_that_is_its_users_alone_is_entered(site: Site, image: Image, tmp_path: Path) -> None:
    """Root without a capability may not: its user may."""
    (tmp_path / "home").mkdir(mode=0o700)
    os.chown(tmp_path / "home", 4321, 4321)
    volume = Volume(source=str(tmp_path / "home"), target="/home/own")
    wanted = contract.as_user(contract.request(site, image, "one", "pwd", logs=tmp_path / "logs"), 4321)
    wanted = replace(wanted, volumes=(volume,), process=replace(wanted.process, working_directory="/home/own"))
    with site.backend(BWRAP).launch(wanted) as instance:
        assert instance.wait(120) == 0
    assert (tmp_path / "logs/stdout.log").read_text() == "/home/own\n"


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


def test_a_terminal_for_the_application_and_for_a_command(site: Site, image: Image, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        script = "tty; stty size; read line; echo got $line; sleep 600"
        more = {"terminal": TerminalSize(rows=33, columns=77), "stdin": theirs.fileno(), "stdout": theirs.fileno()}
        with launch(site, image, script, tmp_path, uid=4321, **more) as instance:
            assert "/dev/pts/0" in heard_until(ours, "33 77")
            ours.sendall(b"word\n")
            heard_until(ours, "got word")
            begun = instance.begin(
                ["sh", "-c", "stty size; echo end"],
                stdin=None, stdout=theirs.fileno(), stderr=theirs.fileno(),
                terminal=TerminalSize(rows=11, columns=22),
            )  # fmt: skip
            assert "11 22" in heard_until(ours, "end")
            assert begun.wait(120) == 0
            begun.close()


def test_what_is_typed_reaches_it_without_a_terminal(site: Site, image: Image, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"some words\n")
    os.close(write)
    with launch(site, image, "cat", tmp_path, stdin=read) as instance:
        assert instance.wait(120) == 0
    os.close(read)
    assert (tmp_path / "stdout.log").read_bytes() == b"some words\n"


@pytest.mark.parametrize("victim", ["bwrap", "inside"])
def test_when_either_of_its_own_two_is_killed_the_rest_goes(
    site: Site, image: Image, tmp_path: Path, victim: str
) -> None:
    with launch(site, image, READY, tmp_path, uid=4321) as instance:
        assert wait_until((tmp_path / "stdout.log").read_bytes)
        own = [pid for pid, name in told_of(instance.cgroup.processes(), "comm").items() if name == victim]
        os.kill(own[0], signal.SIGKILL)
        assert instance.wait(120) == 137
        assert wait_until(lambda: not instance.cgroup.processes())


def test_what_bwrap_complains_of_is_told_and_leaves_nothing(site: Site, image: Image, tmp_path: Path) -> None:
    other = tmp_path / "bwrap"
    other.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo bubblewrap 0.9.9 && exit\necho "bwrap: no luck" >&2; exit 1\n'
    )
    other.chmod(0o755)
    before, children_before = snapshot(), descendants()
    with pytest.raises(LaunchError, match="no luck") as caught:
        launch(site, image, "true", tmp_path, knobs={"binary": str(other)})
    assert caught.value.exit_code == 125
    assert_unchanged(before)
    assert wait_until(lambda: descendants() <= children_before)


@pytest.mark.parametrize(("argv", "code"), [("/absent", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed_leaves_no_process(
    site: Site, image: Image, tmp_path: Path, argv: str, code: int
) -> None:
    before, children_before = snapshot(), descendants()
    with pytest.raises(LaunchError) as caught:
        site.backend(BWRAP).launch(contract.request(site, image, "bad", argv, logs=tmp_path))
    assert caught.value.exit_code == code
    assert_unchanged(before)
    assert wait_until(lambda: descendants() <= children_before)


def test_a_failure_after_bwrap_was_started_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LabError("injected")

    before = snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(Sandbox, "__init__", fail)
        with pytest.raises(LaunchError, match="injected"):
            launch(site, image, "sleep 600", tmp_path)
    assert_unchanged(before)
    with launch(site, image, "exit 0", tmp_path) as instance:  # and the name is free again
        assert instance.wait(120) == 0


CLOSED_BY_A_FILTER = ("io-uring", "keyrings", "memory-policy", "address-randomisation", "system-call-filter")
CLOSED_BY_A_MOUNT = ("core-pattern", "network-settings")
OPENED_BY_CAPABILITIES = ("mount", "packet-capture", "set-hostname", "mount-namespace", "raise-priority")


@pytest.mark.parametrize(
    ("chosen", "knobs", "reach"),
    [
        (CLOSED_BY_A_FILTER, {}, {"open"}),
        (CLOSED_BY_A_FILTER, {"filter": "on"}, {"closed"}),
        (CLOSED_BY_A_MOUNT, {}, {"open", "own"}),
        (CLOSED_BY_A_MOUNT, {"sysctls": "read-only"}, {"closed"}),
        (OPENED_BY_CAPABILITIES, {}, {"closed"}),
        (OPENED_BY_CAPABILITIES, {"capabilities": "all"}, {"open", "own"}),
    ],
)
def test_where_its_answers_are_not_a_containers_the_named_mechanism_makes_them(
    site: Site, image: Image, tmp_path: Path, chosen: tuple[str, ...], knobs: dict[str, str], reach: set[str]
) -> None:
    """The control of what the battery says: with that one thing changed, the same question has the other answer."""
    asked = [probe for probe in probes() if probe.id in chosen]
    with launch(site, image, "sleep 600", tmp_path, knobs=knobs) as instance:
        seen = list(battery.ask_all(instance, site.backend(BWRAP), chosen=asked))
    told = {each.quantity: each for each in seen if each.detail["reach"] != "unknown"}
    assert len(told) >= len(chosen) - 1, "of one or another this host's kernel may have nothing"
    assert {each.detail["reach"] for each in told.values()} <= reach, told
    if not knobs:
        wanted = {"open": "none", "own": "namespace", "closed": "capability"}
        assert {each.detail["mechanism"] for each in told.values()} == {wanted[each] for each in reach}
        assert all(each.detail["as_expected"] for each in told.values())


@pytest.mark.alone
def test_a_killed_lab_leaves_nothing(image: Image, tmp_path: Path) -> None:
    def look(session: str) -> None:
        assert {"bwrap", "sleep"} <= names_in(group_of(session) + "/lost")

    check_a_killed_lab_leaves_nothing(BWRAP, tmp_path / "logs", look)


def test_a_detached_one_is_lived_with_and_taken_over(image: Image) -> None:
    """Its supervisor is killed, and the next one goes on with it: commands, its end, and its exit code."""
    before = snapshot()
    with detached() as instances:
        script = "trap 'exit 6' TERM; while :; do sleep 0.1; done"
        record = instances.run("own", "--on", BWRAP, "tiny", "--", "sh", "-c", script)
        assert instances.lab("exec", record.name, "echo", "inside").stdout == "inside\n"
        os.kill(record.supervisor.number, signal.SIGKILL)
        assert wait_until(lambda: not record.supervisor.lives())
        assert instances.lab("exec", record.name, "echo", "again").stdout == "again\n"
        instances.lab("stop", record.name)
        assert instances.record("own").error == ""
        assert "6" in instances.status("own")
    assert_unchanged(before)


def test_the_files_are_the_images_those_that_root_may_not_read_too(site: Site, tmp_path: Path) -> None:
    """A folder of another user's, closed to all others: root inside has no capability to look into it."""
    with site.store.scratch("closed") as scratch:
        root = scratch / "root"
        fill(root)
        (root / "closed").mkdir(mode=0o700)
        (root / "closed" / "file").write_text("x")
        for path in (root / "closed", root / "closed" / "file"):
            os.chown(path, 1000, 1000)
        layer = site.store.add_layer(root)
    config = ImageConfig(environment={"PATH": "/bin"}, command=("sh",))
    closed = site.store.add_image("closed", config=config, layers=(layer,), origin=Origin.BUILT)
    backend, expected = site.backend(BWRAP), site.store.manifest(closed)
    backend.prepare(closed)
    wanted = contract.request(site, closed, "manifest", logs=tmp_path / "logs")
    assert verify_manifest(backend, wanted, expected, 60) == expected.digest
    with launch(site, closed, "ls /closed", tmp_path / "ls") as instance:
        assert instance.wait(120) != 0, "what is compared is read in another sandbox"
