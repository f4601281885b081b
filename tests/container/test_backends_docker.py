"""The backend ``docker``: the contract that every backend keeps, from the same image, and nothing left behind.

One Engine serves the tests of this module: it takes a second or two to start. What takes longer runs by night.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import contract
import pytest
from host_state import assert_unchanged, snapshot, wait_until
from killed import check_a_killed_lab_leaves_nothing, names_in
from tiny import tiny_image
from usable import unchanged_host

from lab.backends.docker import Docker
from lab.backends.engine import dockerd
from lab.backends.engine import engine as engine_module
from lab.backends.engine.engine import NAME, Engine
from lab.backends.engine.instance import DockerInstance
from lab.backends.site import Site
from lab.backends.support.resources import InstanceResources
from lab.errors import LabError, LaunchError, ParityError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.survey.virtualisation import EMULATED_PATIENCE, Ground, Platform
from lab.images.store import Image
from lab.isolation import battery
from lab.isolation.registry import probes
from lab.model import Limits, Volume
from lab.runtime.seccomp.profile import default_profile
from lab.studies.compare.measure.parity import verify_manifest
from lab.studies.surface.measure import asked_for

DOCKER = "docker"


@pytest.fixture(autouse=True)
def usable(missing: Callable[[str], None]) -> None:
    for check in Docker.check():
        if not check.ok:
            missing(f"{check.name} ({check.found})")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    lacking = dockerd.lacking()
    with unchanged_host(f"{lacking} is not installed" if lacking else "") as opened:
        yield opened


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    built = tiny_image(site.store)
    site.backend(DOCKER).prepare(built)
    return built


@pytest.fixture(scope="module")
def server(site: Site, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerInstance]:
    """One web server for all that ask, and change nothing that others see."""
    instance = contract.serve(site, DOCKER, image, tmp_path_factory.mktemp("server") / "logs")
    assert isinstance(instance, DockerInstance)
    contract.until_listening(site, instance)
    yield instance
    instance.stop(grace_seconds=0)  # process 1 without a handler: Docker would wait in vain, too
    contract.check_gone(site, instance)


def launch(site: Site, image: Image, script: str, logs: Path, **more: object) -> DockerInstance:
    wanted = contract.request(site, image, "one", "sh", "-c", script, logs=logs, **more)
    instance = site.backend(DOCKER).launch(wanted)
    assert isinstance(instance, DockerInstance)
    return instance


def test_output_and_exit_code(site: Site, image: Image, tmp_path: Path) -> None:
    contract.check_exit_code_and_output(site, DOCKER, image, tmp_path)


def test_a_server_is_reached_limited_and_counted(site: Site, image: Image, server: DockerInstance) -> None:
    contract.check_serves(site, server)
    contract.check_commands(server)
    contract.check_too_much_output(server)
    contract.check_limits(site, DOCKER, server)
    contract.check_accounted(server)


def test_the_engine_is_no_part_of_the_instance_and_has_figures_of_its_own(server: DockerInstance) -> None:
    companion = server.companion
    assert companion is not None
    named = set(companion.processes().values())
    assert {"dockerd", "containerd"} < named
    assert any(name.startswith("containerd-shim") for name in named)
    assert not companion.cgroup.processes() & server.cgroup.processes()
    assert 0 < companion.cpu_before_seconds < companion.cgroup.cpu().total_seconds
    assert companion.alone_bytes
    assert companion.alone_bytes > server.cgroup.memory().anon_bytes
    assert companion.calls["create"] > 0 < companion.calls["start"]


def test_the_filter_is_read_where_docker_gave_it_to_its_runtime(server: DockerInstance) -> None:
    """Docker's own: it refuses calls that lab's default lets through, or the other way round."""
    filtered = asked_for(Docker, server.bundle)
    assert filtered is not None
    assert filtered != default_profile()
    assert server.execute(["cat", "/proc/self/status"]).stdout.decode().count("Seccomp:\t2") == 1


def test_the_files_and_the_image_are_the_same(site: Site, image: Image, tmp_path: Path) -> None:
    """By Docker's id of it, which is the digest of its configuration, and by every file as it is seen inside."""
    backend = site.backend(DOCKER)
    assert isinstance(backend, Docker)
    known = backend.engine.client.image(image.name)
    assert known["Id"] == site.store.read_json(image.digest)["config"]["digest"]
    assert known["RootFS"]["Layers"] == [layer.diff_id for layer in image.layers]
    expected = site.store.manifest(image)
    wanted = contract.request(site, image, "manifest", logs=tmp_path / "logs")
    assert verify_manifest(backend, wanted, expected, 60) == expected.digest


def test_a_file_too_many_is_noticed(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: were Docker's own files not known as its own, the two would not be the same."""
    monkeypatch.setattr(Docker, "adds", ())
    wanted = contract.request(site, image, "more", logs=tmp_path / "logs")
    with pytest.raises(ParityError) as caught:
        verify_manifest(site.backend(DOCKER), wanted, site.store.manifest(image), 60)
    assert {line.split()[-1] for line in caught.value.detail.splitlines()} == {"/.dockerenv", "/etc/mtab"}


def test_boundary_answers_as_expected_of_docker(server: DockerInstance) -> None:
    """Those that differ from lab's own container, and are quickly asked."""
    chosen = [each for each in probes() if each.id in ("cgroup-path", "interrupts", "io-uring", "new-privileges")]
    assert len(chosen) == 4
    for answer in battery.ask_all(server, server_backend(), chosen=chosen):
        assert answer.detail.get("as_expected"), answer


def server_backend() -> Docker:
    """The battery asks the class alone."""
    return Docker.__new__(Docker)


@pytest.mark.parametrize(("argv", "code"), [("/absent", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, argv: str, code: int
) -> None:
    with pytest.raises(LaunchError) as caught:
        site.backend(DOCKER).launch(contract.request(site, image, "bad", argv, logs=tmp_path))
    assert caught.value.exit_code == code
    assert not ControlGroup.open(group_of(site.session.id, "bad")).exists()
    backend = site.backend(DOCKER)
    assert isinstance(backend, Docker)
    with pytest.raises(LabError):
        backend.engine.client.inspect("bad")


def test_a_failure_after_the_start_leaves_nothing(
    site: Site, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LabError("injected")

    before = snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(InstanceResources, "publish_at", fail)
        with pytest.raises(LaunchError, match="injected"):
            launch(site, image, "sleep 600", tmp_path)
    assert_unchanged(before)
    with launch(site, image, "exit 0", tmp_path) as instance:  # and the name is free again
        assert instance.wait(120) == 0


def test_a_limit_that_cannot_be_set_stops_the_launch(site: Site, image: Image, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"cpu\.cfs_quota_us|CPUs|cpu\.max"):
        launch(site, image, "true", tmp_path, limits=Limits(cpus=0.0001))


def test_a_killed_lab_leaves_nothing_of_the_engine(image: Image, tmp_path: Path) -> None:
    """The launcher, which outlives it, cleans, or the next ``lab clean`` does."""

    def look(session: str) -> None:
        assert {"dockerd", "containerd"} <= names_in(group_of(session, NAME))

    check_a_killed_lab_leaves_nothing(DOCKER, tmp_path / "logs", look)


@pytest.mark.parametrize(("ground", "tries"), [(Ground.HARDWARE, 1), (Ground.EMULATED, EMULATED_PATIENCE)])
def test_a_daemon_that_gives_its_containerd_up_is_started_again_on_an_emulated_host(
    monkeypatch: pytest.MonkeyPatch, ground: Ground, tries: int
) -> None:
    """It ends by itself then, as often as it likes; nothing is left of any of them."""
    tried = []

    def give_up(folder: Path, **_: object) -> subprocess.Popen[bytes]:
        (folder / "run").mkdir()
        (folder / "log").write_text(f"failed to start containerd: {dockerd.GAVE_UP}\n")
        tried.append(folder)
        return subprocess.Popen(["false"])

    monkeypatch.setattr(dockerd, "start_in", give_up)
    monkeypatch.setattr(engine_module, "platform", lambda: Platform(ground=ground, by="none"))
    before = snapshot()
    with Site.open() as own, pytest.raises(LabError, match=dockerd.GAVE_UP):
        Engine.start(own)
    assert len(tried) == tries
    assert_unchanged(before)


@pytest.mark.nightly
def test_a_port_is_found_a_child_left_behind_and_writes_stay(
    site: Site, image: Image, server: DockerInstance, tmp_path: Path
) -> None:
    contract.check_port_is_found(site, DOCKER, server)
    contract.check_a_child_left_behind(server)
    contract.check_writes_stay(site, DOCKER, image, tmp_path, server)


@pytest.mark.nightly
def test_lab_oci_below_docker(site: Site, image: Image, tmp_path: Path) -> None:
    """It makes a cgroup namespace where lab-oci is told so by Docker; who ran it, Docker tells."""
    with launch(site, image, "id -u; exit 4", tmp_path, knobs={"runtime": "lab-oci"}) as instance:
        assert instance.wait(120) == 4
        known = instance._engine.client.inspect(instance.name)
    assert known["HostConfig"]["Runtime"] == "lab-oci"
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
        forgetful.backend(DOCKER).prepare(image)
        launch(forgetful, image, "sleep 600", tmp_path)
    assert_unchanged(before)
