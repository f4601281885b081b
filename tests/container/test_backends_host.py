"""The backends on the host's kernel keep the contract, and leave nothing whatever happens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import contract
import pytest
from host_state import assert_unchanged, snapshot, wait_until

from lab.backends.reference import Reference
from lab.backends.registry import available
from lab.backends.site import Site
from lab.backends.support.output import Outputs
from lab.backends.support.programs.ocicontainer import OciContainer
from lab.backends.support.resources import InstanceResources
from lab.errors import LabError, LaunchError
from lab.images.store import Image, Origin
from lab.model import ImageConfig, Kernel, Limits, PublishedPort, Volume
from lab.runtime.launcher.launcher import Launcher
from lab.studies.compare.measure.parity import verify_manifest

ON_HOST = [
    pytest.param(kind.name, marks=pytest.mark.nightly) if kind.name == "crun" else kind.name
    for kind in available()
    if kind.kernel is Kernel.HOST and not (kind.stack and kind.stack.is_engine)
]
"""Docker and podman have modules of their own: test_backends_docker.py, test_backends_podman.py. What holds of runc
is asked of crun by night.
"""


@pytest.fixture(params=ON_HOST)
def backend(request: pytest.FixtureRequest, site: Site, image: Image, missing: Callable[[str], None]) -> str:
    name: str = request.param
    for check in site.backend(name).check():
        if not check.ok:
            missing(f"{check.name} ({check.found})")
    try:
        site.backend(name).fetch(print)
    except LabError as error:
        missing(f"{name}: {error}")
    site.backend(name).prepare(image)
    return name


def test_output_and_exit_code(site: Site, backend: str, image: Image, tmp_path: Path) -> None:
    contract.check_exit_code_and_output(site, backend, image, tmp_path)


def test_a_read_only_volume_is_so_with_all_that_is_mounted_below(
    site: Site, backend: str, image: Image, tmp_path: Path
) -> None:
    """/sys is a folder with mounts below it: its cgroups, that root may write to."""
    below = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    nested = [place for place in below if place.startswith("/sys/")]
    volume = Volume(source="/sys", target="/data", read_only=True)
    script = "cat /proc/self/mountinfo"
    wanted = contract.request(site, image, "volume", "sh", "-c", script, logs=tmp_path, volumes=(volume,))
    with site.backend(backend).launch(wanted) as instance:
        assert instance.wait(120) == 0
    fields = [line.split() for line in (tmp_path / "stdout.log").read_text().splitlines()]
    found = {each[4]: set(each[5].split(",")) for each in fields if each[4].startswith("/data")}
    assert len(found) >= len(set(nested)) > 1, "they show"  # crun is shown no cgroup v2 beside v1
    assert all(options >= {"ro", "nosuid", "nodev"} for options in found.values()), found


def test_a_server_for_the_client_and_through_a_published_port(
    site: Site, backend: str, image: Image, tmp_path: Path
) -> None:
    with contract.serve(site, backend, image, tmp_path) as instance:
        contract.check_port_is_found(site, backend, instance)
        contract.check_serves(site, instance)
        contract.check_commands(instance)
        contract.check_too_much_output(instance)
        contract.check_a_child_left_behind(instance)
        contract.check_limits(site, backend, instance)
        contract.check_accounted(instance)
        contract.check_writes_stay(site, backend, image, tmp_path, instance)
    contract.check_gone(site, instance)


def test_two_copies_at_once(site: Site, backend: str, image: Image, tmp_path: Path) -> None:
    first = contract.request(site, image, "one", "sleep", "600", logs=tmp_path / "one")
    second = contract.request(site, image, "two", "sleep", "600", logs=tmp_path / "two")
    with site.backend(backend).launch(first) as one, site.backend(backend).launch(second) as two:
        assert one.address != two.address
        assert not one.cgroup.processes() & two.cgroup.processes()
    contract.check_gone(site, one)


def test_stopping_asks_first(site: Site, backend: str, image: Image, tmp_path: Path) -> None:
    script = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    wanted = contract.request(site, image, "asked", "sh", "-c", script, logs=tmp_path)
    with site.backend(backend).launch(wanted) as instance:
        log = tmp_path / "stdout.log"
        assert wait_until(log.read_bytes)
    assert instance.wait(0) == 5
    assert log.read_bytes() == b"ready\nasked\n"


def test_stopping_does_not_ask_twice(site: Site, backend: str, image: Image, tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    wanted = contract.request(site, image, "deaf", "sh", "-c", script, logs=tmp_path)
    instance = site.backend(backend).launch(wanted)
    assert wait_until((tmp_path / "stdout.log").read_bytes)
    instance.stop(grace_seconds=0.1)
    assert instance.wait(0) == 137
    contract.check_gone(site, instance)


def test_what_it_started_goes_with_it(site: Site, backend: str, image: Image, tmp_path: Path) -> None:
    """Even what left its session and process group, and outlived the application."""
    script = "setsid sh -c 'sleep 600 & sleep 600' & sleep 0.1"
    wanted = contract.request(site, image, "family", "sh", "-c", script, logs=tmp_path)
    with site.backend(backend).launch(wanted) as instance:
        assert instance.wait(120) == 0
    contract.check_gone(site, instance)


@pytest.mark.parametrize(("argv", "code"), [(["/absent"], 127), (["/etc/passwd"], 126)])
def test_what_cannot_be_executed(
    site: Site, backend: str, image: Image, tmp_path: Path, argv: list[str], code: int
) -> None:
    with pytest.raises(LaunchError) as caught:
        site.backend(backend).launch(contract.request(site, image, "bad", *argv, logs=tmp_path))
    assert caught.value.exit_code == code
    assert site.network.links() == {"lo", "lab0"}


def test_a_port_in_use_stops_the_launch(site: Site, backend: str, image: Image, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = PublishedPort(host_port=taken.getsockname()[1], instance_port=contract.PORT)
        wanted = contract.request(site, image, "port", logs=tmp_path, published=(port,))
        with pytest.raises(LaunchError, match="in use") as caught:
            site.backend(backend).launch(wanted)
    assert "-p" in caught.value.hint
    assert site.network.links() == {"lo", "lab0"}


@pytest.mark.parametrize("step", ["endpoint", "publish", "scratch", "surroundings", "output", "config", "launch"])
def test_a_failure_at_any_step_leaves_nothing(
    site: Site, backend: str, image: Image, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[str, tuple[object, str]] = {
        "endpoint": (InstanceResources, "plug_into" if backend == "userns" else "make_endpoint"),
        "publish": (InstanceResources, "_publish"),
        "scratch": (InstanceResources, "make_scratch"),
        "surroundings": (type(site.backend(backend)), "_surroundings"),
        "output": (Outputs, "open"),
        "config": (type(site.backend(backend)), "config"),
        "launch": (OciContainer if isinstance(site.backend(backend), Reference) else Launcher, "launch"),
    }
    before = snapshot()

    def fail(*_: object, **__: object) -> None:
        raise LabError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(*steps[step], fail)
        with pytest.raises(LaunchError, match="injected"):
            site.backend(backend).launch(contract.request(site, image, "broken", logs=tmp_path))
    assert_unchanged(before)
    assert site.network.links() == {"lo", "lab0"}
    assert not (site.scratch / "broken").exists()
    wanted = contract.request(site, image, "broken", "true", logs=tmp_path)  # and the name is free again
    with site.backend(backend).launch(wanted) as instance:
        assert instance.wait(120) == 0


def test_a_limit_that_cannot_be_set_stops_the_launch(site: Site, backend: str, image: Image, tmp_path: Path) -> None:
    wanted = contract.request(site, image, "limit", logs=tmp_path, limits=Limits(cpus=0.0001))
    with pytest.raises(LabError):
        site.backend(backend).launch(wanted)
    assert site.network.links() == {"lo", "lab0"}


def test_leaving_the_site_stops_what_was_forgotten(image: Image, backend: str, tmp_path: Path) -> None:
    before = snapshot()
    with Site.open() as forgetful:
        forgetful.backend(backend).prepare(image)
        forgetful.backend(backend).launch(contract.request(forgetful, image, "lost", "sleep", "600", logs=tmp_path))
    assert_unchanged(before)


def test_an_image_without_etc_stays_as_it_is(site: Site, backend: str, tmp_path: Path) -> None:
    """What lab adds to /etc must not make one: the instance would see a folder that the image does not hold."""
    busybox = shutil.which("busybox")
    assert busybox
    with site.store.scratch("bare") as scratch:
        root = scratch / "root"
        root.mkdir()
        shutil.copy(busybox, root / "app")
        layer = site.store.add_layer(root)
    bare = site.store.add_image("bare", config=ImageConfig(command=("/app",)), layers=(layer,), origin=Origin.BUILT)
    site.backend(backend).prepare(bare)
    expected = site.store.manifest(bare)
    seen = verify_manifest(
        site.backend(backend), contract.request(site, bare, "bare", logs=tmp_path / "logs"), expected, 60
    )
    assert seen == expected.digest
