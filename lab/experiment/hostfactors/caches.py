"""Cold and warm: whether the host has in memory what an instance reads at its start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.experiment.hostfactors.base import HostFactor
from lab.host.kernel import pagecache
from lab.host.units import format_bytes
from lab.instance import Backend, LaunchRequest
from lab.metrics.base import Observation

if TYPE_CHECKING:
    from lab.backends.site import Site

WARM, COLD = "warm", "cold"
MOST_NAMED = 5
SHARED_ATTEMPTS = 4  # what is mapped never goes; what is dirty or on its way out of a socket has by then


class Caches(HostFactor):
    """The host's page cache of what lab made for the instance: layers, disks, guest kernel, its helper program.

    ``cold``: all of it is evicted, file by file, and nothing is seen to stay; else the instance counts as failed.
    ``warm``: what is missing is read, and looked at again; a host without room for it stays below 100 %, which is
    recorded. Either way ``caches.resident`` says how many bytes were there right before the request.

    Left alone, and so warm in both: what is the host's own (QEMU, its libraries and firmware, lab's interpreter),
    directory entries and inodes, and what lies below the host's disk. A guest's own page cache is empty at every
    boot: its kernel has just started.
    """

    name = "caches"
    levels = (WARM, COLD)
    tells = "what a start takes when all that lab made for it has to be read from the disk"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._found: dict[tuple[str, ...], tuple[pagecache.File, ...]] = {}

    @classmethod
    def applies_to(cls, backend: type[Backend]) -> bool:
        """Only who tells what its instances read can have it evicted."""
        return backend.files is not Backend.files

    @contextmanager
    def at(
        self, level: str, backend: Backend, request: LaunchRequest, *, shared: bool = False
    ) -> Iterator[list[Observation]]:
        """As `HostFactor.at`. ``shared`` with copies that stand already: what they have mapped stays, and is told."""
        files = self._files(backend, request)
        if not files and level == WARM:  # nothing is known, and nothing is said
            yield []
            return
        if not files:
            raise LabError(
                f"backend {backend.name} doesn't tell which files its instances read",
                hint=f"leave out caches, or give it a method files: {backend.__module__}",
            )
        try:
            attempts = SHARED_ATTEMPTS if shared else pagecache.ATTEMPTS
            seen = pagecache.evict(files, attempts=attempts) if level == COLD else pagecache.fill(files)
        except OSError as error:
            raise LabError(f"the caches of {backend.name} can't be made {level}: {error}") from error
        if level == COLD and seen.resident_bytes and not shared:
            stayed = format_bytes(seen.resident_bytes)
            raise LabError(
                f"{stayed} of what {backend.name} reads can't be evicted from the page cache",
                hint="stop what else runs from this image (lab ps); a LAB_HOME in memory, on a tmpfs, is never cold",
                detail="\n".join(file.path for file in seen.against[:MOST_NAMED]),
            )
        detail = {"level": level, "files": seen.files, "data_bytes": seen.data_bytes, "share": seen.share}
        yield [Observation(quantity="caches.resident", value=float(seen.resident_bytes), unit="bytes", detail=detail)]

    def _files(self, backend: Backend, request: LaunchRequest) -> tuple[pagecache.File, ...]:
        """Found once: nothing of it changes while it is prepared, and rehearsed for requests of that kind."""
        knobs = (f"{name}={value}" for name, value in sorted(request.knobs.items()))
        key = (backend.name, request.image.digest, repr((request.process, request.limits)), *knobs)
        if key not in self._found:
            self._found[key] = pagecache.find(backend.files(request.image, request.knobs))
        return self._found[key]
