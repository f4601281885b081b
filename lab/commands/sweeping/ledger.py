"""A sweep's folder: what was planned, what became of each task, and the runs that have arrived.

    sweep.json        the plan, the hosts, the tasks; written once
    events.jsonl      a line for all that happened to a task, on the disk before anything follows from it
    runs/TASK/        ordinary run folders: each appears whole, or not at all
    digests/TASK.sha256    of each of its files, as the host had them (sha256sum(1) reads it)

What a host sends is checked against its own list before it counts. A host is not trusted with names of files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.commands.sweeping.plan import Host, Plan
from lab.commands.sweeping.wire import ENDS, State
from lab.errors import LabError, ResultsError
from lab.host.identity import private
from lab.results.record import Ending
from lab.results.store import RunFolder, sync

SWEEP, EVENTS, RUNS, DIGESTS, LOCK = "sweep.json", "events.jsonl", "runs", "digests", ".lock"
SWEEPS = "sweeps"
PART = ".part"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run of lab compare, on one host. ``id`` is the same for ever, and no other sweep's."""

    id: str
    host: str
    scenario: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of a task, the latest first; ``at`` is ISO 8601, UTC."""

    state: State = State.PENDING
    why: str = ""
    at: str = ""


@dataclass(slots=True)
class Sweep:
    """One on the disk. Thread-safe; of those that write, one has the lock."""

    path: Path
    plan: Plan
    hosts: tuple[Host, ...]
    tasks: tuple[Task, ...]
    lab: str  # the digest of lab's files
    files: Mapping[str, str]  # scenario -> digest of its folder
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def create(cls, plan: Plan, hosts: Sequence[Host], lab: str, files: Mapping[str, str]) -> Sweep:
        """A new folder below the plan's results. Raises ResultsError when it can't be made."""
        key = secrets.token_hex(4)
        tasks = tuple(
            Task(id=f"{key}-{host.name}-{scenario}-{number}", host=host.name, scenario=scenario, number=number)
            for number in range(1, plan.runs + 1)
            for scenario in plan.scenarios
            for host in hosts
        )
        path = Path(plan.results) / SWEEPS / f"{plan.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{key}"
        found = cls(path, plan, tuple(hosts), tasks, lab, dict(files))
        head = {
            "schema": SCHEMA, "plan": asdict(plan), "hosts": [asdict(each) for each in hosts],
            "tasks": [asdict(each) for each in tasks], "lab": lab, "files": dict(files),
        }  # fmt: skip
        try:
            for folder in (path / RUNS, path / DIGESTS):
                folder.mkdir(parents=True)
            _write(path / f"{SWEEP}{PART}", json.dumps(head, indent=1).encode())
            (path / f"{SWEEP}{PART}").replace(path / SWEEP)
            sync(path)
        except OSError as error:
            raise ResultsError(f"{path} can't be made: {error.strerror}", hint="df -h shows free space") from error
        return found

    @classmethod
    def open(cls, path: Path) -> Sweep:
        """Raises ResultsError when it is no sweep's folder."""
        try:
            raw = json.loads((path / SWEEP).read_text(encoding="utf-8"))
            plan = {**raw["plan"], **{key: tuple(raw["plan"][key]) for key in ("scenarios", "options")}}
            hosts = tuple(Host(**{**each, "command": tuple(each["command"])}) for each in raw["hosts"])
            tasks = tuple(Task(**each) for each in raw["tasks"])
            return cls(path, Plan(**plan), hosts, tasks, raw["lab"], raw["files"])
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ResultsError(f"{path} is no sweep: it has no {SWEEP}", hint="ls results/sweeps") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{path / SWEEP} is damaged: {error}", hint="start a new sweep") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises ResultsError while another ``lab sweep`` is at it. What its death has torn is mended."""
        lock = private.lock_file(self.path / LOCK)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ResultsError(
                    f"another lab sweep is at {self.path}", hint=f"lab sweep status {self.path}"
                ) from error
            self._mend()
            yield
        finally:
            os.close(lock)

    def is_held(self) -> bool:
        """Whether some ``lab sweep`` is at it now."""
        try:
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        return private.is_locked(lock)

    def note(self, task: str, state: State, why: str = "", **more: Any) -> None:
        """Add an event, and return when it is on the disk."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"at": now, "task": task, "state": state, "why": why, **more}).encode() + b"\n"
        with self._guard:
            try:
                _write(self.path / EVENTS, line, os.O_APPEND)
            except OSError as error:
                raise ResultsError(
                    f"{self.path / EVENTS} can't be written: {error.strerror}", hint="df -h"
                ) from error

    def events(self) -> Iterator[Mapping[str, Any]]:
        """The oldest first; a line that was cut off by a crash is none."""
        try:
            text = (self.path / EVENTS).read_bytes()
        except FileNotFoundError:
            return
        for line in text.split(b"\n")[:-1]:
            try:
                event = json.loads(line)
                yield {**event, "state": State(event["state"])}
            except (ValueError, KeyError, TypeError) as error:
                raise ResultsError(
                    f"{self.path / EVENTS} is damaged: {error}", hint="delete the line that is no JSON"
                ) from error

    def standings(self) -> dict[str, Standing]:
        """Each task's. What nobody is at any more is pending again, and says that it was interrupted."""
        found = {task.id: Standing() for task in self.tasks}
        for event in self.events():
            if event["task"] in found:
                found[event["task"]] = Standing(state=event["state"], why=event["why"], at=event["at"])
        if not self.is_held():
            for name, each in found.items():
                if each.state not in (*ENDS, State.PENDING):
                    found[name] = Standing(why=f"interrupted while {each.state}", at=each.at)
        return found

    def images(self) -> dict[str, str]:
        """The digest of each scenario's image, as far as it is settled: by the plan, or by the first host."""
        found = dict(self.plan.images)
        for event in self.events():
            if event.get("image"):
                found.setdefault(event["scenario"], event["image"])
        return found

    def confirmed(self) -> set[str]:
        """The tasks whose hosts know that their results have arrived."""
        return {event["task"] for event in self.events() if event.get("confirmed")}

    def names(self) -> dict[str, str]:
        """What the sweep calls each host, by the identity that its runs tell."""
        found: dict[str, str] = {}
        for task in self.tasks:
            if task.host not in found.values() and (self.path / RUNS / task.id).is_dir():
                found[str(RunFolder.open(self.path / RUNS / task.id).run.host.get("identity", ""))] = task.host
        return found

    def place(self, task: Task, files: Sequence[Sequence[Any]], data: bytes) -> Path:
        """Put a run where it belongs, once each of its ``files`` (name, bytes, SHA-256) is what its host says.

        Raises ResultsError when something is amiss; nothing of it is there then.
        """
        target, part = self.path / RUNS / task.id, self.path / RUNS / f"{PART}-{task.id}"
        shutil.rmtree(part, ignore_errors=True)
        if target.is_dir():
            return target
        try:
            _write_files(part, files, data)
            self._require_its_run(task, part)
            sums = "".join(f"{digest}  {name}\n" for name, _, digest in files)
            _write(self.path / DIGESTS / f"{task.id}.sha256", sums.encode(), os.O_TRUNC)
            part.replace(target)
            sync(target.parent)
        except OSError as error:
            raise ResultsError(f"{part} can't be written: {error.strerror}", hint="df -h shows free space") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return target

    def _require_its_run(self, task: Task, folder: Path) -> None:
        run = RunFolder.open(folder).run
        if run.ended_because not in list(Ending):
            raise ResultsError(f"{task.host} sent a run that has not ended: {run.ended_because or 'no end'}")
        image = self.images().get(task.scenario, run.image.get("digest"))
        if run.scenario != task.scenario or run.image.get("digest") != image:
            raise ResultsError(
                f"{task.host} sent a run of {run.scenario}, image {run.image.get('digest')}, and not of "
                f"{task.scenario}, image {image}"
            )

    def _mend(self) -> None:
        events = self.path / EVENTS
        if events.exists():
            whole = events.read_bytes()
            if not whole.endswith(b"\n"):
                os.truncate(events, whole.rfind(b"\n") + 1)
        for part in (self.path / RUNS).glob(f"{PART}-*"):
            shutil.rmtree(part, ignore_errors=True)
        standings = self.standings()
        for task in self.tasks:  # it arrived, and the crash came before that was noted
            if (self.path / RUNS / task.id).is_dir() and standings[task.id].state is not State.DONE:
                self.note(task.id, State.DONE)


def find(word: str, results: Path = Path("results")) -> Path:
    """The folder that ``word`` means: a path, a name below ``results/sweeps``, or the latest there."""
    root = results / SWEEPS
    if word == "latest":
        found = sorted(root.glob(f"*/{SWEEP}"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise ResultsError(f"there is no sweep in {root} yet", hint="lab sweep PLAN.toml --local")
        return found[-1].parent
    return path if (path := Path(word)).is_dir() or "/" in word else root / word


def _write_files(folder: Path, files: Sequence[Sequence[Any]], data: bytes) -> None:
    """Raises ResultsError for an unsafe name, for bytes too few or too many, and for a digest that is another."""
    left, seen = memoryview(data), set()
    for name, size, digest in files:
        parts = str(name).split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\0" in name or "\n" in name or "\\" in name or name in seen:
            raise ResultsError(f"a host sent a file called {name!r}", hint="look at that host")
        seen.add(name)
        piece, left = left[:size], left[size:]
        if len(piece) != size or hashlib.sha256(piece).hexdigest() != digest:
            raise ResultsError(f"{name} did not arrive as its host has it", hint="the next attempt sends it again")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, piece, os.O_EXCL)
    if len(left):
        raise ResultsError(f"{len(left)} bytes arrived that belong to no file", hint="look at that host")
    for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(each)


def _write(path: Path, data: bytes | memoryview, flags: int = os.O_TRUNC) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o644)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def unfinished(sweep: Sweep) -> LabError | None:
    """What is left to do, in one line and its remedy; None when all is done."""
    counts: dict[State, int] = {}
    for each in sweep.standings().values():
        counts[each.state] = counts.get(each.state, 0) + 1
    left = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()) if state is not State.DONE)
    if not left:
        return None
    told = f"of {len(sweep.tasks)} tasks {counts.get(State.DONE, 0)} are done; {left}"
    return LabError(told, hint=f"lab sweep status {sweep.path}; then: lab sweep --resume {sweep.path}")
