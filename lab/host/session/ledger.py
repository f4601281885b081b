"""What one lab process made that could outlive it, so that nothing does.

A session is one lab process. Its folder ``/run/lab/<session>`` holds:

owner.json    who it is: pid, start time, boot id (a pid alone may be used again), home
ledger.jsonl  a line per resource, written before the resource is made
keeper.json   of a detached instance alone: the process that keeps the session although its owner has died

Closing a session removes its resources in reverse order. Should the process die first, whoever comes next does
the same from its files: the launcher, which watches its parent, or any later lab command. A removal takes
the session's lock (flock(2) on its folder), so two cleaners never work on one session.

Mounts are never recorded: lab makes them in mount namespaces of its own, which end with their processes.
This lies on the path of ``lab run``: standard library only, and quick.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lab.errors import LabError
from lab.host.cgroup import delegation
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import Unused
from lab.host.cgroup.systemd import Scope
from lab.host.closing import Closing
from lab.host.home import home, runtime_root
from lab.host.identity import private, privilege
from lab.host.kernel import settings, tracefs
from lab.host.procstat import start_time
from lab.host.session import engines
from lab.host.trees import remove_tree

OWNER = "owner.json"
KEEPER = "keeper.json"
LEDGER = "ledger.jsonl"
UNBORN = ".new-"  # + session . pid: a folder whose owner.json is still being written
SESSION = re.compile("[0-9a-f]{8}")
KILL_TIMEOUT_SECONDS = 10.0


class ResourceKind(StrEnum):
    """What a ledger can hold, and how its removal works."""

    CGROUP = "cgroup"  # a path below every hierarchy: everything in it is killed, then it is removed
    OTHER_CGROUP = "other-cgroup"  # the same below the hierarchies that lab does not use, but other runtimes do
    SCOPE = "scope"  # a unit of systemd's, around those groups: it ends with its last process
    PROCESS = "process"  # a pid with its start time: killed
    FILE = "file"  # a file, socket or symbolic link: unlinked
    DIRECTORY = "directory"  # a tree without mounts: removed with all its files
    NAMESPACE = "namespace"  # an ordinary user's own: see lab.host.session.strays, which ends what is left in it
    TRACE = "trace"  # an instance of the kernel's tracing, by its name: switched off and removed
    ENGINE = "engine"  # a session and the Docker Engine of somebody else's that it used: see lab.host.session.engines
    SETTINGS = "settings"  # a file of what the kernel was set to before: written back, see lab.host.kernel.settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One line of a ledger. ``name`` is a path, or a pid; ``started`` is a process's start time in ticks."""

    kind: ResourceKind
    name: str
    started: int = 0

    def describe(self) -> str:
        return f"{self.kind} {self.name}"

    def exists(self) -> bool:
        """Whether it is still there."""
        match self.kind:
            case ResourceKind.CGROUP:
                return ControlGroup.open(self.name).exists()
            case ResourceKind.OTHER_CGROUP:
                return ControlGroup.open(self.name, hierarchies=Unused.detect()).exists()
            case ResourceKind.SCOPE:
                return Scope(self.name).exists()
            case ResourceKind.PROCESS:  # the cleaner itself, a launcher for one, may be listed: it is about to end
                return int(self.name) != os.getpid() and start_time(int(self.name)) == self.started
            case ResourceKind.FILE | ResourceKind.DIRECTORY | ResourceKind.SETTINGS:
                return os.path.lexists(self.name)
            case ResourceKind.NAMESPACE:
                return False  # it ends by itself, with its last process
            case ResourceKind.TRACE:
                return tracefs.exists(self.name)
            case ResourceKind.ENGINE:
                return engines.may_hold(self.name)

    def remove(self) -> None:
        """Remove it; nothing happens when it is gone already. Raises LabError or OSError when it stays."""
        match self.kind:
            case ResourceKind.CGROUP | ResourceKind.OTHER_CGROUP:
                hierarchies = Unused.detect() if self.kind is ResourceKind.OTHER_CGROUP else None
                group = ControlGroup.open(self.name, hierarchies=hierarchies)
                group.kill(KILL_TIMEOUT_SECONDS)
                group.remove(KILL_TIMEOUT_SECONDS)
            case ResourceKind.SCOPE:
                Scope(self.name).remove()
            case ResourceKind.PROCESS:
                _kill(int(self.name), self.started)
            case ResourceKind.FILE:
                Path(self.name).unlink(missing_ok=True)
            case ResourceKind.DIRECTORY:
                remove_tree(Path(self.name))
            case ResourceKind.NAMESPACE:
                pass
            case ResourceKind.TRACE:
                tracefs.remove(self.name)
            case ResourceKind.ENGINE:
                engines.remove(*engines.told(self.name))
            case ResourceKind.SETTINGS:
                settings.put_back(Path(self.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process a session belongs to."""

    pid: int
    started: int
    boot_id: str
    home: str

    @classmethod
    def of_this_process(cls) -> Owner:
        pid = os.getpid()
        return cls(pid=pid, started=start_time(pid) or 0, boot_id=boot_id(), home=str(home()))

    def lives(self) -> bool:
        """A zombie has ended: it holds nothing any more."""
        return self.boot_id == boot_id() and start_time(self.pid) == self.started

    def to_json(self) -> dict[str, str | int]:
        return {"pid": self.pid, "started": self.started, "boot_id": self.boot_id, "home": self.home}


class Session(Closing):
    """The ledger of one lab process. Thread-safe. A context manager that closes itself."""

    def __init__(self, directory: Path, owner: Owner) -> None:
        self.directory = directory
        self.owner = owner
        self._lock = threading.Lock()
        self._descriptor = os.open(directory / LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits, unique among the sessions of this host."""
        return self.directory.name

    @classmethod
    def open(cls) -> Session:
        """Start a session of this process. What dead sessions left is *not* removed: see `clean_stale`."""
        owner, name = Owner.of_this_process(), os.urandom(4).hex()
        root = runtime_root()
        try:
            private.make_folder(root)
            runtime_root()  # raises if somebody else was first
            # Renamed once it says whose it is: a cleaner must never meet a session without an owner.
            unborn = root / f"{UNBORN}{name}.{owner.pid}"
            unborn.mkdir(mode=0o700)
            (unborn / OWNER).write_text(json.dumps(owner.to_json()))
            unborn.rename(root / name)
        except OSError as error:
            raise LabError(f"no session can be opened below {root}: {error}", hint=privilege.remedy()) from error
        return cls(root / name, owner)

    def record(self, resource: Resource) -> None:
        """Write down what is about to be made. It is in the kernel's hands on return: a kill can't lose it."""
        fields: dict[str, str | int] = {"kind": resource.kind, "name": resource.name}
        if resource.started:
            fields["started"] = resource.started
        line = json.dumps(fields).encode() + b"\n"
        with self._lock:
            if self._descriptor < 0:
                raise LabError(f"session {self.id} is closed")
            os.write(self._descriptor, line)

    @property
    def cleaner(self) -> list[str]:
        """The command that removes this session once its owner is dead."""
        return [sys.executable, "-P", "-m", "lab.host.session.ledger", str(self.directory)]

    @classmethod
    def take_over(cls, directory: Path) -> Session:
        """Become the owner of a session whose owner died and whose keeper lives; its ledger goes on.

        Raises LabError when there is nothing to take over, or another process was faster.
        """
        with _locked(directory, wait=True) as held:
            former = _owner_of(directory) if held else None
            if former is None or (former.lives() and former.pid != os.getpid()) or not _is_kept(directory, former):
                raise LabError(f"session {directory.name} can't be taken over", hint="lab clean")
            owner = Owner.of_this_process()
            _write(directory / OWNER, owner.to_json())
            return cls(directory, owner)

    def keep_for(self, pid: int) -> None:
        """Should this process die, the session is not stale as long as ``pid`` lives."""
        _write(self.directory / KEEPER, {"pid": pid, "started": start_time(pid) or 0})

    def make_directory(self, path: Path) -> Path:
        """Record ``path`` and make it, with its parents, for root alone."""
        self.record(Resource(kind=ResourceKind.DIRECTORY, name=str(path)))
        path.mkdir(mode=0o700, parents=True)
        return path

    def process(self, pid: int) -> None:
        """Record a process just started. It can't be recorded before; keep it in a recorded cgroup if it matters."""
        if started := start_time(pid):
            self.record(Resource(kind=ResourceKind.PROCESS, name=str(pid), started=started))

    def close(self) -> None:
        """Remove everything in reverse order, and verify. Idempotent; does nothing in a forked child.

        Raises LabError that names each thing which could not be removed; the session's folder then stays,
        so that ``lab clean`` can try again once this process has ended.
        """
        with self._lock:
            if self._descriptor < 0 or os.getpid() != self.owner.pid:
                return
            os.close(self._descriptor)
            self._descriptor = -1
        # A cleaner that is just finding out that the owner lives holds the lock for a moment: wait for it.
        with _locked(self.directory, wait=True) as held:
            errors = _remove_all(self.directory, self.owner)[1] if held else []
        if errors:
            raise LabError(f"session {self.id} left something behind", hint="lab clean", detail="\n".join(errors))


def stale_sessions() -> list[Path]:
    """The folders of sessions whose owner is dead, oldest first. Other sessions begin and end meanwhile."""
    ages: dict[Path, float] = {}
    with suppress(FileNotFoundError):
        for folder in runtime_root().iterdir():
            with suppress(FileNotFoundError):
                ages[folder] = folder.stat().st_mtime
    return [folder for folder in sorted(ages, key=ages.__getitem__) if _is_stale(folder)]


def is_of_this_boot(directory: Path) -> bool:
    """Whether a session was made since the host started: numbers of before mean something else now."""
    owner = _owner_of(directory)
    return owner is not None and owner.boot_id == boot_id()


def resources(directory: Path) -> list[Resource]:
    """What a session's ledger lists, in the order it was made. A line cut short was never acted on."""
    found = []
    with suppress(FileNotFoundError):
        for line in (directory / LEDGER).read_bytes().split(b"\n"):
            with suppress(ValueError, KeyError, TypeError):
                fields = json.loads(line)
                kind, started = ResourceKind(fields["kind"]), int(fields.get("started", 0))
                found.append(Resource(kind=kind, name=str(fields["name"]), started=started))
    return found


def clean_stale() -> list[str]:
    """Remove what dead sessions left, only theirs; one line per thing removed.

    A session that another cleaner holds is left to it. Raises LabError that names what could not be removed,
    after everything else has been.
    """
    removed: list[str] = []
    errors: list[str] = []
    for folder in stale_sessions():
        gone, failed = clean_session(folder)
        removed += gone
        errors += failed
    if errors:
        raise LabError("something a dead session left can't be removed", detail="\n".join(errors))
    return removed


def leftovers(directory: Path) -> list[str]:
    """What removing a session would remove, a line each, newest first."""
    found = [one.describe() for one in dict.fromkeys(reversed(resources(directory))) if one.exists()]
    return [f"session {directory.name}: {line}" for line in [*found, f"directory {directory}"]]


def clean_session(directory: Path) -> tuple[list[str], list[str]]:
    """Remove one dead session: a line per thing removed, and a line per failure.

    Nothing happens while its owner lives, or while another cleaner is at work on it.
    """
    with _locked(directory) as held:
        if not held or not _is_stale(directory):
            return [], []
        removed, errors = _remove_all(directory, _owner_of(directory))
    return [f"session {directory.name}: {line}" for line in removed], errors


def boot_id() -> str:
    """The kernel's random name for this boot (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _is_stale(folder: Path) -> bool:
    if folder.name.startswith(UNBORN):
        pid = folder.name.rpartition(".")[2]
        return not pid.isdigit() or start_time(int(pid)) is None
    owner = _owner_of(folder)
    if owner is None:  # a session without its owner.json was removed while something still wrote into it
        return SESSION.fullmatch(folder.name) is not None
    return not owner.lives() and not _is_kept(folder, owner)


def _is_kept(folder: Path, owner: Owner) -> bool:
    """Whether the instance of a detached session lives, of which its owner was only the supervisor."""
    try:
        keeper = json.loads((folder / KEEPER).read_text())
        return owner.boot_id == boot_id() and start_time(int(keeper["pid"])) == int(keeper["started"]) > 0
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(path: Path, fields: Mapping[str, str | int]) -> None:
    """Replace a file as a whole."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(fields))
    unfinished.rename(path)


def _owner_of(folder: Path) -> Owner | None:
    """None for anything that is no session."""
    try:
        fields = json.loads((folder / OWNER).read_text())
        return Owner(
            pid=int(fields["pid"]),
            started=int(fields["started"]),
            boot_id=str(fields["boot_id"]),
            home=str(fields["home"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _locked(directory: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a session's lock; False when another holds it (unless ``wait``) or has removed the session meanwhile."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield directory.exists() and os.path.samestat(os.fstat(descriptor), directory.stat())
    finally:
        os.close(descriptor)


def _remove_all(directory: Path, owner: Owner | None) -> tuple[list[str], list[str]]:
    """Remove a session's resources, newest first, and its folder if nothing failed."""
    removed: list[str] = []
    errors: list[str] = []
    rebooted = owner is not None and owner.boot_id != boot_id()
    for resource in dict.fromkeys(reversed(resources(directory))):
        if rebooted and resource.kind not in (ResourceKind.FILE, ResourceKind.DIRECTORY, ResourceKind.ENGINE):
            continue  # the reboot removed it, and its name may mean something else now
        try:
            _refuse_foreign(directory, resource)
            if resource.exists():
                resource.remove()
                removed.append(resource.describe())
        except (LabError, OSError) as error:
            errors.append(f"{resource.describe()}: {error}")
    if not errors:
        try:
            remove_tree(directory)
        except (LabError, OSError) as error:
            errors.append(f"directory {directory}: {error}")
    return removed, errors


def _refuse_foreign(directory: Path, resource: Resource) -> None:
    """A ledger is only a file: what it could not have recorded itself is not removed in its name."""
    scope = delegation.scope_of(directory.name)
    if resource.kind in (ResourceKind.CGROUP, ResourceKind.OTHER_CGROUP) and not f"{resource.name}/".startswith(
        (f"lab/{directory.name}/", f"{scope}/{delegation.INSTANCES}/")
    ):
        raise LabError("is not a cgroup of this session")
    if resource.kind is ResourceKind.SCOPE and resource.name != scope:
        raise LabError("is not the scope of this session")
    if resource.kind is ResourceKind.ENGINE and not engines.is_of(resource.name, directory.name):
        raise LabError("is not an engine that this session used")
    if resource.kind is ResourceKind.TRACE and resource.name != f"lab-{directory.name}":
        raise LabError("is not a trace of this session")
    if resource.kind in (ResourceKind.FILE, ResourceKind.DIRECTORY):
        path = Path(resource.name)
        if not path.is_absolute() or ".." in path.parts or len(path.parts) < 4:
            raise LabError("is not a path that lab makes")
    if resource.kind is ResourceKind.SETTINGS and Path(resource.name).parent != directory:
        raise LabError("is not a file of this session")


def _kill(pid: int, started: int) -> None:
    """SIGKILL the process that started then, through a pidfd: the pid can't be used again in between."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_time(pid) != started:
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        deadline = time.monotonic() + KILL_TIMEOUT_SECONDS
        while start_time(pid) == started:
            if time.monotonic() > deadline:
                raise LabError("survives SIGKILL")
            time.sleep(0.005)
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    """``python -m lab.host.session.ledger FOLDER``: remove one dead session, and what else its owner had; the
    launcher's last act.
    """
    directory = Path(arguments[0])
    owner = _owner_of(directory)
    errors = clean_session(directory)[1]
    for other in stale_sessions():
        if owner is not None and _owner_of(other) == owner:
            errors += clean_session(other)[1]
    for line in errors:
        sys.stderr.write(f"lab: {line}\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
