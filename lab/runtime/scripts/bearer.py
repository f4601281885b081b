"""The launcher's side of the process that bears containers by scripts (inside/begin.c, `lab.runtime.scripts.child`).

An interpreter's copy works slowly: it copies each page that it touches, five hundred until a container stands.
So a plan of the common case is written down, and a copy of a small process carries it out. What is not common, what
fails, and whoever wants to watch takes the way of `lab.runtime.init`.
Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
import sys

from lab.host import syscalls
from lab.runtime.channel import INT_BYTES, Channel
from lab.runtime.container import Started, status_pair
from lab.runtime.plan import INSIDE
from lab.runtime.rootfs import mounttrees
from lab.runtime.scripts import child
from lab.runtime.seccomp import calls
from lab.shims import ExitStack, signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.runtime.plan import Plan

ROOM_BYTES = 1 << 19  # as inside/begin.c has for a request
ANSWER = struct.Struct("<ii")
NONE_BORN = bytes(INT_BYTES)
COPY = "begin"
ANSWER_SECONDS = 1
"""After which the bearer counts as stopped. It answers in less than a millisecond, and one that was only slow costs a
start some milliseconds.
"""
UNIX = _socket.AF_UNIX, _socket.SOCK_SEQPACKET


def copied(program: str) -> int:
    """A file system of its own, in memory, with a copy of ``program`` as COPY. It is mounted nowhere, and read-only:
    nobody who gets at /proc/PID/exe can change it (CVE-2019-5736).
    """
    tree = mounttrees.file_system("tmpfs", "lab", syscalls.MS_NOSUID | syscalls.MS_NODEV)
    try:
        with open(program, "rb") as source:
            content = source.read()
        place = os.open(f"/proc/self/fd/{tree}/{COPY}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o500)
        try:
            while content:
                content = content[os.write(place, content) :]
        finally:
            os.close(place)
        mounttrees.dress(tree, (syscalls.MOUNT_ATTR_RDONLY, 0))
    except OSError:
        os.close(tree)
        raise
    return tree


class Bearer:
    """Started for the first plan that it is of use for. It ends with this process, or by `close`.

    Whatever becomes of it, nothing is lost: where it does not answer, it is ended, and a child that it has borne by
    then is found in ``_births``, a file in memory where the kernel writes its pid before it runs.
    """

    def __init__(self, watch: Callable[[int, Callable[[float], None]], None], unwatch: Callable[[int], None]) -> None:
        """``watch`` calls back when a descriptor is readable, or its other end is gone; ``unwatch`` ends that."""
        self._watch, self._unwatch = watch, unwatch
        self._socket: _socket.socket | None = None
        self._pid = -1
        self._births = -1
        self._is_of_use = os.uname().machine in calls.OWN  # by whose numbers scripts are written

    @property
    def pid(self) -> int:
        """The process, -1 where there is none."""
        return self._pid

    def bear(self, plan: Plan, stdio: list[int]) -> Started | None:
        """Step 1, and the child goes on by itself; None for a plan that is not for this way, or without a child."""
        if not self._is_of_use or not child.can_be(plan):
            return None
        try:
            with ExitStack() as opened:
                return self._bear(plan, stdio, opened)
        except (OSError, ValueError, OverflowError, struct.error) as error:
            sys.stderr.write(f"no script for {plan.name}: {error}\n")
            sys.stderr.flush()
            return None

    def _bear(self, plan: Plan, stdio: list[int], opened: ExitStack) -> Started:
        if self._socket is None:
            self._begin(plan)
        assert self._socket is not None
        ours, theirs = Channel.pair()
        opened.callback(theirs.close)
        undo = opened.enter_context(ExitStack())
        undo.callback(ours.close)
        status_read, status_write = status_pair()
        opened.callback(os.close, status_write)
        undo.callback(os.close, status_read)
        given = [theirs.fileno(), status_write, *stdio]
        for path in plan.cgroups.tasks:
            given.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
            opened.callback(os.close, given[-1])
        group = -1
        if plan.cgroups.unified:
            group = len(given)
            given.append(os.open(plan.cgroups.unified, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            opened.callback(os.close, given[-1])
        script = child.script_of(plan, stdio, len(plan.cgroups.tasks))
        pid, pidfd = self._ask(script.packed(plan.clone_flags, group, child.CHANNEL), given)
        undo.pop_all()
        return Started(pid, pidfd, ours, status_read)

    def _begin(self, plan: Plan) -> None:
        """Execute a copy of the helper: the pages of what runs stay in memory, and with those of the file itself no
        start would be a cold one.
        """
        ours, theirs = _socket.socketpair(*UNIX)
        births = os.memfd_create("births", os.MFD_CLOEXEC)
        try:
            os.write(births, NONE_BORN)
            tree = copied(child.helper(plan))
            try:
                given = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, births, 1)]
                program = f"/proc/self/fd/{tree}/{COPY}"
                self._pid = os.posix_spawn(program, [INSIDE, "begin"], {}, file_actions=given)
            finally:
                os.close(tree)
        except OSError:
            self._is_of_use = False
            os.close(births)
            raise
        finally:
            theirs.close()
        ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, ROOM_BYTES)
        for option in (_socket.SO_SNDTIMEO, _socket.SO_RCVTIMEO):
            ours.setsockopt(_socket.SOL_SOCKET, option, struct.pack("@ll", ANSWER_SECONDS, 0))
        self._socket, self._births = ours, births
        self._watch(ours.fileno(), lambda _: self._end())  # it says nothing unasked: it has died

    def _ask(self, request: bytes, descriptors: list[int]) -> tuple[int, int]:
        """The child's pid and its pidfd. Raises OSError or ValueError if there is none."""
        assert self._socket is not None
        if len(request) > ROOM_BYTES:
            raise ValueError(f"a script of {len(request)} bytes")
        rights = b"".join([number.to_bytes(INT_BYTES, sys.byteorder) for number in descriptors])
        room = _socket.CMSG_LEN(INT_BYTES)
        try:
            self._socket.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
            answer, ancillary, _, _ = self._socket.recvmsg(ANSWER.size, room, _socket.MSG_CMSG_CLOEXEC)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):  # it has died, or is stopped
            answer, ancillary = b"", []
        if len(answer) != ANSWER.size:
            return self._outlived()
        number, pid = ANSWER.unpack(answer)
        if number != 0:
            self._is_of_use = number not in (errno.ENOSYS, errno.EPERM)  # clone3(2), where a filter forbids that
            raise OSError(number, os.strerror(number))
        os.pwrite(self._births, NONE_BORN, 0)
        return pid, int.from_bytes(ancillary[0][2], sys.byteorder) if ancillary else self._hold(pid)

    def _outlived(self) -> tuple[int, int]:
        """The same of a bearer that has not answered: it is ended, and another one can be begun."""
        births, self._births = self._births, -1
        try:
            self._end()
            pid = int.from_bytes(os.pread(births, len(NONE_BORN), 0), sys.byteorder)
        finally:
            os.close(births)
        if pid == 0:
            raise OSError(errno.ECHILD, "the process that bears containers died, or was stopped")
        return pid, self._hold(pid)

    def _hold(self, pid: int) -> int:
        """A pidfd of a child that came without one. Raises OSError, and then there is no child."""
        try:
            return os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)  # ours, and not waited for: the number is its own
            os.waitpid(pid, 0)
            raise

    def close(self) -> None:
        """End it, which needs no answer: it may be stopped, and then would give none. Idempotent; there will be no
        other one.
        """
        self._is_of_use = False
        self._end()

    def _end(self) -> None:
        if self._births >= 0:
            os.close(self._births)
            self._births = -1
        if self._socket is not None:
            self._unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None
            with suppress(ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)  # nobody else waits for it: the number is its own
                os.waitpid(self._pid, 0)
