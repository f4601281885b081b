"""The references beside lab's own runtime: the same surroundings, the same answers, and nothing left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import contract
import pytest
from host_state import assert_unchanged, snapshot, wait_until
from tiny import tiny_image

from lab.backends.registry import find
from lab.backends.site import Site
from lab.backends.support.programs import children
from lab.backends.support.programs.ocicontainer import OciContainer
from lab.errors import LabError, LaunchError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import Unused
from lab.images.store import Image
from lab.studies.compare.measure.parity import verify_manifest

SAME_LINES = ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@pytest.fixture(scope="module", params=["runc", "crun"])
def other(request: pytest.FixtureRequest) -> str:
    """The runtime beside lab's."""
    return str(request.param)


@pytest.fixture(autouse=True)
def usable(missing: Callable[[str], None], other: str) -> None:
    for check in find(other).check():
        if not check.ok:
            missing(f"{check.name} ({check.found})")


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    built = tiny_image(site.store)
    for name in ("container", "runc", "crun"):
        site.backend(name).prepare(built)
    return built


def groups_elsewhere(name: str) -> ControlGroup:
    """What it makes below the hierarchies that lab does not use."""
    return ControlGroup.open(name, hierarchies=Unused.detect())


@pytest.mark.parametrize("uid", [0, 1000])
def test_both_runtimes_grant_the_same(site: Site, image: Image, other: str, tmp_path: Path, uid: int) -> None:
    """Ids, capabilities, no_new_privs, filter, rlimits, mounts and namespaces: as the process itself sees them."""
    looks = "hostname; ls /proc/self/fd; pwd; env | sort; awk '{print $5}' /proc/self/mountinfo"
    script = f"cat /proc/self/status; ulimit -n; {looks}"
    seen = {}
    for backend in ("container", other):
        wanted = contract.request(site, image, "same", "sh", "-c", script, logs=tmp_path / backend)
        process = contract.as_user(wanted, uid)
        with site.backend(backend).launch(process) as instance:
            assert instance.wait(120) == 0
        seen[backend] = (tmp_path / backend / "stdout.log").read_text()
    ours, theirs = (_comparable(seen[backend]) for backend in ("container", other))
    assert ours == theirs


def _comparable(text: str) -> list[str]:
    """Without what differs from process to process, and the cgroup hierarchies, of which runc joins all."""
    status, _, rest = text.partition("nonvoluntary_ctxt_switches")
    kept = [line for line in status.splitlines() if line.partition(":")[0] in SAME_LINES]
    lines = [line for line in rest.splitlines()[1:] if not re.match(r"/sys/fs/cgroup/|HOME=", line)]
    return [*kept, *sorted(lines)]


OPENS = {
    "container": {"disk": False, "tunnel": False, "tmpfs above the cgroups": False},
    "runc": {"disk": False, "tunnel": True, "tmpfs above the cgroups": True},
    "crun": {"disk": False, "tunnel": False, "tmpfs above the cgroups": True},
}
TRIES = {
    "disk": "mknod /tmp/disk b 8 0 && : </tmp/disk",
    "tunnel": "mknod /tmp/tun c 10 200 && : <>/tmp/tun",
    "tmpfs above the cgroups": "touch /sys/fs/cgroup/mine",
}
REFUSALS = (b"not permitted", b"Read-only file system")


def test_what_differs_is_what_parity_says(site: Site, image: Image, other: str, tmp_path: Path) -> None:
    """Should a newer release change one of these, its sentence in the backend's ``Parity`` goes."""
    if not Path("/sys/fs/cgroup/memory").exists():
        pytest.skip("on cgroup v2 alone nothing of this differs")
    for backend in ("container", other):
        wanted = contract.request(site, image, "differs", "sleep", "600", logs=tmp_path / backend)
        with site.backend(backend).launch(wanted) as instance:
            tried = {what: instance.execute(["sh", "-c", script]).stderr for what, script in TRIES.items()}
        found = {what: not any(word in said for word in REFUSALS) for what, said in tried.items()}
        assert found == OPENS[backend], tried


@pytest.mark.parametrize("ours", [True, False])
def test_its_cgroups_are_all_it_sees_of_them(
    site: Site, image: Image, other: str, tmp_path: Path, ours: bool
) -> None:
    """The application's processes, and those executed beside it, are in the very same groups."""
    look = "cat /proc/self/cgroup; exec sleep 600"
    wanted = contract.request(site, image, "groups", "sh", "-c", look, logs=tmp_path)
    log = tmp_path / "stdout.log"
    with site.backend("container" if ours else other).launch(wanted) as instance:
        beside = instance.execute(["cat", "/proc/self/cgroup"]).stdout.decode()
        assert wait_until(lambda: log.stat().st_size >= len(beside))
    assert log.read_text() == beside
    assert {line.rpartition(":")[2] for line in beside.splitlines()} == {"/"}


def test_the_files_inside_are_the_images(site: Site, image: Image, other: str, tmp_path: Path) -> None:
    request = contract.request(site, image, "manifest", logs=tmp_path)
    manifest = site.store.manifest(image)
    assert verify_manifest(site.backend(other), request, manifest, 60) == manifest.digest


def test_a_command_that_does_not_end_is_killed(site: Site, image: Image, other: str, tmp_path: Path) -> None:
    with site.backend(other).launch(contract.request(site, image, "slow", "sleep", "600", logs=tmp_path)) as instance:
        before = instance.cgroup.processes()
        with pytest.raises(LabError, match="did not end within"):
            instance.execute(["sleep", "600"], timeout_seconds=0.5)
        assert wait_until(lambda: instance.cgroup.processes() == before)


@pytest.mark.parametrize(("program", "code"), [("/absent", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_executed(
    site: Site, image: Image, other: str, tmp_path: Path, program: str, code: int
) -> None:
    with site.backend(other).launch(contract.request(site, image, "none", "sleep", "600", logs=tmp_path)) as instance:
        with pytest.raises(LaunchError) as caught:
            instance.execute([program])
        assert caught.value.exit_code == code


@pytest.mark.parametrize("step", ["_create", "_start", "spawn"])
def test_a_failure_leaves_nothing(
    site: Site, image: Image, other: str, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot()
    name = group_of(site.session.id, "broken")

    def fail(*_: object) -> None:
        raise LabError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(children if step == "spawn" else OciContainer, step, fail)
        with pytest.raises(LaunchError, match="injected"):
            site.backend(other).launch(contract.request(site, image, "broken", logs=tmp_path))
    assert_unchanged(before)
    assert not ControlGroup.open(name).exists()
    assert not groups_elsewhere(name).exists()


def test_what_it_refuses_is_said_in_its_words(
    site: Site, image: Image, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.runtime.bundle.write", lambda *_, **__: None)  # no config.json
    with pytest.raises(LaunchError, match=rf"{other} can't create container bad: .*config\.json") as caught:
        site.backend(other).launch(contract.request(site, image, "bad", logs=tmp_path))
    assert caught.value.exit_code == 125


FORGETFUL = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import contract
from tiny import tiny_image
from lab.backends.site import Site
site = Site.open()
image = tiny_image(site.store)
site.backend({other!r}).prepare(image)
logs = Path({logs!r})
site.backend({other!r}).launch(contract.request(site, image, "lost", "sleep", "600", logs=logs))
print(site.session.id, flush=True)
input()
"""


def test_a_killed_lab_leaves_nothing_of_it(image: Image, other: str, tmp_path: Path) -> None:
    """The launcher, which outlives it, cleans, or the next ``lab clean`` does."""
    before = snapshot()
    script = FORGETFUL.format(tests=str(Path(contract.__file__).parent), logs=str(tmp_path / "logs"), other=other)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout
        session = lab.stdout.readline().strip()
        assert session
        everywhere = [ControlGroup.open(group_of(session)), groups_elsewhere(group_of(session))]
        assert everywhere[0].processes()
        lab.send_signal(signal.SIGKILL)

    def gone() -> bool:
        return not any(group.exists() for group in everywhere)

    deadline = time.monotonic() + 100
    while not gone() and time.monotonic() < deadline:
        clean = [sys.executable, "-c", "from lab.cli.main import main; main()", "clean"]
        subprocess.run(clean, check=False, capture_output=True)
        time.sleep(0.1)
    assert gone()
    assert_unchanged(before)
