"""The image of lab itself: built by lab, started with --privileged by podman and by Docker, and lab inside."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import dockering
import pytest
from lending import certificates
from oci import until

from lab.backends.engine import dockerd
from lab.host.cgroup.hierarchy import make_room
from lab.results.store import SAMPLE

pytestmark = [pytest.mark.nightly, pytest.mark.alone, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
LAB = ROOT / ".venv" / "bin" / "lab"
NAME = "lab-itself"
SECONDS = 1500.0
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")  # as for podman elsewhere in these tests
NAMES = itertools.count()


class Manager(Protocol):
    """What starts containers, called like podman and Docker."""

    options: Sequence[str]

    def words(self, *arguments: str) -> list[str]: ...


class Podman:
    """With a store of the test's own, and its containers in a group of the test's own."""

    def __init__(self, folder: Path, group: str) -> None:
        self.folder = folder
        self.options = ("--cgroup-parent", f"/{group}", *LIMITS)

    def words(self, *arguments: str) -> list[str]:
        places = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]
        engine = ["--cgroup-manager=cgroupfs", "--events-backend=none", "--storage-driver=overlay", "--runtime=runc"]
        return ["podman", *places, *engine, "--tmpdir", str(self.folder / "tmp"), *arguments]


class Docker:
    """An Engine of the test's own, with lab's runtime below it: runc insists on all capabilities for a privileged
    container, and lab-oci takes those that the host has.
    """

    options = ("--runtime", "lab-oci")

    def __init__(self, engine: dockering.Engine) -> None:
        self.words = engine.words


class Inside:
    """lab in containers that share one volume, and one folder to work in."""

    def __init__(self, manager: Manager, image: str, folder: Path) -> None:
        self.manager = manager
        self.image = image
        self.home, self.work = folder / "home", folder / "work"
        for each in (self.home, self.work):
            each.mkdir()

    def call(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.manager.words(*words), capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def lab(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.call("run", "--rm", *self.options(), *words, check=check)

    def options(self) -> list[str]:
        volumes = ["--volume", f"{self.home}:/var/lib/lab", "--volume", f"{self.work}:/work"]
        return ["--privileged", "--network", "none", *self.manager.options, *volumes, self.image]

    def begin(self, *words: str, until_said: str) -> str:
        """A container that goes on, by its name."""
        name = f"lab{next(NAMES)}{uuid.uuid4().hex[:6]}"
        self.call("run", "--detach", "--name", name, *self.options(), *words)
        until(lambda: until_said in self.call("logs", name).stdout, until_said, SECONDS)
        return name


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image in a file, as ``lab image save`` writes it."""
    file = tmp_path_factory.mktemp("image") / "lab.tar"
    build = [LAB, "build", ROOT, "-f", ROOT / "tools" / "image" / "Dockerfile", "-t", NAME]
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        build += ["--build-arg", variable] if variable in os.environ else []
    for words in (build, [LAB, "image", "save", "--output", file, "--format", "docker-archive", NAME]):
        surroundings = {**os.environ, **certificates()}
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False, env=surroundings)
        assert done.returncode == 0, done.stdout + done.stderr
    return file


@pytest.fixture(scope="module", params=["podman", "docker"])
def inside(request: pytest.FixtureRequest, archive: Path) -> Iterator[Inside]:
    with tempfile.TemporaryDirectory(prefix="lab-image-", dir="/var/tmp") as name:
        folder = Path(name)
        if request.param == "docker":
            if lacks := dockerd.lacking():
                pytest.skip(f"{lacks} is not installed")
            with dockering.opened() as engine:
                yield loaded(Docker(engine), archive, folder)
            return
        if shutil.which("podman") is None:
            pytest.skip("podman is not installed")
        group = f"lab/test-image-{uuid.uuid4().hex[:8]}"
        make_room(f"{group}/any")
        manager = Podman(folder, group)
        try:
            yield loaded(manager, archive, folder)
        finally:
            subprocess.run(manager.words("rm", "--all", "--force", "--time", "0"), check=False, timeout=250)
            subprocess.run(["umount", folder / "root" / "overlay"], check=False, capture_output=True)
            dockering.remove_group(group)


def loaded(manager: Manager, archive: Path, folder: Path) -> Inside:
    found = Inside(manager, "", folder)
    told = found.call("load", "--input", str(archive)).stdout
    found.image = told.partition("Loaded image")[2].partition(":")[2].strip()
    tiny = found.work / "tiny"
    tiny.mkdir()
    shutil.copy("/bin/busybox", tiny / "busybox")
    (tiny / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/sh\nCMD ["/bin/sh", "-c", "echo up; exit 7"]\n')
    found.lab("build", "tiny", "-t", "tiny")
    return found


def test_what_is_usable_inside(inside: Inside) -> None:
    told = json.loads(inside.lab("doctor", "--on", "process,container,userns,runc,microvm", "--json").stdout)
    assert {each["name"]: each["obstacles"] for each in told["backends"]} == {
        "process": [], "container": [], "userns": [], "runc": [], "microvm": [],
    }  # fmt: skip


@pytest.mark.parametrize("backend", ["process", "container", "userns", "runc"])
def test_an_application_runs(inside: Inside, backend: str) -> None:
    done = inside.lab("run", "--on", backend, "-m", "64M", "tiny", check=False)
    assert (done.returncode, done.stdout) == (7, "up\n"), done.stderr


def test_the_sample_is_read_and_the_report_is_outside(inside: Inside) -> None:
    inside.lab("report", SAMPLE)
    assert "<html" in (inside.work / "results" / SAMPLE / "report.html").read_text()


WAITS = ("run", "tiny", "--", "/bin/sh", "-c", "echo up; while :; do read -t 1 x < /dev/zero; done")


def test_it_ends_when_the_container_is_stopped(inside: Inside) -> None:
    name = inside.begin(*WAITS, until_said="up")
    inside.call("stop", "--time", "60", name)
    state = "{{.State.ExitCode}} {{.State.OOMKilled}}"
    code, killed = inside.call("inspect", "--format", state, name).stdout.split()
    assert int(code) in (130, 143), "lab ended what it ran, and then itself"
    assert killed == "false"
    inside.call("rm", name)
    assert scratch(inside) == []


def test_after_a_kill_nothing_is_left(inside: Inside) -> None:
    name = inside.begin(*WAITS, until_said="up")
    refused = inside.lab("ps", check=False)
    assert refused.returncode == 1, "its volume is another container's, for as long as that runs"
    assert "another container" in refused.stderr
    beside = inside.call("exec", name, "lab", "run", "tiny", check=False)
    assert (beside.returncode, beside.stdout) == (7, "up\n"), beside.stderr
    container = inside.call("inspect", "--format", "{{.Id}}", name).stdout.strip()
    assert groups(container)
    inside.call("kill", "--signal", "KILL", name)
    until(lambda: not groups(container), "its control groups to go")
    inside.call("rm", "--force", name)
    assert scratch(inside), "what it wrote"
    inside.lab("ps")
    assert scratch(inside) == [], "the next one has removed it"


def groups(container: str) -> list[str]:
    """Those of the container on the host, with lab's below them."""
    words = ["find", "/sys/fs/cgroup", "-type", "d", "-name", f"*{container}*"]  # some go while it looks
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()


def scratch(inside: Inside) -> list[Path]:
    """What running instances write to."""
    return sorted((inside.home / "tmp").glob("*"))
