"""Containers saved and restored for real. Not collected by itself: tests/vm/test_cgroup_v2.py runs it in a guest.

One is saved; what goes on from it keeps the backends' contract, and has every wall that one has which was booted.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import contract
import pytest
from contract import LIMITS
from roots import open_folder
from tiny import tiny_image

from lab.backends.site import Site
from lab.backends.support.saving import START
from lab.cli.instances.explain import Explainer
from lab.errors import LaunchError
from lab.host.cgroup.control import ControlGroup
from lab.host.survey import criu
from lab.images.store import Image
from lab.instance import Instance, LaunchRequest
from lab.model import Kernel, Phase, Process
from lab.runtime import bundle
from lab.runtime.launcher import checkpoint
from lab.runtime.launcher.checkpoint import Checkpoint
from lab.runtime.launcher.launcher import Container, Launcher, Overlay, Spec
from lab.runtime.plan import Instead, Step

# It serves, holds a file that has no name any more and a lock, has written to its root and to a tmpfs, and says what
# it counts.
APPLICATION = """
echo begun
httpd -p 8000 -h /srv
echo kept >/root/kept
echo shared >/dev/shm/shared
exec 4>/tmp/gone 5>/tmp/lock
rm /tmp/gone
flock 5
count=0
while :; do count=$((count + 1)); echo $count; sleep 1; done
"""
GHOST = "httpd -p 8000; dd if=/dev/zero of=/tmp/f bs=1M count=2; exec 4</tmp/f; rm /tmp/f; sleep 99"  # 1 MiB is most
KEPT = "cat /root/kept /dev/shm/shared; flock -n /tmp/lock true || echo locked"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site.open() as opened:
        yield opened
    assert not opened.scratch.exists()


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    return tiny_image(site.store)


def wanted(
    site: Site, image: Image, name: str, logs: Path, start: str, script: str = APPLICATION, **more: object
) -> LaunchRequest:
    knobs = {START.name: start}
    return contract.request(site, image, name, "sh", "-c", script, logs=logs / name, knobs=knobs, **more)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def told() -> io.StringIO:
    """How one of them started, as --explain tells it."""
    return io.StringIO()


@pytest.fixture(scope="module")
def pair(site: Site, image: Image, logs: Path, told: io.StringIO) -> Iterator[tuple[Instance, Instance]]:
    """Both at once: what they go on from is made for the first and waited for by the second."""
    backend, listener = site.backend("container"), Explainer(told, Kernel.HOST)
    requests = [
        wanted(site, image, "one", logs, "restore", listener=listener),
        wanted(site, image, "two", logs, "restore"),
    ]
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(backend.launch, requests)
    with first, second:
        for instance in (first, second):
            contract.until_listening(site, instance)
        yield first, second
    for instance in (first, second):
        contract.check_gone(site, instance)


@pytest.fixture(scope="module")
def booted(site: Site, image: Image, logs: Path) -> Iterator[Instance]:
    with site.backend("container").launch(wanted(site, image, "booted", logs, "boot")) as instance:
        contract.until_listening(site, instance)
        yield instance


def said(instance: Instance) -> list[str]:
    return (instance.request.log_directory / "stdout.log").read_text().splitlines()


def test_this_host_can() -> None:
    assert criu.obstacle() == ""


def test_phases_are_those_that_happened(pair: tuple[Instance, Instance]) -> None:
    for instance in pair:
        stamps = instance.timeline.stamps()
        assert sorted(stamps, key=stamps.__getitem__) == [Phase.REQUESTED, Phase.ISOLATED, Phase.RESTORED]
        assert instance.snapshot_bytes
        assert instance.snapshot_bytes > 64 << 10


def test_its_steps_are_explained(pair: tuple[Instance, Instance], told: io.StringIO) -> None:
    steps = re.findall(r"^ +[\d.]+ +[\d.]+  (\w+) +(?:\d+  )?(\w[\w ]+?)  ", told.getvalue(), re.MULTILINE)
    assert steps[-8:] == [
        ("launcher", Step.MAP_IDS), ("child", Step.PLACE), ("child", Step.JOIN), ("child", Step.ROOT),
        ("child", Step.HOSTNAME), ("child", Step.DESCRIPTORS), ("child", Step.NO_NEW_PRIVILEGES),
        ("criu", Instead.CRIU),
    ]  # fmt: skip
    assert "the application runs" in told.getvalue().splitlines()[-1]


def test_each_has_an_identity_of_its_own(site: Site, pair: tuple[Instance, Instance]) -> None:
    script = "hostname; cat /etc/hostname; tail -n 1 /etc/hosts; ip -4 -o address show; cat /proc/self/cgroup"
    for instance in pair:
        done = instance.execute(["sh", "-c", script]).stdout.decode().splitlines()
        assert done[:2] == [instance.name] * 2
        assert done[2] == f"{instance.address}\t{instance.name}"
        assert [line.split()[3] for line in done[3:5]] == ["127.0.0.1/8", f"{instance.address}/15"]
        assert done[5:] == ["0::/"]
        with site.network.socket() as client:
            client.settimeout(120)
            client.connect((str(instance.address), contract.PORT))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_it_goes_on_where_it_was(pair: tuple[Instance, Instance]) -> None:
    """Its log, too, begins with what was said before."""
    for instance in pair:
        assert instance.execute(["sh", "-c", KEPT]).stdout == b"kept\nshared\nlocked\n"
        lines = said(instance)
        assert lines[0] == "begun"
        assert [int(line) for line in lines[1:]] == list(range(1, len(lines)))
        assert instance.execute(["sh", "-c", "echo mine >/root/kept"]).exit_code == 0


def test_it_has_the_walls_of_one_that_was_booted(pair: tuple[Instance, Instance], booted: Instance) -> None:
    """Of its first process and of the application: what it may do, what it sees, and what it shares with nobody."""
    for instance in pair:
        for pid, other in zip(processes(instance), processes(booted), strict=True):
            assert walls(pid) ^ walls(other) == set()
        own, others = namespaces(instance), namespaces(booted)
        assert all(own[kind] != others[kind] for kind in own if kind != "user")
        assert own["user"] == others["user"]
    first, second = map(namespaces, pair)
    assert {kind for kind in first if first[kind] == second[kind]} == {"user"}


def test_the_hosts_null_device_can_not_be_changed(pair: tuple[Instance, Instance]) -> None:
    """Standard input is, and so is what masks a file: root of a container could shut both to everybody."""
    before = Path(os.devnull).stat()
    pair[0].execute(["chmod", "666", "/proc/1/fd/0", "/proc/keys"])  # the mode that they have
    assert Path(os.devnull).stat().st_ctime_ns == before.st_ctime_ns


def processes(instance: Instance) -> list[int]:
    """lab's helper and the shell: the host's numbers, in the order of the container's."""
    found = {}
    for pid in instance.cgroup.processes():
        with suppress(FileNotFoundError):  # a sleep that has just ended
            inner = re.search(r"^NSpid:.*\s(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            assert inner
            found[int(inner[1])] = pid
    return [found[1], found[2]]


def walls(pid: int) -> set[str]:
    """A line for each."""
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text()
    names = r"Cap\w+|NoNewPrivs|Seccomp|Seccomp_filters|[UG]id|Groups|Umask"
    found = re.findall(rf"^(?:{names}):.*$", status, re.MULTILINE)
    for line in (process / "mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        root, place, options = left.split()[3:6]
        ours = place in ("/", "/sys/fs/cgroup") or place.startswith("/etc/")  # each has its own
        found.append(f"{place} {right.split()[0]} {options} {'' if ours else root.rpartition('/')[2]}")
    for name in ("dev", "sys/firmware"):
        found += [f"/{name}/{path.name}" for path in (process / "root" / name).iterdir()]
    found += [(process / name).read_text() for name in ("oom_score_adj", "cmdline")]
    return set(found + (process / "limits").read_text().splitlines())


def namespaces(instance: Instance) -> dict[str, str]:
    first = processes(instance)[0]
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return {kind: str(Path(f"/proc/{first}/ns/{kind}").readlink()) for kind in kinds}


def test_each_is_an_instance_like_any_other(
    site: Site, image: Image, tmp_path: Path, pair: tuple[Instance, Instance]
) -> None:
    first, second = pair
    contract.check_commands(first)
    contract.check_limits(site, "container", first)
    contract.check_accounted(first)
    assert second.execute(["cat", "/root/kept"]).stdout == b"mine\n"
    second.signal(15)
    assert second.wait(120) == 143


def test_what_can_not_be_saved_is_a_failed_launch(site: Site, image: Image, logs: Path) -> None:
    """It has ended by itself; or criu can't, and says why."""
    links = site.network.links()
    for name, script, why in (
        ("ends", "exit 3", "exit code 3 before it could be saved"),
        ("ghost", GHOST, "criu can't save it: .*ghost file"),
    ):
        with pytest.raises(LaunchError, match=why):
            site.backend("container").launch(wanted(site, image, name, logs, "restore", script))
    assert site.network.links() == links


# What ends in the middle. Below the backend: a launcher of its own, which may be killed.


@pytest.fixture(scope="module")
def saved(busybox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("saved")
    with open_launcher() as launcher, launch(launcher, busybox_root, "first", savable=True) as container:
        return checkpoint.save(container, folder)


@contextmanager
def open_launcher() -> Iterator[Launcher]:
    """At the end, of a launcher whose process was killed too, nothing of its containers is left."""
    session = f"test-{uuid.uuid4().hex[:8]}"
    with open_folder() as folder:
        with Launcher.start(session, folder / session) as started:
            yield started
        assert not (folder / session).exists()
    assert not ControlGroup.open(f"lab/{session}").exists()


def launch(launcher: Launcher, root: Path, name: str, **fields: Any) -> Container:
    config = bundle.container_config(Process(argv=("sleep", "1000")), LIMITS, hostname=name)
    saved: Checkpoint | None = fields.get("checkpoint")
    written = (saved.upper,) if saved else ()
    spec = Spec(name=name, config=config, root=Overlay(lower=(*written, root)), **fields)
    with Path(os.devnull).open("w") as nowhere:
        return launcher.launch(spec, stdout=nowhere.fileno(), stderr=nowhere.fileno())


@pytest.mark.parametrize(
    "step", [Step.CLONE, Step.PLACE, Step.JOIN, Step.ROOT, Step.HOSTNAME, Step.DESCRIPTORS, Instead.CRIU]
)
def test_a_step_that_fails_leaves_nothing(
    step: str, launcher: Launcher, busybox_root: Path, saved: Checkpoint
) -> None:
    with pytest.raises(LaunchError, match=f"{step}: injected failure") as caught:
        launch(launcher, busybox_root, "broken", checkpoint=saved, fail_at=step)
    assert caught.value.exit_code == 125
    assert not ControlGroup.open(f"lab/{launcher.session}/broken").exists()
    assert list((launcher.scratch / "layers").iterdir()) == []


def test_what_criu_refuses_is_told(launcher: Launcher, busybox_root: Path, saved: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(saved.images, tmp_path / "images")
    (tmp_path / "images/pstree.img").write_bytes(b"nothing")
    broken = dataclasses.replace(saved, images=tmp_path / "images")
    with pytest.raises(LaunchError, match=r"restore the processes: criu ended with 1: .*pstree"):
        launch(launcher, busybox_root, "broken", checkpoint=broken)
    assert not ControlGroup.open(f"lab/{launcher.session}/broken").exists()


def test_a_restored_one_dies_with_the_launcher(busybox_root: Path, saved: Checkpoint) -> None:
    """As any other: what it had asked for when it was saved, it asks for again."""
    with open_launcher() as launcher:
        container = launch(launcher, busybox_root, "orphan", checkpoint=saved)
        os.kill(launcher.pid, signal.SIGKILL)
        until(lambda: not container.cgroup.processes())


def test_what_is_half_restored_ends_with_the_launcher(busybox_root: Path, saved: Checkpoint) -> None:
    """By lab's own hand."""
    with open_launcher() as launcher, ThreadPoolExecutor() as threads:
        restored = threads.submit(launch, launcher, busybox_root, "half", checkpoint=saved)
        group = ControlGroup.open(f"lab/{launcher.session}/half")
        until(lambda: group.exists() and len(group.processes()) > 1)
        os.kill(launcher.pid, signal.SIGKILL)
        with suppress(LaunchError):  # whichever was faster
            restored.result(60)
        until(lambda: not criu_runs("restore"))


def test_what_is_half_restored_ends_with_lab(busybox_root: Path, saved: Checkpoint, tmp_path: Path) -> None:
    """By the hand of its launcher's process, which then ends, too."""
    session, scratch = f"test-{uuid.uuid4().hex[:8]}", tmp_path / "scratch"

    def restore() -> None:
        with Launcher.start(session, scratch) as launcher:
            launch(launcher, busybox_root, "half", checkpoint=saved)
            signal.pause()

    group = ControlGroup.open(f"lab/{session}/half")
    with forked(restore):
        until(lambda: group.exists() and len(group.processes()) > 1)
    until(lambda: not scratch.exists())
    assert not ControlGroup.open(f"lab/{session}").exists()
    assert not criu_runs("restore")


def test_saving_ends_with_lab(launcher: Launcher, busybox_root: Path, tmp_path: Path) -> None:
    container = launch(launcher, busybox_root, "half-saved", savable=True)
    with forked(lambda: checkpoint.save(container, tmp_path)):
        until(lambda: criu_runs("dump"))
    until(lambda: not criu_runs("dump"))
    container.close()
    assert not container.cgroup.exists()


@contextmanager
def forked(what: Callable[[], object]) -> Iterator[None]:
    """A lab that does it, and is killed afterwards."""
    lab = os.fork()
    if lab == 0:
        try:
            what()
        finally:
            os._exit(0)
    yield
    os.kill(lab, signal.SIGKILL)
    os.waitpid(lab, 0)


def criu_runs(verb: str) -> bool:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if process.read_bytes().split(b"\0")[:2] == [b"/bin/criu", verb.encode()]:
                return True
    return False


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)
