"""What is known of a container between two commands: a folder below ``--root`` with its name.

    state.json      who it is, its first process, its cgroup; replaced as a whole, never changed in place
    config.json     the configuration it was created from: the bundle's may change meanwhile
    start           a socket at which its first process waits to be started; gone once it was

The folder is made by one mkdir(2), so of two creates of one name one wins. A verb that changes something holds a
lock, flock(2), on the folder itself: it ends with the process that holds it, however that ends.

Every state is written before what it announces is made. Whoever finds a folder, after a SIGKILL at any time, knows
what may exist.
"""

from __future__ import annotations

import fcntl
import os
import stat

from lab.errors import LabError, UsageError
from lab.host import procstat
from lab.host.identity import ownspace
from lab.shims import dumps, loads, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from lab.host.cgroup.group import Group

DEFAULT_ROOT = "/run/lab-oci"

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"

FACTS = {
    "id": str, "version": str, "bundle": str, "created": str, "root": str, "owner": str, "group": str,
    "annotations": dict, "namespaces": int, "pid": int, "birth": int,
}  # fmt: skip

STATE, CONFIG, FILTER, START = "state.json", "config.json", "filter.json", "start"
LONGEST_ID = 1024
OWN = {"pid": "pid", "mount": "mnt"}
"""The namespaces by which its processes can be told: their names in config.json and in /proc/PID/ns."""
PASSABLE, CLOSED = 0o711, 0o700
ID_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Unknown(LabError):
    """There is no such container."""


class Damaged(LabError):
    """There is one, but what was noted of it can't be read."""


class State:
    """The facts of one container, as state.json holds them."""

    def __init__(self, facts: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for facts that are none."""
        for name, kind in FACTS.items():
            if type(facts[name]) is not kind:
                raise ValueError(f"{name} is not of type {kind.__name__}")
        if facts["pid"] < 0 or not facts["group"].strip("/"):
            raise ValueError("no process, or no group, of a container's")
        self.id: str = facts["id"]
        self.version: str = facts["version"]  # of the specification, as its configuration says
        self.bundle: str = facts["bundle"]
        self.created: str = facts["created"]  # RFC 3339
        self.root: str = facts["root"]
        self.owner: str = facts["owner"]
        self.group: str = facts["group"]  # its control group, below every hierarchy's mount point
        self.annotations: dict[str, str] = facts["annotations"]
        self.namespaces: int = facts["namespaces"]  # CLONE_NEW* flags of what a further process joins
        self.pid: int = facts["pid"]  # of its first process, 0 as long as there is none
        self.birth: int = facts["birth"]  # when that was started, in clock ticks: a pid may be used again
        self.first: list[int] = facts.get("first") or []  # as pid and birth, where nobody else could tell who waits
        self.own: list[str] = facts.get("own") or []  # of OWN, those that were made for it
        self.startable = facts.get("startable") is not False  # there is a process to start

    def its_group(self) -> Group:
        """Its control group; where an ordinary user has been given none, its processes by their namespaces."""
        from lab.host.cgroup.group import Group

        group = Group(self.group)
        if self.lives():
            group.follow(self.pid, self.own)
        elif len(self.first) == 2 and birth_of(self.first[0]) == self.first[1] > 0:
            group.follow(self.first[0], self.own)
        return group

    def facts(self) -> dict[str, Any]:
        return dict(vars(self))

    def lives(self) -> bool:
        """Whether its first process still runs; a zombie doesn't."""
        return self.pid > 0 and birth_of(self.pid) == self.birth


class Entry:
    """One container's folder."""

    def __init__(self, root: str, identity: str) -> None:
        self.id = validated(identity)
        self.folder = f"{root}/{self.id}"
        self.lock_descriptor = -1  # while this command holds it
        self._config: dict[str, Any] | None = None  # read once while this command holds it

    def make(self) -> None:
        """Claim the name, and hold its lock. Raises LabError if it is taken."""
        root = os.path.dirname(self.folder)
        mode = CLOSED if ownspace.ordinary_user() > 0 else PASSABLE
        if not os.path.isdir(root):
            os.makedirs(root, mode, exist_ok=True)
            if mode == CLOSED:
                os.chmod(root, CLOSED | stat.S_ISVTX)  # or it may be tidied away (XDG Base Directory Specification)
        try:
            os.mkdir(self.folder, mode)
        except FileExistsError:
            raise LabError(f"container with given ID already exists: {self.id}") from None
        self.lock()

    def lock(self) -> None:
        """Wait until no other command changes this container. Raises LabError if there is none (any more)."""
        self._config = None
        while True:
            try:
                descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise self.unknown() from None
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(descriptor), os.stat(self.folder)):
                    self.lock_descriptor = descriptor
                    return
            except FileNotFoundError:
                pass
            os.close(descriptor)  # it was deleted, and maybe made again, while we waited

    def is_locked(self) -> bool:
        """Whether some other command is changing it just now."""
        if self.lock_descriptor >= 0:
            return False
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def unlock(self) -> None:
        """Idempotent. Closing would not do: the container's process has inherited the descriptor, and the lock."""
        if self.lock_descriptor >= 0:
            fcntl.flock(self.lock_descriptor, fcntl.LOCK_UN)
            os.close(self.lock_descriptor)
            self.lock_descriptor = -1

    @property
    def start_socket(self) -> str:
        return f"{self.folder}/{START}"

    @property
    def start_address(self) -> str:
        """The same, short enough for any root (unix(7): 107 bytes), as long as the lock is held."""
        return f"/proc/self/fd/{self.lock_descriptor}/{START}"

    def read(self) -> State:
        """Raises LabError if there is no such container."""
        try:
            return State(loads(_read(f"{self.folder}/{STATE}")))
        except FileNotFoundError:
            raise self.unknown() from None
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(
                f"{self.folder}/{STATE} is damaged: {error}", hint=f"lab-oci delete --force {self.id}"
            ) from error

    def write(self, state: State) -> None:
        self._replace(STATE, dumps(state.facts()))

    def read_config(self) -> Any:
        """The configuration it was created from, parsed. Raises OSError if there is none, Damaged for no JSON."""
        if self._config is not None:
            return self._config
        try:
            value = loads(_read(f"{self.folder}/{CONFIG}"))
        except ValueError as error:
            raise Damaged(f"{self.folder}/{CONFIG} is damaged: {error}") from error
        if not isinstance(value, dict):
            raise Damaged(f"{self.folder}/{CONFIG} is damaged: no object")
        if self.lock_descriptor >= 0:
            self._config = value
        return value

    def hooks(self, name: str) -> list[dict[str, Any]]:
        """Its hooks of one kind, as the configuration has them. None that can't be read any more."""
        try:
            found = (self.read_config().get("hooks") or {}).get(name) or []
        except (OSError, Damaged, AttributeError):
            return []
        return found if isinstance(found, list) else []

    def group(self) -> str:
        """The path of its control group as the configuration has it, "" for the default or where nobody knows."""
        return str(self.linux("cgroupsPath") or "")

    def linux(self, name: str) -> Any:
        """A property of ``linux`` as the configuration has it; None where there is none, or nobody knows."""
        try:
            return (self.read_config().get("linux") or {}).get(name)
        except (OSError, Damaged, AttributeError):
            return None

    def write_config(self, text: str) -> None:
        self._replace(CONFIG, text)

    def write_filter(self, fields: object) -> None:
        """Keep what its system-call filter was compiled to, for `exec`, whose caller waits."""
        self._replace(FILTER, dumps(fields))

    def filter(self) -> dict[str, object]:
        """The same, fields of a `ProcessPlan`; empty where nobody has kept it whole, and it has to be compiled."""
        try:
            value = loads(_read(f"{self.folder}/{FILTER}"))
            kept = {"seccomp": value["seccomp"], "seccomp_flags": value["seccomp_flags"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return kept if kept["seccomp"] and isinstance(kept["seccomp"], str) else {}

    def remove(self) -> None:
        """The folder with all that is known. Idempotent."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self.folder):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self.folder}/{name}")
            os.rmdir(self.folder)
        self.unlock()

    def status(self, state: State) -> str:
        """Where in its life it is (runtime.md, "State")."""
        if state.pid == 0:
            return CREATING if self.is_locked() else STOPPED  # a create that was killed left it, and nothing runs
        if not state.lives():
            return STOPPED
        if _is_frozen(state.group):
            return PAUSED  # one that was not started as well: nothing could start it
        return CREATED if os.path.exists(self.start_socket) else RUNNING

    def unknown(self) -> Unknown:
        return Unknown(f"container {self.id!r} does not exist")

    def _replace(self, name: str, text: str) -> None:
        """A reader sees the old text or the new one."""
        new = f"{self.folder}/.{name}"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
        os.rename(new, f"{self.folder}/{name}")


def entries(root: str) -> Iterator[Entry]:
    """Every container below ``root``, by name."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return
    for name in names:
        with suppress(LabError):
            yield Entry(root, name)


def validated(identity: str) -> str:
    """A name that is a file name, too. Raises UsageError."""
    if not identity or len(identity) > LONGEST_ID or identity in (".", "..") or not ID_SIGNS.issuperset(identity):
        raise UsageError(f"invalid id format: {identity!r}", hint="letters, digits, and _ + - .")
    return identity


def birth_of(pid: int) -> int:
    """When process ``pid`` was started, in clock ticks after boot; 0 if it has ended."""
    return procstat.start_time(pid) or 0


def _is_frozen(group: str) -> bool:
    from lab.host.cgroup.group import Group

    try:
        return Group(group).is_frozen()
    except (OSError, LabError):
        return False  # it is gone, or can't be frozen on this host


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
