"""Runtimes of the user's, by path: run as runc is, and whatever one of them does, a line and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import contract
import preloaded
import pytest
from detached import detached
from host_state import assert_unchanged, descendants, snapshot, wait_until
from tiny import tiny_image

from lab.backends import registry
from lab.backends.ociruntime import OciRuntime
from lab.backends.site import Site
from lab.backends.support.programs import children, ocicontainer
from lab.errors import LabError, LaunchError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.images.store import Image

RUNC = shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""
LAB = [sys.executable, "-m", "lab.cli.main"]
VERB = "for word do case $word in create|start|delete|exec) verb=$word; break;; esac; done"
FAULTS = {
    "hangs in create": ("create", "sleep 600 & wait", "runtime create did not end within"),
    "is killed in create": ("create", "kill -9 $$", "ended by signal 9"),
    "makes nothing": ("create", "exit 0", "left no process"),
    "names a process that is not its own": ("create", "{named}; exit 0", "left no process"),
    "fails without a word": ("create", "exit 5", "exit code 5, and gave no reason"),
    "logs text": ("create", "{logged}; exit 1", "gave no reason"),
    "is killed behind create": ("create", '{runc} "$@"; kill -9 $$', "ended by signal 9"),
    "hangs in start": ("start", "sleep 600 & wait", "within"),
    "fails in start": ("start", "exit 3", "exit code 3"),
}
BEFORE = 'while [ "$1" != {option} ]; do shift; done'
NAMED = f"({BEFORE.format(option='--pid-file')}; echo 1 > $2)"
LOGGED = f"({BEFORE.format(option='--log')}; echo level=error msg=text > $2)"


def faulty(path: Path, verb: str, instead: str) -> Path:
    """runc, but for one verb."""
    body = instead.format(runc=RUNC, named=NAMED, logged=LOGGED)
    path.write_text(f'#!/bin/sh\n{VERB}\n[ "$verb" != {verb} ] || {{ {body}; }}\nexec {RUNC} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module", autouse=True)
def installed(missing: Callable[[str], None]) -> None:
    if not RUNC:
        missing("runc")


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    built = tiny_image(site.store)
    site.backend("runc").prepare(built)
    return built


@pytest.fixture
def bring(site: Site) -> Iterator[Callable[[Path], str]]:
    """The name of the backend of a runtime."""
    known = set(registry.admitted())
    yield lambda path: OciRuntime.bring(str(path)).name
    for name in set(registry.admitted()) - known:
        del registry._admitted[name]
        site._backends.pop(name, None)


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_it_does_is_said_and_leaves_nothing(
    site: Site,
    image: Image,
    bring: Callable[[Path], str],
    tmp_path: Path,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "hangs" in fault:
        monkeypatch.setattr(children, "TIMEOUT_SECONDS", 2.0)
        monkeypatch.setattr(ocicontainer, "TIMEOUT_SECONDS", 2.0)
    verb, instead, told = FAULTS[fault]
    backend = bring(faulty(tmp_path / "runtime", verb, instead))
    site.backend(backend).prepare(image)
    before, children_before = snapshot(), descendants()
    with pytest.raises(LaunchError, match=told) as refused:
        site.backend(backend).launch(contract.request(site, image, "faulty", "sleep", "600", logs=tmp_path / "logs"))
    assert "\n" not in refused.value.message
    assert_unchanged(before)
    assert wait_until(lambda: descendants() <= children_before), "a process, or what is left of one"
    assert not ControlGroup.open(group_of(site.session.id, "faulty")).exists()


@pytest.mark.parametrize("way", ["hangs", "is gone"])
def test_one_that_does_not_delete_keeps_nothing_alive(
    site: Site,
    image: Image,
    bring: Callable[[Path], str],
    tmp_path: Path,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = faulty(tmp_path / "runtime", "delete", "sleep 600 & wait")
    before, children_before = snapshot(), descendants()
    name = bring(path)
    wanted = contract.request(site, image, "kept", "sleep", "600", logs=tmp_path / "logs")
    instance = site.backend(name).launch(wanted)
    monkeypatch.setattr(ocicontainer, "TIMEOUT_SECONDS", 1.0 if way == "hangs" else 30.0)  # of deleting alone
    if way == "is gone":
        path.unlink()
    with pytest.raises(LabError, match="runtime did not delete it") as refused:
        instance.stop(grace_seconds=0)
    assert "was ended" in refused.value.message
    assert_unchanged(before)
    assert wait_until(lambda: descendants() <= children_before)
    assert not ControlGroup.open(group_of(site.session.id, "kept")).exists()


def test_one_that_was_exchanged_starts_nothing_more(
    site: Site, image: Image, bring: Callable[[Path], str], tmp_path: Path
) -> None:
    path = tmp_path / "runtime"
    shutil.copy(RUNC, path)
    backend = site.backend(bring(path))
    with backend.launch(contract.request(site, image, "first", "true", logs=tmp_path / "logs")) as instance:
        assert instance.wait(120) == 0
    other = tmp_path / "other"
    shutil.copy(RUNC, other)
    other.rename(path)
    before = snapshot()
    with pytest.raises(LaunchError, match="was changed since lab has looked at it"):
        backend.launch(contract.request(site, image, "second", "true", logs=tmp_path / "logs2"))
    assert_unchanged(before)


def test_a_detached_one_is_lived_with_from_any_folder(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its supervisor finds it, and the next, when that was killed, though the runtime is gone: it can be ended."""
    before = snapshot()
    monkeypatch.chdir(tmp_path)
    shutil.copy(RUNC, "my runc")
    with detached() as instances:
        record = instances.run("own", "--on", "oci:./my runc", "tiny", "--", "sleep", "600")
        monkeypatch.chdir("/")
        assert instances.lab("exec", record.name, "echo", "inside").stdout == "inside\n"
        os.kill(record.supervisor.number, signal.SIGKILL)
        assert wait_until(lambda: not record.supervisor.lives())
        (tmp_path / "my runc").unlink()
        told = instances.lab("stop", record.name, code=1).stderr
        assert instances.record("own").error in told
        assert "did not delete it" in told
    assert_unchanged(before)


FORGETFUL = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import contract
from tiny import tiny_image
from lab.backends.ociruntime import OciRuntime
from lab.backends.site import Site
site = Site.open()
image = tiny_image(site.store)
backend = site.backend(OciRuntime.bring({path!r}).name)
backend.prepare(image)
backend.launch(contract.request(site, image, "lost", "sleep", "600", logs=Path({logs!r})))
print(site.session.id, flush=True)
input()
"""


@pytest.mark.alone
def test_a_killed_lab_leaves_nothing_though_the_runtime_is_gone(image: Image, tmp_path: Path) -> None:
    before = snapshot()
    path = tmp_path / "runtime"
    shutil.copy(RUNC, path)
    tests = str(Path(contract.__file__).parent)
    script = FORGETFUL.format(tests=tests, path=str(path), logs=str(tmp_path / "logs"))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout
        group = ControlGroup.open(group_of(lab.stdout.readline().strip()))
        assert group.processes()
        path.unlink()
        lab.kill()
    deadline = time.monotonic() + 100
    while group.exists() and time.monotonic() < deadline:
        preloaded.run([*LAB, "clean"], check=False, capture_output=True)
        time.sleep(0.1)
    assert not group.exists()
    assert_unchanged(before)


def test_the_questions_are_asked_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backend's name has a sign that no name of an instance may have."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(RUNC, "runc_copy")
    words = [*LAB, "isolation", "--on", "oci:./runc_copy", "--probe", "set-hostname", "--json"]
    done = preloaded.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert (answer["backend"], answer["as_expected"]) == ("oci:runc-copy", True)
