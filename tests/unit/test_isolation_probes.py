"""Probes: each complete, each judged on made-up replies, all of them asked for real on this host."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_instance import LocalInstance

from lab.backends.registry import available
from lab.errors import CommandError, LabError
from lab.instance import Backend
from lab.isolation import battery
from lab.isolation.base import (
    Answer,
    Boundary,
    Context,
    Found,
    Group,
    Inconclusive,
    Mechanism,
    Probe,
    Reply,
    Severity,
    Signal,
)
from lab.isolation.explain import explanation, how, mechanism_of, surprise
from lab.isolation.probes.budgets import DiskSpace, InotifyInstances
from lab.isolation.probes.channels import PageCacheChannel, leave_signal
from lab.isolation.probes.devices import Virtualisation, VirtualProcessor
from lab.isolation.probes.interface import Capabilities
from lab.isolation.probes.kernel import BootId, SlabCaches
from lab.isolation.probes.limits import MIB, CpuLimit, MemoryLimit, PidsLimit
from lab.isolation.probes.privilege import LoadModule, MountTmpfs
from lab.isolation.probes.visibility import HostProcesses, KillHostProcess, Namespaces
from lab.isolation.registry import probes
from lab.model import Completed, Kernel, Limits
from lab.results.observation import Observation
from lab.results.record import Status

SENT = "01" * 32
CONTEXT = Context(
    victim_pid=4711,
    victim_token="word",
    disk=(8, 0),
    limits=Limits(memory_bytes=64 * MIB, cpus=1.0, pids=50),
    signal=Signal(path="/file", real="/layer/file", pages=SENT),
)
OURS: Reply = {"errno": 0, "name": "", "ret": 37, "text": "host"}
THEIRS: Reply = {"errno": 0, "name": "", "ret": 37, "text": "guest"}


def outcome(name: str = "", **more: Any) -> Reply:
    return {"ret": -1 if name else 0, "errno": 1 if name else 0, "name": name, **more}


def space(size: int) -> Reply:
    return {"errno": 0, "name": "", "bytes": size << 20, "free": size << 19}


def resident(pages: str) -> Reply:
    return outcome(resident=pages)


def spun(cpus: float) -> Reply:
    return {"cpu_seconds": cpus * 1.5, "wall_seconds": 1.5, "processes": 2}


def saying(*replies: Reply) -> battery.Ask:
    def ask(lines: bytes, timeout_seconds: float) -> Completed:
        return Completed(exit_code=0, stdout=b"".join(json.dumps(r).encode() + b"\n" for r in replies), stderr=b"")

    return ask


def asked(probe: Probe, inside: battery.Ask, host: battery.Ask, boundary: Boundary) -> Observation:
    """With a negative control that does what it should."""
    closed = saying(outcome("EPERM"), OURS)
    places = battery.Places(inside=inside, host=host, closed=closed, limited=closed)
    return battery.ask(probe, places, CONTEXT, boundary)


# The set


def test_the_set_is_complete_and_what_weighs_comes_last() -> None:
    ids = [probe.id for probe in probes()]
    assert len(ids) == len(set(ids)) >= 67
    wanted = (
        "kernel-release boot-id host-processes kill-host-process mount load-module block-device kernel-log set-clock"
    )
    assert {*wanted.split(), "memory-limit", "pids-limit", "cpu-limit"} <= set(ids)
    groups = [probe.group for probe in probes()]
    assert groups == sorted(groups, key=list(Group).index)
    assert groups[-1] is Group.LIMITS


@pytest.mark.parametrize("probe", probes(), ids=lambda probe: probe.id)
def test_every_probe_says_what_is_expected_and_why(probe: Probe) -> None:
    assert set(probe.expected) == set(Boundary)
    assert all(expected.answers and expected.because for expected in probe.expected.values())
    assert probe.question.endswith("?")
    assert len(probe.question) <= 60
    assert probe.pages
    assert all(re.fullmatch(r"\S+\(\d\w*\)", page) for page in probe.pages)
    assert type(probe).__doc__
    assert all("\n" not in line and len(line) < 1000 for line in probe.lines(CONTEXT))


def test_boundaries_follow_from_what_a_backend_says_of_itself() -> None:
    kinds = {kind.name: Boundary.of(kind) for kind in available()}  # type: ignore[arg-type]
    assert kinds["process"] is Boundary.BARE
    assert kinds["container"] is Boundary.CONTAINER
    assert kinds["userns"] is Boundary.USER_NAMESPACE
    assert kinds["krun"] is Boundary.LIBKRUN
    machines = [kind for kind in available() if kind.kernel is Kernel.OWN and kind.name != "krun"]
    assert all(kinds[kind.name] is Boundary.OWN_KERNEL for kind in machines)


# Judging


@pytest.mark.parametrize(
    ("probe", "seen", "host", "answer"),
    [
        (BootId(), [OURS], [OURS], Answer.HOST),
        (BootId(), [THEIRS], [OURS], Answer.OWN),
        (LoadModule(), [outcome("EBADF"), OURS], [outcome("EBADF"), OURS], Answer.YES),
        (LoadModule(), [outcome("EBADF"), THEIRS], [outcome("EBADF"), OURS], Answer.GUEST),
        (LoadModule(), [outcome("EPERM"), OURS], [outcome("EBADF"), OURS], Answer.NO),
        (MountTmpfs(), [outcome("ENODEV"), OURS], [outcome(), OURS], Answer.YES),
        (HostProcesses(), [{"found": [], "count": 3}], [{"found": [1], "count": 90}], Answer.NO),
        (HostProcesses(), [{"found": [7], "count": 90}], [{"found": [1], "count": 90}], Answer.YES),
        (KillHostProcess(), [outcome(), {"text": "a\0word"}], [outcome(), {"text": "word"}], Answer.YES),
        # The same number, but another process: not the host's.
        (KillHostProcess(), [outcome(), {"text": "sleep"}], [outcome(), {"text": "word"}], Answer.NO),
        (KillHostProcess(), [outcome("ESRCH"), {"text": ""}], [outcome(), {"text": "word"}], Answer.NO),
        (Namespaces(), [{"pid": 1, "uts": 2}, OURS], [{"pid": 9, "uts": 9}, OURS], Answer.OWN),
        (Namespaces(), [{"pid": 1, "uts": 9}, OURS], [{"pid": 9, "uts": 9}, OURS], Answer.HOST),
        # An engine's layers may be on another disk of the host's than lab's files.
        (DiskSpace(), [space(900), OURS], [space(500), space(900), OURS], Answer.HOST),
        (DiskSpace(), [space(700), OURS], [space(500), space(900), OURS], Answer.OWN),
        (DiskSpace(), [space(900), THEIRS], [space(500), space(900), OURS], Answer.OWN),
        # A kernel's first namespaces have fixed numbers: equal ones in two kernels are not shared.
        (Namespaces(), [{"pid": 9, "uts": 9}, THEIRS], [{"pid": 9, "uts": 9}, OURS], Answer.OWN),
        (PageCacheChannel(), [resident(SENT), OURS], [resident(SENT), OURS], Answer.YES),
        # Three pages that somebody else read meanwhile are not the message.
        (PageCacheChannel(), [resident("111111" + SENT[6:]), OURS], [resident(SENT), OURS], Answer.YES),
        (PageCacheChannel(), [resident("0" * 64), THEIRS], [resident(SENT), OURS], Answer.NO),
        # What mincore(2) says to whoever does not own the file.
        (PageCacheChannel(), [resident("1" * 64), OURS], [resident(SENT), OURS], Answer.NO),
        (PageCacheChannel(), [outcome("ENOENT", resident=""), OURS], [resident(SENT), OURS], Answer.NO),
        (InotifyInstances(), [outcome(), OURS, OURS], [outcome(), OURS, OURS], Answer.HOST),
        (InotifyInstances(), [outcome(), OURS, THEIRS], [outcome(), OURS, OURS], Answer.OWN),
        (InotifyInstances(), [outcome("EMFILE"), OURS, OURS], [outcome(), OURS, OURS], Answer.NO),
        (MemoryLimit(), [{"touched": 60 * MIB, "fate": "killed"}], [], Answer.EFFECTIVE),
        (MemoryLimit(), [{"touched": 100 * MIB, "fate": "done"}], [], Answer.NO_LIMIT),
        (MemoryLimit(), [{"touched": 90 * MIB, "fate": "killed"}], [], Answer.NO_LIMIT),
        (PidsLimit(), [outcome("EAGAIN", made=45), OURS], [outcome(made=8), OURS], Answer.EFFECTIVE),
        (PidsLimit(), [outcome(made=82), OURS], [outcome(made=8), OURS], Answer.NO_LIMIT),
        (PidsLimit(), [outcome(made=82), THEIRS], [outcome(made=8), OURS], Answer.GUEST),
        (CpuLimit(), [spun(1.1)], [spun(2.0)], Answer.EFFECTIVE),
        (CpuLimit(), [spun(1.9)], [spun(2.0)], Answer.NO_LIMIT),
    ],
)  # fmt: skip
def test_judgements(probe: Probe, seen: list[Reply], host: list[Reply], answer: Answer) -> None:
    assert probe.judge(seen, host, CONTEXT).answer == answer


@pytest.mark.parametrize(
    ("bits", "boundary", "answer"),
    [
        ((1, 0), Boundary.OWN_KERNEL, Answer.OWN),
        ((1, 1), Boundary.OWN_KERNEL, Answer.OWN),  # a machine in a machine
        ((1, 0), Boundary.USER_SPACE_KERNEL, Answer.OWN),  # by KVM, on bare metal
        ((1, 1), Boundary.USER_SPACE_KERNEL, Answer.HOST),
        ((1, 1), Boundary.USER_MODE_LINUX, Answer.HOST),
        ((0, 0), Boundary.USER_MODE_LINUX, Answer.HOST),
        ((0, 1), Boundary.OWN_KERNEL, Answer.HOST),
    ],
)
def test_a_bit_of_the_hosts_own_vmm_makes_no_processor_of_its_own(
    bits: tuple[int, int], boundary: Boundary, answer: Answer
) -> None:
    """What runs a kernel in user space, or a Linux as a process, runs it on the host's processor, virtual or not."""
    inside, host = (outcome(text="flags : fpu" + " hypervisor" * bit) for bit in bits)
    found = asked(VirtualProcessor(), saying(inside, THEIRS), saying(host, OURS), boundary)
    assert found.text == answer, found.detail
    assert found.detail.get("surprise", "") == "" or bits == (0, 1)


@given(st.integers(0, 2**41 - 1), st.integers(0, 2**41 - 1))
def test_a_root_that_lacks_one_of_the_hosts_capabilities_is_not_the_hosts(mine: int, theirs: int) -> None:
    ids = {"errno": 0, "name": "", "text": "         0          0 4294967295\n"}
    status = ({"errno": 0, "name": "", "text": f"CapEff:\t{caps:016x}\n"} for caps in (mine, theirs))
    seen, host = ([told, ids, OURS] for told in status)
    found = Capabilities().judge(seen, host, CONTEXT)
    assert (found.answer is Answer.YES) == (theirs & ~mine == 0)
    assert found.value == mine.bit_count()
    ids["text"] = "         0      20001          1\n"
    with pytest.raises(Inconclusive, match="user namespace"):
        Capabilities().judge(seen, host, CONTEXT)


def test_a_device_of_a_group_that_every_instance_has_left_says_nothing_of_its_boundary() -> None:
    """An ordinary user opens it on the host. Root needs no group."""
    root, user = {"text": " 0 0 4294967295\n"}, {"text": " 0 1000 1\n 1 100000 65536\n"}
    for ids in (root, user):
        assert (
            Virtualisation().judge([outcome("ENOENT"), ids, OURS], [outcome(), ids, OURS], CONTEXT).answer
            is Answer.NO
        )
        assert Virtualisation().judge([outcome(), ids, OURS], [outcome(), ids, OURS], CONTEXT).answer is Answer.YES
    refused = outcome("EACCES")
    assert Virtualisation().judge([refused, root, OURS], [outcome(), root, OURS], CONTEXT).answer is Answer.NO
    with pytest.raises(Inconclusive, match="group"):
        Virtualisation().judge([refused, user, OURS], [outcome(), user, OURS], CONTEXT)


def test_what_nobody_foresaw_is_not_an_answer() -> None:
    with pytest.raises(Inconclusive, match="EXDEV"):
        LoadModule().judge([outcome("EXDEV"), OURS], [outcome("EBADF"), OURS], CONTEXT)


@pytest.mark.parametrize("probe", [MemoryLimit(), PidsLimit(), CpuLimit()])
def test_without_a_limit_nothing_is_tried(probe: Probe) -> None:
    with pytest.raises(Inconclusive, match="no limit set"):
        probe.lines(replace(CONTEXT, limits=Limits()))
    with pytest.raises(Inconclusive, match="too large"):
        probe.lines(replace(CONTEXT, limits=Limits(memory_bytes=1 << 40, cpus=500, pids=1 << 20)))


@pytest.mark.parametrize(
    ("probe", "boundary", "answer", "words"),
    [
        (LoadModule(), Boundary.CONTAINER, Answer.YES, "what (capability) should keep it"),
        (LoadModule(), Boundary.OWN_KERNEL, Answer.YES, "the boundary between the kernels"),
        (LoadModule(), Boundary.OWN_KERNEL, Answer.NO, "a kernel without the feature"),
        (LoadModule(), Boundary.BARE, Answer.NO, "something new stops it"),
        (LoadModule(), Boundary.CONTAINER, Answer.GUEST, "a wider set-up"),
        (HostProcesses(), Boundary.CONTAINER, Answer.YES, "what (namespace) should keep it"),
    ],
)
def test_a_surprise_is_told_by_the_mechanism_that_is_missing_or_new(
    probe: Probe, boundary: Boundary, answer: Answer, words: str
) -> None:
    assert words in surprise(probe, boundary, answer)


def test_what_only_a_user_namespace_stops_is_stopped_by_a_namespace() -> None:
    assert mechanism_of(SlabCaches(), Boundary.CONTAINER) is Mechanism.NONE
    assert mechanism_of(SlabCaches(), Boundary.USER_NAMESPACE) is Mechanism.NAMESPACE
    assert mechanism_of(LoadModule(), Boundary.USER_NAMESPACE) is Mechanism.CAPABILITY


def test_a_message_is_left_in_pages_and_read_from_them(tmp_path: Path) -> None:
    """On the host alone, without an instance: what a probe inside reads is what was sent."""
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "with a space").write_bytes(bytes(1 << 20))
    (tmp_path / "usr" / "program").write_bytes(bytes(1 << 20))
    (tmp_path / "usr" / "program").chmod(0o755)
    assert leave_signal([tmp_path]) is None
    (tmp_path / "usr" / "pages").write_bytes(bytes(1 << 20))
    sent = leave_signal([tmp_path])
    if sent is None:
        pytest.skip("files are on a file system that is memory")
    assert (sent.path, sent.real) == ("/usr/pages", str(tmp_path / "usr" / "pages"))
    again = leave_signal([tmp_path])
    assert again is not None
    assert again.pages != sent.pages
    reply = json.loads(battery.on_host(f"resident {again.real} 64\n".encode(), 20.0).stdout)
    assert reply["resident"] == again.pages


@pytest.mark.parametrize("probe", probes(), ids=lambda probe: probe.id)
def test_every_explanation_holds_all_there_is_to_know(probe: Probe) -> None:
    text = " ".join(explanation(probe).split())
    parts = (probe.question, probe.id, how(probe), str(probe.mechanism), *probe.pages, probe.surprise)
    assert all(part in text for part in parts)
    assert all(expected.because in text for expected in probe.expected.values())
    assert max(map(len, explanation(probe, 80).splitlines())) <= 100  # headings and addresses are not folded


# Asking


def test_a_refusal_that_the_host_gets_too_is_no_green_tick() -> None:
    refused = saying(outcome("ENOSYS"), OURS)
    seen = asked(LoadModule(), refused, refused, Boundary.CONTAINER)
    assert (seen.status, seen.text) == (Status.FAILED, "inconclusive")
    assert "on the host itself" in seen.detail["evidence"]
    assert seen.detail["reach"] == "unknown"


def test_what_works_inside_needs_no_control() -> None:
    inside, host = saying(outcome("EBADF"), THEIRS), saying(outcome("ENOSYS"), OURS)
    seen = asked(LoadModule(), inside, host, Boundary.OWN_KERNEL)
    assert (seen.status, seen.text, seen.detail["as_expected"]) == (Status.OK, "guest", True)


def test_another_answer_than_expected_is_told_with_both() -> None:
    allowed = saying(outcome("EBADF"), OURS)
    seen = asked(LoadModule(), allowed, allowed, Boundary.CONTAINER)
    assert (seen.text, seen.detail["expected"], seen.detail["as_expected"]) == ("yes", "no", False)
    assert seen.detail["reach"] == "open"


def crash(lines: bytes, timeout_seconds: float) -> Completed:
    raise CommandError("inside did not finish within 20 s")


def nonsense(lines: bytes, timeout_seconds: float) -> Completed:
    return Completed(exit_code=0, stdout=b"?\n?\n", stderr=b"")


@pytest.mark.parametrize(
    "inside",
    [crash, nonsense, saying(), saying(OURS), saying({"died": 159}, OURS), saying({"what": 1}, OURS)],
)
def test_crashes_timeouts_and_nonsense_are_inconclusive(inside: battery.Ask) -> None:
    host = saying(outcome("EBADF"), OURS)
    seen = asked(LoadModule(), inside, host, Boundary.CONTAINER)
    assert (seen.status, seen.value, seen.detail["expected"]) == (Status.FAILED, None, "")


class HostLike(Backend):
    """Says of itself what the control backend says."""

    kernel: ClassVar[Kernel] = Kernel.HOST
    confines: ClassVar[bool] = False


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_all_asked_on_the_host_itself_answer_as_bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instance is the host here: whatever can be told must reach it, and limits that are not there don't hold."""
    (tmp_path / "pages").write_bytes(bytes(MIB))
    sent = leave_signal([tmp_path])
    monkeypatch.setattr(battery, "_leave_signal", lambda *_: sent and replace(sent, path=sent.real))
    limits = Limits(memory_bytes=8 * MIB, pids=10)
    with LocalInstance(["sleep", "60"], tmp_path, limits) as instance:
        seen = {o.quantity.removeprefix("isolation."): o for o in battery.ask_all(instance, HostLike)}  # type: ignore[arg-type]
    assert list(seen) == [probe.id for probe in probes()]
    told = {name: o for name, o in seen.items() if o.status is Status.OK}
    # It is in no cgroup of lab's, and a limit of open files is every process's own.
    elsewhere = {"cgroup-path", "open-files-limit"}
    assert {name for name, o in told.items() if o.detail["reach"] != "open"} <= elsewhere
    assert {"boot-id", "host-processes", "kill-host-process", "namespaces", "mount", "capabilities"} <= set(told)
    assert (seen["memory-limit"].text, seen["pids-limit"].text) == ("no limit", "no limit")
    assert seen["cpu-limit"].text == "inconclusive"  # none set: not tried
    assert seen["boot-id"].detail["mechanism"] == "none"


class Mortal(LocalInstance):
    """One that ends, with everything in it, as soon as it is asked for more than it may have."""

    why: ClassVar[dict[str, str]] = {"allocate": "oom", "fork": "pids"}

    def inside(self, *arguments: str, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        if self.wait(0) is not None:
            raise LabError("it has ended")
        if (verb := stdin.decode().partition(" ")[0]) in self.why:
            hits = {self.why[verb]: 1}
            self.cgroup = SimpleNamespace(path=self.cgroup.path, limit_hits=lambda: hits)  # type: ignore[assignment]
            self.signal(signal.SIGKILL)
            raise LabError("no answer")
        return super().inside(*arguments, stdin=stdin, timeout_seconds=timeout_seconds)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_where_an_answer_is_the_end_of_it_another_one_is_asked_the_rest(tmp_path: Path) -> None:
    limits = Limits(memory_bytes=8 * MIB, pids=10)
    made: list[Mortal] = []

    def again() -> LocalInstance:
        made.append(Mortal(["sleep", "60"], tmp_path, limits))
        return made[-1]

    chosen = [probe for probe in probes() if probe.id in ("memory-limit", "pids-limit", "boot-id")]
    with again() as instance:
        seen = list(battery.ask_all(instance, HostLike, chosen=chosen, again=again))  # type: ignore[arg-type]
    assert [(each.quantity, each.text) for each in seen] == [
        ("isolation.boot-id", "host"),
        ("isolation.memory-limit", "effective"),
        ("isolation.pids-limit", "effective"),
    ]
    assert battery.ended(seen)
    assert len(made) == 2, "nothing was left to ask of a third"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_end_for_another_reason_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mortal, "why", {"allocate": "pids"})
    chosen = [probe for probe in probes() if probe.id == "memory-limit"]
    with Mortal(["sleep", "60"], tmp_path, Limits(memory_bytes=8 * MIB, pids=10)) as instance:
        (seen,) = battery.ask_all(instance, HostLike, chosen=chosen)  # type: ignore[arg-type]
    assert seen.text == "inconclusive"
    assert not battery.ended([seen])


def test_lines_asked_in_one_go_are_not_asked_again() -> None:
    asked: list[bytes] = []

    def ask(lines: bytes, timeout_seconds: float) -> Completed:
        asked.append(lines)
        return Completed(exit_code=0, stdout=b"".join(b"<%s>\n" % line for line in lines.splitlines()), stderr=b"")

    known = battery.Prefetched(ask, ["a", "b", "a"])
    assert known(b"b\na\n", 1).stdout.splitlines() == [b"<b>", b"<a>"]
    assert asked == [b"a\nb\n"]
    assert known(b"a\nc\n", 1).stdout.splitlines() == [b"<a>", b"<c>"]
    assert asked == [b"a\nb\n", b"a\nc\n"]


def test_where_one_go_fails_every_probe_asks_for_itself() -> None:
    calls = 0

    def ask(lines: bytes, timeout_seconds: float) -> Completed:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise CommandError("too slow")
        return Completed(exit_code=0, stdout=b"{}\n", stderr=b"")

    assert battery.Prefetched(ask, ["a", "b"])(b"a\n", 1).stdout == b"{}\n"


def test_an_instance_that_is_gone_is_not_asked_for_ever() -> None:
    calls = 0

    def ask(lines: bytes, timeout_seconds: float) -> Completed:
        nonlocal calls
        calls += 1
        raise CommandError("no answer")

    gone = battery.Prefetched(ask, ["a"])
    host = saying(outcome("EBADF"), OURS)
    seen = [asked(LoadModule(), gone, host, Boundary.CONTAINER) for _ in range(9)]
    assert {observation.text for observation in seen} == {"inconclusive"}
    assert calls == battery.MOST_FAILURES


def test_the_victim_ends_with_the_question() -> None:
    with battery.host_context() as context:
        assert context.victim_token.encode() in Path(f"/proc/{context.victim_pid}/cmdline").read_bytes()
    assert not Path(f"/proc/{context.victim_pid}/cmdline").exists()


def test_a_real_disk_goes_before_a_loop(tmp_path: Path) -> None:
    for name, numbers in {"loop0": "7:0", "vda": "254:0", "sdb": "8:16"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "dev").write_text(f"{numbers}\n")
    first = battery.find_disk(saying(outcome("EPERM"), outcome("EPERM"), outcome("EPERM")), tmp_path)
    assert first == (8, 16)
    assert battery.find_disk(saying(outcome("EPERM"), outcome(), outcome()), tmp_path) == (254, 0)
    assert battery.find_disk(saying(), tmp_path / "absent") is None


def test_probes_elsewhere_are_not_taken_for_ours() -> None:
    class Elsewhere(Probe):
        id = "elsewhere"
        group = Group.KERNEL
        question = "?"
        mechanism = Mechanism.NONE
        severity = Severity.LEAK
        expected = BootId.expected

        def lines(self, context: Context) -> Sequence[str]:
            return ()

        def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
            raise Inconclusive("never asked")

    probes.cache_clear()
    assert Elsewhere.id not in {probe.id for probe in probes()}
