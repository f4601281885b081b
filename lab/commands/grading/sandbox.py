"""The containers that hand-ins and tests run in: a read-only root, no network, no privilege, and an end."""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from lab.classroom.exercise import inside
from lab.classroom.exercise.inside.plain import LARGEST_ANSWER
from lab.host.cgroup import accounting
from lab.model import Limits, Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Config, MountConfig
from lab.runtime.launcher.launcher import Container, Launcher, Overlay, Spec

AT = "/grading"
START = f"import sys; sys.path.insert(0, {AT!r}); from {inside.__name__}.{{}} import main; main()"
NOBODY = 65534
DISK_BYTES, DISK_FILES = 64 << 20, 4096
PIDS = 64
MOST_OUTPUT = 1 << 20
CHUNK_BYTES = 1 << 16
PATIENCE_SECONDS = 5.0


class Ended(Exception):
    """A process of a hand-in's answers no more; the text says why."""


class Sandbox:
    """Starts them, one session's; ``lower`` are the layers of the image that has Python."""

    def __init__(self, launcher: Launcher, lower: Sequence[Path], scratch: Path, memory_bytes: int) -> None:
        self._launcher, self._lower = launcher, tuple(lower)
        self._limits = Limits(memory_bytes=memory_bytes, cpus=1.0, pids=PIDS)
        self._numbers = itertools.count(1)
        self._programs = _programs(scratch)

    def start(self, module: str) -> Peer:
        """A container in which ``module`` of `lab.classroom.exercise.inside` runs. Raises LaunchError."""
        spec = Spec(
            name=f"{module}-{next(self._numbers)}",
            config=self._config(module),
            root=Overlay(lower=self._lower),
        )
        with ExitStack() as undo:
            theirs, ours = [], []
            for is_input in (True, False, False):
                read, write = os.pipe2(os.O_CLOEXEC)
                theirs.append(read if is_input else write)
                ours.append(write if is_input else read)
                undo.callback(os.close, ours[-1])
            try:
                container = self._launcher.launch(spec, stdin=theirs[0], stdout=theirs[1], stderr=theirs[2])
            finally:
                for descriptor in theirs:
                    os.close(descriptor)
            undo.callback(container.close)
            requests, answers, output = ours
            return Peer(container, requests, answers, output, undo.pop_all())

    def _config(self, module: str) -> Config:
        process = Process(
            argv=("python3", "-c", START.format(module)),
            environment={"HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
            working_directory="/tmp",
            uid=NOBODY,
            gid=NOBODY,
        )
        disk = MountConfig(
            destination="/tmp", type="tmpfs", source="tmpfs",
            options=("nosuid", "nodev", "mode=1777", f"size={DISK_BYTES}", f"nr_inodes={DISK_FILES}"),
        )  # fmt: skip
        config = bundle.container_config(
            process,
            self._limits,
            hostname="grading",
            network_namespace=None,  # a new one, with loopback alone
            extra_mounts=(disk, bundle.bind(self._programs, AT)),
        )
        return replace(config, root=replace(config.root, readonly=True))


def _programs(scratch: Path) -> Path:
    """The programs of `lab.classroom.exercise.inside` in a folder that anybody may read, under their own names."""
    folder = scratch / "grading"
    target = folder.joinpath(*inside.__name__.split("."))
    target.mkdir(parents=True)
    for file in Path(inside.__file__).parent.glob("*.py"):
        shutil.copyfile(file, target / file.name)
        (target / file.name).chmod(0o644)
    for made in (target, *target.relative_to(folder).parents):
        (folder / made).chmod(0o755)
    return folder


class Peer:
    """One of them, asked by lines of JSON. A context manager: leaving it kills, removes and verifies.

    ``requests`` and the two others are this process's ends of pipes: its input, its answers, and what it prints.
    """

    def __init__(self, container: Container, requests: int, answers: int, output: int, owned: ExitStack) -> None:
        self.container = container
        self._requests, self._answers, self._output = requests, answers, output
        self._owned = owned
        self._received, self._printed, self._count = bytearray(), bytearray(), 0
        self._is_heard = {answers: True, output: True}
        for descriptor in (requests, answers, output):
            os.set_blocking(descriptor, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    def ask(self, message: Mapping[str, Any], until: float) -> dict[str, Any]:
        """What it answers, by ``until`` of the monotonic clock. Raises Ended, and then it is killed."""
        try:
            line = self._exchange(json.dumps(message).encode() + b"\n", until)
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
            raise ValueError
        except (ValueError, RecursionError):
            self.container.kill()
            raise Ended("it answered what it was not asked") from None
        except Ended:
            self.container.kill()
            raise

    def printed(self) -> str:
        """What it has printed since it was last asked for that."""
        self._read(self._output, self._hear_output)
        text, self._printed = self._printed.decode(errors="replace"), bytearray()
        return text

    def _exchange(self, pending: bytes, until: float) -> bytes:
        while pending or b"\n" not in self._received:
            left = until - time.monotonic()
            if left <= 0:
                raise Ended("its time was up")
            poller = select.poll()
            for descriptor in [each for each, is_heard in self._is_heard.items() if is_heard]:
                poller.register(descriptor, select.POLLIN)
            if pending:
                poller.register(self._requests, select.POLLOUT)
            for descriptor, _ in poller.poll(left * 1000):
                if descriptor == self._requests:
                    pending = self._write(pending)
                elif descriptor == self._output:
                    self._read(descriptor, self._hear_output)
                elif not self._read(descriptor, self._received.extend):
                    raise Ended(self._end())
            if len(self._received) > LARGEST_ANSWER + 1:
                raise Ended(f"it answered more than {LARGEST_ANSWER >> 20} MiB")
            if self._count > MOST_OUTPUT:
                raise Ended(f"it printed more than {MOST_OUTPUT >> 20} MiB")
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return line

    def _write(self, pending: bytes) -> bytes:
        try:
            return pending[os.write(self._requests, pending) :]
        except BlockingIOError:
            return pending
        except BrokenPipeError:
            raise Ended(self._end()) from None

    def _read(self, descriptor: int, hear: Any) -> bool:
        """Take what is there, a chunk of it; False at the end."""
        try:
            data = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return True
        hear(data)
        self._is_heard[descriptor] = bool(data)
        return bool(data)

    def _hear_output(self, data: bytes) -> None:
        self._count += len(data)
        self._printed += data

    def _end(self) -> str:
        """Why it ended."""
        code = self.container.wait(PATIENCE_SECONDS)
        if accounting.oom_kills(self.container.cgroup.group):
            return "it ran out of memory"
        return "it closed its answers" if code is None else f"it ended by itself, with exit code {code}"
