"""How a host's worker is started and kept: through ssh(1), or as a process of this host; and the sweep's own keys.

Through ssh both directions are tunnels from loopback to loopback, and mutual TLS runs in them, because a port of the
loopback is open to every user of its host. The keys are made for one sweep; a worker gets them on standard input.
"""

from __future__ import annotations

import os
import secrets
import select
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from lab.commands.output import harmless
from lab.commands.polite import LAB
from lab.commands.sweeping.plan import Host
from lab.commands.sweeping.worker import BEAT_SECONDS, ENDS_WITHIN_SECONDS, READY, Keys, Orders
from lab.host.command import run, tail

LOOPBACK = "127.0.0.1"
REACH_SECONDS = 600.0
"""So long a host is tried in vain before it is given up."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 30.0
SSH = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "ExitOnForwardFailure=yes", "ServerAliveInterval=5",
    "ServerAliveCountMax=3", "ConnectTimeout=20", "ControlMaster=no", "ControlPath=none", "RequestTTY=no",
    "ForwardAgent=no", "ForwardX11=no", "LogLevel=ERROR",
)  # fmt: skip
"""A silent host is gone after fifteen seconds; nothing of this side is lent to it."""


def make_keys(days: int = 365) -> Keys:
    """An authority of one certificate, its own. Raises CommandError without openssl(1)."""
    with tempfile.TemporaryDirectory(prefix="lab-sweep-") as folder:
        key, certificate = Path(folder, "key"), Path(folder, "certificate")
        run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", str(days), "-subj", "/CN=lab-sweep", "-keyout", key, "-out", certificate,
            ],
            timeout_seconds=60, hint="apt install openssl",
        )  # fmt: skip
        text = certificate.read_text()
        return Keys(authority=text, certificate=text, key=key.read_text())


class Link(threading.Thread):
    """Keeps one host's worker up until `stop`. ``lost(host, why, given_up)`` is called whenever it was not."""

    def __init__(
        self, host: Host, scheduler: str, keys: Keys, local: tuple[str, ...], lost: Callable[[str, str, bool], None]
    ) -> None:
        super().__init__(name=f"link to {host.name}", daemon=True)
        self._host, self._scheduler, self._keys, self._local, self._lost = host, scheduler, keys, local, lost
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask for the end; `join` waits for it."""
        self._stopping.set()

    def run(self) -> None:
        since, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            joined, why = self._once()
            if self._stopping.is_set():
                return
            if joined:
                since, pause = time.monotonic(), FIRST_PAUSE_SECONDS
            given_up = time.monotonic() - since > REACH_SECONDS
            self._lost(self._host.name, why, given_up)
            if given_up:
                return
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _once(self) -> tuple[bool, str]:
        """Start the worker and give it signs of life to its end: whether it was ever ready, and what it said last."""
        argv, orders = self._orders()
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, process_group=0, bufsize=0
                )
            except OSError as error:
                return False, f"{argv[0]}: {error.strerror}"
            with process:
                joined = self._accompany(process, orders.line())
            errors.seek(0)
            said = harmless(tail(errors.read(), 1)) or f"its worker ended with {process.returncode}"
            return joined, said

    def _accompany(self, process: subprocess.Popen[bytes], orders: bytes) -> bool:
        joined, heard, due = False, b"", 0.0
        into, out = _pipe(process.stdin), _pipe(process.stdout)
        with suppress(OSError):
            os.write(into.fileno(), orders)
            while not self._stopping.is_set() and process.poll() is None:
                if select.select([out], [], [], 0.2)[0]:
                    if not (piece := os.read(out.fileno(), 4096)):
                        break
                    heard = (heard + piece)[-100:]
                    joined = joined or READY in heard
                if time.monotonic() >= due:
                    os.write(into.fileno(), b"\n")
                    due = time.monotonic() + BEAT_SECONDS
        with suppress(OSError):
            into.close()
        try:
            process.wait(ENDS_WITHIN_SECONDS + 10)
        except subprocess.TimeoutExpired:
            process.kill()
        return joined

    def _orders(self) -> tuple[list[str], Orders]:
        """What to start, and what to tell it."""
        host = self._host
        if not host.ssh:
            orders = Orders(
                name=host.name, scheduler=self._scheduler, command=host.command or self._local, keys=self._keys
            )
            return [*LAB, "sweep", "worker"], orders
        here, there, listens = _free_port(), *(20000 + secrets.randbelow(12000) for _ in range(2))
        known = [f"UserKnownHostsFile={host.known_hosts}"] if host.known_hosts else []
        options = [*SSH, *known, *(["IdentitiesOnly=yes"] if host.key else [])]
        argv = ["ssh", *(["-F", host.config] if host.config else []), *(["-i", host.key] if host.key else [])]
        argv += ["-p", str(host.port), *(word for option in options for word in ("-o", option))]
        argv += ["-R", f"{LOOPBACK}:{there}:{LOOPBACK}:{self._scheduler.rpartition(':')[2]}"]
        argv += ["-L", f"{LOOPBACK}:{here}:{LOOPBACK}:{listens}"]
        argv += [host.ssh, shlex.join([host.lab, "sweep", "worker"])]
        return argv, Orders(
            name=host.name, scheduler=f"tls://{LOOPBACK}:{there}", port=listens,
            contact=f"tls://{LOOPBACK}:{here}", keys=self._keys,
            command=host.command or (host.lab, "sweep", "host"),
        )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
