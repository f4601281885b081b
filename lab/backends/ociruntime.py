"""A runtime of the user's: any program with the OCI command line, by its path or its name in PATH.

Each is a backend of its own, found by its name from then on: ``oci:runc-1.4`` for ``oci:./runc-1.4``. The container
is what it is under `lab.backends.runc`; only the program is another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from lab.backends import registry
from lab.backends.reference import Reference, binary_knob
from lab.backends.support.brought import Brought
from lab.backends.support.programs.binary import BINARY, WRITTEN, Binary, locate, look_at
from lab.errors import UsageError
from lab.instance import NO_KNOBS
from lab.model import Check

REMEDY = "an OCI runtime: runc, crun, youki, or whatever takes the same command line"
OWN_BACKENDS = {"runsc": "gvisor"}


class OciRuntime(Reference, Brought):
    """What the backends of all such runtimes have in common; ``path`` is the program of one."""

    prefix = "oci:"
    rootless = True
    first_order = 36  # right behind crun
    package = ""
    path: ClassVar[Path]

    @classmethod
    def bring(cls, rest: str, *, form: str = "", backing: Sequence[Path] = ()) -> type[Self]:
        """Raises UsageError for what can't be executed. Whether it is a runtime, `check` says."""
        if not rest:
            raise UsageError(f"{cls.prefix} without a runtime", hint=WRITTEN)
        return cls._of(locate(rest))

    @classmethod
    def is_same(cls, other: type[Brought]) -> bool:
        return issubclass(other, OciRuntime) and cls.path == other.path

    @classmethod
    def recall(cls, rest: str) -> type[Self]:
        return cls._of(Path(rest))

    @classmethod
    def _of(cls, path: Path) -> type[Self]:
        kind = registry.make(
            cls,
            path.name,
            word=f"{cls.prefix}{path}",
            path=path,
            title=f"container ({path.name})",
            mechanism=f"the same container as lab's, made by {path.name}, a runtime of the user's",
            knobs=(binary_knob(str(path)),),
        )
        registry.admit(kind)
        return kind

    @classmethod
    def kin(cls) -> str:
        return cls.binary().answers.program

    @classmethod
    def binary(cls, knobs: Mapping[str, str] = NO_KNOBS) -> Binary:
        return look_at(locate(knobs[BINARY]) if BINARY in knobs else cls.path)

    @classmethod
    def _check_program(cls) -> Check:
        binary = cls.binary()
        trouble, remedy = binary.answers.trouble, REMEDY
        if not trouble and binary.answers.program in OWN_BACKENDS:
            name = OWN_BACKENDS[binary.answers.program]
            trouble = (
                f"{binary.answers.program} gives its containers a kernel of their own, and is a backend of its own"
            )
            remedy = f"--on {name} --knob {BINARY}={binary.path}"
        return Check(
            name=cls.name,
            ok=not trouble,
            found=f"{binary.path}: {trouble or binary.answers.describe()}",
            remedy=remedy,
            required_by=(cls.name,),
        )
