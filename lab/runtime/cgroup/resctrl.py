"""Classes of service of the last cache and of memory bandwidth: Intel RDT (config-linux.md "IntelRdt").

A class is a folder in the resctrl file system, which who administers the host mounts; lab never does. One that was
made for a container is removed with it; one that bears a name of the caller's stays. Sources: the kernel's
Documentation/filesystems/resctrl.rst.
"""

from __future__ import annotations

import os

from lab.errors import LabError
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.config.model import IntelRdt

DEFAULT_CLASS = "/"
MONITORS = "mon_groups"


def mounted() -> str:
    """Where the file system is mounted. Raises LabError if it is not."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            if fields[2] == "resctrl":
                return fields[1]
    raise LabError(
        "linux.intelRdt: no resctrl file system is mounted",
        hint="mount -t resctrl resctrl /sys/fs/resctrl, on a host whose processor has RDT",
    )


class Class:
    """That of one container."""

    def __init__(self, wanted: IntelRdt, identity: str) -> None:
        """Raises LabError without a resctrl file system. Nothing is made yet."""
        root = mounted()
        self._wanted = wanted
        self._own = not wanted.clos_id  # it is the container's alone, and goes with it
        own_name = wanted.clos_id or identity
        self._folder = root if own_name == DEFAULT_CLASS else f"{root}/{own_name}"
        self._monitor = f"{self._folder}/{MONITORS}/{identity}" if wanted.enable_monitoring else ""

    def make(self) -> None:
        """The folder, with its schemata; that of a class that exists is compared.

        Raises LabError, OSError; what was made is gone again then, and what was there before stays.
        """
        made: list[str] = []
        try:
            self._make(made)
        except BaseException:
            for folder in reversed(made):
                os.rmdir(folder)
            raise

    def _make(self, made: list[str]) -> None:
        lines = self._lines()
        if not self._own and not lines:
            if not os.path.isdir(self._folder):
                raise LabError(f"linux.intelRdt.closID: there is no class {self._wanted.clos_id}")
        elif self._own or not os.path.isdir(self._folder):
            os.mkdir(self._folder)
            made.append(self._folder)
            for line in lines:
                _write(f"{self._folder}/schemata", f"{line}\n")
        else:
            self._compare(lines)
        if self._monitor:
            os.mkdir(self._monitor)
            made.append(self._monitor)

    def _lines(self) -> list[str]:
        """Of schemata, in the order in which they are written."""
        wanted = self._wanted
        cache = [line for line in wanted.l3_cache_schema.splitlines() if line]
        if wanted.mem_bw_schema:
            cache = [*[line for line in cache if not line.startswith("MB:")], wanted.mem_bw_schema]
        return [*cache, *wanted.schemata]

    def _compare(self, wanted: list[str]) -> None:
        """The kernel pads what it shows; a line is the same if its name and its values are."""
        with open(f"{self._folder}/schemata") as file:
            held = [_normal(line) for line in file]
        for line in wanted:
            if not any(_normal(line).items() <= each.items() for each in held):
                raise LabError(f"linux.intelRdt: class {self._wanted.clos_id} exists, and has not {line}")

    def enter(self, pid: int) -> None:
        """Put the process, and those that it is going to fork, into the class. Raises OSError."""
        _write(f"{self._folder}/tasks", str(pid))
        if self._monitor:
            _write(f"{self._monitor}/tasks", str(pid))

    def remove(self) -> None:
        """What was made for this container alone. Idempotent."""
        for folder in (self._monitor, self._folder if self._own else ""):
            if folder:
                with suppress(FileNotFoundError):
                    os.rmdir(folder)


def _normal(line: str) -> dict[str, str]:
    """``  L3:0=0fff;1=f`` → {"": "L3", "0": "fff", "1": "f"}."""
    name, _, values = line.strip().partition(":")
    pairs = [each.partition("=") for each in values.split(";") if each]
    return {"": name.strip()} | {key.strip(): value.strip().lstrip("0") or "0" for key, _, value in pairs}


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (writing {text.strip()!r})", path) from error
    finally:
        os.close(descriptor)
