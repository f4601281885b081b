"""The program of an OCI runtime: where it is, what it says of itself, and that it stays the one that it was.

It is asked in an empty folder, first ``--version`` and ``--help``, and only what offers an OCI runtime's verbs there
is asked for its ``features``, too: to many another program that word would be an order.

Source: OCI Runtime Command Line Interface (opencontainers/runtime-tools); OCI runtime-spec, runtime.md "Operations"
and features.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from lab.errors import LabError, UsageError
from lab.host.command import SYSTEM_FOLDERS
from lab.host.survey.facts import find_version
from lab.host.survey.patience import Deadline

BINARY = "binary"
"""The knob whose levels are programs."""

VERBS = ("create", "start", "state", "kill", "delete")
ASKED_SECONDS = 10.0
LONGEST_LINE = 120
WRITTEN = "oci:./my-runtime, or oci:NAME of one in PATH; a comma ends the name, so what holds one needs a link to it"

_located: dict[str, Path] = {}


def locate(word: str) -> Path:
    """The absolute path of what ``word`` names: a file if it has a slash or a tilde, else a program in PATH.

    It is looked up once in a process, which may change its folder later. Links are followed when it is executed,
    since some programs look at the name that they are called by. Raises UsageError for what can't be executed.
    """
    if word not in _located:
        _located[word] = _found(word)
    return _located[word]


def remember(word: str, path: Path) -> None:
    """Let ``word`` name what it named in another process."""
    _located[word] = path


def _found(word: str) -> Path:
    if not word.isprintable():
        raise UsageError(f"{word!r}: a runtime's path holds signs that can't be printed", hint="rename it")
    if "/" in word or word.startswith("~"):
        with suppress(RuntimeError):  # of a user that there is not
            path = Path(word).expanduser().absolute()
            return _executable(path, word)
        raise UsageError(f"{word}: there is no such user", hint=WRITTEN)
    path_found = shutil.which(word, path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")
    if path_found:
        return Path(path_found).absolute()
    here = Path(word).is_file()
    raise UsageError(
        f"no program in PATH is called {word}", hint=f"./{word}, to name the file here" if here else WRITTEN
    )


def _executable(path: Path, word: str) -> Path:
    try:
        path.stat()
    except OSError:  # there is none, none that may be looked at, or it has a name as no file has
        raise UsageError(f"there is no {word}", hint=WRITTEN) from None
    if path.is_dir():
        raise UsageError(f"{word} is a folder", hint="name the runtime's program in it")
    if not path.is_file():
        raise UsageError(f"{word} is no regular file", hint=WRITTEN)
    if not os.access(path, os.X_OK):
        raise UsageError(f"{word} can't be executed", hint=f"chmod +x {word}, if it is a program")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a runtime says of itself. ``trouble`` says in a line why it is none, "" of a runtime."""

    version: str = ""  # the first line of --version
    features: str = ""  # of the runtime specification, which versions
    trouble: str = ""

    @property
    def program(self) -> str:
        """``runc``, of ``runc version 1.1.5``: what another version of it begins with, too."""
        return re.split(r"[\s:]", self.version, maxsplit=1)[0]

    @property
    def release(self) -> tuple[int, ...]:
        """(1, 1, 5), of ``runc version 1.1.5+ds1``; () of what tells none."""
        found = re.match(r"\d+(\.\d+)*", find_version(self.version) or "")
        return tuple(int(number) for number in found[0].split(".")) if found else ()

    def describe(self) -> str:
        """Both in a line, what is absent included."""
        return f"{self.version or 'tells no version'}, {self.features or 'tells no features'}"


@dataclass(frozen=True)
class Binary:
    """A runtime's program, as it was when it was first looked at."""

    path: Path
    stamp: tuple[int, ...]  # device, inode, size, time of its last change; () where there is none

    @cached_property
    def answers(self) -> Answers:
        """It is asked once, and waited for `ASKED_SECONDS` at most for each answer."""
        return ask(self.path)

    @cached_property
    def digest(self) -> str:
        """``sha256:…`` of its bytes."""
        with self.path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

    @property
    def identity(self) -> dict[str, str]:
        """What a run keeps of it. Raises LabError when it is not the one that it was."""
        self.require_unchanged()
        answers = self.answers
        return {
            "path": str(self.path),
            "version": answers.version,
            "features": answers.features,
            "digest": self.digest,
        }

    def require_unchanged(self) -> None:
        """Raises LabError when its file is another than it was."""
        if not self.stamp or _stamp(self.path) != self.stamp:
            what = "is not there any more" if not self.path.exists() else "was changed since lab has looked at it"
            raise LabError(
                f"{self.path} {what}: what it starts now can't be compared with what it started before",
                hint="begin again, with one that stays as it is",
            )


@cache
def look_at(path: Path) -> Binary:
    """The program at ``path``, the same one in this process from then on, whatever becomes of the file."""
    return Binary(path, _stamp(path))


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def ask(path: Path) -> Answers:
    """What the program at ``path`` says of itself."""
    try:
        code, said = _output(path, "--version")
        version = "" if code else _line(said)
        code, said = _output(path, "--help")
        offered = set(re.findall(r"[a-z]+", said))
        if lacking := [verb for verb in VERBS if verb not in offered]:
            why = _shown(said) if code and said.strip() else f"its --help does not offer {', '.join(lacking)}"
            return Answers(version=version, trouble=why)
        code, said = _output(path, "features")
        return Answers(version=version, features="" if code else _specification(said))
    except LabError as error:
        return Answers(trouble=error.message)


def _line(output: str) -> str:
    """The first line, if it tells a version."""
    first = _shown(output)
    return first if find_version(first) else ""


def _shown(output: str) -> str:
    first = " ".join(output.strip().partition("\n")[0].split())[:LONGEST_LINE]
    return "".join(each for each in first if each.isprintable())


def _specification(output: str) -> str:
    with suppress(ValueError, TypeError, KeyError):
        told = json.loads(output)
        return f"OCI {told['ociVersionMin']} to {told['ociVersionMax']}"
    return ""


def _output(path: Path, word: str) -> tuple[int, str]:
    """Its exit code when called with ``word``, and what it prints.

    Not by `lab.host.command`, which kills a program alone, and then waits for all that this has started. Raises
    LabError when it can't be executed or does not end.
    """
    with tempfile.TemporaryDirectory(prefix="lab-runtime-") as folder, tempfile.TemporaryFile() as output:
        try:
            asked = subprocess.Popen(
                [path, word], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise LabError(f"it can't be executed: {os.strerror(error.errno or 0)}") from error
        deadline = Deadline(ASKED_SECONDS)
        try:
            if (code := deadline.ended(asked)) is None:
                raise LabError(f"it did not answer {word} within {deadline.seconds:g} s")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(asked.pid, signal.SIGKILL)
            asked.wait()
        output.seek(0)
        return code, output.read(1 << 20).decode("utf-8", "replace")
