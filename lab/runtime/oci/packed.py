"""The compiled code of all modules that `lab-oci` imports, in one file: sixty of them take long to find.

It is put together from Python's own compiled files by the first process that misses something in it, and lies beside
them. As these it is bound to the version of Python, and each module in it to the size and time of its source. That is
where the module's name says, below the folder that holds all of lab: a copy of it has sources of its own. What is not
in the file, or has changed, is imported as ever. Standard library only, and little of that.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    Stored = tuple[bool, int, int, bytes]  # a package?; time and size of its source; marshalled code

MODE, WRITABLE_FOR_OTHERS = 0o644, 0o022  # whatever the caller's umask is
LENGTH_BYTES = 4
HEADER_BYTES = 16  # of a compiled file: magic number, flags, time of the source in seconds, its size (PEP 552)
PACKAGE = "lab"


class Packed:
    """A finder and loader of modules (importlib.abc), in front of all others."""

    def __init__(self, path: str, top: str) -> None:
        """``path`` is the file, which may be absent, or whatever a crash has left of it; below ``top`` is lab."""
        self._path = path
        self._top = top
        self._stored: dict[str, Stored] = {}
        self._is_complete = True
        with suppress(OSError, ValueError, EOFError, TypeError, AttributeError), open(path, "rb") as file:
            found = os.fstat(file.fileno())
            trusted = (0, os.stat(__file__).st_uid)  # whoever owns the source could change that as well
            if found.st_uid in trusted and not found.st_mode & WRITABLE_FOR_OTHERS:
                self._stored = decode(file.read())

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Of a module whose source is as it was."""
        if not name.startswith(PACKAGE):
            return None
        found = self._stored.get(name)
        if found is None or not self._is_as_it_was(name, found):
            self._is_complete = False
            return None
        source = self._source(name, package=found[0])
        spec = ModuleSpec(name, self, origin=source, is_package=found[0])  # type: ignore[arg-type]
        if found[0]:
            spec.submodule_search_locations = [os.path.dirname(source)]
        return spec

    def _source(self, name: str, *, package: bool) -> str:
        return f"{self._top}/{name.replace('.', '/')}{'/__init__' if package else ''}.py"

    def _is_as_it_was(self, name: str, found: Stored) -> bool:
        return stamp(self._source(name, package=found[0])) == found[1:3]

    def create_module(self, _spec: ModuleSpec) -> None:
        """As modules are made by default."""

    def exec_module(self, module: ModuleType) -> None:
        """Run its code."""
        package, _, _, code = self._stored[module.__name__]
        module.__file__ = self._source(module.__name__, package=package)
        exec(marshal.loads(code), module.__dict__)

    def keep(self) -> None:
        """Let the next process find what this one did not. Where that can't be, nothing is said."""
        if self._is_complete or sys.dont_write_bytecode:
            return
        wanted = {name: each for name, each in self._stored.items() if self._is_as_it_was(name, each)}
        missing = [name for name in sys.modules if name.partition(".")[0] == PACKAGE and name not in wanted]
        for name in missing:
            made = stored(sys.modules[name])
            if made is not None and sys.modules[name].__file__ == self._source(name, package=made[0]):
                wanted[name] = made
        if wanted == self._stored:
            return
        unfinished = f"{self._path}.{os.getpid()}"
        with suppress(OSError):
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
            with open(descriptor, "wb") as file:
                file.write(encode(wanted))
            os.rename(unfinished, self._path)
            return
        with suppress(OSError):
            os.unlink(unfinished)


def encode(modules: dict[str, Stored]) -> bytes:
    """The file: how long its index is; the index, by which the rest is found; all code."""
    code = b"".join([each[3] for each in modules.values()])
    index, at = {}, 0
    for name, each in modules.items():
        index[name] = (*each[:3], at, at := at + len(each[3]))
    head = marshal.dumps((MAGIC_NUMBER, len(code), index))
    return len(head).to_bytes(LENGTH_BYTES, "little") + head + code


def decode(content: bytes) -> dict[str, Stored]:
    """The modules of such a file. Raises ValueError for one of another Python, or that was cut off, …

    EOFError, TypeError or AttributeError for one that is none at all.
    """
    begin = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    magic, size, index = marshal.loads(content[LENGTH_BYTES:begin])
    code = memoryview(content)[begin:]
    if (magic, size) != (MAGIC_NUMBER, len(code)):
        raise ValueError("of another version, or cut off")
    return {name: (*each, code[first:end]) for name, (*each, first, end) in index.items()}


def stamp(source: str) -> tuple[int, int]:
    """By which a change is noticed: time in ns, and size; nothing that can be stored for a file that is not there."""
    try:
        found = os.stat(source)
    except OSError:
        return -1, -1
    return found.st_mtime_ns, found.st_size


def stored(module: Any) -> Stored | None:
    """A module that was imported, by Python's own compiled file of it; None if there is none of this very source."""
    spec = module.__spec__
    if spec is None or not spec.cached:
        return None
    time, size = stamp(spec.origin)
    header = MAGIC_NUMBER + b"".join(each.to_bytes(4, "little") for each in (0, time // 10**9 & 0xFFFFFFFF, size))
    with suppress(OSError), open(spec.cached, "rb") as file:
        content = file.read()
        if content[:HEADER_BYTES] == header:
            return spec.submodule_search_locations is not None, time, size, content[HEADER_BYTES:]
    return None


def installed(folder: str) -> Packed:
    """From now on modules are taken from the file for ``folder``, where they can be."""
    made = Packed(
        f"{folder}/__pycache__/packed.{sys.implementation.cache_tag}", os.path.abspath(f"{folder}/../../..")
    )
    sys.meta_path.insert(0, made)
    return made
