"""A container whose system calls an agent answers: SCMP_ACT_NOTIFY from the configuration to the reply."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import oci
import pytest
from running import Run

from lab.errors import LaunchError
from lab.model import Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Config, Seccomp, SeccompRule

NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif with its struct seccomp_data (linux/seccomp.h)
RESPONSE = struct.Struct("=QqiI")
RECEIVE = 0xC0000000 | NOTIFICATION.size << 16 | ord("!") << 8
SEND = 0xC0000000 | RESPONSE.size << 16 | ord("!") << 8 | 1


def config_with(agent: Path) -> Config:
    config = bundle.container_config(Process(argv=("sh", "-c", "mkdir /tmp/x; echo and so on")))
    rules = (SeccompRule(names=("mkdir", "mkdirat"), action="SCMP_ACT_NOTIFY"),)
    asked = Seccomp(
        default_action="SCMP_ACT_ALLOW", listener_path=str(agent), listener_metadata="of mine", syscalls=rules
    )
    return replace(config, linux=replace(config.linux, seccomp=asked))


def answer(agent: socket.socket, heard: list[dict[str, object]]) -> None:
    """Receive one listener, and refuse the first call that it tells of."""
    connection, _ = agent.accept()
    with connection:
        text, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
        while part := connection.recv(1 << 16):
            text += part
    heard.append(json.loads(text))
    asked = NOTIFICATION.unpack(fcntl.ioctl(descriptors[0], RECEIVE, bytes(NOTIFICATION.size)))
    fcntl.ioctl(descriptors[0], SEND, RESPONSE.pack(asked[0], 0, -errno.EXDEV, 0))
    os.close(descriptors[0])


def test_an_agent_on_the_host_answers_a_container(run: Run, tmp_path: Path) -> None:
    heard: list[dict[str, object]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        agent.settimeout(120)
        thread = threading.Thread(target=answer, args=(agent, heard))
        thread.start()
        ran = run(config=config_with(tmp_path / "agent"))
        thread.join(120)
    assert "Invalid cross-device link" in ran.output
    assert "and so on" in ran.output
    (said,) = heard
    assert (said["fds"], said["metadata"]) == (["seccompFd"], "of mine")
    state = said["state"]
    assert isinstance(state, dict)
    assert state["status"] == "creating"
    assert state["pid"] == said["pid"]
    assert isinstance(said["pid"], int)
    assert said["pid"] > 1, "as the host numbers it"


def test_without_its_agent_a_container_does_not_start(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="seccomp listener"):
        run(config=config_with(tmp_path / "nobody"))


def test_further_processes_have_a_listener_of_their_own(tmp_path: Path) -> None:
    heard: list[dict[str, object]] = []

    def notify(config: dict[str, Any]) -> None:
        rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(tmp_path / "agent"), "syscalls": rules,
        }  # fmt: skip

    with oci.opened("lab-oci") as runtime, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        agent.settimeout(120)
        thread = threading.Thread(target=lambda: [answer(agent, heard) for _ in range(2)])
        thread.start()
        container = runtime.running("mkdir /tmp/x; sleep 1000", edit=notify)
        oci.until(lambda: heard, "the first process's listener")
        done = runtime("exec", container, "mkdir", "/tmp/y")
        thread.join(120)
        pid = runtime.state(container)["pid"]
        assert "Invalid cross-device link" in done.err
    first, second = heard
    assert isinstance(first["state"], dict)
    assert isinstance(second["state"], dict)
    assert first["pid"] == first["state"]["pid"] == second["state"]["pid"] == pid
    assert second["pid"] != pid
    assert second["state"]["id"] == first["state"]["id"] == container
