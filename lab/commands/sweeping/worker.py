"""The worker on a host: a process of dask.distributed's that asks the host's one command, and ends with the sweep.

Whoever reaches its scheduler can have it execute anything, since that is what a worker is for. So it is nobody of
rank, speaks mutual TLS alone, listens on the loopback, and holds nothing: what it measures is measured by a command
that takes a short list of requests.

Its first line on standard input is its orders. Each further one is a sign of life of the driver's: without any for
`LEASE_SECONDS`, or at the end of standard input, it ends what is measured here, and itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Any

import dask

from lab.commands.output import harmless
from lab.commands.sweeping.engine import SETTINGS, Security, Worker, get_worker, hush
from lab.commands.sweeping.wire import ENDS, State, read_answer
from lab.errors import UsageError
from lab.host.command import tail
from lab.host.home import home
from lab.host.identity import private, privilege

LEASE_SECONDS = 30.0
BEAT_SECONDS = 5.0
"""How often the driver gives a sign of life."""
LOOK_SECONDS = 1.0
ENDS_WITHIN_SECONDS = 150.0
"""How long a command that was asked to end may take: ``lab compare`` removes what it made."""
TOPIC = "lab-sweep"
READY = b"ready\n"


class TaskFailed(Exception):
    """A host could not do what it was asked for. dask.distributed tries again, as often as the plan says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A certificate authority, a certificate and its key, in PEM: whoever has them takes part in the sweep."""

    authority: str
    certificate: str
    key: str

    def security(self) -> Any:
        """The same for every role; each side of a connection has to show such a certificate."""
        roles = {f"tls_{role}_cert": self.certificate for role in ("client", "scheduler", "worker")}
        roles |= {f"tls_{role}_key": self.key for role in ("client", "scheduler", "worker")}
        return Security(require_encryption=True, tls_ca_file=self.authority, **roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """``port`` to listen on, on the loopback, and the address by which the scheduler reaches it; 0 and "" for any.

    ``command`` is what is asked; tasks find the host by its ``name``.
    """

    name: str
    scheduler: str
    command: tuple[str, ...]
    keys: Keys
    port: int = 0
    contact: str = ""

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def parse(line: bytes) -> Orders:
    """Raises UsageError when ``line`` is no orders."""
    try:
        raw = json.loads(line)
        return Orders(**{**raw, "command": tuple(raw["command"]), "keys": Keys(**raw["keys"])})
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError("lab sweep worker wants its orders on standard input", hint="lab sweep starts it") from error


def resource_of(host: str) -> str:
    """Of which a host's worker has one: a task that wants it is alone in measuring there."""
    return f"measure@{host}"


def voice_of(host: str) -> str:
    """The same for what takes no time."""
    return f"ask@{host}"


class _Asked:
    """The commands that this worker has begun, so that none outlives it."""

    def __init__(self) -> None:
        self.command: tuple[str, ...] = ()
        self.stopping = threading.Event()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()

    def begin(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._guard:
            if self.stopping.is_set():
                raise TaskFailed("the worker ends")
            process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, process_group=0, bufsize=0
            )
            self._processes.add(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """It ends by itself when its standard input does; one that does not is killed."""
        with suppress(OSError):
            _stdin(process).close()
        try:
            process.wait(ENDS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(PermissionError):
                process.kill()
        with self._guard:
            self._processes.discard(process)

    def end_all(self) -> None:
        self.stopping.set()
        with self._guard:
            left = list(self._processes)
        for process in left:
            with suppress(OSError):
                _stdin(process).close()
        for process in left:
            self.end(process)


ASKED = _Asked()


def ask(line: bytes, task: str) -> dict[str, Any]:
    """What a task of the sweep is: ask this host, say how it goes, return its last answer and the bytes behind it.

    Executed by the worker. Raises TaskFailed, which another attempt may mend.
    """
    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        state = worker.state.tasks.get(key)
        return state is not None and state.state == "executing" and not ASKED.stopping.is_set()

    def tell(state: State, why: str) -> None:
        worker.log_event(TOPIC, {"task": task, "state": str(state), "why": why})

    with tempfile.TemporaryFile() as errors:
        process = ASKED.begin(errors)
        try:
            _stdin(process).write(line)
            found = _follow(process, wanted, tell)
        except (OSError, ValueError) as error:
            raise TaskFailed(f"{ASKED.command[0]}: {error}; {_last(errors)}") from error
        finally:
            ASKED.end(process)
        if found["state"] is State.FAILED:
            raise TaskFailed(f"{found['why']}; {_last(errors)}")
    return {**found, "state": str(found["state"])}


def _follow(
    process: subprocess.Popen[bytes], wanted: Callable[[], bool], tell: Callable[[State, str], None]
) -> Mapping[str, Any]:
    """The last answer, with its bytes as ``data``. Raises ValueError or OSError when there is none."""
    out = process.stdout
    assert out is not None
    held, last = bytearray(), None
    while last is None or len(held) < last["bytes"]:
        if not wanted():
            raise ValueError("nobody wants it any more")
        if not select.select([out], [], [], LOOK_SECONDS)[0]:
            continue
        if not (piece := os.read(out.fileno(), 1 << 20)):
            raise ValueError("it ended without an answer")
        held += piece
        while last is None and b"\n" in held:
            line, _, rest = bytes(held).partition(b"\n")
            held = bytearray(rest)
            found = read_answer(line)
            if found["state"] in ENDS:
                last = found
            else:
                tell(found["state"], found["why"])
    return {**last, "data": bytes(held)}


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin


def _last(errors: IO[bytes]) -> str:
    """What the command said last."""
    errors.seek(0)
    return harmless(tail(errors.read(), 2)).replace("\n", " ")[-500:]


def work(orders: Orders, *, leased: bool) -> None:
    """Be the worker until the sweep ends; ``leased``: standard input has signs of life. Leaves no process behind.

    Raises UsageError for root that obeys another host.
    """
    if privilege.user_id() == 0 and (orders.contact or not leased):
        raise UsageError(
            "a worker executes what its scheduler sends, and is not root's",
            hint="docs/sweeping.md: useradd sweep",
        )
    ASKED.command = orders.command
    try:
        asyncio.run(_work(orders, leased))
    finally:
        ASKED.end_all()


async def _work(orders: Orders, leased: bool) -> None:
    private.make_folder(home())
    hush()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    if leased:
        over = lambda: loop.call_soon_threadsafe(stop.set)  # noqa: E731
        threading.Thread(target=_keep_lease, args=(over,), daemon=True).start()
    settings = {**SETTINGS, "temporary-directory": str(home())}
    with dask.config.set(settings):
        worker = Worker(
            orders.scheduler, name=f"{orders.name}-{os.getpid()}-{time.time_ns() & 0xFFFFFF:x}",
            host="127.0.0.1" if orders.contact else None, port=orders.port, protocol="tls",
            contact_address=orders.contact or None, security=orders.keys.security(), nthreads=2, memory_limit=0,
            resources={resource_of(orders.name): 1, voice_of(orders.name): 1},
            dashboard_address="127.0.0.1:0", local_directory=str(home()), death_timeout=LEASE_SECONDS,
        )  # fmt: skip
        stopped = asyncio.create_task(stop.wait())
        started = asyncio.ensure_future(worker.start())
        await asyncio.wait((started, stopped), return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            await started
            with suppress(OSError):
                os.write(sys.stdout.fileno(), READY)
            finished = asyncio.create_task(_over(worker))
            await asyncio.wait((finished, stopped), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(ASKED.end_all)
        with suppress(TimeoutError):
            await asyncio.wait_for(worker.close(timeout=2, executor_wait=False), 10)
    for task in (started, stopped):
        task.cancel()


async def _over(worker: Any) -> None:
    """Return as soon as the worker has begun to end: its own end waits for what it executes."""
    while worker.status.name in ("init", "running", "paused"):
        await asyncio.sleep(LOOK_SECONDS)


def _keep_lease(over: Callable[[], object]) -> None:
    """Return when there was no sign of life for too long, or there will be none."""
    while select.select([0], [], [], LEASE_SECONDS)[0]:
        if not os.read(0, 4096):
            break
    over()
