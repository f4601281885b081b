"""SCMP_ACT_NOTIFY for real: an agent receives the listener and answers the system calls of another process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.runtime.config.model import Seccomp, SeccompRule
from lab.runtime.seccomp import compiler, listener
from lab.runtime.seccomp.calls import numbers

NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif with its struct seccomp_data (linux/seccomp.h)
RESPONSE = struct.Struct("=QqiI")
RECEIVE = 0xC0000000 | NOTIFICATION.size << 16 | ord("!") << 8
SEND = 0xC0000000 | RESPONSE.size << 16 | ord("!") << 8 | 1

CHILD = """
import os, sys
from lab.host import syscalls
from lab.runtime.seccomp import compiler, listener
from lab.runtime.config.model import Seccomp, SeccompRule
rules = (SeccompRule(names=("mkdir",), action="SCMP_ACT_NOTIFY"),)
profile = Seccomp(default_action="SCMP_ACT_ALLOW", listener_path=sys.argv[1], listener_metadata="m", syscalls=rules)
state = {"ociVersion": "1.0.2", "id": "one", "status": "creating", "bundle": "/b"}
state |= {"annotations": {"a": "x" * 300_000}}
listener.meet({"path": profile.listener_path, "metadata": profile.listener_metadata, "state": state})
agent = listener.agent()
assert agent.move_to(20) == 20
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
agent.prepare(compiler.compile(profile), compiler.flags(profile))()
try:
    os.mkdir("/nowhere/at/all")
except OSError as error:
    sys.exit(error.errno)
"""


def test_an_agent_answers_a_call(tmp_path: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("arm64 has no mkdir")
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(path))
        agent.listen()
        agent.settimeout(120)
        child = subprocess.Popen([sys.executable, "-c", CHILD, path])
        connection, _ = agent.accept()
        with connection:
            text, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
            while part := connection.recv(1 << 16):
                text += part
    state = json.loads(text)
    assert (state["fds"], state["pid"], state["metadata"]) == (["seccompFd"], child.pid, "m")
    assert (state["state"]["id"], state["state"]["status"], state["state"]["bundle"]) == ("one", "creating", "/b")
    assert state["state"]["pid"] == child.pid
    assert len(state["state"]["annotations"]["a"]) == 300_000
    (opened,) = descriptors
    asked = NOTIFICATION.unpack(fcntl.ioctl(opened, RECEIVE, bytes(NOTIFICATION.size)))
    assert asked[3] == numbers("SCMP_ARCH_X86_64")["mkdir"]
    fcntl.ioctl(opened, SEND, RESPONSE.pack(asked[0], 0, -errno.EXDEV, 0))
    os.close(opened)
    assert child.wait(120) == errno.EXDEV


def test_an_agent_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"seccomp listener.*nobody"):
        listener.Agent(str(tmp_path / "nobody"), {}, "")


def test_a_filter_that_forbids_the_handing_over_is_refused() -> None:
    rules = (SeccompRule(names=("sendmsg", "mkdir"), action="SCMP_ACT_NOTIFY"),)
    with pytest.raises(UsageError, match="sendmsg is not allowed"):
        compiler.flags(Seccomp(default_action="SCMP_ACT_ALLOW", listener_path="/run/agent", syscalls=rules))
