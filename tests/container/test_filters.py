"""Filters read back from the kernel: bit for bit what was installed, of a process that goes on as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from host_state import wait_until

from lab.errors import LabError
from lab.host.kernel.filters import installed
from lab.runtime.seccomp import compiler
from lab.runtime.seccomp.profile import default_profile
from lab.studies.surface.reach import Outcome, in_force, tell_answer

FILTERED = """
import os
from lab.host import syscalls
from lab.runtime.seccomp import compiler
from lab.runtime.seccomp.profile import default_profile
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.seccomp_filter(compiler.compile(default_profile()))()
os.execvp("cat", ["cat"])
"""


def test_what_was_installed_is_read_back_and_the_process_goes_on() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", FILTERED], **pipes, text=True) as process:
        assert wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "cat\n")
        assert installed(process.pid) == (compiler.compile(default_profile()),)
        found = in_force(process.pid)
        assert process.communicate("still here", timeout=250)[0] == "still here"
    assert found.outcomes["keyctl"] is Outcome.REFUSED
    assert found.outcomes["personality"] is found.outcomes["clone"] is Outcome.ARGUMENTS
    assert found.outcomes["read"] is Outcome.ALLOWED
    assert tell_answer(found.answers["keyctl"]) == "EPERM"
    assert tell_answer(found.answers["clone3"]) == "ENOSYS"


def test_who_has_none_has_none_and_who_is_gone_can_not_be_asked() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        assert installed(process.pid) == ()
        assert set(in_force(process.pid).outcomes.values()) == {Outcome.ALLOWED}
    with pytest.raises(LabError, match="can't be read back"):
        installed(process.pid)
