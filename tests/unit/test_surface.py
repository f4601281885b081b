"""What becomes of system calls: what the filter says beside what was seen."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
from pathlib import Path

import pytest

from lab.backends.registry import find
from lab.inside.build import program
from lab.runtime.config.model import Seccomp, SeccompArgument, SeccompRule
from lab.runtime.seccomp.bpf import Action
from lab.runtime.seccomp.compiler import native
from lab.runtime.seccomp.profile import default_profile
from lab.studies.surface.measure import asked_for
from lab.studies.surface.reach import SKIPPED, ZEROED, Call, Outcome, compare, tell


def call(filtered: Outcome, answer: int, seen: int | None, bare: int | None) -> Call:
    return Call(number=1, name="write", filtered=filtered, answer=answer, seen=seen, bare=bare)


ALLOW, REFUSE = int(Action.ALLOW), int(Action.ERRNO | errno.EPERM)


@pytest.mark.parametrize(
    ("filtered", "answer", "seen", "bare", "outcome", "agrees"),
    [
        (Outcome.ALLOWED, ALLOW, errno.EBADF, errno.EBADF, Outcome.ALLOWED, True),
        (Outcome.ALLOWED, ALLOW, -signal.SIGALRM, -signal.SIGALRM, Outcome.ALLOWED, True),
        (Outcome.ALLOWED, ALLOW, errno.EPERM, errno.EINVAL, Outcome.PRIVILEGE, True),
        (Outcome.ALLOWED, ALLOW, errno.EPERM, errno.EPERM, Outcome.ALLOWED, True),
        (Outcome.ALLOWED, ALLOW, errno.ENOSYS, errno.ENOSYS, Outcome.ABSENT, True),
        (Outcome.ALLOWED, ALLOW, errno.ENOSYS, errno.EINVAL, Outcome.REFUSED, False),
        (Outcome.ALLOWED, ALLOW, -signal.SIGSYS, errno.EINVAL, Outcome.KILLED, False),
        (Outcome.REFUSED, REFUSE, errno.EPERM, errno.EINVAL, Outcome.REFUSED, True),
        (Outcome.REFUSED, REFUSE, errno.EINVAL, errno.EINVAL, Outcome.REFUSED, False),
        (Outcome.ARGUMENTS, REFUSE, errno.EPERM, errno.EINVAL, Outcome.ARGUMENTS, True),
        (Outcome.KILLED, int(Action.KILL_PROCESS), -signal.SIGSYS, 0, Outcome.KILLED, True),
        (Outcome.KILLED, int(Action.KILL_PROCESS), 0, 0, Outcome.KILLED, False),
        (Outcome.ALLOWED, ALLOW, None, None, Outcome.SKIPPED, None),
        (Outcome.REFUSED, REFUSE, None, None, Outcome.REFUSED, None),
    ],
)
def test_what_becomes_of_a_call(
    filtered: Outcome, answer: int, seen: int | None, bare: int | None, outcome: Outcome, agrees: bool | None
) -> None:
    made = call(filtered, answer, seen, bare)
    assert (made.outcome, made.agrees) == (outcome, agrees)


def test_outcomes_have_a_word() -> None:
    words = [tell(each) for each in (None, 0, errno.EPERM, -signal.SIGSYS, -signal.SIGALRM)]
    assert words == ["–", "done", "EPERM", "SIGSYS", "waited"]


def test_the_filter_decides_some_by_argument() -> None:
    profile = Seccomp(
        default_action="SCMP_ACT_ERRNO",
        syscalls=(
            SeccompRule(names=("read", "write"), action="SCMP_ACT_ALLOW"),
            SeccompRule(
                names=("personality",), action="SCMP_ACT_ALLOW",
                args=(SeccompArgument(index=0, value=8, op="SCMP_CMP_EQ"),),
            ),
            SeccompRule(names=("reboot",), action="SCMP_ACT_KILL_PROCESS"),
        ),
    )  # fmt: skip
    silent = [None] * (max(native().values()) + 1)
    found = {each.name: each.filtered for each in compare(profile, silent, silent)}
    assert found["read"] == Outcome.ALLOWED
    assert found["personality"] == Outcome.ARGUMENTS
    assert found["reboot"] == Outcome.KILLED
    assert found["mount"] == Outcome.REFUSED


def test_dockers_profile_refuses_what_it_is_known_for() -> None:
    silent = [None] * (max(native().values()) + 1)
    calls = compare(default_profile(), silent, silent)
    found = {each.name: each.outcome for each in calls}
    assert {found[name] for name in ("keyctl", "bpf", "mount", "reboot", "userfaultfd")} == {Outcome.REFUSED}
    assert found["clone"] == found["personality"] == Outcome.ARGUMENTS
    assert len(calls) == len(native())


def test_the_filter_of_anothers_container_is_the_one_that_its_runtime_was_told(tmp_path: Path) -> None:
    """Lab's own default would say of it what is not so."""
    rules = [{"names": ["read", "keyctl"], "action": "SCMP_ACT_ALLOW"}]
    given = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    config = {"ociVersion": "1.0.2", "root": {"path": "r"}, "linux": {"seccomp": given}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    told = asked_for(find("podman"), tmp_path / "config.json")
    assert told is not None
    assert {name for rule in told.syscalls for name in rule.names} == {"read", "keyctl"}
    assert asked_for(find("docker"), None) == default_profile()
    assert asked_for(find("nspawn"), None) is None, "its own is read back from the kernel"
    assert asked_for(find("process"), None) is asked_for(find("vm"), None) is asked_for(find("bwrap"), None) is None


def test_a_disagreement_is_told_by_the_error_that_was_seen() -> None:
    calls = [call(Outcome.ALLOWED, ALLOW, errno.ENOSYS, 0), call(Outcome.ALLOWED, ALLOW, 0, 0)]
    assert [each.told for each in calls if each.agrees is False] == ["ENOSYS"]


def test_what_is_left_out_is_not_called_and_the_rest_is_tried() -> None:
    """The helper leaves out what it is told to; of the others it tells an errno, and survives them."""
    table = native()
    last = max(table["read"], table["write"], table["getpid"], table["close"])
    left_out = ",".join(str(number) for number in range(last + 1) if number not in
                        (table["read"], table["write"], table["getpid"], table["close"]))  # fmt: skip
    done = subprocess.run([program(), "surface", str(last + 1), left_out, str(table["close"])], capture_output=True)
    outcomes = json.loads(done.stdout)["outcomes"]
    assert outcomes[table["read"]] == outcomes[table["write"]] == errno.EBADF
    assert outcomes[table["getpid"]] == 0
    assert outcomes[table["close"]] == 0, "called with 0, which is open"
    assert [each for number, each in enumerate(outcomes) if str(number) in left_out.split(",")] == [None] * (
        last + 1 - 4
    )


def test_dangerous_calls_are_never_made() -> None:
    for name in ("exit", "fork", "vfork", "clone", "pause", "kill", "reboot", "sync", "msgget", "vhangup"):
        assert name not in native() or name in SKIPPED, name
    assert not set(SKIPPED) & set(ZEROED)
