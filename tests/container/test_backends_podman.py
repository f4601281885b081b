"""The backend ``podman``: the contract that every backend keeps, from the same image, and nothing left behind.

One store of podman's serves the tests of this module. What takes longer runs by night.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import contract
import pytest
from host_state import assert_unchanged, snapshot, wait_until
from killed import check_a_killed_lab_leaves_nothing, names_in
from tiny import tiny_image
from usable import unchanged_host

from lab.backends.libpod import podman
from lab.backends.libpod.container import PodmanContainer
from lab.backends.libpod.podman import NAME
from lab.backends.podman import Podman
from lab.backends.site import Site
from lab.backends.support.host import HostInstance
from lab.errors import BackendUnavailable, LabError, LaunchError, ParityError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.images.store import Image
from lab.isolation import battery
from lab.isolation.registry import probes
from lab.model import Limits, TerminalSize, Volume
from lab.studies.compare.measure.parity import verify_manifest

PODMAN = "podman"


@pytest.fixture(autouse=True)
def usable(missing: Callable[[str], None]) -> None:
    for check in Podman.check():
        if not check.ok:
            missing(f"{check.name} ({check.found})")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with unchanged_host(podman.lacking()) as opened:
        yield opened


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    built = tiny_image(site.store)
    site.backend(PODMAN).prepare(built)
    return built


@pytest.fixture(scope="module")
def server(site: Site, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostInstance]:
    """One web server for all that ask, and change nothing that others see."""
    instance = contract.serve(site, PODMAN, image, tmp_path_factory.mktemp("server") / "logs")
    assert isinstance(instance, HostInstance)
    contract.until_listening(site, instance)
    yield instance
    instance.stop(grace_seconds=0)  # process 1 without a handler: podman would wait in vain, too
    contract.check_gone(site, instance)


def launch(site: Site, image: Image, script: str, logs: Path, **more: object) -> HostInstance:
    wanted = contract.request(site, image, "one", "sh", "-c", script, logs=logs, **more)
    instance = site.backend(PODMAN).launch(wanted)
    assert isinstance(instance, HostInstance)
    return instance


def test_output_and_exit_code(site: Site, image: Image, tmp_path: Path) -> None:
    contract.check_exit_code_and_output(site, PODMAN, image, tmp_path)


def test_a_server_is_reached_limited_and_counted(site: Site, image: Image, server: HostInstance) -> None:
    contract.check_serves(site, server)
    contract.check_commands(server)
    contract.check_too_much_output(server)
    contract.check_limits(site, PODMAN, server)
    contract.check_accounted(server)


def test_a_conmon_is_no_part_of_the_instance_and_has_figures_of_its_own(server: HostInstance) -> None:
    """No process of podman's was there before it, and no podman is there now."""
    companion = server.companion
    assert companion is not None
    assert wait_until(lambda: set(companion.processes().values()) == {"conmon"})
    assert not companion.cgroup.processes() & server.cgroup.processes()
    assert 0 < companion.cpu_before_seconds < companion.cgroup.cpu().total_seconds
    assert companion.alone_bytes == 0
    assert companion.calls["run"] > 0


def test_the_files_and_the_image_are_the_same(site: Site, image: Image, tmp_path: Path) -> None:
    """By podman's id of it, which is the digest of its configuration, and by every file as it is seen inside."""
    backend = site.backend(PODMAN)
    assert isinstance(backend, Podman)
    (known,) = json.loads(backend.engine.call("image", "inspect", image.name))
    assert f"sha256:{known['Id']}" == site.store.read_json(image.digest)["config"]["digest"]
    assert known["RootFS"]["Layers"] == [layer.diff_id for layer in image.layers]
    expected = site.store.manifest(image)
    wanted = contract.request(site, image, "manifest", logs=tmp_path / "logs")
    assert verify_manifest(backend, wanted, expected, 60) == expected.digest


def test_a_file_too_many_is_noticed(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: were podman's own files not known as its own, the two would not be the same."""
    monkeypatch.setattr(Podman, "adds", ())
    wanted = contract.request(site, image, "more", logs=tmp_path / "logs")
    with pytest.raises(ParityError) as caught:
        verify_manifest(site.backend(PODMAN), wanted, site.store.manifest(image), 60)
    assert {line.split()[-1] for line in caught.value.detail.splitlines()} >= {"/run/.containerenv"}


def test_boundary_answers_as_expected_of_podman(server: HostInstance) -> None:
    """Those that differ from lab's own container, and are quickly asked."""
    chosen = [each for each in probes() if each.id in ("cgroup-path", "default-route", "keyrings", "raw-socket")]
    assert len(chosen) == 4
    for answer in battery.ask_all(server, server_backend(), chosen=chosen):
        assert answer.detail.get("as_expected"), answer


def server_backend() -> Podman:
    """The battery asks the class alone."""
    return Podman.__new__(Podman)


@pytest.mark.parametrize(("argv", "code"), [("/absent", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, argv: str, code: int
) -> None:
    with pytest.raises(LaunchError) as caught:
        site.backend(PODMAN).launch(contract.request(site, image, "bad", argv, logs=tmp_path))
    assert caught.value.exit_code == code
    assert not ControlGroup.open(group_of(site.session.id, "bad")).exists()
    backend = site.backend(PODMAN)
    assert isinstance(backend, Podman)
    with pytest.raises(LabError):
        backend.engine.inspect("bad")


def test_a_failure_after_the_start_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LabError("injected")

    before = snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(PodmanContainer, "_hold", fail)
        with pytest.raises(LaunchError, match="injected"):
            launch(site, image, "sleep 600", tmp_path)
    assert_unchanged(before)
    with launch(site, image, "exit 0", tmp_path) as instance:  # and the name is free again
        assert instance.wait(120) == 0


def test_a_limit_that_cannot_be_set_stops_the_launch(site: Site, image: Image, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"quota|cpu"):
        launch(site, image, "true", tmp_path, limits=Limits(cpus=0.0001))


def test_a_killed_lab_leaves_nothing_of_podman(image: Image, tmp_path: Path) -> None:
    """The launcher, which outlives it, cleans, or the next ``lab clean`` does."""

    def look(session: str) -> None:
        assert "conmon" in names_in(group_of(session, NAME))

    check_a_killed_lab_leaves_nothing(PODMAN, tmp_path / "logs", look)


@pytest.mark.nightly
def test_a_port_is_found_a_child_left_behind_and_writes_stay(
    site: Site, image: Image, server: HostInstance, tmp_path: Path
) -> None:
    contract.check_port_is_found(site, PODMAN, server)
    contract.check_a_child_left_behind(server)
    contract.check_writes_stay(site, PODMAN, image, tmp_path, server)


@pytest.mark.nightly
@pytest.mark.parametrize("runtime", ["lab-oci", "crun"])
def test_another_runtime_below_podman(
    site: Site, image: Image, tmp_path: Path, runtime: str, missing: Callable[[str], None]
) -> None:
    if why := Podman.lacking().get(("runtime", runtime)):
        with pytest.raises(BackendUnavailable):
            Podman.settle({"runtime": runtime})
        if "not installed" in why:
            missing(why)
        pytest.skip(why)  # nothing that could be installed helps
    with launch(site, image, "id -u; exit 4", tmp_path, knobs={"runtime": runtime}) as instance:
        assert instance.wait(120) == 4
        backend = site.backend(PODMAN)
        assert isinstance(backend, Podman)
        assert backend.engine.inspect(instance.name)["OCIRuntime"] == runtime
    assert (tmp_path / "stdout.log").read_text() == "0\n"


@pytest.mark.nightly
def test_stopping_asks_first_and_kills_what_is_deaf(site: Site, image: Image, tmp_path: Path) -> None:
    script = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    with launch(site, image, script, tmp_path / "asked") as instance:
        assert wait_until((tmp_path / "asked/stdout.log").read_bytes)
    assert instance.wait(0) == 5
    assert (tmp_path / "asked/stdout.log").read_bytes() == b"ready\nasked\n"
    deaf = launch(site, image, "trap '' TERM; echo ready; while :; do sleep 0.05; done", tmp_path / "deaf")
    assert wait_until((tmp_path / "deaf/stdout.log").read_bytes)
    deaf.stop(grace_seconds=0.1)
    assert deaf.wait(0) == 137
    assert not deaf.cgroup.exists()


def test_nothing_of_the_hosts_own_podman_is_touched(site: Site, server: HostInstance) -> None:
    """What it would keep outside of its folder is in mounts that nobody else sees: here the host's is as it was."""
    pid = next(iter(server.companion.processes())) if server.companion else 0
    mounts = Path(f"/proc/{pid}/mountinfo").read_text()
    hidden = {line.split()[4] for line in mounts.splitlines()}
    assert {"/run", "/dev/shm", "/var/lib", "/etc/containers"} <= hidden
    assert str(site.scratch) not in Path("/proc/self/mountinfo").read_text()
    within = Path(f"/proc/{pid}/root")
    assert (within / "run/runc").is_dir()
    assert not Path("/run/runc", server.name).exists()
    assert str(site.scratch) in (within / "etc/containers/storage.conf").read_text()


@pytest.mark.nightly
def test_a_terminal_and_a_signal(site: Site, image: Image, server: HostInstance) -> None:
    """lab's helper makes the terminal, and is what a signal to a command reaches first."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as shown:
        begun = server.begin(
            ["sh", "-c", "tty; stty size; trap 'exit 9' USR1; while :; do sleep 0.05; done"],
            stdin=None, stdout=write, stderr=write, terminal=TerminalSize(rows=33, columns=77),
        )  # fmt: skip
        os.close(write)
        said = b""
        while b"33 77" not in said:
            said += os.read(shown.fileno(), 100)
        assert b"/dev/pts/" in said
        begun.signal(signal.SIGUSR1)
        assert begun.wait(120) == 9
        begun.close()


@pytest.mark.nightly
def test_a_volume(site: Site, image: Image, tmp_path: Path) -> None:
    """What is written there is the host's; one that is read-only is so, and what is mounted below is not shown."""
    (tmp_path / "data").mkdir()
    volumes = (
        Volume(source=str(tmp_path / "data"), target="/data"),
        Volume(source="/sys", target="/seen", read_only=True),
    )
    script = "echo written >/data/file; touch /seen/file; ls /seen/fs/cgroup | wc -l; true"
    with launch(site, image, script, tmp_path / "logs", volumes=volumes) as instance:
        assert instance.wait(120) == 0
    assert (tmp_path / "data/file").read_text() == "written\n"
    assert "Read-only file system" in (tmp_path / "logs/stderr.log").read_text()
    assert (tmp_path / "logs/stdout.log").read_text() == "0\n"


@pytest.mark.nightly
def test_leaving_the_site_stops_what_was_forgotten(image: Image, tmp_path: Path) -> None:
    before = snapshot()
    with Site.open() as forgetful:
        forgetful.backend(PODMAN).prepare(image)
        launch(forgetful, image, "sleep 600", tmp_path)
    assert_unchanged(before)
