"""Asks every probe: inside the instance, on the host itself, its positive control, and where nothing is allowed, its
negative one.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lab.errors import LabError
from lab.host.cgroup.systemd import Scope
from lab.host.command import run
from lab.host.home import home
from lab.images.store import Store
from lab.inside import build
from lab.instance import Backend, Instance
from lab.isolation.base import (
    Answer,
    Boundary,
    Context,
    Found,
    Inconclusive,
    Mechanism,
    Place,
    Privilege,
    Probe,
    Reply,
    Signal,
)
from lab.isolation.explain import mechanism_of, surprise
from lab.isolation.probes.channels import PageCacheChannel, leave_signal
from lab.isolation.registry import probes
from lab.model import Completed, Kernel, Limits
from lab.results.observation import Observation
from lab.results.record import Status
from lab.runtime.cgroup.instances import limited

Ask = Callable[[bytes, float], Completed]
"""Runs ``inside batch`` somewhere with this standard input and this timeout in seconds."""

DISKS_FIRST = ("nvme", "sd", "vd", "xvd", "mmcblk")
SYS_BLOCK = Path("/sys/block")
MOST_DISKS = 24
TOGETHER_SECONDS = 60.0
MOST_FAILURES = 3
DISK_SECONDS = 20.0
ENDING_SECONDS = 2.0  # from when it can't be asked any more until its end is known
LACK_SOMETHING = (Boundary.USER_SPACE_KERNEL, Boundary.USER_MODE_LINUX, Boundary.LIBKRUN)
"""Kernels that have not all that the host's has: what answers there may be that."""
NOT_OF_BUBBLEWRAP = (Mechanism.SECCOMP, Mechanism.CGROUP, Mechanism.MASKED, Mechanism.NONE)
"""What does not answer there with EPERM or EACCES: a sandbox of bubblewrap's has no filter, no rules for devices and
no masks.
"""

ENTER = 'for entrance; do echo $$ >"$entrance" || exit; done; exec "$0" batch'


def ask_all(
    instance: Instance,
    backend: Backend,
    *,
    chosen: Sequence[Probe] | None = None,
    again: Callable[[], Instance] | None = None,
) -> Iterator[Observation]:
    """One observation per probe, in the registry's order. Never raises for a probe that fails: a crash, a
    timeout or a refusal that the host gets too make it inconclusive, a failed observation. Where an answer is the end
    of the instance, another one, launched by ``again``, is asked the rest.
    """
    boundary = Boundary.of(backend)
    wanted = probes() if chosen is None else chosen

    def ask_inside(lines: bytes, timeout_seconds: float) -> Completed:
        return instance.inside("batch", stdin=lines, timeout_seconds=timeout_seconds)

    def fate() -> Mapping[str, int] | None:
        return None if instance.wait(ENDING_SECONDS) is None else instance.cgroup.limit_hits()

    def used() -> float:
        return instance.cgroup.cpu().total_seconds

    with host_context() as found:
        path, limits = instance.cgroup.path, instance.request.limits
        context = replace(found, limits=limits, group=str(path))
        if any(isinstance(probe, PageCacheChannel) for probe in wanted):
            context = replace(context, signal=_leave_signal(instance, backend))
        lines = [line for probe in wanted if probe.together for line in _lines(probe, context)]
        inside, host = Prefetched(ask_inside, lines), Prefetched(on_host, lines)
        closed = Prefetched(in_closed_place, lines)
        limited = InLimits(path.with_name(f"{path.name}-control"), limits)
        places = Places(inside=inside, host=host, closed=closed, limited=limited, fate=fate, used=used)
        for number, probe in enumerate(wanted, start=1):
            yield (answer := ask(probe, places, context, boundary))
            if again is not None and ended([answer]) and number < len(wanted):
                with again() as another:
                    another.wait_executed()
                    yield from ask_all(another, backend, chosen=wanted[number:], again=again)
                return


def _leave_signal(instance: Instance, backend: Backend) -> Signal | None:
    """In a file of the instance's image, of which the host has the layers; None where it has none.

    On the host's kernel it is the very file that the instance reads: an engine has a copy of its own.
    """
    image, knobs = instance.request.image, instance.request.knobs
    with suppress(LabError, OSError):
        files = backend.files(image, knobs) if backend.kernel is Kernel.HOST else ()
        kept = [each for each in files if each.is_dir()]
        return leave_signal(kept or Store.open(home()).lower_directories(image))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a probe's lines run: inside the instance, and for its controls. ``fate`` has how often an instance that
    has ended met its limits, None for one that lives; ``used`` the CPU that the instance's group has taken so far.
    """

    inside: Ask
    host: Ask
    closed: Ask
    limited: Ask
    fate: Callable[[], Mapping[str, int] | None] = lambda: None
    used: Callable[[], float] | None = None

    def control(self, place: Place) -> Ask:
        """How a control is asked."""
        return {Place.HOST: self.host, Place.CLOSED: self.closed, Place.LIMITED: self.limited}[place]


class Prefetched:
    """An Ask that asked many lines in one go: the way into a virtual machine costs more than the question.

    Each line runs in a process of its own, so that one doesn't disturb the other. Where that one go failed
    every probe asks for itself.
    """

    def __init__(self, ask: Ask, lines: Sequence[str]) -> None:
        self._ask = ask
        self._failures = 0
        self._known: dict[bytes, bytes] = {}
        distinct = list(dict.fromkeys(line.encode() for line in lines))
        with suppress(LabError):
            together = b"".join(line + b"\n" for line in distinct)
            replies = self._really(together, TOGETHER_SECONDS).stdout.splitlines()
            if len(replies) == len(distinct):
                self._known = dict(zip(distinct, replies, strict=True))

    def __call__(self, lines: bytes, timeout_seconds: float) -> Completed:
        wanted = lines.splitlines()
        if not all(line in self._known for line in wanted):
            return self._really(lines, timeout_seconds)
        return Completed(exit_code=0, stdout=b"\n".join(self._known[line] for line in wanted), stderr=b"")

    def _really(self, lines: bytes, timeout_seconds: float) -> Completed:
        if self._failures >= MOST_FAILURES:  # else every further probe would wait for its timeout
            raise LabError(f"not asked any more after {MOST_FAILURES} failures")
        try:
            done = self._ask(lines, timeout_seconds)
        except LabError:
            self._failures += 1
            raise
        self._failures = 0
        return done


class InLimits:
    """An Ask on the host, in a cgroup of lab's that has an instance's limits and nothing else of it."""

    def __init__(self, path: PurePosixPath, limits: Limits) -> None:
        self._path = path
        self._limits = limits

    def __call__(self, lines: bytes, timeout_seconds: float) -> Completed:
        group = limited(self._path, self._limits)
        try:
            Scope(self._path.parts[0]).open_to_children()
            entrances = [directory / "cgroup.procs" for directory in group.directories]
            words: list[str | Path] = ["/bin/sh", "-c", ENTER, build.program(), *entrances]
            return run(words, stdin=lines, timeout_seconds=timeout_seconds)
        finally:
            group.kill()
            group.remove()


def _lines(probe: Probe, context: Context) -> Sequence[str]:
    try:
        return probe.lines(context)
    except Inconclusive:
        return ()


def ended(answers: Iterable[Observation]) -> bool:
    """Whether one of the answers was the instance's end, which is no failure of it then."""
    return any(answer.detail.get("ended_it") for answer in answers)


@contextmanager
def host_context() -> Iterator[Context]:
    """What the host knows: a process of lab's own for others to look for, alive as long as this is open."""
    token = f"lab-victim-{secrets.token_hex(8)}"
    victim = subprocess.Popen([build.program(), "hold", token], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert victim.stdout
        offered = json.loads(victim.stdout.readline() or b"{}")
        yield Context(
            victim_pid=victim.pid, victim_token=token, victim_port=offered.get("port", 0),
            victim_memory=offered.get("shared_memory", -1), disk=find_disk(on_host), home=str(home()),
        )  # fmt: skip
    finally:
        victim.communicate()  # it ends with its standard input, as it would if lab died


def on_host(lines: bytes, timeout_seconds: float) -> Completed:
    """Run ``inside batch`` on the host itself: the bare truth."""
    return run([build.program(), "batch"], stdin=lines, timeout_seconds=timeout_seconds)


def in_closed_place(lines: bytes, timeout_seconds: float) -> Completed:
    """Run ``inside closed``: on the host's kernel, where nothing is allowed."""
    return run([build.program(), "closed"], stdin=lines, timeout_seconds=timeout_seconds)


def ask(probe: Probe, places: Places, context: Context, boundary: Boundary) -> Observation:
    """Ask one probe and compare its answer with what is expected of ``boundary``."""
    is_process = boundary in (Boundary.USER_SPACE_KERNEL, Boundary.USER_MODE_LINUX)
    try:
        found = ask_once(probe, places, replace(context, is_process=is_process))
    except (LabError, Inconclusive) as error:
        return _observation(probe, boundary, None, f"inconclusive: {error}")
    except (KeyError, IndexError, TypeError, ValueError) as error:  # a reply that isn't what its verb prints
        return _observation(probe, boundary, None, f"inconclusive: unreadable reply ({error!r})")
    return _observation(probe, boundary, found, found.evidence)


def ask_once(probe: Probe, places: Places, context: Context) -> Found:
    """What a probe finds, where its controls let it. Raises LabError or Inconclusive where it can't be told, and
    what an unreadable reply raises.
    """
    lines = probe.lines(context)
    control = replies(places.control(probe.positive), probe.control_lines(context), probe.timeout_seconds)
    used = None if probe.together else places.used
    before = used() if used else 0.0
    try:
        told = replies(places.inside, lines, probe.timeout_seconds)
        seen = replace(context, used_seconds=used() - before) if used else context
        found = probe.judge(told, control, seen)
    except (LabError, Inconclusive):
        hits = places.fate() if probe.may_end else None
        if hits is None:
            raise
        found = probe.judge_ended(hits, context)
    probe.check_negative(replies(places.control(probe.negative), lines, probe.timeout_seconds), control, context)
    if found.answer.reach == "closed" or found.answer is Answer.OWN:
        probe.check_control(control, context)
    return found


def replies(ask: Ask, lines: Sequence[str], timeout_seconds: float) -> list[Reply]:
    """What is replied to ``lines``, one by one. Raises LabError or Inconclusive unless each has an answer."""
    done = ask("".join(f"{line}\n" for line in lines).encode(), timeout_seconds)
    found: list[Reply] = [json.loads(line) for line in done.stdout.splitlines()]
    if len(found) != len(lines):
        raise Inconclusive(f"{len(found)} replies to {len(lines)} questions, exit code {done.exit_code}")
    for line, reply in zip(lines, found, strict=True):
        if "died" in reply:
            raise Inconclusive(f"{line.split()[0]} ended with code {reply['died']} and no answer")
    return found


def _observation(probe: Probe, boundary: Boundary, found: Found | None, evidence: str) -> Observation:
    expected = probe.expected[boundary]
    as_expected = found is not None and found.answer in expected.answers
    mechanism = _mechanism(probe, boundary, found)
    wanted = str(found.answer) if found is not None and as_expected else " or ".join(expected.answers)
    return Observation(
        quantity=f"isolation.{probe.id}",
        value=found.value if found else None,
        unit="answer",
        text=str(found.answer) if found else "inconclusive",
        status=Status.OK if found else Status.FAILED,
        detail={
            "group": str(probe.group),
            "question": probe.question,
            "evidence": evidence,
            # What can't be told can't differ either.
            "expected": wanted if found else "",
            "as_expected": as_expected if found else None,
            "reason": expected.because,
            "reach": found.answer.reach if found else "unknown",
            **({"ended_it": True} if found and found.ended_it else {}),
            "mechanism": str(mechanism),
            "severity": str(probe.severity),
            "surprise": surprise(probe, boundary, found.answer) if found and not as_expected else "",
        },
    )


def _mechanism(probe: Probe, boundary: Boundary, found: Found | None) -> Mechanism:
    """What answered: where another may answer than in a container, what the evidence shows. On the host's own kernel
    nothing is lacking that the host has, but it may be mounted nowhere.
    """
    usual = mechanism_of(probe, boundary)
    if found is not None and found.answer is Answer.OWN and found.mechanism:
        return found.mechanism
    if found is None or found.answer is not Answer.NO:
        return usual
    if boundary is Boundary.NSPAWN and usual is Mechanism.NONE:  # what an older or a younger one does not stop
        return probe.mechanism
    if boundary in LACK_SOMETHING:
        return found.mechanism or (Mechanism.CAPABILITY if isinstance(probe, Privilege) else usual)
    if boundary is Boundary.BUBBLEWRAP:
        shown = Mechanism.UNMOUNTED if found.mechanism is Mechanism.ABSENT else found.mechanism
        by_privilege = isinstance(probe, Privilege) and usual in NOT_OF_BUBBLEWRAP
        return shown or (Mechanism.CAPABILITY if by_privilege else usual)
    return usual


def find_disk(host: Ask, sys_block: Path = SYS_BLOCK) -> tuple[int, int] | None:
    """Major and minor number of a block device that the host itself can open, real disks before RAM disks and
    loops; the first one when none can be opened, None without any.
    """
    names = sorted(path.name for path in sys_block.iterdir()) if sys_block.is_dir() else []
    names.sort(key=lambda name: not name.startswith(DISKS_FIRST))
    numbers = [(sys_block / name / "dev").read_text().strip().split(":") for name in names[:MOST_DISKS]]
    disks = [(int(major), int(minor)) for major, minor in numbers]
    if not disks:
        return None
    tried = replies(host, [f"node b {major} {minor}" for major, minor in disks], DISK_SECONDS)
    opened = [disk for disk, reply in zip(disks, tried, strict=True) if not reply["errno"]]
    return (opened or disks)[0]
