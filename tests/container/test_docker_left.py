"""A Docker Engine of the tests leaves nothing on the host; what killed tests left of one, the next ones remove."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import dockering
import pytest
from oci import until

from lab.backends.engine import dockerd
from lab.host.cgroup import delegation
from lab.host.cgroup.mounted import host

ALONE = """
import sys
sys.path[:0] = sys.argv[1:2]
import dockering
with dockering.opened() as engine:
    docker = dockering.Docker(engine, "lab-oci")
    docker.background()
    docker.background("--network=bridge", "--restart", "always")
    print(engine.folder, flush=True)
    sys.stdin.read()
"""


def begun() -> tuple[subprocess.Popen[str], Path]:
    """Another process of tests, whose engine has two containers; and the engine's folder."""
    words = [sys.executable, "-c", ALONE, str(Path(__file__).parent)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def left(folder: Path, group: str) -> list[str]:
    """What there is of an engine: its folder, processes, mounts, control groups."""
    found = [str(folder)] if folder.exists() else []
    found += [line for line in Path("/proc/self/mountinfo").read_text().split("\n") if str(folder) in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{group}")]
    found += [str(Path(place) / group) for place in host().places(()) if (Path(place) / group).exists()]
    return found + processes(folder)


def processes(folder: Path) -> list[str]:
    """Those whose command line names it: the daemon, and a shim of each container, whose bundle is below it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_text(errors="replace")
                alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            except OSError:
                continue
            if alive and (str(folder) in line or ("containerd-shim" in line and inherits(entry, folder))):
                found.append(f"{entry.name} {line}")
    return found


def inherits(process: Path, folder: Path) -> bool:
    """Whether it sees the engine's images: it is in the daemon's namespace of mounts."""
    try:
        return f" {folder}/data " in (process / "mountinfo").read_text()
    except OSError:
        return False


def test_nothing_is_left_behind(missing: Callable[[str], None]) -> None:
    if dockerd.lacking():
        missing(f"{dockerd.lacking()}, which is Debian's docker.io")
    process, folder = begun()
    group = (folder / "group").read_text()
    assert len(left(folder, group)) > 3, "it is seen while it is there"
    process.communicate("", timeout=250)
    assert process.returncode == 0
    assert left(folder, group) == []


def test_what_killed_tests_leave_the_next_ones_remove(missing: Callable[[str], None]) -> None:
    if dockerd.lacking():
        missing(f"{dockerd.lacking()}, which is Debian's docker.io")
    process, folder = begun()
    group = (folder / "group").read_text()
    dockering.remove_abandoned()
    assert len(left(folder, group)) > 3, "whose tests live, stays"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=250)
    if not delegation.here():  # where systemd has to know the processes, they have no namespace that would end them
        until(lambda: not processes(folder), "the end of the daemon and its containers")
    dockering.remove_abandoned()
    assert left(folder, group) == []


def test_what_somebody_else_has_put_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could name any control group of the host's, or any unit of systemd's, to be killed by root."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    removed: list[Path] = []
    monkeypatch.setattr(dockering, "remove", removed.append)
    ours, theirs, link = (tmp_path / f"{dockering.PREFIX}{name}" for name in ("ours", "theirs", "link"))
    for folder in (ours, theirs):
        folder.mkdir()
        (folder / "lock").touch()
    link.symlink_to(ours)
    for path in (theirs, link):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    dockering.remove_abandoned()
    assert removed == [ours]
