"""Somebody at a real terminal who runs the real command line, whatever the instance is made of."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import preloaded
from host_state import wait_until
from streams import SECONDS, Screen

LOCAL = 3  # in what tcgetattr returns: local modes
LAB = [sys.executable, "-m", "lab.cli.main"]


def lab(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return preloaded.run([*LAB, *words], input=stdin, capture_output=True, timeout=SECONDS, check=False)


class Seat:
    """A terminal of the host's, its master in this test's hands."""

    def __init__(self, master: int, slave: int) -> None:
        self.master = master
        self.slave = slave
        self.screen = Screen(master)

    def resize(self, rows: int, columns: int) -> None:
        termios.tcsetwinsize(self.master, (rows, columns))

    def settings(self) -> list[Any]:
        found: list[Any] = termios.tcgetattr(self.slave)
        return found

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """``lab`` with this as its controlling terminal."""
        with self._leading([*LAB, *words]) as process:
            yield process

    @contextmanager
    def killing(self, *words: str) -> Iterator[Callable[[], None]]:
        """``lab`` as a shell's child at this terminal, and what sends it SIGKILL: the end of whoever leads a session
        hangs up its terminal (tty_ioctl(4)), and nobody could put that right. Its descriptors have two digits, as
        those of a lab that has much open.
        """
        opened = " ".join(f"{number}</dev/null" for number in range(3, 10))
        with self._leading(["sh", "-c", f'exec {opened}; "$@"; exit 0', "sh", *LAB, *words]) as shell:
            children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
            yield lambda: os.kill(int(children.read_text().split()[0]), signal.SIGKILL)

    @contextmanager
    def _leading(self, argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(argv, preexec_fn=lambda: os.login_tty(os.dup(self.slave))) as process:
            try:
                yield process
            finally:
                process.kill()


@contextmanager
def seat() -> Iterator[Seat]:
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (33, 101))
        yield Seat(master, slave)
    finally:
        os.close(master)
        os.close(slave)


def check_shell(*words: str) -> None:
    """``words`` run a shell at the terminal: size, resize, ^C, exit code; afterwards the terminal is as before."""
    with seat() as place:
        before = place.settings()
        screen = place.screen
        with place.running(*words) as process:
            assert wait_until(lambda: not place.settings()[LOCAL] & termios.ISIG, SECONDS), "^C is still for lab"
            screen.type("stty size; echo $TERM\n")
            screen.until("33 101\r\n")
            screen.until("xterm\r\n")
            screen.type("""sh -c 'trap "stty size" WINCH; echo foreground; while :; do sleep 0.05; done'\n""")
            screen.until("\r\nforeground\r\n")
            place.resize(12, 34)
            screen.until("12 34\r\n")
            screen.type("\x03")
            screen.type("echo interrupted $?\n")
            screen.until("interrupted 130\r\n")
            screen.type("exit 7\n")
            assert process.wait(SECONDS) == 7
        assert place.settings() == before


def check_killed(name: str) -> None:
    """SIGKILL of ``lab exec -it`` ends what ran, and the terminal is put right all the same."""
    with seat() as place:
        before = place.settings()
        with place.running("exec", "-it", name, "sh", "-c", "echo pid $$; exec sleep 1000") as process:
            place.screen.until("pid ")
            pid = place.screen.until("\r\n").strip()
            assert wait_until(lambda: not place.settings()[LOCAL] & termios.ISIG, SECONDS)
            process.kill()
            process.wait(SECONDS)
        assert wait_until(lambda: place.settings() == before, SECONDS)
    probe = ("exec", name, "sh", "-c", f"kill -0 {pid}")
    assert wait_until(lambda: lab(*probe).returncode != 0, SECONDS)


def check_piped(name: str, mebibytes: int = 20) -> None:
    """Without a terminal: bit for bit through ``lab exec -i``, both ways at once; and a reader that goes away."""
    data = os.urandom(1 << 20) * mebibytes
    done = lab("exec", "-i", name, "cat", stdin=data)
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")
    done = lab("exec", name, "sh", "-c", "cat; echo to stderr >&2; exit 3", stdin=b"not given")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"to stderr\n")
    refused = lab("exec", "-it", name, "sh")
    assert refused.returncode == 2
    assert b"not a terminal" in refused.stderr


def check_interrupted(name: str) -> None:
    """^C at ``lab exec`` without a terminal of its own ends it, and what it ran."""
    with subprocess.Popen(
        [*LAB, "exec", name, "sh", "-c", "echo $$; exec sleep 1000"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        pid = process.stdout.readline().strip().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    probe = ("exec", name, "sh", "-c", f"kill -0 {pid}")
    assert wait_until(lambda: lab(*probe).returncode != 0, SECONDS)
