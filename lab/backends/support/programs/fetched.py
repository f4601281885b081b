"""A program that a backend rests on: the host's own, or Debian's, fetched past what the host has, or a named one.

`Source` says which package it is, finds and fetches it, by `lab.images.debian.fetching`. `Fetched` is what backends
have in common whose knob ``binary`` takes another program of the same kind.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Generic, TypeVar

from lab.backends.support.base import SiteBackend
from lab.backends.support.programs.binary import BINARY, Binary, locate
from lab.errors import LabError, UsageError
from lab.host.survey.patience import Deadline
from lab.images.debian import fetching
from lab.images.debian.fetching import Unpacked
from lab.instance import NO_KNOBS
from lab.model import Check

ASKED_SECONDS = 10.0
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program, as it was when it was first looked at. ``version`` is what it says of itself, "" of what is none of
    the kind; ``trouble`` says in a line why it can't be used, "" of one that can; ``libraries`` has what it is linked
    with, and its loader, where that has to be brought along.
    """

    binary: Binary
    version: str
    trouble: str
    libraries: tuple[Path, ...] = ()

    @property
    def path(self) -> Path:
        """Its file."""
        return self.binary.path

    @property
    def identity(self) -> Mapping[str, str]:
        """What a run keeps of it. Raises LabError when it is not the one that it was."""
        self.binary.require_unchanged()
        return {"path": str(self.path), "version": self.version, "digest": self.binary.digest}


P = TypeVar("P", Binary, Program)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Generic[P]):
    """Where the program of ``backend`` comes from: ``program`` in PATH, else that of ``package``, of about ``size``,
    of Debian's ``suite``, which is ``release``; kept as ``<home>/programs/<package>-<version>/<kept_as>``.
    """

    backend: str
    package: str
    suite: str
    release: str
    size: str
    program: str
    kept_as: str
    look_at: Callable[[Path], P]
    trouble: Callable[[P], str]  # why it can't be used, "" of one that can
    newness: Callable[[Path], float]  # of several that were fetched the greatest is used
    also: tuple[str, ...] = ()  # packages that it needs, of the same release, fetched with it
    beside: tuple[str, ...] = ()  # patterns of files of theirs that are kept beside it

    def installed(self) -> P | None:
        """The host's own, whether it can be used or not."""
        try:
            return self.look_at(locate(self.program))
        except UsageError:
            return None

    def find(self) -> P | None:
        """The one to use: the host's if it can be used, else one that was fetched; None when there is neither."""
        own = self.installed()
        if own is not None and not self.trouble(own):
            return own
        kept = fetching.programs().glob(f"{self.package}-*/{self.kept_as}")
        newest = max(kept, key=self.newness, default=None)
        return None if newest is None else self.look_at(newest)

    def unfetched(self) -> str:
        """What would have to be fetched; "" where it is here."""
        return "" if self.find() else f"{self.release}'s {self.package}"

    def fetch(self, told: Callable[[str], None]) -> P:
        """The one to use, fetched if need be, of which ``told`` gets a sentence before. Raises as
        `lab.images.debian.fetching.fetch_once` does.
        """

        def tell(place: Path) -> None:
            what = f"{self.release}'s {self.package}, {self.size}"
            told(f"lab: fetching {what}, into {place}: once, the host stays as it is")

        return fetching.fetch_once(
            self.package, self.suite, told=tell, known=self.find, keep=self._keep, also=self.also
        )

    def check(self, describe: Callable[[P], str], remedy: str) -> Check:
        """Whether it is there, or can be fetched when it is asked for; of the host's own, why it can't be used."""
        own, found = self.installed(), self.find()
        trouble = self.trouble(own) if own is not None else ""
        why = f"{own.path}: {trouble}; " if own is not None and trouble else ""
        if found is not None:
            is_ok = not (lacks := self.trouble(found))
            said = f"{found.path}: {lacks or describe(found)}"
        elif is_ok := fetching.can_be_fetched(self.suite):
            what = f"{self.release}'s, {self.size}, and leaves the host alone"
            said = f"not here; --on {self.backend} fetches {what}"
        else:
            said = "not installed, and this host's apt has no Debian archive to fetch it from"
        return Check(name=self.backend, ok=is_ok, found=f"{why}{said}", remedy=remedy, required_by=(self.backend,))

    def _keep(self, package: Unpacked, made: Path) -> P:
        kept = made / self.kept_as
        shutil.copyfile(package.root / "usr/bin" / self.program, kept)
        kept.chmod(0o755)  # whatever the package says: a set-uid bit is of no use to root
        for pattern in self.beside:
            for found in package.root.glob(pattern):
                shutil.copyfile(found, made / found.name)
        shutil.copy(package.root / "usr/share/doc" / self.package / "copyright", made / "copyright")
        if why := self.trouble(self.look_at(kept)):
            raise LabError(
                f"{self.release}'s {self.package} can't be used: {why}", hint=f"lab doctor --on {self.backend}"
            )
        wanted = fetching.programs() / f"{self.package}-{package.version}"
        made.rename(wanted)
        return self.look_at(wanted / self.kept_as)


def trouble_of(program: Program) -> str:
    """For a `Source` of programs that say themselves why they can't be used."""
    return program.trouble


def fetched_at(path: Path) -> float:
    """When that file was written, in seconds since the epoch."""
    return path.stat().st_mtime


def asked(*words: str | Path, environment: Mapping[str, str] = NO_VARIABLES) -> str:
    """What a strange program prints when it is called like that, in an environment that has nothing else; "" where it
    fails, or takes longer than `ASKED_SECONDS`, of which an emulated host gives it more.
    """
    deadline, variables = Deadline(ASKED_SECONDS), {"PATH": SYSTEM_PATH, "LC_ALL": "C", **environment}
    with tempfile.TemporaryFile() as output:
        try:
            asked_one = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL, cwd="/", env=variables
            )
        except OSError:
            return ""
        with asked_one:
            code = deadline.ended(asked_one)
            asked_one.kill()
        output.seek(0)
        return output.read().decode("utf-8", "replace") if code == 0 else ""


class Fetched(SiteBackend):
    """A backend that rests on a program of a `Source`; one of its knobs is `BINARY`."""

    source: ClassVar[Source[Program]]
    another: ClassVar[str]  # what to name as binary instead of what can't be used
    is_its: ClassVar[str]  # what the program is to its instances: "Its kernel"

    @classmethod
    def program(cls, knobs: Mapping[str, str] = NO_KNOBS) -> Program:
        """That of instances with these knobs. Raises UsageError where it can't be executed or is none."""
        wanted = knobs.get(BINARY, cls.source.program)
        if wanted == cls.source.program:
            if found := cls.source.find():
                return found
            raise UsageError(f"{wanted} is not here yet", hint=f"lab run or compare --on {cls.name} fetches it")
        program = cls.source.look_at(locate(wanted))
        if program.trouble:
            raise UsageError(f"{wanted} can't be used: {program.trouble}", hint=cls.another)
        return program

    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        levels = super().settle(knobs)
        if levels[BINARY] != cls.source.program:  # the usual one is looked at by `check`
            levels[BINARY] = str(cls.program(levels).path)
        return levels

    @classmethod
    def made_by(cls, knobs: Mapping[str, str] = NO_KNOBS) -> Mapping[str, str]:
        return cls.program(knobs).identity

    @classmethod
    def differences(cls, knobs: Mapping[str, str] = NO_KNOBS) -> tuple[str, ...]:
        told = cls.made_by(knobs)
        made = f"{cls.is_its}: {told['path']}: {told['version']}, {told['digest'][:19]}…"
        return (*super().differences(knobs), made)

    @classmethod
    def unfetched(cls) -> str:
        return cls.source.unfetched()

    @classmethod
    def fetch(cls, told: Callable[[str], None]) -> None:
        cls.source.fetch(told)

    @classmethod
    def _check_program(cls) -> Check:
        """One of those of `check`."""
        return cls.source.check(lambda found: found.version, f"apt-get install {cls.source.package}")
