"""The backend ``uml``: the contract that every backend keeps, a Linux that is a process, and nothing left behind.

The kernel is the host's, if it has one, or Debian's, fetched once.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import contract
import pytest
from detached import detached
from host_state import assert_unchanged, descendants, snapshot, told_of, wait_until
from killed import check_a_killed_lab_leaves_nothing
from tiny import GREETING, tiny_image
from usable import heard_until, trouble, unchanged_host

from lab.backends.site import Site
from lab.backends.support.guests.guest import GuestInstance
from lab.backends.support.resources import InstanceResources
from lab.backends.uml import Uml
from lab.backends.usermode import origin
from lab.backends.usermode.machine import UserModeLinux
from lab.errors import LabError, LaunchError, LimitError, UsageError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.hypervisor.jail.confinement import Confinement
from lab.images.disk import roomy_disk
from lab.images.store import Image
from lab.model import Limits, Phase, TerminalSize
from lab.studies.compare.measure.parity import verify_manifest

UML = "uml"
READY = "echo ready; while :; do sleep 0.2; done"


@pytest.fixture(autouse=True)
def usable(missing: Callable[[str], None]) -> None:
    if why := origin.unkept_registers():
        pytest.skip(why)  # also where all is required: nothing that is installed would help
    if lacking := trouble(Uml):
        missing(lacking)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with unchanged_host(trouble(Uml)) as opened:
        yield opened


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    built = tiny_image(site.store)
    site.backend(UML).prepare(built)
    return built


@pytest.fixture(scope="module")
def running(site: Site, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestInstance]:
    """One that serves, for tests that leave it as it was: a boot takes seconds."""
    logs = tmp_path_factory.mktemp("uml") / "logs"
    with contract.serve(site, UML, image, logs) as instance:
        assert isinstance(instance, GuestInstance)
        contract.until_listening(site, instance)
        yield instance
    contract.check_gone(site, instance)


def launch(site: Site, image: Image, script: str, logs: Path, name: str = "one", **more: object) -> GuestInstance:
    wanted = contract.request(site, image, name, "sh", "-c", script, logs=logs, **more)
    instance = site.backend(UML).launch(wanted)
    assert isinstance(instance, GuestInstance)
    return instance


def test_output_and_exit_code(site: Site, image: Image, tmp_path: Path) -> None:
    contract_site = site.network.links()
    read, write = os.pipe()
    script = "echo out $GREETING; echo err >&2; id -u; exit 7"
    with launch(site, image, script, tmp_path, name="seven", stdout=write) as instance:
        assert instance.wait(120) == 7
    os.close(write)
    with os.fdopen(read, "rb") as besides:
        assert besides.read() == b"out good day\n0\n"
    assert (tmp_path / "stdout.log").read_bytes() == b"out good day\n0\n"
    assert (tmp_path / "stderr.log").read_bytes() == b"err\n"
    assert site.network.links() == contract_site
    stamps = instance.timeline.stamps()
    wanted = [Phase.REQUESTED, Phase.ISOLATED, Phase.KERNEL, Phase.INIT, Phase.EXECUTED, Phase.STOPPING, Phase.GONE]
    assert sorted(wanted, key=stamps.__getitem__) == wanted


def test_a_server_for_the_client_and_through_a_published_port(site: Site, running: GuestInstance) -> None:
    contract.check_port_is_found(site, UML, running)
    contract.check_serves(site, running)
    contract.check_commands(running)
    contract.check_a_child_left_behind(running)
    contract.check_accounted(running)


def test_the_image_is_never_written_to(site: Site, image: Image, running: GuestInstance) -> None:
    disk = roomy_disk(site.store, image)
    before = disk.stat()
    running.execute(["sh", "-c", "cp /srv/index.html /srv/kept; echo changed >/srv/index.html; sync"])
    assert running.execute(["cat", "/srv/index.html"]).stdout == b"changed\n"
    running.execute(["mv", "/srv/kept", "/srv/index.html"])
    after = disk.stat()
    assert (after.st_mtime_ns, after.st_blocks) == (before.st_mtime_ns, before.st_blocks)
    assert (site.store.lower_directories(image)[-1] / "srv/index.html").read_text() == GREETING


def test_it_is_a_linux_as_large_as_the_limits_say(running: GuestInstance) -> None:
    total = running.execute(["sh", "-c", "grep MemTotal /proc/meminfo; nproc; uname -r"]).stdout.decode().split()
    assert 0.7 * 256 * contract.MIB < int(total[1]) * 1024 <= 256 * contract.MIB
    assert total[-2] == "1"
    assert f"Linux {total[-1]}" == Uml.program().version
    assert running.cgroup.effective_limits().cpus == contract.LIMITS.cpus


def test_a_pids_limit_is_the_guests_own(running: GuestInstance) -> None:
    made = running.execute(["sh", "-c", "for i in $(seq 80); do sleep 5 & done 2>/dev/null; jobs -p | wc -l"])
    assert made.exit_code != 0 or int(made.stdout or 0) < 80, made
    assert running.wait(0) is None


def test_its_process_is_held_as_is_said(running: GuestInstance) -> None:
    """Nobody's user, no capability, no new privileges, a filter; no network of the host's, nothing of its files."""
    by_name = {name: pid for pid, name in told_of(running.cgroup.processes(), "comm").items()}
    kernel = by_name["kernel"]
    held = Confinement.of(kernel)
    assert held.uid > 2_000_000_000
    assert (held.capabilities, held.no_new_privs, held.supplementary) == (0, True, ())
    assert held.filters >= 1
    for namespace in ("net", "pid", "mnt", "ipc", "uts", "cgroup"):
        own = Path("/proc/self/ns", namespace).readlink()
        assert Path(f"/proc/{kernel}/ns", namespace).readlink() != own, namespace
    links = Path(f"/proc/{kernel}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in links] == ["lo"]
    assert {path.name for path in Path(f"/proc/{kernel}/root").iterdir()} <= {
        "kernel", "initrd", "disk", "layer", "tmp", "proc", "dev", "lib", "lib64", "usr", ".lab", "etc", "sys", "run",
    }  # fmt: skip


def test_two_copies_at_once(site: Site, image: Image, running: GuestInstance, tmp_path: Path) -> None:
    with launch(site, image, "sleep 600", tmp_path, name="two") as two:
        two.wait_executed()
        assert running.address != two.address
        assert not running.cgroup.processes() & two.cgroup.processes()
        reached = two.execute(["wget", "-qO-", f"http://{running.address}:{contract.PORT}/"])
        assert reached.stdout.decode() == GREETING


def test_stopping_asks_first_and_kills_what_is_deaf(site: Site, image: Image, tmp_path: Path) -> None:
    with launch(site, image, f"trap 'echo asked; exit 5' TERM; {READY}", tmp_path / "asked") as instance:
        assert wait_until((tmp_path / "asked/stdout.log").read_bytes)
    assert instance.wait(0) == 5
    assert (tmp_path / "asked/stdout.log").read_bytes() == b"ready\nasked\n"
    deaf = launch(site, image, f"trap '' TERM; {READY}", tmp_path / "deaf")
    assert wait_until((tmp_path / "deaf/stdout.log").read_bytes)
    deaf.stop(grace_seconds=0.1)
    assert deaf.wait(0) == 137
    assert not deaf.cgroup.exists()


@pytest.mark.parametrize(("argv", "code"), [("/absent", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, argv: str, code: int
) -> None:
    before, children_before = snapshot(), descendants()
    with site.backend(UML).launch(contract.request(site, image, "bad", argv, logs=tmp_path)) as instance:
        with pytest.raises(LaunchError) as caught:
            instance.wait_executed()
        assert caught.value.exit_code == code
    assert_unchanged(before)
    assert wait_until(lambda: descendants() <= children_before), "a process, or what is left of one"


@pytest.mark.parametrize("step", ["tap", "publish", "launch"])
def test_a_failure_at_any_step_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[str, tuple[object, str]] = {
        "tap": (InstanceResources, "make_tap"),
        "publish": (InstanceResources, "_publish"),
        "launch": (UserModeLinux, "__init__"),
    }
    before = snapshot()

    def fail(*_: object, **__: object) -> None:
        raise LabError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(*steps[step], fail)
        with pytest.raises(LaunchError, match="injected"):
            launch(site, image, "true", tmp_path)
    assert_unchanged(before)


def test_less_memory_than_it_boots_in_is_refused(site: Site, image: Image, tmp_path: Path) -> None:
    with pytest.raises(LimitError):
        launch(site, image, "true", tmp_path, limits=Limits(memory_bytes=16 << 20))


def test_a_kernel_that_panics_is_told_with_its_last_lines(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("lab.backends.usermode.handover.Handover._settings", lambda self: "pids none\n")
        with launch(site, image, "true", tmp_path) as instance, pytest.raises(LaunchError) as caught:
            instance.wait_executed()
    assert "panic" in caught.value.detail


def test_the_files_and_the_image_are_the_same(site: Site, image: Image, tmp_path: Path) -> None:
    expected = site.store.manifest(image)
    wanted = contract.request(site, image, "manifest", logs=tmp_path / "logs")
    assert verify_manifest(site.backend(UML), wanted, expected, 60) == expected.digest


def test_commands_with_streams_of_their_own(running: GuestInstance) -> None:
    """They end when they are closed, and what can't be executed is refused with the shell's code."""
    read, write = os.pipe()
    begun = running.begin(["sh", "-c", f"trap 'exit 9' USR1; {READY}"], stdin=None, stdout=write, stderr=write)
    assert os.read(read, 64) == b"ready\n"
    begun.signal(signal.SIGUSR1)
    assert begun.wait(120) == 9
    begun.close()
    with pytest.raises(LaunchError) as caught:
        running.begin(["/absent"], stdin=None, stdout=write, stderr=write)
    assert caught.value.exit_code == 127
    os.close(read)
    os.close(write)


def test_many_bytes_in_and_out(running: GuestInstance) -> None:
    """Through a serial line, byte by byte: none is lost, changed or taken for a control character."""
    given = bytes(range(256)) * 2048
    done = running.execute(["cat"], stdin=given, timeout_seconds=250)
    assert done.stdout == given


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


def test_more_than_a_line_holds_can_be_typed(site: Site, image: Image, tmp_path: Path) -> None:
    """What the application does not read yet waits at the host, and nothing of it is lost."""
    given = b"".join(b"line %06d\n" % number for number in range(3000))
    typed = tmp_path / "typed"
    typed.write_bytes(given)
    with typed.open("rb") as source:
        more = {"stdin": source.fileno()}
        with launch(site, image, "sleep 1; md5sum", tmp_path / "logs", **more) as instance:
            assert instance.wait(120) == 0
    assert (tmp_path / "logs/stdout.log").read_text().split()[0] == hashlib.md5(given).hexdigest()


def test_what_is_no_such_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="release"):
        Uml.settle({"binary": sys.executable})
    old = tmp_path / "linux"
    old.write_text("#!/bin/sh\necho 4.19.1\n")
    old.chmod(0o755)
    with pytest.raises(UsageError, match="older"):
        Uml.settle({"binary": str(old)})


@pytest.mark.alone
def test_a_killed_lab_leaves_nothing(image: Image, tmp_path: Path) -> None:
    def look(session: str) -> None:
        assert len(ControlGroup.open(group_of(session)).processes()) >= 2

    check_a_killed_lab_leaves_nothing(UML, tmp_path / "logs", look)


def test_a_detached_one_is_lived_with(image: Image) -> None:
    before = snapshot()
    with detached() as instances:
        record = instances.run("own", "--on", UML, "tiny", "--", "sleep", "600")
        assert instances.lab("exec", record.name, "echo", "inside").stdout == "inside\n"
        instances.lab("stop", record.name)
        assert instances.record("own").error == ""
    assert_unchanged(before)


def test_one_whose_supervisor_was_killed_can_be_stopped(image: Image) -> None:
    before = snapshot()
    with detached() as instances:
        record = instances.run("own", "--on", UML, "tiny", "--", "sleep", "600")
        os.kill(record.supervisor.number, signal.SIGKILL)
        assert wait_until(lambda: not record.supervisor.lives())
        instances.lab("stop", record.name)
    assert_unchanged(before)
