"""The one command of a host: it measures what a worker asks for, and keeps each result until it has arrived.

It trusts nobody: what may be asked is in `wire`. A task that has a result hands that over instead of measuring
again; one that was interrupted goes on where it was (``lab compare --resume``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import lab
from lab.commands.polite import LAB, apart, becomes_quiet, one_at_a_time
from lab.commands.sweeping.wire import LONGEST_REQUEST_BYTES, MOST_BYTES, Do, Request, State, answer, parse
from lab.commands.watching.causes import tree_digest
from lab.errors import LabError, ResultsError, UsageError
from lab.experiment.scenarios.scenario import SHIPPED, load
from lab.host.home import home
from lab.host.identity import private
from lab.results.record import Ending
from lab.results.store import RunFolder, sync

MANIFEST = "manifest.json"
PIECE_BYTES = 1 << 20


@cache
def lab_digest() -> str:
    """Sixteen hexadecimal digits of lab's version and of all its files; what Python has compiled doesn't count."""
    digest = hashlib.blake2b(lab.__version__.encode(), digest_size=8)
    root = Path(lab.__file__).parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"\0{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def scenario_folder(name: str, beside: Sequence[Path]) -> Path:
    """The folder of the scenario ``name``: below one of ``beside``, or one that lab brings. Raises UsageError."""
    for folder in (*beside, SHIPPED):
        if (folder / name / "Dockerfile").is_file():
            return (folder / name).resolve()
    raise UsageError(f"there is no scenario {name} here", hint="lab scenario ls; or: lab sweep host --scenarios DIR")


class Refused(LabError):
    """This host does not measure that; another attempt would end alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """``spool`` has a folder per task; ``write`` takes the answers; ``lab`` is run to build and to measure."""

    spool: Path
    scenarios: tuple[Path, ...]
    write: Callable[[bytes], None]
    lab: tuple[str, ...] = LAB

    def answer(self, line: bytes) -> None:
        """Carry the request in ``line`` out, and write all its answers."""
        try:
            self._carry_out(parse(line))
        except (Refused, UsageError) as error:
            self.write(answer(State.REFUSED, str(error)))
        except LabError as error:
            self.write(answer(State.FAILED, str(error)))
        except OSError as error:
            self.write(answer(State.FAILED, f"{error.filename or 'lab sweep host'}: {error.strerror}"))

    def _carry_out(self, request: Request) -> None:
        if request.do is Do.FORGET:
            for each in request.ids:
                if (self.spool / each).is_dir():
                    (self.spool / each / MANIFEST).unlink(missing_ok=True)
                    shutil.rmtree(self.spool / each)
            self.write(answer(State.DONE))
            return
        place = self.spool / request.ids[0]
        if request.do is Do.MEASURE and (place / MANIFEST).is_file():
            self._hand_over(place)
            return
        self._require_alike(request)
        private.make_folder(place)
        self.write(answer(State.WAITING, "for others who measure here, and for a quiet host"))
        with one_at_a_time():
            if request.do is Do.PREPARE:
                self._prepare(request, place)
            else:
                self._measure(request, place)
        if request.do is Do.MEASURE:
            self._hand_over(place)

    def _require_alike(self, request: Request) -> None:
        if request.lab != lab_digest():
            raise Refused(
                f"this host has another lab: {lab.__version__}, files {lab_digest()} and not {request.lab}",
                hint="install the same commit",
            )
        files = tree_digest(scenario_folder(request.scenario, self.scenarios))
        if request.files != files:
            raise Refused(
                f"{request.scenario} differs here: files {files} and not {request.files}",
                hint="copy its folder, modes too",
            )

    def _prepare(self, request: Request, place: Path) -> None:
        """Build the image and tell its digest."""
        folder, note = scenario_folder(request.scenario, self.scenarios), place / "image"
        given = [f"--build-arg={name}={value}" for name, value in load(str(folder)).build_arguments.items()]
        code, _ = apart(["build", folder, *given, "--iidfile", note], place, self.lab)
        if code != 0:
            raise LabError(f"lab build {request.scenario} ended with {code}", hint="what it said is above")
        digest = note.read_text()
        shutil.rmtree(place)
        self.write(answer(State.DONE, image=digest))

    def _measure(self, request: Request, place: Path) -> None:
        if (place / MANIFEST).is_file():  # another attempt at it was at work until now
            return
        if not becomes_quiet(request.busy, request.patience_seconds):
            raise Refused(
                f"others kept this host busier than {request.busy:g} processors for {request.patience_seconds:g} s",
                hint="lab sweep --resume tries again",
            )
        self.write(answer(State.MEASURING))
        run = self._compared(request, place)
        if request.image and run.run.image.get("digest") != request.image:
            shutil.rmtree(run.path)
            raise Refused(
                f"its image is {run.run.image.get('digest')} here and not {request.image}",
                hint="docs/sweeping.md: the same image everywhere",
            )
        manifest = {"run": run.path.name, "image": run.run.image.get("digest", ""), "files": list(_files(run.path))}
        new = place / f"{MANIFEST}.new"
        private.write_text(new, json.dumps(manifest))
        sync(new)
        new.replace(place / MANIFEST)
        sync(place)

    def _compared(self, request: Request, place: Path) -> RunFolder:
        """A complete run: begun here, or by an attempt that was interrupted."""
        runs = place / "runs"
        begun = sorted(path.parent for path in runs.glob("*/run.json"))
        if begun and (found := RunFolder.open(begun[-1])).run.ended_because in list(Ending):
            return found
        folder = scenario_folder(request.scenario, self.scenarios)
        words = ["--resume", str(begun[-1])] if begun else [str(folder), *request.options, "--out", str(runs)]
        code, _ = apart(["compare", *words, "--json"], place, self.lab)
        done = [found for path in runs.glob("*/run.json") if (found := RunFolder.open(path.parent))]
        if code != 0 or len(done) != 1 or done[0].run.ended_because not in list(Ending):
            shutil.rmtree(runs, ignore_errors=True)  # the next attempt begins anew
            raise LabError(f"lab compare {request.scenario} ended with {code}", hint="what it said is above")
        return done[0]

    def _hand_over(self, place: Path) -> None:
        try:
            manifest = json.loads((place / MANIFEST).read_text())
            root = place / "runs" / Path(manifest["run"]).name
            files = [(str(name), int(size), str(digest)) for name, size, digest in manifest["files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{place / MANIFEST} is damaged: {error}", hint=f"rm -r {place}") from error
        size = sum(size for _, size, _ in files)
        if size > MOST_BYTES:
            raise Refused(f"the result has {size} bytes, which is too much to send", hint=f"it is in {root}")
        self.write(answer(State.DONE, image=manifest["image"], files=files, bytes=size))
        for name, size, _ in files:
            with (root / name).open("rb") as file:
                left = size
                while left and (piece := file.read(min(left, PIECE_BYTES))):
                    left -= len(piece)
                    self.write(piece)
                self.write(bytes(left))  # a file that was cut off meanwhile: its digest tells


def _files(root: Path) -> Iterator[tuple[str, int, str]]:
    """Each file below ``root``: its name, its bytes, their SHA-256. What is no file, like a link, stays."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                yield str(path.relative_to(root)), file.tell(), digest


def serve(scenarios: Sequence[Path], lab: tuple[str, ...] = LAB) -> None:
    """Answer the one request on standard input. When that ends, whoever asked is gone: this process then interrupts
    itself, as by a SIGTERM, and what it measures with it.
    """
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)) and len(line) < LONGEST_REQUEST_BYTES:
        line += byte
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    spool = home() / "sweep"
    private.make_folder(spool)
    Host(spool=spool, scenarios=tuple(scenarios), write=_write, lab=lab).answer(line)


def _end_with_the_asker() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
