"""Commands of lab, each a process of its own, forked from one that has imported what they need.

A command that `run` carries out has its own pid, arguments, environment, directory and standard streams, and an end
of its own. What it is spared is the start of an interpreter, the imports, and their being taken apart: most of what a
short command takes. Tests of these, of signals and of what kills a command start it as a user does (`subprocess`).
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

LAB = [sys.executable, "-m", "lab.cli.main"]
SECONDS = 250.0
LONGEST_REQUEST = 1 << 18
NUMBER = struct.Struct("=i")
PARTS = (
    "analysis", "backends", "cli", "commands", "experiment", "host", "images", "isolation", "metrics", "network",
    "reports", "results", "runtime", "studies", "supervisor",
)  # fmt: skip
BESIDES = ("jinja2", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "pyarrow.parquet")
"""The packages that these import when a command needs them. libvirt is left to the command: it starts threads."""


def run(
    argv: Sequence[str | Path],
    *,
    input: str | bytes | None = None,
    capture_output: bool = True,
    text: bool = False,
    timeout: float = SECONDS,
    check: bool = False,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    pictures: bool = True,
) -> subprocess.CompletedProcess[Any]:
    """As subprocess.run, for an ``argv`` that begins with `LAB`; without ``input`` standard input is empty, and the
    output is captured always. Without ``pictures`` the files of a report's are empty: they take a third of a short
    comparison's time. Raises TimeoutExpired, once the command was killed, and with ``check`` CalledProcessError.
    """
    words = list(map(str, argv))
    assert (words[: len(LAB)], capture_output) == (LAB, True), words
    given = dict(os.environ if env is None else env)
    assert given.get("PYTHONPATH") == os.environ.get("PYTHONPATH"), "another lab is another process's"
    told = {
        "words": words[len(LAB) :],
        "cwd": str(cwd or Path.cwd()),
        "env": given,
        "pictures": pictures,
    }
    status, out, err = _parent().complete(told, input.encode() if isinstance(input, str) else input, timeout)
    heard = (out.decode(), err.decode()) if text else (out, err)
    done = subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(status), *heard)
    if check:
        done.check_returncode()
    return done


@functools.cache
def _parent() -> Parent:
    return Parent()


def begin() -> None:
    """Have it import, so that no test is the first that waits for it, or that sees a process more than before."""
    _parent()


class Parent:
    """The process that commands are forked from; it ends with this one."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        atexit.register(self._close)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(SECONDS)

    def complete(self, told: dict[str, Any], given: bytes | None, seconds: float) -> tuple[int, bytes, bytes]:
        """Its wait status (wait(2)), and what it said."""
        (out, out_end), (err, err_end), (answers, answer_end) = os.pipe(), os.pipe(), os.pipe()
        read, write = (os.open(os.devnull, os.O_RDONLY), None) if given is None else os.pipe()
        deadline = time.monotonic() + seconds
        try:
            socket.send_fds(self._socket, [json.dumps(told).encode()], [read, out_end, err_end, answer_end])
        finally:
            for descriptor in (read, out_end, err_end, answer_end):
                os.close(descriptor)
        with os.fdopen(answers, "rb", 0) as answer, ThreadPoolExecutor(3) as threads:
            heard = [threads.submit(_read, descriptor) for descriptor in (out, err)]
            if write is not None:
                threads.submit(_write, write, given or b"")
            pid = _number(answer)
            if not select.select([answer], [], [], max(0.0, deadline - time.monotonic()))[0]:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(told["words"], seconds)
            status = _number(answer)
            said, complained = (each.result(max(1.0, deadline - time.monotonic())) for each in heard)
            return status, said, complained


def _number(answer: Any) -> int:
    data = answer.read(NUMBER.size)
    assert len(data) == NUMBER.size, "the process that commands are forked from has ended"
    return int(NUMBER.unpack(data)[0])


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _write(descriptor: int, data: bytes) -> None:
    try:
        with os.fdopen(descriptor, "wb", 0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
    except BrokenPipeError:
        pass  # the command does not read its input


# In the process that commands are forked from:


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each request; returns the request in the child, and None when nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # is for the tests
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, waking = os.pipe()
    for descriptor in (woken, waking):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waking)
    answers: dict[int, int] = {}
    while True:
        ready = select.select([requests.fileno(), woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            while answers and (found := os.waitpid(-1, os.WNOHANG))[0]:
                _answer(answers[found[0]], found[1])
                os.close(answers.pop(found[0]))
        if requests.fileno() not in ready:
            continue
        data, (*streams, answer), *_ = _received(requests)
        if not data:
            return None
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _answer(answer, os.getpid())
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            for descriptor in {*streams, answer, *answers.values(), woken, waking, requests.detach()}:
                os.close(descriptor)
            told: dict[str, Any] = json.loads(data)
            return told
        answers[pid] = answer
        for stream in streams:
            os.close(stream)


def _received(requests: socket.socket) -> tuple[bytes, list[int]]:
    data, descriptors, *_ = socket.recv_fds(requests, LONGEST_REQUEST, 4)
    return data, descriptors or [-1]


def _answer(descriptor: int, number: int) -> None:
    try:
        os.write(descriptor, NUMBER.pack(number))
    except BrokenPipeError:
        pass  # nobody waits for it any more


def preload() -> None:
    """Import the modules that commands do, but for those that this host lacks."""
    for part in PARTS:
        package = importlib.import_module(f"lab.{part}")
        names = [f"lab.{part}", *(each.name for each in pkgutil.walk_packages(package.__path__, f"lab.{part}."))]
        for name in (*names, *BESIDES):
            if not name.endswith(".__main__"):
                with suppress(ImportError):
                    importlib.import_module(name)


def main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1]))
    own = str(Path(__file__).parent)
    sys.path[:] = [place for place in sys.path if place != own]
    preload()
    gc.freeze()
    if (told := serve(requests)) is None:
        return
    from lab.cli import main as command

    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["env"])
    sys.argv = [command.__file__, *told["words"]]
    sys.path.insert(0, told["cwd"])  # as -m does
    if not told["pictures"]:
        leave_pictures_empty()
    end(command.main)


def leave_pictures_empty() -> None:
    """What the page itself shows is drawn without them."""
    from lab.reports import drawing

    def picture(chart: object, looks: object, directory: Path, name: str) -> tuple[Path, Path]:
        files = directory / f"{name}.png", directory / f"{name}.svg"
        for file in files:
            file.touch()
        return files

    drawing.picture = picture


def end(command: Callable[[], None]) -> NoReturn:
    """Carry it out, and end as an interpreter does, but that what is left is not taken apart: that would copy all
    that was imported, page by page.
    """
    code: object = None
    try:
        command()
    except SystemExit as asked:
        code = asked.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
