"""An escaped process: what is within its reach when a container's boundary has failed, on the host itself.

One escape out of two kinds of container: that of root, whose root is the host's root, and that of an ordinary user
(rootless), whose root is that user. The way out itself is not looked for, it is taken for granted: the same lines
run on the host, once as root and once where an escape from a rootless container ends (``inside broken-out``). All
that is left to stop them there is the user namespace and the user.

What root reaches is the positive control of what the user is refused, ``inside closed`` the negative one.
"""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from lab.errors import LabError
from lab.host.command import run
from lab.host.identity import privilege
from lab.inside import build
from lab.isolation.base import (
    BOOT_ID,
    Answer,
    Context,
    Expected,
    Found,
    Group,
    Inconclusive,
    Privilege,
    Probe,
    Reply,
    expect,
    on_whose_kernel,
)
from lab.isolation.battery import (
    Places,
    Prefetched,
    ask_once,
    host_context,
    in_closed_place,
    on_host,
    replies,
)
from lab.isolation.registry import probes
from lab.model import Completed
from lab.results.observation import Observation
from lab.results.record import Status

PREFIX = "breakout."
"""Before a question's id, in an observation's quantity."""


class RootsSecrets(Privilege):
    """/etc/shadow opened for reading, and nothing read."""

    id = "secrets-of-root"
    question = "Can it read what only root may, /etc/shadow?"
    group = Group.VISIBILITY
    pages = ("shadow(5)", "path_resolution(7)")
    line = "open /etc/shadow read"
    allowed = frozenset({""})
    because = "it has a root directory of its own"


class RootsFiles(Privilege):
    """/etc/passwd opened for writing, and nothing written."""

    id = "files-of-root"
    question = "Can it change root's files, /etc/passwd?"
    group = Group.VISIBILITY
    pages = ("passwd(5)", "path_resolution(7)")
    line = "open /etc/passwd write"
    allowed = frozenset({""})
    because = "it has a root directory of its own"


class KillOfTheUser(Privilege):
    """Signal 0 to another process of the same user's, which has never been in a container."""

    id = "kill-process-of-the-user"
    question = "Could it kill another process of the same user's?"
    group = Group.VISIBILITY
    pages = ("kill(2)",)
    line = "call kill"
    allowed = frozenset({""})
    because = "the host's process has no id in the container's pid namespace"

    def lines(self, context: Context) -> Sequence[str]:
        pid, _, boot = context.fellow_pid, *super().lines(context)
        return (f"{self.line} {pid} 0", boot)


class MountThere(Privilege):
    """mount(2) of a type that doesn't exist, in the mount namespace where it is: ENODEV comes only after the
    privilege to mount there was asked for.
    """

    id = "mount-on-the-host"
    question = "Can it mount a file system for all the host?"
    pages = ("mount(2)", "mount_namespaces(7)")
    line = "call mount s:lab s:/ s:lab-no-such-type 0 0"
    allowed = frozenset({"ENODEV"})
    because = "Docker's 14 capabilities lack CAP_SYS_ADMIN, and the filter refuses mount(2)"


class DiskNode(Privilege):
    """The node of the host's disk in /dev, opened read-only; nothing is read."""

    id = "node-of-a-disk"
    question = "Can it open the host's disk where it is, in /dev?"
    group = Group.DEVICES
    pages = ("sd(4)", "path_resolution(7)")
    line = "open /dev/"
    allowed = frozenset({""})
    because = "its /dev has no such node, and the device cgroup would refuse it"

    def lines(self, context: Context) -> Sequence[str]:
        if context.disk is None or not (name := _device_name(*context.disk)):
            raise Inconclusive("the host has no disk with a node")
        return (f"{self.line}{name} read", BOOT_ID)


class SetUserId(Privilege):
    """Executes a set-user-ID program of root's, for its help, and looks as whom that ran. An ordinary user in no
    namespace, the positive control here, gains root by it.
    """

    id = "set-user-id"
    question = "Does a set-user-ID program of root's run as root for it?"
    pages = ("execve(2)", "user_namespaces(7)")
    line = "gain-user"
    because = "it has a root directory of its own, and no_new_privs"
    places = ("/usr/bin/su", "/bin/su", "/usr/bin/mount", "/bin/mount", "/usr/bin/passwd")

    def lines(self, context: Context) -> Sequence[str]:
        programs = [place for place in self.places if _changes_to_root(Path(place))]
        if not programs:
            raise Inconclusive("the host has no set-user-ID program that is known to do no harm")
        return (f"{self.line} {programs[0]}", "read /proc/self/uid_map 100", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        error, ran = str(seen[0]["name"]), int(seen[0].get("effective", -1))
        asked = self.lines(context)[0]
        if error:
            return Found(answer=Answer.NO, evidence=f"{asked}: {error}")
        first, outside, count = map(int, str(seen[1]["text"]).split()[:3])
        whom = outside + ran - first if first <= ran < first + count else -1
        evidence = f"{asked}: ran as user {whom if whom >= 0 else 'unknown'} of the host"
        return Found(answer=on_whose_kernel(seen[-1], host[-1]) if whom == 0 else Answer.NO, evidence=evidence)


def _changes_to_root(program: Path) -> bool:
    with suppress(OSError):
        about = program.stat()
        return bool(about.st_mode & stat.S_ISUID) and about.st_uid == 0
    return False


def _device_name(major: int, minor: int) -> str:
    """Of that block device below /dev, "" where there is no such node (sysfs(5))."""
    with suppress(OSError):
        for line in Path(f"/sys/dev/block/{major}:{minor}/uevent").read_text().splitlines():
            key, _, name = line.partition("=")
            if key == "DEVNAME" and Path("/dev", name).is_block_device():
                return name
    return ""


def _capable(name: str) -> Expected:
    return expect(Answer.NO, because=f"{name} counts in its own user namespace alone")


def _network(name: str) -> Expected:
    return expect(Answer.NO, because=f"{name} counts for networks of its own user namespace, not for the host's")


ROOTS_FILE = expect(Answer.NO, because="the file is root's, and it is another user")
ROOTS_PROCESS = expect(Answer.NO, because="the process is root's, and it is another user")
NO_NODE = expect(Answer.NO, because="nobody makes a device node in a user namespace that could be opened (mknod(2))")

EXPECTED: Mapping[str, Mapping[str, Expected]] = {
    "files and processes": {
        RootsSecrets.id: ROOTS_FILE,
        RootsFiles.id: ROOTS_FILE,
        "root-of-a-host-process": ROOTS_PROCESS,
        "kill-host-process": ROOTS_PROCESS,
        "trace-host-process": ROOTS_PROCESS,
        "join-namespace": ROOTS_PROCESS,
        "shared-memory": expect(Answer.NO, because="the segment is root's, and closed to others"),
        SetUserId.id: expect(
            Answer.NO, because="its user namespace knows no root: the kernel ignores the bit of root's programs there"
        ),
        "host-processes": expect(
            Answer.YES, Answer.NO, because="/proc shows everybody's processes, unless it is mounted with hidepid"
        ),
        KillOfTheUser.id: expect(Answer.YES, because="it is that user: what is the user's is in its reach"),
        "abstract-socket": expect(Answer.YES, because="abstract sockets have no owner, and the network is the same"),
    },
    "orders to the kernel": {
        MountThere.id: expect(
            Answer.NO, because="CAP_SYS_ADMIN counts for mount namespaces of its own user namespace alone"
        ),
        "set-hostname": expect(Answer.NO, because="the UTS namespace is not one of its own user namespace"),
        "load-module": _capable("CAP_SYS_MODULE"),
        "kernel-log": _capable("CAP_SYSLOG"),
        "set-clock": _capable("CAP_SYS_TIME"),
        "kexec": _capable("CAP_SYS_BOOT"),
        "reboot": _capable("CAP_SYS_BOOT"),
        "swap": _capable("CAP_SYS_ADMIN"),
        "open-by-handle": _capable("CAP_DAC_READ_SEARCH"),
        "raise-priority": _capable("CAP_SYS_NICE"),
        "core-pattern": ROOTS_FILE,
        "sysrq": ROOTS_FILE,
        "kernel-settings": ROOTS_FILE,
        "kernel-core": ROOTS_FILE,
        "cgroup-files": expect(Answer.NO, because="the uppermost groups are root's, and it is another user"),
        "release-agent": expect(Answer.NO, because="the file is root's, and it may mount no hierarchy"),
        "bpf": _capable("CAP_SYS_ADMIN"),
        "perf-events": _capable("CAP_PERFMON"),
        "watch-files": _capable("CAP_SYS_ADMIN"),
        "user-namespace": expect(
            Answer.YES, Answer.NO, because="where ordinary users of the host may: a lot of kernel code to reach"
        ),
    },
    "devices": {
        DiskNode.id: ROOTS_FILE,
        "block-device": NO_NODE,
        "physical-memory": NO_NODE,
        "kernel-messages": NO_NODE,
        "io-ports": _capable("CAP_SYS_RAWIO"),
    },
    "network": {
        "packet-capture": _network("CAP_NET_RAW"),
        "raw-socket": _network("CAP_NET_RAW"),
        "network-settings": _network("CAP_NET_ADMIN"),
        "host-loopback": expect(Answer.YES, because="the network is the host's, and connecting takes no privilege"),
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A probe that is asked outside; what is expected of whoever has left an ordinary user's container."""

    probe: Probe
    heading: str
    rootless: Expected


OWN = (RootsSecrets(), RootsFiles(), SetUserId(), KillOfTheUser(), MountThere(), DiskNode())
"""What is asked here alone."""


@cache
def questions() -> tuple[Question, ...]:
    """All of them, in the order of the table."""
    known = {probe.id: probe for probe in (*probes(), *OWN)}
    return tuple(
        Question(probe=known[name], heading=heading, rootless=expected)
        for heading, rows in EXPECTED.items()
        for name, expected in rows.items()
    )


def ask_broken_out() -> Iterator[Observation]:
    """One observation per question, ``breakout.ID``: its answer is what is reached from an ordinary user's container;
    ``detail`` has what is from root's beside it. What can't be told is a failed observation.

    To be called by the host's root: another caller gets no control.
    """
    with host_context() as found, _fellow() as pid:
        context = replace(found, fellow_pid=pid)
        lines = [line for each in questions() for line in _lines(each.probe, context)]
        places = Places(
            inside=Prefetched(broken_out, lines), host=Prefetched(on_host, lines),
            closed=Prefetched(in_closed_place, lines), limited=on_host,
        )  # fmt: skip
        for question in questions():
            gains = isinstance(question.probe, SetUserId)  # root has nothing to gain
            asked = replace(places, host=as_user) if gains else places
            yield _observation(question, *_ask(question.probe, asked, context))


def broken_out(lines: bytes, timeout_seconds: float) -> Completed:
    """Run ``inside broken-out``, as a user that nobody else is."""
    return run([build.program(), "broken-out", str(privilege.NOBODYS)], stdin=lines, timeout_seconds=timeout_seconds)


def as_user(lines: bytes, timeout_seconds: float) -> Completed:
    """The same in no namespace of its own."""
    return run([build.program(), "as-user", str(privilege.NOBODYS)], stdin=lines, timeout_seconds=timeout_seconds)


@contextmanager
def _fellow() -> Iterator[int]:
    """Another process of that user's, which ends with its standard input, as it would if lab died."""
    user = privilege.NOBODYS
    fellow = subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, user=user, group=user, extra_groups=[], cwd="/"
    )
    try:
        yield fellow.pid
    finally:
        fellow.communicate()


def _lines(probe: Probe, context: Context) -> Sequence[str]:
    try:
        return probe.lines(context)
    except Inconclusive:
        return ()


UNTOLD = (LabError, Inconclusive, KeyError, IndexError, TypeError, ValueError)
"""What is raised where it can't be told: the last four by a reply that isn't what its verb prints."""


def _ask(probe: Probe, places: Places, context: Context) -> tuple[Found | str, Found | str]:
    """What is found from an ordinary user's container and from root's, or why it can't be told."""
    try:
        lines, seconds = probe.lines(context), probe.timeout_seconds
        control = replies(places.host, probe.control_lines(context), seconds)
        root: Found | str = probe.judge(replies(places.host, lines, seconds), control, context)
        if isinstance(root, Found) and root.answer.reach != "open":
            root = f"inconclusive: the host's root gets no further: {root.evidence}"
    except UNTOLD as error:
        root = f"inconclusive: {error}"
    try:
        user = ask_once(probe, places, context)
    except UNTOLD as error:
        return f"inconclusive: {error}", root
    # A refusal counts where root is not refused by these very lines, whatever the probe's own control asks.
    return (root if isinstance(root, str) and user.answer.reach != "open" else user), root


def _observation(question: Question, user: Found | str, root: Found | str) -> Observation:
    probe, expected = question.probe, question.rootless
    found = user if isinstance(user, Found) else None
    as_expected = found.answer in expected.answers if found else None
    wanted = str(found.answer) if found and as_expected else " or ".join(expected.answers)
    return Observation(
        quantity=f"{PREFIX}{probe.id}",
        value=None,
        unit="answer",
        text=_word(user),
        status=Status.OK if found else Status.FAILED,
        detail={
            "group": question.heading,
            "question": probe.question,
            "evidence": _evidence(user),
            "expected": wanted if found else "",
            "as_expected": as_expected,
            "reason": expected.because,
            "reach": _reach(user),
            "surprise": _surprise(found) if found and not as_expected else "",
            "root": {"answer": _word(root), "reach": _reach(root), "evidence": _evidence(root)},
        },
    )


def _word(found: Found | str) -> str:
    return "inconclusive" if isinstance(found, str) else str(found.answer)


def _reach(found: Found | str) -> str:
    return "unknown" if isinstance(found, str) else found.answer.reach


def _evidence(found: Found | str) -> str:
    return found if isinstance(found, str) else found.evidence


def _surprise(found: Found) -> str:
    if found.answer.reach == "open":
        return (
            "an ordinary user of this host may do it, which is root's alone elsewhere: a mode or a setting is wider"
        )
    return "something new stops it: a setting or a security module"
