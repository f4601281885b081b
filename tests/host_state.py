"""What lab could leave behind on a host, before and after.

    before = snapshot()
    …
    assert_unchanged(before)

Only what carries lab's marks is compared, so that other work on the same machine, another lab included, does
not disturb a test: pass ``sessions`` to look at some sessions alone. Resources which carry no name (network
namespaces, links) are attributed to the processes of this test: see `snapshot`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PATIENCE_SECONDS, GRACE_SECONDS = 60.0, 30.0
"""How long is waited for what comes, and for what goes: on a host that does many other things, no measure of it."""
CGROUPS = Path("/sys/fs/cgroup")
KERNEL_THREAD = 0x00200000  # PF_KTHREAD: KVM's, one for each QEMU and in its group
RUNTIME = Path("/run/lab")
SESSION = re.compile(r"[0-9a-f]{8}|\.new-.*")
WORKER = re.compile(r"/popen-(gw\d+)/")
"""Below it is what one process of several that share the tests has made for its own (pytest-xdist's tmp_path)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """Sets of names, one per kind of thing that can be left behind."""

    mounts: frozenset[str]
    links: frozenset[str]
    named_namespaces: frozenset[str]
    held_namespaces: frozenset[str]
    cgroups: frozenset[str]
    sessions: frozenset[str]
    scratch: frozenset[str]
    processes: frozenset[str]


def snapshot(home: Path | None = None) -> HostState:
    """The state of the host now; ``home`` (default: lab's) is where scratch is looked for.

    Sessions and cgroups of *living* lab processes other than this one and its descendants are left out: another
    lab may be at work. Processes are those inside lab's cgroups. Held namespaces are the network namespaces
    other than the host's that this process or one of its descendants holds by a descriptor or lives in.
    """
    foreign = _sessions_of_others()
    return HostState(
        mounts=frozenset(filter(_is_no_other_workers, _mount_points())),
        links=frozenset(_names(Path("/sys/class/net"))),
        named_namespaces=frozenset(_names(Path("/run/netns")) | _names(Path("/var/run/netns"))),
        held_namespaces=frozenset(_held_network_namespaces()),
        cgroups=frozenset(name for name in _cgroups() if _is_ours(_session_of(name), foreign)),
        sessions=frozenset(name for name in _names(RUNTIME) - _of_libvirt() if _is_ours(name, foreign)),
        scratch=frozenset(_scratch(home or _home()) - {str((home or _home()) / "tmp" / name) for name in foreign}),
        processes=frozenset(_processes(foreign)),
    )


def assert_unchanged(
    before: HostState,
    *,
    home: Path | None = None,
    within_seconds: float = GRACE_SECONDS,
    ignore: Collection[str] = (),
) -> None:
    """Fail, naming each leftover, unless the host is as it was in ``before`` within a while.

    The grace is for what the kernel removes by itself a moment after its last user is gone (a network
    namespace), and for the host's init, which may reap orphans late. ``ignore`` names kinds that don't count.
    """
    assert wait_until(lambda: not difference(before, snapshot(home), ignore), within_seconds), "\n".join(
        ["the host is not as it was:", *difference(before, snapshot(home), ignore)]
    )


def difference(before: HostState, after: HostState, ignore: Collection[str] = ()) -> list[str]:
    """One line per thing that appeared or vanished."""
    lines = []
    for kind in HostState.__dataclass_fields__.keys() - set(ignore):
        old, new = getattr(before, kind), getattr(after, kind)
        lines += [f"  {kind}: {name} is left" for name in sorted(new - old)]
        # What vanished matters only where lab must never touch anything it has not made.
        if kind in ("mounts", "links", "named_namespaces"):
            lines += [f"  {kind}: {name} has vanished" for name in sorted(old - new)]
    return lines


def wait_until(condition: Callable[[], object], timeout_seconds: float = PATIENCE_SECONDS) -> bool:
    """Poll ``condition`` every 20 ms; False when it stayed false."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def descendants(pid: int | None = None) -> set[int]:
    """``pid`` (default: this process) and every process below it."""
    parents: dict[int, int] = {}
    for pid_text in filter(str.isdigit, _names(Path("/proc"))):
        if stat := _stat(int(pid_text)):
            parents[int(pid_text)] = int(stat[1])
    found = {pid or os.getpid()}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def mountinfo() -> list[str]:
    """What is mounted on the host, a line each as proc_pid_mountinfo(5) has it, but for what other processes of the
    same tests have mounted.
    """
    return [line for line in _mountinfo() if _is_no_other_workers(line.split()[4])]


def _mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _mount_points() -> list[str]:
    return [line.split()[4] for line in _mountinfo()]


def _is_no_other_workers(path: str) -> bool:
    """Another process of the same tests may mount what it likes in its folder, and take it away meanwhile."""
    worker = WORKER.search(path)
    return worker is None or worker[1] == os.environ.get("PYTEST_XDIST_WORKER")


def _home() -> Path:
    from lab.host.home import home

    return home()


def _names(directory: Path) -> set[str]:
    try:
        return {path.name for path in directory.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (proc(5)), or None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _of_libvirt() -> set[str]:
    """The folder of libvirt's driver in this very process, which stays until the process ends."""
    session = sys.modules.get("lab.hypervisor.domains.connection")
    root: Path | None = session._driver.root if session is not None else None
    return set() if root is None else {root.parent.name}


def _sessions_of_others() -> set[str]:
    """Sessions of living labs that are no descendants of this process: by their owner, or by their launcher.

    A launcher whose parent is init has lost its lab, and is about to clean up: that is ours to wait for.
    """
    ours = descendants()
    foreign = set()
    for pid in {int(name) for name in _names(Path("/proc")) if name.isdigit()} - ours:
        stat = _stat(pid)
        if stat and stat[0] != "Z" and stat[1] != "1":
            foreign |= set(filter(SESSION.fullmatch, _command_line(pid)))
    for name in _names(RUNTIME):
        try:
            owner = json.loads((RUNTIME / name / "owner.json").read_text())
            stat = _stat(int(owner["pid"]))
        except (OSError, ValueError, KeyError):
            continue
        if stat and stat[0] != "Z" and int(owner["pid"]) not in ours:
            foreign.add(name)
    return foreign


def told_of(pids: Iterable[int], name: str) -> dict[int, str]:
    """What /proc/PID/``name`` says, without its last newline, of each of them that has not ended meanwhile."""
    found = {}
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            found[pid] = Path(f"/proc/{pid}", name).read_text(errors="replace").rstrip("\n")
    return found


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []


def _is_ours(session: str, foreign: set[str]) -> bool:
    """Whether a session's name is one that `lab.host.session.ledger` gives, and not that of another living lab."""
    return SESSION.fullmatch(session) is not None and session not in foreign


def _cgroups() -> Iterable[str]:
    for root in [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]:
        for directory, _, _ in os.walk(root / "lab"):
            if directory != str(root / "lab"):  # the common parent may stay
                yield directory
    for scope in CGROUPS.glob("lab-*.scope"):
        for directory, _, _ in os.walk(scope):
            yield directory


def groups_named(word: str) -> list[str]:
    """Groups in any hierarchy with ``word`` in their path. Others make and remove theirs meanwhile, which ends a
    pathlib's ``**``.
    """
    return [directory for directory, _, _ in os.walk(CGROUPS) if word in directory]


def _session_of(cgroup: str) -> str:
    """The name behind ``lab/``, or in ``lab-….scope``."""
    return re.sub(r"^.*/lab[/-]([^/.]+).*$", r"\1", cgroup)


def _processes(foreign: set[str]) -> Iterable[str]:
    """``PID COMMAND`` of every living process inside a cgroup of lab's."""
    for cgroup in _cgroups():
        if not _is_ours(_session_of(cgroup), foreign):
            continue
        try:
            pids = (Path(cgroup) / "cgroup.procs").read_text().split()
        except OSError:
            continue
        for pid in pids:
            if (stat := _stat(int(pid))) and stat[0] != "Z" and not int(stat[6]) & KERNEL_THREAD:
                yield f"{pid} in {cgroup}"


def _scratch(home: Path) -> set[str]:
    return {str(home / "tmp" / name) for name in _names(home / "tmp")}


def _held_network_namespaces() -> Iterable[str]:
    host = str(Path("/proc/self/ns/net").readlink())
    for pid in descendants():
        process = Path(f"/proc/{pid}")
        descriptors = [process / "fd" / name for name in _names(process / "fd")]
        threads = [process / "task" / name / "ns/net" for name in _names(process / "task")]
        for link in descriptors + threads:
            try:
                target = str(link.readlink())
            except OSError:
                continue
            else:
                if target.startswith("net:[") and target != host:
                    yield target
