"""How an ordinary user's lab becomes root of a user namespace of its own, so that the same code can run in it.

Once per command: the process itself moves, and all that it starts is born there. The program does not change, nothing
of lab's is setuid, and nobody stays outside: what is to be had there alone, the host's network, is not left. With the
user namespace comes a mount namespace, since mounting is allowed in one that the user namespace owns.

Root in there is the user who has typed the command, and the other ids are that user's subordinate ones (subuid(5)),
which newuidmap(1) maps; where there are none, there is root alone.
Sources: user_namespaces(7), mount_namespaces(7), newuidmap(1), subuid(5).
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import random
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path

from lab.errors import CommandError, LabError
from lab.host import syscalls
from lab.host.cgroup.hierarchy import forget
from lab.host.command import run
from lab.host.home import home, runtime_root
from lab.host.identity import ownspace, private, privilege

SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")
KVM = Path("/dev/kvm")
FOR_ALL = stat.S_IROTH | stat.S_IWOTH
TIMEOUT_SECONDS = 20.0
DONE = b"mapped"
MAPPING = "apt-get install uidmap; /etc/subuid and /etc/subgid say which are yours (subuid(5))"
MORE_NAMESPACES = "sudo sysctl -w user.max_user_namespaces=15000"
NO_NAMESPACE = "whoever runs this host or container has to allow user namespaces; root needs none: sudo lab"
ELSEWHERE = "set LAB_HOME and XDG_RUNTIME_DIR to folders of your own"
WHOLE = 65_536
"""As many ids as an image may expect; useradd(8) gives that many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """A user and a group, and the ranges that are theirs as well: the first id, and how many, which may be 0."""

    user: int
    group: int
    users: tuple[int, int] = (0, 0)
    groups: tuple[int, int] = (0, 0)

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody else to be."""
        return not (self.users[1] and self.groups[1])


def ids_of(user: int, group: int, subuid: Path = SUBUID, subgid: Path = SUBGID, *, most: int = WHOLE - 1) -> Ids:
    """What this host's administrator has given to that user; of each range no more than ``most``."""
    return Ids(user=user, group=group, users=_range(user, subuid, most), groups=_range(user, subgid, most))


def remark(ids: Ids) -> str:
    """What a user without subordinate ids has to know, "" for others."""
    if not ids.is_alone:
        return ""
    return (
        "you have no subordinate ids (/etc/subuid): all files of an image become yours, and an application of "
        f"another user than root can't run. A range would mend that: {privilege.GIVE_IDS}"
    )


def enter() -> Ids:
    """Become root of a user namespace, in a mount namespace of its own; whoever is root already stays as he is.

    To be called while this process has one thread. Raises LabError where the kernel, or the owner of a folder that
    lab would use, does not allow it; this process is then good for nothing but ending.
    """
    ids = ids_of(privilege.user_id(), privilege.group_id())
    if privilege.granted(privilege.Need.CONTAIN):
        return ids
    for folder in (home(), runtime_root()):
        claim(folder)
    become_root(ids)
    return ids


def become_root(ids: Ids, *, marked: bool = True) -> None:
    """The same without a look at folders, with ``ids`` mapped: `Ids.user` to root, the others from 1 on. ``marked``:
    so that `lab.host.session.strays` knows the namespace; else in one part, that others can be mapped to as a whole.
    """
    helper = None if ids.is_alone else _Helper(ids, parted if marked else whole)
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    except OSError as error:
        if helper is not None:
            helper.give_up()
        raise _refused("made", error) from error
    if helper is not None:
        helper.map()
    else:
        _map_alone(ids)
    _announce(ids.user)  # also of one that is good for little: whoever goes on in it is the user all the same
    try:
        if helper is not None:
            _leave_groups()
        # Changes nothing here. AppArmor lets the namespace be made, and its root do nothing, as Ubuntu sets it.
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        # As after an exec of the user's own program: who may look at this process is who may be its user (ptrace(2)).
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    except OSError as error:
        raise _refused("used", error) from error


def _refused(done: str, error: OSError) -> LabError:
    """What to say of a user namespace that can't be ``done``: which setting is why, if it can be told, and the line
    for an administrator.
    """
    from lab.host.survey.restrictions import forbidding_user_namespaces

    settings, remedy = forbidding_user_namespaces()
    message = f"a user namespace can't be {done}: {error.strerror}"
    if settings:
        return LabError(f"{message}; {settings} keeps ordinary users from it", hint=f"sudo {remedy}")
    if error.errno == ENOSPC:
        return LabError(f"{message}: as many as there may be are in use, here or above", hint=MORE_NAMESPACES)
    return LabError(message, hint=NO_NAMESPACE)


def parted(first: int, count: int) -> list[str]:
    """A range from user 1 on, as newuidmap(1) takes it: in two parts where it can be, parted at random, by which
    `lab.host.session.strays` knows the namespace.
    """
    if count == 1:
        return whole(first, count)
    part = 1 + random.SystemRandom().randrange(count - 1)
    return [str(number) for number in (1, first, part, 1 + part, first + part, count - part)]


def whole(first: int, count: int) -> list[str]:
    """The same in one part."""
    return ["1", str(first), str(count)]


def join(pid: int) -> None:
    """Become root of the user namespace in which ``pid`` is, one that `enter` made in another command of this user's;
    where ``pid`` is in one of a container's below that, the topmost that is not this process's own.

    Raises LabError.
    """
    user = privilege.user_id()
    try:
        with ExitStack() as opened:
            own = Path("/proc/self/ns/user").stat()
            namespace = above = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, above)
            while not os.path.samestat(os.fstat(above), own):
                namespace = above
                above = fcntl.ioctl(namespace, syscalls.NS_GET_PARENT)
                opened.callback(os.close, above)
            syscalls.setns(namespace, syscalls.CLONE_NEWUSER)
        syscalls.unshare(syscalls.CLONE_NEWNS)
    except OSError as error:
        raise LabError(f"the user namespace of process {pid} can't be joined: {error.strerror}") from error
    _announce(user)
    if ownspace.has_ids():
        _leave_groups()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def _leave_groups() -> None:
    """Unless /dev/kvm can be opened by some alone, since one of them may be why. A namespace knows none of them by a
    number, so that all are kept or none; what runs in a container or a jail without KVM has left them.
    """
    if not os.access(KVM, os.R_OK | os.W_OK) or KVM.stat().st_mode & FOR_ALL == FOR_ALL:
        os.setgroups([])


def _announce(user: int) -> None:
    """What was found out before holds no more."""
    ownspace.announce(user)
    forget()


def claim(folder: Path) -> None:
    """Have ``folder``, closed to others: an image's files may be programs that change their user to this one.

    Raises LabError where it is not this user's alone to have, also when somebody else has just been faster.
    """
    require_safe(folder)
    try:
        private.make_folder(folder)
    except OSError as error:
        raise LabError(f"{folder} can't be made: {error.strerror}", hint=ELSEWHERE) from error
    require_safe(folder)
    private.tighten(folder)


def require_safe(folder: Path) -> None:
    """Raise LabError unless ``folder``, as far as it is there, is this user's, and nobody else can put another in its
    place. Links on the way are followed: whoever may set one is asked about as well.
    """
    user = privilege.user_id()
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    for place in dict.fromkeys((there, there.resolve())):
        for step in (place, *place.parents):
            found = step.lstat()
            others = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and _is_shared(found.st_gid))
            writable = bool(others) and not found.st_mode & stat.S_ISVTX
            if found.st_uid not in (0, user) or (writable and not stat.S_ISLNK(found.st_mode)):
                whose = "can be changed by others" if found.st_uid in (0, user) else "is another user's"
                raise LabError(f"{folder} is no place for lab: {step} {whose}", hint=ELSEWHERE)
    if os.path.lexists(folder) and folder.stat().st_uid != user:
        raise LabError(f"{folder} is not yours", hint=ELSEWHERE)


def _is_shared(group: int) -> bool:
    """Whether anybody else may be in it: it is neither root's nor the one of this user's name (useradd(8),
    USERGROUPS_ENAB).
    """
    if group == 0:
        return False
    with suppress(KeyError):
        about = grp.getgrgid(group)
        return about.gr_name != _name_of(privilege.user_id()) or bool(set(about.gr_mem) - {about.gr_name})
    return True


def _name_of(user: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(user).pw_name
    return ""


def _range(user: int, path: Path, most: int) -> tuple[int, int]:
    """The longest range of the user's, by name or by number (subuid(5)), as far as ``most``."""
    names, found = {str(user), _name_of(user)} - {""}, (0, 0)
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text().splitlines():
            name, _, rest = line.strip().partition(":")
            first, _, count = rest.partition(":")
            if name in names and first.isdecimal() and count.isdecimal() and int(count) > found[1]:
                found = int(first), min(int(count), most)
    return found


class _Helper:
    """A child that stays outside, where newuidmap(1) is allowed to, and maps the ids when it is told. A table of more
    than one id is written from outside, and once (user_namespaces(7)).
    """

    def __init__(self, ids: Ids, arranged: Callable[[int, int], list[str]]) -> None:
        self._ids, self._arranged, self._parent = ids, arranged, os.getpid()
        self._ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._ours.close()
                self._serve(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def map(self) -> None:
        """Raises LabError with what newuidmap said."""
        self._ours.sendall(b"1")
        failed = self._end()
        if failed != DONE:
            raise LabError(
                "your subordinate ids can't be mapped", hint=MAPPING, detail=failed.decode(errors="replace")
            )

    def give_up(self) -> None:
        self._ours.shutdown(socket.SHUT_WR)
        self._end()

    def _end(self) -> bytes:
        with self._ours:
            said = b"".join(iter(lambda: self._ours.recv(4096), b""))
        os.waitpid(self._pid, 0)
        return said

    def _serve(self, theirs: socket.socket) -> None:
        if not theirs.recv(1):
            return
        try:
            for program, own, given in (
                ("newuidmap", self._ids.user, self._ids.users),
                ("newgidmap", self._ids.group, self._ids.groups),
            ):
                words = [program, str(self._parent), "0", str(own), "1", *self._arranged(*given)]
                run(words, timeout_seconds=TIMEOUT_SECONDS, hint=MAPPING)
        except CommandError as error:
            theirs.sendall((error.detail or error.message).encode())
        else:
            theirs.sendall(DONE)


def _map_alone(ids: Ids) -> None:
    """What a process may do for itself: one id, and no way to leave groups (user_namespaces(7))."""
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {ids.user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {ids.group} 1")
    except OSError as error:
        raise _refused("used", error) from error
