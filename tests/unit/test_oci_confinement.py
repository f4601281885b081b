"""What a further process of a container may, and what root writes for it: no more than runc lets through."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lab.errors import LabError
from lab.runtime.config.model import Capabilities, ProcessConfig, Rlimit
from lab.runtime.oci.main import Call
from lab.runtime.oci.verbs.execute import confined_as, require_started

LIMIT = Rlimit(type="RLIMIT_NPROC", soft=100, hard=100)
FIRST = ProcessConfig(args=("a",), apparmor_profile="docker-default", rlimits=(LIMIT,), oom_score_adj=500)


def test_a_process_of_a_file_is_confined_as_the_first_one_is() -> None:
    bare = confined_as(ProcessConfig(args=("sh",)), FIRST)
    assert (bare.apparmor_profile, bare.rlimits, bare.oom_score_adj) == ("docker-default", (LIMIT,), 500)
    assert bare.args == ("sh",)


def test_what_it_says_itself_counts() -> None:
    other = Rlimit(type="RLIMIT_CPU", soft=1, hard=1)
    own = ProcessConfig(args=("sh",), apparmor_profile="own", rlimits=(other,), oom_score_adj=0)
    assert confined_as(own, FIRST) == own


TRACER = ProcessConfig(args=("a",), capabilities=Capabilities(bounding=("CAP_SYS_PTRACE",)))


def test_nothing_that_may_trace_comes_beside_a_first_process_that_waits() -> None:
    """It has the runtime's rights until it is started."""
    with pytest.raises(LabError, match="not started"):
        require_started(TRACER, is_starting=True, own_users=False)
    require_started(TRACER, is_starting=True, own_users=True)
    require_started(ProcessConfig(args=("a",)), is_starting=True, own_users=False)
    require_started(TRACER, is_starting=False, own_users=False)


def test_a_pid_file_is_written_through_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    target = tmp_path / "c.pid"
    (tmp_path / ".c.pid").symlink_to(victim)
    target.symlink_to(victim)
    call = cast(Call, SimpleNamespace(given=SimpleNamespace(value=lambda _: str(target))))
    Call.write_pid(call, 7)
    assert victim.read_text() == "kept"
    assert (target.read_text(), target.is_symlink()) == ("7", False)
