"""What RUN needs of a container runtime. The runtime is above this package: the caller of a build hands one in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab.model import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    """A file, directory or socket of the host at ``target`` in the step."""

    target: str
    source: Path
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsMount:
    """An empty file system in memory; ``size_bytes`` None is the kernel's default, half of the memory."""

    target: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersMount:
    """Directories merged by overlayfs, the top one first; writes go to ``upper``, or are refused without."""

    target: str
    lower: tuple[Path, ...]
    upper: Path | None = None
    work: Path | None = None


StepMount = BindMount | TmpfsMount | LayersMount


class StepRunner(Protocol):
    """Runs steps, several at once from different threads."""

    def run(
        self,
        process: Process,
        *,
        lower_directories: Sequence[Path],
        upper_directory: Path,
        work_directory: Path,
        output: Callable[[bytes], None],
        mounts: Sequence[StepMount] = (),
        network: bool = True,
    ) -> int:
        """Run ``process`` to its end in an overlay of the directories; its exit code.

        ``network`` is the host's, or none but loopback. Standard output and error go to ``output`` as they come,
        standard input is empty. The overlay is mounted with ``redirect_dir=off,metacopy=off``: a layer has to be
        complete in itself. What ``mounts`` need as mount points is not left in it.
        """

    def stop(self) -> None:
        """Kill the steps that run now; their `run` ends soon, with any exit code."""
