"""The host's page cache, with a control each way: what was read is seen, what was evicted is not."""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lab.errors import LabError, UsageError
from lab.experiment.hostfactors.caches import COLD, WARM, Caches
from lab.experiment.hostfactors.registry import host_levels
from lab.host.kernel import pagecache
from lab.host.kernel.pagecache import PAGE_BYTES, evict, fill, find, look
from lab.metrics.base import Observation
from lab.metrics.boot import fetched_bytes

PAGES = 50


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagecache, "PAUSE_SECONDS", 2e-3)


@pytest.fixture
def folder(missing: Callable[[str], None]) -> Iterator[Path]:
    """On a disk: what lies in a tmpfs is nothing but cache."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        kinds = {line.split()[1]: line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()}
        place = max((point for point in kinds if name.startswith(point.rstrip("/") + "/")), key=len)
        if kinds[place] in ("tmpfs", "ramfs"):
            missing("disk below /var/tmp")
        yield Path(name)


def written(path: Path, pages: int = PAGES) -> Path:
    path.write_bytes(os.urandom(pages * PAGE_BYTES - 7))
    return path


def test_what_is_read_is_seen_and_what_is_evicted_is_not(folder: Path) -> None:
    written(folder / "a")
    written(folder / "b", 3)
    files = find([folder])
    assert [Path(file.path).name for file in files] == ["a", "b"]
    assert look(files).share == 1, "what has just been written is in the cache, and dirty"
    gone = evict(files)
    assert (gone.resident_bytes, gone.against, gone.data_bytes) == (0, (), (PAGES + 3) * PAGE_BYTES)
    seen = look(files)
    assert (seen.resident_bytes, seen.against) == (0, files)
    (folder / "b").read_bytes()
    seen = look(files)
    assert (seen.resident_bytes, seen.against) == (3 * PAGE_BYTES, files[:1])
    full = fill(files)
    assert (full.share, full.against) == (1, ())


def test_what_a_process_has_mapped_stays_and_is_told(folder: Path) -> None:
    path = written(folder / "library")
    (file,) = find([path])
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[0] is not None  # touched: one page at the least is in its page table
        stayed = evict([file])
        assert stayed.against == (file,)
        assert PAGE_BYTES <= stayed.resident_bytes <= file.data_bytes
    assert evict([file]).resident_bytes == 0


def test_what_was_sent_leaves_the_cache_though_nothing_is_received_any_more(folder: Path) -> None:
    """As a web server does: a buffer read on another processor than it was made on holds the file's page."""
    path = written(folder / "page", 1)
    files = find([path])
    processors = sorted(os.sched_getaffinity(0))
    try:
        for turn in range(20):
            with path.open("rb") as file, socket.create_server(("127.0.0.1", 0)) as server:
                os.sched_setaffinity(0, {processors[turn % len(processors)]})
                with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
                    assert os.sendfile(accepted.fileno(), file.fileno(), 0, PAGE_BYTES) == PAGE_BYTES - 7
                    os.sched_setaffinity(0, {processors[(turn + 1) % len(processors)]})
                    assert len(client.recv(PAGE_BYTES - 7, socket.MSG_WAITALL)) == PAGE_BYTES - 7
            os.sched_setaffinity(0, set(processors))
            assert evict(files).resident_bytes == 0
    finally:
        os.sched_setaffinity(0, set(processors))


def test_holes_are_neither_counted_nor_filled(folder: Path) -> None:
    path = folder / "disk"
    with path.open("wb") as disk:
        disk.truncate(1 << 30)
        disk.seek(512 << 20)
        disk.write(os.urandom(4 * PAGE_BYTES))
    (file,) = find([path])
    assert (file.size_bytes, file.data_bytes) == (1 << 30, 4 * PAGE_BYTES)
    evict([file])
    assert fill([file]).resident_bytes == 4 * PAGE_BYTES
    whole = pagecache.File(path=file.path, size_bytes=file.size_bytes, data=((0, file.size_bytes),))
    assert look([whole]).resident_bytes < 64 << 20, "reading ahead is all that touched the hole"


def test_each_inode_once_and_no_link_followed(folder: Path) -> None:
    written(folder / "one")
    (folder / "below").mkdir()
    os.link(folder / "one", folder / "below" / "same")
    (folder / "link").symlink_to("/etc")
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    assert len(find([folder, folder / "one"])) == 1


def test_only_what_was_evicted_is_fetched_from_the_disk(folder: Path) -> None:
    """The kernel's accounting is the other instrument: it counts what was asked of disks, not what is in memory."""
    path = written(folder / "a")
    evict(find([path]))
    before = fetched_bytes(os.getpid())
    if before is None:
        pytest.skip("this kernel doesn't count what a process reads")
    path.read_bytes()
    cold = fetched_bytes(os.getpid())
    path.read_bytes()
    assert cold is not None
    assert cold - before >= PAGES * PAGE_BYTES
    assert fetched_bytes(os.getpid()) == cold
    assert fetched_bytes(1 << 30) == 0, "one that is gone"


def test_no_accounting_is_no_zero(tmp_path: Path) -> None:
    assert fetched_bytes(1, tmp_path) is None
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "io").write_text("rchar: 9\nread_bytes: 4096\nwrite_bytes: 1\n")
    assert fetched_bytes(1, tmp_path) == 4096


class Reading:
    """As much of a backend, and of a request, as the factor asks."""

    name = "reading"
    digest = "sha256:0"
    knobs: ClassVar[dict[str, str]] = {}
    process = limits = None

    def __init__(self, *places: Path) -> None:
        self.places = places

    def files(self, *_: object) -> tuple[Path, ...]:
        return self.places

    @property
    def image(self) -> Reading:
        return self


def observed(level: str, backend: Any, *, shared: bool = False) -> Observation:
    with Caches(None).at(level, backend, backend, shared=shared) as seen:  # type: ignore[arg-type]
        (found,) = seen
        return found


def test_a_level_for_all_is_the_first_unless_named() -> None:
    assert host_levels({"caches": ""}) == {"caches": WARM}
    assert host_levels({"caches": COLD}) == {"caches": COLD}
    assert host_levels({"caches": ""}, {"caches"}) == {}
    with pytest.raises(UsageError, match="--caches lukewarm is no level of it") as caught:
        host_levels({"caches": "lukewarm"})
    assert "warm, cold" in caught.value.hint


def test_the_levels_of_the_factor_are_verified(folder: Path) -> None:
    backend = Reading(written(folder / "a"))
    cold, warm = observed(COLD, backend), observed(WARM, backend)
    assert (cold.quantity, cold.value, cold.detail["level"]) == ("caches.resident", 0, "cold")
    assert (warm.value, warm.detail["share"]) == (PAGES * PAGE_BYTES, 1.0)
    with (folder / "a").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[0] is not None
        with pytest.raises(LabError, match="KiB of what reading reads can't be evicted") as caught:
            observed(COLD, backend)
        assert str(folder / "a") in caught.value.detail
        beside = observed(COLD, backend, shared=True)
        assert 0 < (beside.value or 0) <= PAGES * PAGE_BYTES, "told, and no failure"
    with pytest.raises(LabError, match="doesn't tell which files"):
        observed(COLD, Reading())
    with Caches(None).at(WARM, Reading(), Reading()) as nothing:  # type: ignore[arg-type]
        assert nothing == []
