"""Commands inside a guest, through QEMU's guest agent.

Spoken directly over the agent's port, not through libvirt: libvirt would poll the agent while the machine
boots and keep its API busy meanwhile.

Source: https://qemu.readthedocs.io/en/latest/interop/qemu-ga-ref.html (guest-sync-delimited, guest-exec).
"""

from __future__ import annotations

import base64
import itertools
import json
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lab.errors import LabError
from lab.model import Completed

READ_BYTES = 1 << 16
FIRST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.05
START_TIMEOUT_SECONDS = 60.0  # the agent starts when it is first asked; emulated and under load that takes a while
SYNC_SECONDS = 0.5
REPLY_SECONDS = 30.0
BUSYBOX = "/bin/busybox"  # in an initramfs and in the guest's Debian alike
KILLED = 128


class GuestAgent:
    """One guest's agent. Thread-safe: one conversation at a time, commands run at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._buffer = bytearray()
        self._ready = False

    def execute(
        self, argv: Sequence[str], *, environment: Mapping[str, str], stdin: bytes, timeout_seconds: float
    ) -> Completed:
        """Run ``argv`` in the guest's own root and return its output, at most 16 MiB of each stream.

        A program that a signal ended has exit code 128 + n. Raises LabError when the agent doesn't answer, the
        program can't be started, writes too much, or runs longer than ``timeout_seconds``; it is then killed.
        """
        self._synchronise()
        deadline = time.monotonic() + timeout_seconds
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        arguments["env"] = [f"{name}={value}" for name, value in environment.items()]
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        pid = self._ask("guest-exec", arguments)["pid"]
        pause = FIRST_PAUSE_SECONDS
        while not (status := self._ask("guest-exec-status", {"pid": pid}))["exited"]:
            if time.monotonic() > deadline:
                self._ask("guest-exec", {"path": BUSYBOX, "arg": ["kill", "-9", str(pid)]})
                raise LabError(f"{argv[-1]} did not end within {timeout_seconds:g} s inside the guest and was killed")
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
        if status.get("out-truncated") or status.get("err-truncated"):
            raise LabError(f"{' '.join(argv)} wrote more than the guest agent's 16 MiB")
        return Completed(
            exit_code=KILLED + status["signal"] if "signal" in status else status["exitcode"],
            stdout=base64.b64decode(status.get("out-data", "")),
            stderr=base64.b64decode(status.get("err-data", "")),
        )

    def _synchronise(self) -> None:
        """Wait for the agent to be there: the first answer to a question only it can answer."""
        with self._lock:
            if self._ready:
                return
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
            while time.monotonic() < deadline:
                number = next(self._numbers)
                # 0xFF makes its parser forget half a message (qemu-ga-ref, guest-sync-delimited).
                self._send(b"\xff", "guest-sync-delimited", {"id": number})
                if self._synchronised(number):
                    self._ready = True
                    return
            raise LabError("the guest's agent does not answer", hint="see console.log in the instance's log folder")

    def _synchronised(self, number: int) -> bool:
        """Whether that answer comes in time; answers to earlier attempts are passed over."""
        deadline = time.monotonic() + SYNC_SECONDS
        try:
            while self._reply(deadline - time.monotonic()).get("return") != number:
                pass
        except TimeoutError:
            return False
        return True

    def _ask(self, command: str, arguments: Mapping[str, Any]) -> Any:
        with self._lock:
            self._send(b"", command, arguments)
            try:
                reply = self._reply(REPLY_SECONDS)
            except TimeoutError as error:
                self._ready = False
                raise LabError(f"the guest's agent did not answer {command} within {REPLY_SECONDS:g} s") from error
        if "error" in reply:
            raise LabError(f"the guest's agent refused {command}: {reply['error'].get('desc', reply['error'])}")
        return reply["return"]

    def _send(self, prefix: bytes, command: str, arguments: Mapping[str, Any]) -> None:
        line = json.dumps({"execute": command, "arguments": arguments}).encode()
        try:
            self._connection.settimeout(REPLY_SECONDS)
            self._connection.sendall(prefix + line + b"\n")
        except OSError as error:
            raise LabError("the machine has ended, its agent with it") from error

    def _reply(self, timeout_seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_seconds
        while b"\n" not in self._buffer:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._connection.recv(READ_BYTES)
            except TimeoutError:
                raise
            except OSError as error:
                raise LabError("the machine has ended, its agent with it") from error
            if not data:
                raise LabError("the machine has ended, its agent with it")
            self._buffer += data
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        reply: dict[str, Any] = json.loads(line.lstrip(b"\xff"))
        return reply
