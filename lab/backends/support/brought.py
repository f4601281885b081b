"""Backends of what the user has: each is a class of its own, made when it is asked for, named by a prefix.

``vm:debian12`` boots a disk (`lab.backends.owndisk`), ``oci:runc-1.4`` is a runtime (`lab.backends.ociruntime`).
`lab.backends.registry` finds these two by their prefix, and what they make by its name.
"""

from __future__ import annotations

import itertools
import re
from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Self

from lab.backends.support.base import SiteBackend
from lab.errors import UsageError

LONGEST_NAME = 16


class Brought(SiteBackend):
    """What the backends of one prefix have in common.

    ``word`` is what finds the backend from any folder, and in another process, as `recall` does.
    """

    prefix: ClassVar[str]
    first_order: ClassVar[int]
    word: ClassVar[str]

    @classmethod
    @abstractmethod
    def bring(cls, rest: str, *, form: str = "", backing: Sequence[Path] = ()) -> type[Self]:
        """The backend of what ``rest`` names, which stood behind the prefix; found by its name from now on.

        ``form`` and ``backing`` are about disks. Raises LabError for what can't be used.
        """

    @classmethod
    @abstractmethod
    def is_same(cls, other: type[Brought]) -> bool:
        """Whether ``other`` is of the very same files."""

    @classmethod
    def recall(cls, rest: str) -> type[Self]:
        """The backend whose `word` that is, of an instance that runs already: nothing is looked at, since it may be
        gone. By default there is none.
        """
        raise UsageError(f"no backend is called {cls.prefix}{rest}")


def name_of(prefix: str, short: str, taken: Collection[str] = ()) -> str:
    """``vm:debian12``; for a further one of that name ``vm:debian12-2``."""
    kept = re.sub(r"[^A-Za-z0-9.-]+", "-", short).strip("-.")[:LONGEST_NAME].rstrip("-.") or "own"
    tried = itertools.chain((kept,), (f"{kept}-{number}" for number in itertools.count(2)))
    return next(f"{prefix}{each}" for each in tried if f"{prefix}{each}" not in taken)
