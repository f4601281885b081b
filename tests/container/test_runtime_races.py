"""Containers that start while one that shares a folder with them swaps what is in it, or with too little memory.

A hostile container exchanges two names in its volume as fast as it can (renameat2(2)); the volume is also the root of
others, or is in it, or has the source of a bind. They start by the script and by the reference, as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from roots import open_folder
from running import Start

from lab.errors import LaunchError
from lab.model import Limits, Process
from lab.runtime import bundle
from lab.runtime.config.model import Config
from lab.runtime.launcher.launcher import Directory, Launcher, Overlay

STARTS, MOST_STARTS = 20, 400
VOLUME = "/v"


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder that can be a root as well, once there are programs in it, and beside it one of the host's."""
    with open_folder() as folder:
        for name in ("root/bin", "root/proc", "root/here", "root/tmp", "victim"):
            (folder / name).mkdir(parents=True)
        yield folder / "root"


class Swapping:
    """A container that swaps two names in the volume until it is left."""

    def __init__(self, start: Start, root: Path, volume: Path, *names: str) -> None:
        words = [f"{VOLUME}/{name}" for name in names]
        config = bundle.container_config(
            Process(argv=("escape", "exchange", *words)), extra_mounts=(bundle.bind(volume, VOLUME, read_only=False),)
        )
        self._container, self._said = start(config=config, root=Overlay(lower=(root,)))

    def __enter__(self) -> None: ...

    def __exit__(self, *_error: object) -> None:
        assert self._container.wait(0) is None, self._said.text()
        self._container.close()


def ended(
    start: Start, config: Config, root: Overlay | Directory, *, until: Callable[[list[str]], object] = bool
) -> list[str]:
    """What each of many says that starts; being refused is as good as to be shown nothing. On a busy host who
    swaps them may sleep for a while: more are started ``until`` both was met.
    """
    said: list[str] = []
    for number in range(MOST_STARTS):
        if number >= STARTS and until(said):
            break
        try:
            container, output = start(config=config, root=root)
        except LaunchError:
            continue
        assert container.wait(120) is not None
        container.close()
        said.append(output.text())
    assert said, "not one start succeeded: nothing was shown"
    return said


def failed_scripts(launcher: Launcher) -> int:
    return (launcher.scratch / "launcher.log").read_text().count("the script for ")


def test_a_mount_stays_within_the_root(
    start: Start, launcher: Launcher, escape_root: Path, busybox_root: Path, volume: Path
) -> None:
    """The volume is the other's root: its mount point is a folder, and a link to one of the host's."""
    (volume / "link").symlink_to(f"../../../../../../../..{volume.parent}/victim")
    mounts = (bundle.bind(busybox_root / "bin", "/bin"), bundle.bind(busybox_root / "tmp", "/here/below"))
    config = bundle.container_config(Process(argv=("true",)), extra_mounts=mounts)
    failed = failed_scripts(launcher)
    with Swapping(start, escape_root, volume, "here", "link"):
        ended(start, config, Directory(path=volume), until=lambda said: said and failed_scripts(launcher) > failed)
    assert failed_scripts(launcher) > failed, "no script met the link"
    assert not list((volume.parent / "victim").iterdir()), "a folder was made on the host"
    assert str(volume) not in Path("/proc/self/mountinfo").read_text()


def test_a_mount_in_a_volume_stays_in_the_root(
    start: Start, escape_root: Path, busybox_root: Path, volume: Path
) -> None:
    """The other has the volume too, and something is mounted in it."""
    (volume / "link").symlink_to(f"../../../../../../../..{volume.parent}/victim")
    mounts = (bundle.bind(volume, VOLUME, read_only=False), bundle.bind(busybox_root / "tmp", f"{VOLUME}/here/below"))
    config = bundle.container_config(Process(argv=("true",)), extra_mounts=mounts)
    with Swapping(start, escape_root, volume, "here", "link"):
        ended(start, config, Overlay(lower=(busybox_root,)))
    assert not list((volume.parent / "victim").iterdir()), "a folder was made on the host"


def test_what_is_read_only_stays_so_whatever_its_source_is(
    start: Start, escape_root: Path, busybox_root: Path, volume: Path
) -> None:
    """The source is in the volume, so its owner says what is seen; but not that it can be written to."""
    (volume / "link").symlink_to(volume.parent / "victim")
    mounts = (bundle.bind(volume / "here", "/data", read_only=True),)
    script = "touch /data/made 2>/dev/null && echo written || echo refused"
    config = bundle.container_config(Process(argv=("sh", "-c", script)), extra_mounts=mounts)
    with Swapping(start, escape_root, volume, "here", "link"):
        said = ended(start, config, Overlay(lower=(busybox_root,)))
    assert set(said) == {"refused\n"}


def test_masks_are_where_they_belong(start: Start, escape_root: Path, busybox_root: Path, volume: Path) -> None:
    """The other's /proc is a folder, then a link: whoever sees the kernel's files sees them masked and locked."""
    (volume / "link").symlink_to("tmp")
    script = """
    cd /proc # once: it is swapped still
    [ -e self/stat ] || exec echo none
    head -c 1 interrupts | wc -c
    true 2>/dev/null >> sys/kernel/core_uses_pid && echo opened
    """
    mounts = (bundle.bind(busybox_root / "bin", "/bin"),)
    config = bundle.container_config(Process(argv=("sh", "-c", script)), extra_mounts=mounts)
    with Swapping(start, escape_root, volume, "proc", "link"):
        said = ended(start, config, Directory(path=volume), until=lambda said: "0\n" in said)
    assert set(said) <= {"0\n", "none\n"}
    assert "0\n" in said


def test_too_little_memory_costs_nobody_else_anything(start: Start, launcher: Launcher) -> None:
    """A start that the kernel ends for that is told, and the others go on: those that ran, and those to come."""
    witness, _ = start("exec sleep 1000")
    told = []
    for pages in (1, 16, 64, 128, 256, 512):
        try:
            container, _ = start("true", limits=Limits(memory_bytes=pages << 12))
        except LaunchError as error:
            told.append(f"{error}")
            continue
        container.wait(120)
        container.close()
    assert told, "there was enough"
    assert all("out of memory" in each and "--memory" in each for each in told), told
    assert witness.wait(0) is None
    container, _ = start("exit 7")
    assert container.wait(120) == 7
