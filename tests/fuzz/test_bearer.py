"""The process that bears containers gets broken scripts: it refuses them, or their child ends, and it goes on.

It runs as nobody, and what a changed script calls is harmless: system calls among it become getpid(2) and the like.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_fuzz import changed

from lab.inside.build import program
from lab.runtime.init import RUNTIME_FAILED
from lab.runtime.scripts.bearer import ANSWER
from lab.runtime.scripts.script import ANY, CALL, HEAD, MUST_BE_ZERO, NUMBERS, OWN, SKIP_IF_DONE, Register, Script

REQUESTS, NIGHTLY_REQUESTS = 3000, 300_000
HARMLESS = [NUMBERS[name] for name in ("getpid", "getppid", "getuid", "umask")]
NUMBERS_OF_NOTE = (0, 1, -1, 2, 31, 32, 255, 256, 1 << 15, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 62, -(1 << 63))
CHANNEL = Register(0)
NOBODY = 65534
PATIENCE_SECONDS = 120.0


def seeds() -> list[bytes]:
    """Requests that are carried out to their end, where nothing can be executed."""
    script = Script(2)
    opened = script.register()
    script.call("getpid", to=opened)
    script.call("IS_DIRECTORY", CHANNEL, pardon=ANY, skip=1)
    script.call("RAISED", CHANNEL, flags=MUST_BE_ZERO)
    script.call("NOTHING", flags=SKIP_IF_DONE, skip=1)
    script.call("IS_SET", opened)
    script.part("fuzz", lambda: script.call("umask", 0o77))
    script.call("IS_INSIDE")
    script.call("PREPARE", b"a\0b\0C=d\0HOME=\0", 2, 2, 1, b"1000")
    script.call("FILTER", 0, struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000), 1, pardon=ANY)
    script.call("EXECUTE", b"/nothing-of-that-name", pardon=ANY)
    script.call("MODE_OF", CHANNEL, opened, pardon=ANY)
    script.call("IS_NULL", CHANNEL)
    whole = script.packed(0, -1, CHANNEL)
    return [whole, Script(2).packed(0, -1, CHANNEL)]


def broken(data: bytes, chance: random.Random) -> bytes:
    """``data`` with changed fields, or changed as any text is; its head fits its length more often than not."""
    if chance.random() < 0.3:
        return harmless(changed(data, chance)) or b"\0"  # no byte at all is the end of the conversation
    found = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        width = chance.choice((1, 2, 4, 8))
        at = chance.randrange(HEAD.size if chance.random() < 0.2 else len(found)) // width * width
        value = chance.choice(NUMBERS_OF_NOTE) if chance.random() < 0.7 else chance.getrandbits(64)
        found[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    return harmless(bytes(found))


def harmless(data: bytes) -> bytes:
    """The same, whose calls do nothing to anybody."""
    found = bytearray(data)
    for at in range(HEAD.size, len(found) - CALL.size + 1, CALL.size):
        number = int.from_bytes(found[at : at + 2], "little")
        if number < OWN and number not in HARMLESS:
            found[at : at + 2] = HARMLESS[number % len(HARMLESS)].to_bytes(2, "little")
    return bytes(found)


class Bearer:
    """One that runs, with nobody's power over anybody."""

    def __init__(self, folder: Path) -> None:
        shutil.copy(program(), folder / "bearer")
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE_SECONDS)
        with theirs, os.fdopen(os.memfd_create("births"), "wb") as births:
            births.truncate(4)
            words = [folder / "bearer", "begin"]
            self.process = subprocess.Popen(words, stdin=theirs, stdout=births, preexec_fn=give_up, cwd="/")

    def ask(self, request: bytes) -> str:
        """What has become of it: refused, or its child's end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            socket.send_fds(self._socket, [request], [theirs.fileno(), theirs.fileno()])
            while len(answer := self._take()) != ANSWER.size:  # a changed script may have its child say UNFIT here
                assert b"UNFIT" in answer, answer
            number, pid = ANSWER.unpack(answer)
            return os.strerror(number) if number else end_of(pid)

    def _take(self) -> bytes:
        found, descriptors, _, _ = socket.recv_fds(self._socket, 64, 1)
        for each in descriptors:
            os.close(each)
        return found

    def close(self) -> int:
        """Its exit code, once there is nobody to ask anything."""
        self._socket.close()
        return self.process.wait(PATIENCE_SECONDS)


def give_up() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def end_of(pid: int) -> str:
    """A child's, which it comes to by itself."""
    handle = os.pidfd_open(pid)
    ended = bool(select.select([handle], [], [], PATIENCE_SECONDS)[0])
    os.close(handle)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return f"ended with {code}" if ended else "had no end"


@pytest.fixture
def bearer() -> Iterator[Bearer]:
    """In a place where nobody may execute it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        found = Bearer(Path(name))
        yield found
        found.process.kill()
        found.process.wait()


UNFIT = f"ended with {RUNTIME_FAILED}"
FILTERED = f"ended with {-signal.SIGSYS}"
REFUSED = os.strerror(errno.EBADMSG)


@pytest.mark.parametrize(
    "count", [REQUESTS, pytest.param(NIGHTLY_REQUESTS, marks=[pytest.mark.nightly, pytest.mark.timeout(0)])]
)
def test_broken_scripts(bearer: Bearer, count: int) -> None:
    chance, told = random.Random(count), Counter[str]()
    for seed in seeds():
        assert bearer.ask(seed) == UNFIT
    for _ in range(count):
        request = broken(chance.choice(seeds()), chance)
        try:
            told[bearer.ask(request)] += 1
        except (OSError, AssertionError) as error:
            raise AssertionError(f"{request!r}") from error
    for seed in seeds():
        assert bearer.ask(seed) == UNFIT
    assert bearer.close() == 0
    assert {each for each in told if "end" in each} <= {UNFIT, FILTERED}, "no child died of its script, or hangs"
    assert min(told[UNFIT], told[REFUSED]) > count / 10, "it has been asked for both"
