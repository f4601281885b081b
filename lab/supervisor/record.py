"""What is known of a detached instance on disk. Nothing here needs its supervisor.

``<home>/instances/<name>/`` holds

instance.json     this record, replaced as a whole by rename(2)
exit.json         the exit code, by the process that reaped the application; see `lab.runtime.spawner.spawner`
stdout.log, …     what the application wrote; a guest's console.log
supervisor.log    what its supervisor had to complain about
lock              held (flock(2)) by whoever supervises it: two never do

All of it is for the owner's eyes alone: the environment is in the record, and an application prints what it likes.
Making the folder reserves the name. The record says what its writer knew when it wrote; `Instance.condition`
compares that with the processes there are now, and is the truth.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.errors import LabError, NoInstance, UsageError
from lab.host.home import home as lab_home
from lab.host.home import runtime_root
from lab.host.identity import private
from lab.host.procstat import start_time
from lab.host.session.ledger import boot_id
from lab.model import Limits, Process, PublishedPort, Volume

RECORD, EXIT, LOCK, SUPERVISOR_LOG = "instance.json", "exit.json", "lock", "supervisor.log"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")  # it is the hostname too (hostname(7))


TEXTS = (
    "name",
    "id",
    "backend",
    "image",
    "digest",
    "boot_id",
    "session",
    "address",
    "accelerator",
    "error",
    "health",
)
TIMES = ("created", "started", "ended")


class State(StrEnum):
    """How far the writer of a record had come."""

    CREATED = "created"  # the name is taken; nothing runs yet
    RUNNING = "running"
    EXITED = "exited"


class Condition(StrEnum):
    """How it is now."""

    STARTING = "starting"
    RUNNING = "running"
    LOST = "running, supervisor lost"
    EXITED = "exited"
    FAILED = "never started"  # whoever was starting it died on the way


@dataclass(frozen=True, slots=True, kw_only=True)
class Pid:
    """A process by its number and its start time in ticks since boot: the number alone may be used again."""

    number: int
    started: int

    @classmethod
    def of(cls, number: int) -> Pid:
        return cls(number=number, started=start_time(number) or 0)

    def lives(self) -> bool:
        """Only of the same boot: see `InstanceRecord.lives`."""
        return self.started > 0 and start_time(self.number) == self.started


NOBODY = Pid(number=0, started=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """One instance. Times of day are seconds since the epoch, 0 for what has not happened.

    ``first`` is the process whose end is the instance's: its init, or its VMM. ``stamps`` are the phases of its
    timeline by name, on the host's CLOCK_MONOTONIC. ``health`` is what its HEALTHCHECK said last, "" without one.
    """

    name: str
    id: str
    backend: str
    image: str
    digest: str
    source: dict[str, Any] = field(default_factory=dict)  # the image itself: see source.py
    process: Process
    limits: Limits
    wanted: tuple[PublishedPort, ...] = ()
    volumes: tuple[Volume, ...] = ()
    remove: bool = False
    knobs: dict[str, str] = field(default_factory=dict)  # of its backend, those that were set
    again: bool = False  # it ran before, and its record stays, should it not come up this time
    state: State = State.CREATED
    created: float
    started: float = 0.0
    ended: float = 0.0
    boot_id: str = field(default_factory=boot_id)
    session: str = ""
    supervisor: Pid
    first: Pid = NOBODY
    address: str = ""
    published: tuple[PublishedPort, ...] = ()
    accelerator: str = ""
    stamps: dict[str, float] = field(default_factory=dict)
    exit_code: int | None = None
    error: str = ""
    health: str = ""

    @property
    def control(self) -> Path:
        """Where its supervisor listens."""
        return runtime_root() / self.session / "control"

    def lives(self, process: Pid) -> bool:
        """Whether one of its processes still runs: never after a reboot."""
        return self.boot_id == boot_id() and process.lives()

    @property
    def condition(self) -> Condition:
        """How it is now, whatever its supervisor had time to write."""
        if self.state is State.EXITED:
            return Condition.EXITED
        supervised = self.lives(self.supervisor)
        if self.state is State.CREATED:
            if supervised:
                return Condition.STARTING
            return Condition.EXITED if self.again else Condition.FAILED
        if supervised:
            return Condition.RUNNING
        return Condition.LOST if self.lives(self.first) else Condition.EXITED

    @property
    def runs(self) -> bool:
        return self.condition in (Condition.RUNNING, Condition.LOST)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> InstanceRecord:
        """Raises KeyError, TypeError or ValueError for what is no record."""
        known: dict[str, Any] = {one.name: value[one.name] for one in fields(cls) if one.name in value}
        _check(known, TEXTS, str)
        _check(known, TIMES, (int, float))
        _check(known, ("process", "limits", "supervisor", "first", "knobs", "stamps", "source"), dict)
        process: dict[str, Any] = {
            name: tuple(part) if isinstance(part, list) else part for name, part in known["process"].items()
        }
        known["process"] = Process(**process)
        known["limits"] = Limits(**known["limits"])
        known["state"] = State(known["state"])
        for name in ("wanted", "published"):
            known[name] = tuple(PublishedPort(**port) for port in known[name])
        known["volumes"] = tuple(Volume(**one) for one in known.get("volumes", ()))
        for name in ("supervisor", "first"):
            known[name] = Pid(**known[name])
        return cls(**known)


def _check(known: Mapping[str, object], names: Sequence[str], kind: type | tuple[type, ...]) -> None:
    for name in names:
        if name in known and not isinstance(known[name], kind):
            raise TypeError(f"{name} is a {type(known[name]).__name__}")


def root() -> Path:
    return lab_home() / "instances"


def folder(name: str) -> Path:
    return root() / name


def reserve(record: InstanceRecord) -> None:
    """Take its name and write it down. Raises UsageError when the name is taken, or none.

    The folder appears under its name with the record in it, in one rename(2): nobody ever sees half of it.
    """
    if not NAME.fullmatch(record.name):
        raise UsageError(f"{record.name!r} can't be a name", hint="letters, digits, dots and dashes, like web-1")
    unborn = root() / f".new-{record.name}.{os.urandom(4).hex()}.{os.getpid()}"
    unborn.parent.mkdir(parents=True, exist_ok=True)
    unborn.mkdir(mode=private.FOLDER)
    try:
        private.write_text(unborn / RECORD, json.dumps(record.to_json()))
        unborn.rename(folder(record.name))
    except OSError as error:
        shutil.rmtree(unborn)
        if not folder(record.name).exists():
            raise
        raise taken(record.name) from error


def taken(name: str) -> LabError:
    """The error of a name that is in use."""
    return LabError(f"an instance is called {name} already", hint=f"lab rm {name}, or another --name")


def write(record: InstanceRecord) -> InstanceRecord:
    """Replace the record; a reader sees the old one or the new one. Nothing happens when it was removed."""
    place = folder(record.name)
    unfinished = place / f".{RECORD}.{os.getpid()}"
    with suppress(FileNotFoundError):
        private.write_text(unfinished, json.dumps(record.to_json()))
        unfinished.rename(place / RECORD)
    return record


def read(name: str) -> InstanceRecord | None:
    """The record of that very name, with the exit code that may have come in meanwhile; None without one."""
    record = stored(name)
    if record and record.state is not State.EXITED and record.condition is Condition.EXITED:
        record = stored(name)  # what its supervisor may have written as its last act
        if record and record.state is not State.EXITED:
            return settled(record)
    return record


def stored(name: str) -> InstanceRecord | None:
    """The record as it was written; None without one."""
    private.tighten_folder(folder(name))
    try:
        return InstanceRecord.from_json(json.loads((folder(name) / RECORD).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def settled(record: InstanceRecord) -> InstanceRecord:
    """What is known of an instance that ended without its supervisor."""
    ended, code = 0.0, None
    with suppress(OSError, ValueError, KeyError):
        said = json.loads((folder(record.name) / EXIT).read_text())
        ended, code = float(said["ended"]), said["code"]
    reason = "its supervisor died before it"
    if record.boot_id != boot_id():
        reason = "the host was restarted"
    return replace(
        record,
        state=State.EXITED,
        ended=ended,
        exit_code=record.exit_code if code is None else int(code),
        error=record.error or reason,
    )


def records() -> list[InstanceRecord]:
    """Every instance of this home, the newest first."""
    try:
        names = [path.name for path in root().iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    found = [record for name in names if (record := read(name))]
    return sorted(found, key=lambda record: record.created, reverse=True)


def find(word: str) -> InstanceRecord:
    """By name, or by the beginning of an id that only one has. Raises NoInstance, or LabError if several have."""
    if NAME.fullmatch(word) and (record := read(word)):
        return record
    matching = [record for record in records() if word and record.id.startswith(word)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise LabError(f"{word} is the beginning of {len(matching)} ids", hint="write more of it")
    raise NoInstance(f"no instance is called {word}", hint="lab ps -a")


def remove(record: InstanceRecord) -> None:
    """Its logs and its record. Idempotent. Gone under another name first: a name is free, or all there."""
    gone = root() / f".old-{record.name}.{os.urandom(4).hex()}"
    with suppress(FileNotFoundError):
        folder(record.name).rename(gone)
        shutil.rmtree(gone)


class Supervised(LabError):
    """Another process supervises the instance, or does so still."""


@contextmanager
def supervising(name: str) -> Iterator[None]:
    """Hold the instance's lock. Raises Supervised while another process has it, LabError without an instance."""
    try:
        descriptor = os.open(folder(name) / LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise LabError(f"no instance is called {name}", hint="lab ps -a") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Supervised(f"instance {name} has a supervisor already") from error
    try:
        yield
    finally:
        os.close(descriptor)


def mend(*, dry_run: bool = False) -> list[str]:
    """Write down what became of instances that ended without a supervisor, and remove what never started.

    One line per instance.
    """
    lines = []
    for record in records():
        written = stored(record.name)
        if record.condition is Condition.FAILED:
            lines.append(f"instance {record.name}: it never started")
            if not dry_run:
                remove(record)
        elif record.state is State.EXITED and written and written.state is not State.EXITED:
            lines.append(f"instance {record.name}: {record.error}")
            if not dry_run and record.remove:
                remove(record)
            elif not dry_run:
                write(record)
    for left in root().glob(".*") if root().is_dir() else ():
        pid = left.name.rpartition(".")[2]
        if left.name.startswith(".old-") or not pid.isdigit() or start_time(int(pid)) is None:
            lines.append(f"directory {left}")
            if not dry_run:
                shutil.rmtree(left, ignore_errors=True)
    return lines
