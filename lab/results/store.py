"""A run's folder: append-only while it runs, readable anywhere afterwards.

``samples.jsonl`` gains a line per observation and is on the disk before the next observation starts.
``progress.jsonl`` says which (block, arm) pairs are done, and which were abandoned by a crash; the samples of
an abandoned attempt stay in the file and are left out when reading. ``run.json`` is only ever replaced whole.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import site
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from lab.errors import LabError, ResultsError
from lab.host.closing import Closing
from lab.results.codec import GARBLED, decode_run, decode_sample, encode_run, encode_sample
from lab.results.record import Run, Sample
from lab.results.upgrade import upgraded_sample

RUN, SAMPLES, PROGRESS, PARQUET = "run.json", "samples.jsonl", "progress.jsonl", "samples.parquet"
LOGS, PLOTS = "logs", "plots"
SAMPLE = "sample"


class RunFolder(Closing):
    """One run on disk. Reading needs no rights; the first append takes a lock and repairs a torn last line.

    A context manager: leaving it closes the files. Thread-safe.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.run = run
        self._samples = _AppendOnly(path / SAMPLES)
        self._progress = _AppendOnly(path / PROGRESS)

    @classmethod
    def create(cls, root: Path, run: Run) -> RunFolder:
        """Make ``root``/NAME, where NAME is ``run.name`` or else TIMESTAMP-SCENARIO, then ``-KIND`` of a study's run,
        then ``-2`` … if that is taken.

        The folder's ``run`` carries the name it got. Raises ResultsError when the folder can't be written.
        """
        base = run.name or _name(run)
        try:
            root.mkdir(parents=True, exist_ok=True)
            path = _claim(root, base)
        except OSError as error:
            raise ResultsError(
                f"can't make a run folder in {root}: {error.strerror}", hint="use --out DIR"
            ) from error
        folder = cls(path, replace(run, name=path.name))
        folder._write_run()
        (path / SAMPLES).touch()
        sync(path)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run. Raises ResultsError, with its remedy, when it is not one or too new."""
        file = path / RUN
        try:
            text = file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ResultsError(f"{path} is not a run folder: it has no {RUN}", hint="ls results/") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ResultsError(f"{file} can't be read: {error}", hint=f"check the permissions of {path}") from error
        return cls(path, decode_run(text, str(file)))

    @classmethod
    def held(cls, name: str, files: Mapping[str, bytes]) -> RunFolder:
        """A run whose files are in memory, to be read: run.json, samples.jsonl and, if there is one, progress.jsonl.

        Raises ResultsError when it is none or too new.
        """
        try:
            text = files[RUN].decode("utf-8")
        except (KeyError, UnicodeDecodeError) as error:
            raise ResultsError(
                f"{name} has no {RUN} that can be read", hint="hand in the whole run folder"
            ) from error
        found = cls(Path(name), decode_run(text, f"{name}/{RUN}"))
        found._samples, found._progress = (
            _Held(Path(name, each), files.get(each, b"")) for each in (SAMPLES, PROGRESS)
        )
        return found

    def append(self, *samples: Sample) -> None:
        """Write the samples and return when they are on the disk: all of them or, after an error, none.

        Raises ResultsError when the disk is full or another process is writing this run.
        """
        if samples:
            self._samples.append([encode_sample(sample) for sample in samples])

    def complete(self, block: int, arm: str) -> None:
        """Everything planned for ``arm`` in ``block`` has been observed, failures included: never repeat it."""
        self._event("completed", block, arm)

    def abandon_incomplete(self) -> set[tuple[int, str]]:
        """On resuming: set aside what a crash left half-observed, and return those pairs.

        What was observed of the host itself belongs to no arm and is never half of anything.
        """
        done = self.completed()
        torn = {(sample.block, sample.arm) for sample in self.samples() if sample.arm} - done
        for block, arm in sorted(torn):
            self._event("abandoned", block, arm)
        return torn

    def completed(self) -> set[tuple[int, str]]:
        """The (block, arm) pairs that need not be observed again."""
        return {(event["block"], event["arm"]) for event in self._events() if event["event"] == "completed"}

    def samples(self, *, abandoned: bool = False) -> Iterator[Sample]:
        """Every observation in the order it was made; those of abandoned attempts only when asked for.

        A torn last line is passed over. Raises ResultsError for any other line that is not a sample.
        """
        until: dict[tuple[int, str], int] = {}
        for event in self._events():
            if event["event"] == "abandoned":
                until[event["block"], event["arm"]] = event["lines"]
        for number, line in enumerate(self._samples.lines(), start=1):
            try:
                sample = decode_sample(line)
            except GARBLED as error:
                raise ResultsError(
                    f"{self.path / SAMPLES}, line {number}, is not a sample: {error}",
                    hint="restore the file, or delete that line if you know why it is broken",
                ) from error
            if abandoned or number > until.get((sample.block, sample.arm), 0):
                yield upgraded_sample(sample, self.run.schema)

    def update(self, **changes: Any) -> Run:
        """Replace fields of the provenance (``parity=…``, ``noop=…``), on the disk too, in one step."""
        self.run = replace(self.run, **changes)
        self._write_run()
        return self.run

    def conclude(self, measure: Callable[[], str]) -> None:
        """Let ``measure`` fill it and say why it ended; whatever ends it instead is written down and goes on up."""
        because = "error"
        try:
            because = measure()
        except KeyboardInterrupt:
            because = "interrupted"
            raise
        except LabError as error:
            because = f"error: {error.message}"
            raise
        finally:
            self.finish(because)

    def finish(self, because: str) -> None:
        """Write samples.parquet, and into run.json when and why the run ended."""
        self._write_parquet()
        self.update(ended=datetime.now(UTC).isoformat(timespec="seconds"), ended_because=because)

    def log_directory(self, instance: str) -> Path:
        """logs/INSTANCE, made if need be."""
        if not re.fullmatch(r"[\w#.+-]+", instance) or instance.startswith("."):
            raise ResultsError(f"{instance!r} can't name a folder", hint="use letters, digits, - and #")
        directory = self.path / LOGS / instance
        for folder in (directory.parent, directory):  # an application may write to the files in it as root
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_mode & 0o077:  # an earlier lab's, of a run that is gone on with
                folder.chmod(0o700)
        return directory

    def lock(self) -> None:
        """Keep every other lab from writing this run until `close`. Raises ResultsError when one is at it."""
        self._samples.lock()

    def close(self) -> None:
        """Release the lock. Idempotent; a later append takes it again."""
        self._samples.close()
        self._progress.close()

    def _event(self, event: str, block: int, arm: str) -> None:
        lines = sum(1 for _ in self._samples.lines())
        self._progress.append([json.dumps({"event": event, "block": block, "arm": arm, "lines": lines})])

    def _events(self) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(self._progress.lines(), start=1):
            try:
                event = json.loads(line)
                yield {**event, "block": int(event["block"]), "arm": str(event["arm"]), "event": str(event["event"])}
            except GARBLED as error:
                raise ResultsError(
                    f"{self.path / PROGRESS}, line {number}, is broken: {error}",
                    hint=f"delete {PROGRESS}; resuming then repeats every block",
                ) from error

    def _write_run(self) -> None:
        _replace(self.path / RUN, encode_run(self.run).encode())

    def _write_parquet(self) -> None:
        from lab.results.columns import write_parquet

        target = self.path / PARQUET
        scratch = target.with_suffix(".tmp")
        try:
            write_parquet(scratch, self.samples())
            scratch.replace(target)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise ResultsError(f"{target} can't be written: {error}", hint="free some disk space") from error


class _AppendOnly:
    """A file of lines that survives a crash at any byte: a line counts once its newline is on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._guard = threading.Lock()

    def lines(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield line
        except FileNotFoundError:
            return
        except OSError as error:
            raise ResultsError(
                f"{self.path} can't be read: {error.strerror}", hint="check its permissions"
            ) from error

    def append(self, lines: list[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        with self._guard:
            try:
                file = self._file or self._open()
                start = file.seek(0, os.SEEK_END)
                try:
                    written = 0
                    while written < len(data):  # a nearly full disk takes a part first
                        written += file.write(data[written:])
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(start)
                    raise
            except OSError as error:
                raise ResultsError(
                    f"{self.path} can't be written: {error.strerror}",
                    hint=f"free some disk space, then: lab compare --resume {self.path.parent}",
                ) from error

    def lock(self) -> None:
        with self._guard:
            self._file = self._file or self._open()

    def close(self) -> None:
        with self._guard:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _open(self) -> IO[bytes]:
        """Unbuffered, so that what a failed write left behind can be cut off again."""
        import fcntl  # where results are only read, there may be none: Windows

        require_no_links(self.path.parent)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        file = os.fdopen(descriptor, "ab+", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise ResultsError(
                f"another lab is writing {self.path.parent}", hint="wait for it, or start a new run"
            ) from error
        _cut_torn_line(file)
        self._file = file
        return file


class _Held(_AppendOnly):
    """The same lines out of memory; nothing is added to them."""

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(path)
        self._data = data

    def lines(self) -> Iterator[bytes]:
        for line in io.BytesIO(self._data):
            if line.endswith(b"\n"):
                yield line

    def _open(self) -> IO[bytes]:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def _cut_torn_line(file: IO[bytes]) -> None:
    """Truncate to the end of the last whole line."""
    end = file.seek(0, os.SEEK_END)
    position = end
    while position > 0:
        step = min(65536, position)
        file.seek(position - step)
        found = file.read(step).rfind(b"\n")
        if found >= 0:
            position = position - step + found + 1
            break
        position -= step
    if position != end:
        file.truncate(position)


def locate(text: str, root: Path) -> Path:
    """The folder that ``text`` names: a path, the name of a run in ``root``, ``latest``, or ``sample``, which comes
    with lab.

    Raises ResultsError when there is none.
    """
    if text == "latest":
        runs = sorted((path.parent for path in root.glob(f"*/{RUN}")), key=lambda path: (_started(path), path.name))
        if not runs:
            raise ResultsError(f"there is no run in {root} yet", hint="lab compare web-app")
        return runs[-1]
    for path in (Path(text), root / text, *(_installed() if text == SAMPLE else [])):
        if (path / RUN).is_file():
            return path
    raise ResultsError(f"no run is called {text!r}, and no folder is one", hint=f"lab results ls --results {root}")


def own_copy(folder: Path, root: Path) -> Path:
    """Where something may be written about the run in ``folder``: there, or for the one that is installed with lab
    in a copy below ``root``.
    """
    if folder.name != SAMPLE or folder not in _installed() or folder == (root / SAMPLE).resolve():
        return folder
    try:
        return Path(shutil.copytree(folder, root / SAMPLE))
    except OSError as error:
        raise ResultsError(f"can't write {root}: {error.strerror or error}", hint="--results DIR") from error


def _installed() -> list[Path]:
    """Where pip may have put the sample (pyproject.toml, data-files): beside the interpreter's own files, or the
    user's; or where it lies in the checkout that lab is executed from.
    """
    beside = [Path(prefix, "share", "lab", "results", SAMPLE) for prefix in (sys.prefix, site.getuserbase())]
    return [*beside, Path(__file__).resolve().parents[2] / "results" / SAMPLE]


def _started(path: Path) -> str:
    try:
        return str(json.loads((path / RUN).read_text(encoding="utf-8")).get("started", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _name(run: Run) -> str:
    try:
        started = datetime.fromisoformat(run.started)
    except ValueError:
        started = datetime.now(UTC)
    scenario = re.sub(r"[\W_]+", "-", run.scenario.lower()).strip("-") or "run"  # letters of any script
    kind = run.settings.get("kind")  # of a comparison there is none
    return f"{started:%Y%m%d-%H%M%S}-{scenario}" + (f"-{kind}" if kind else "")


def _claim(root: Path, base: str) -> Path:
    """mkdir(2) decides who gets a name, so two labs at once never share a folder."""
    for attempt in range(1, 1000):
        path = root / (base if attempt == 1 else f"{base}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise ResultsError(f"a thousand runs are called {base}", hint=f"clean up {root}")


class Linked(ResultsError):
    """A run's folder holds links: no lab has written it so."""


def require_no_links(folder: Path) -> None:
    """Before anything is written into a run's folder, which may be a stranger's: what lab calls its files would be
    links to whatever they name. Raises Linked.
    """
    for place in (folder, folder / PLOTS):
        for path in place.iterdir() if place.is_dir() else ():
            if path.is_symlink():
                hint = f"a copy of it without links: cp -RL {folder} COPY"
                raise Linked(f"{path} is a link, and nothing is written through one", hint=hint)


def _replace(path: Path, data: bytes) -> None:
    """Atomic and durable: write beside, fsync, rename(2), fsync the directory."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        sync(path.parent)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise ResultsError(f"{path} can't be written: {error.strerror}", hint="free some disk space") from error


def sync(path: Path) -> None:
    """Return when the file, or what the folder lists, is on the disk (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
