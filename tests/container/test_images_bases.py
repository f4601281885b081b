"""The recipes, for real: mmdebstrap runs once for the whole suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chroot_runner import ChrootRunner
from host_state import mountinfo

from lab.host.command import run
from lab.images.build import build
from lab.images.debian.apt import sources_beyond, sources_for
from lab.images.process import resolve
from lab.images.progress import Progress
from lab.images.store import Image, Origin, Store
from lab.images.transfer import registry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(lab_home: Path) -> Store:
    """The session's store: a base that another test has made is used, and the other way round."""
    return Store.open(lab_home)


def offline(name: str, store: Store, progress: Progress) -> Image:
    raise registry.Unreachable("no registry in this test")


def made(name: str, store: Store, context: Path) -> Image:
    """The base that a Dockerfile names, where no registry answers."""
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(f"FROM {name}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "fetch", offline)
        build(context, dockerfile=dockerfile, tag="on-a-base", build_args={}, store=store, runner=ChrootRunner())
    return store.find(name)


@pytest.fixture(scope="module")
def python(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Image:
    if not sources_for("bookworm"):
        pytest.skip("this host's apt has no Debian bookworm")
    context = tmp_path_factory.mktemp("context")
    image = made("python:3.11-slim", store, context)
    if image.origin is not Origin.RECIPE:
        pytest.skip("this session's python:3.11-slim came from a registry")
    return image


def inside(store: Store, image: Image, script: str) -> str:
    """What a shell in the image prints."""
    process = resolve(image, store.lower_directories(image), argv=["sh", "-c", script])
    output = bytearray()
    with store.scratch("test") as scratch:
        for name in ("upper", "work"):
            (scratch / name).mkdir()
        code = ChrootRunner().run(
            process, lower_directories=store.lower_directories(image), upper_directory=scratch / "upper",
            work_directory=scratch / "work", output=output.extend,
        )  # fmt: skip
    assert code == 0, output
    return output.decode()


def test_python_is_there_under_every_name(store: Store, python: Image) -> None:
    version = inside(store, python, "python --version && python3 --version && pip --version && command -v pip3")
    assert version.count("Python 3.11.") == 2
    assert python.config.environment["PYTHON_VERSION"].startswith("3.11.")
    assert python.config.environment["PYTHON_VERSION"] in version
    assert python.base is not None
    assert python.base.name == "debian:bookworm-slim"


@pytest.mark.nightly
def test_the_next_debian_and_its_python_are_made_on_this_one(store: Store, tmp_path: Path) -> None:
    if not sources_beyond("trixie"):
        pytest.skip("this host's apt has no Debian")
    image = made("python:3.13-slim", store, tmp_path)
    said = inside(store, image, "python --version; pip --version; . /etc/os-release; echo $VERSION_CODENAME")
    assert said.startswith("Python 3.13.")
    assert said.splitlines()[-1] == "trixie"
    assert image.config.environment["PYTHON_VERSION"] in said
    assert (image.origin, image.base and image.base.name) == (Origin.RECIPE, "debian:trixie-slim")


def test_packages_may_be_installed_and_modules_are_compiled(store: Store, python: Image) -> None:
    assert inside(store, python, "find / -xdev -name EXTERNALLY-MANAGED") == ""
    assert "force-unsafe-io" in inside(store, python, "cat /etc/dpkg/dpkg.cfg.d/*").splitlines()
    # -v says "matches" for a module whose compiled form is of its source's time, which a layer must not change
    loud = inside(store, python, "python3 -v -c 'import json.decoder' 2>&1 | grep -c 'json.*matches'")
    assert int(loud) >= 2


def test_nothing_of_the_host_or_of_the_moment_is_left(store: Store, python: Image) -> None:
    manifest = store.manifest(python).text_path.read_text()
    paths = {line.rpartition(" ")[2] for line in manifest.splitlines()}
    assert not paths & {"/etc/machine-id", "/var/log/dpkg.log", "/etc/passwd-", "/var/cache/apt/pkgcache.bin"}
    assert not [path for path in paths if path.startswith(("/var/lib/apt/lists/", "/tmp/", "/usr/share/man/man1/"))]
    text = "\n".join(line for line in manifest.splitlines() if "/log/" in line and line.startswith("f"))
    assert all(line.split(" ")[4] == "0" for line in text.splitlines())


def test_an_interrupted_bootstrap_leaves_nothing(tmp_path: Path) -> None:
    if not sources_for("bookworm"):
        pytest.skip("this host's apt has no Debian bookworm")
    script = (
        "import sys, pathlib\nfrom lab.images.debian.recipes import RECIPES\nfrom lab.images.store import Store\n"
        "store = Store.open(pathlib.Path(sys.argv[1]))\n"
        "RECIPES['debian:bookworm-slim'].make('x', store=store, progress=print, build_recipe=None, resolve=None)\n"
    )
    before = mountinfo()
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 400
    while not list(tmp_path.glob("tmp/*/debian-*/root/var/lib/dpkg/*")):
        assert time.monotonic() < deadline, "mmdebstrap never began"
        assert child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    child.wait(120)
    while any(
        str(tmp_path) in line for line in run(["ps", "-eo", "args"], timeout_seconds=250).stdout.decode().splitlines()
    ):
        assert time.monotonic() < deadline, "a process of mmdebstrap's is still there"
        time.sleep(0.05)
    assert not list((tmp_path / "tmp").iterdir())
    assert not list((tmp_path / "layers").iterdir())
    assert mountinfo() == before
