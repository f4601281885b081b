"""Detached instances in tests: under names of their own, so that several tests share a home, and none is left."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import preloaded
from host_state import RUNTIME, wait_until
from tiny import GREETING

from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.home import home
from lab.supervisor import record as records
from lab.supervisor.record import InstanceRecord

LAB = [sys.executable, "-m", "lab.cli.main"]


def session_of(pid: int) -> str:
    """The session that a process owns, "" while it has none.

    One with machines owns a second, for libvirt's driver, which is opened after that of its instances.
    """
    found = []
    for path in RUNTIME.glob("*/owner.json"):
        with suppress(OSError, ValueError):
            if json.loads(path.read_text())["pid"] == pid:
                found.append((path.stat().st_mtime_ns, path.parent.name))
    return min(found)[1] if found else ""


class Detached:
    """Runs lab's verbs; ``name("web")`` is a name that no other test has."""

    def __init__(self) -> None:
        self._prefix = f"t{secrets.token_hex(3)}"
        self._seen: dict[str, InstanceRecord] = {}

    def name(self, word: str) -> str:
        return f"{self._prefix}-{word}"

    def lab(self, *words: str, code: int = 0, timeout_seconds: float = 250) -> subprocess.CompletedProcess[str]:
        """Run lab to its end, which must have that exit code."""
        done = preloaded.run(
            [*LAB, *words],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        assert done.returncode == code, f"lab {' '.join(words)}\n{done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def run(self, word: str, *words: str) -> InstanceRecord:
        """``lab run -d`` under that name."""
        name = self.name(word)
        assert self.lab("run", "-d", "--name", name, *words).stdout == f"{name}\n"
        return self.record(word)

    def record(self, word: str) -> InstanceRecord:
        found = records.read(self.name(word))
        assert found is not None, f"{self.name(word)} has no record"
        self._seen[found.id] = found
        return found

    def status(self, word: str) -> str:
        """As `lab ps` shows it."""
        shown = json.loads(self.lab("ps", "-a", "--json", "--filter", f"name={self.name(word)}").stdout)
        assert len(shown) == 1
        status: str = shown[0]["status"]
        return status

    def close(self) -> None:
        """Remove them all, and fail if one has left anything."""
        for folder in records.root().glob(f"{self._prefix}-*"):
            if found := records.read(folder.name):
                self._seen[found.id] = found
            preloaded.run([*LAB, "rm", "-f", folder.name], check=False, timeout=250)
        assert wait_until(lambda: not self._folders()), self._folders()
        for record in self._seen.values():
            assert_nothing_left(record)

    def _folders(self) -> list[str]:
        """Those of its instances; a supervisor may be about to remove one."""
        return [folder.name for folder in records.root().glob(f"*{self._prefix}-*")]


@contextmanager
def detached() -> Iterator[Detached]:
    made = Detached()
    try:
        yield made
    finally:
        made.close()


def launcher_of(record: InstanceRecord) -> int:
    """The small process of the instance's session."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if len(words) > 6 and b"spawner" in words[4] and words[6] == record.session.encode():
                return int(path.parent.name)
    raise AssertionError(f"session {record.session} has no launcher")


def kill(*pids: int) -> None:
    """SIGKILL all of them at once: stopped first, so that none sees another die and acts."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def what_is_left(record: InstanceRecord) -> list[str]:
    """Everything on the host that bears the instance's or its session's name, and each living process of it."""
    left = [f"process {one.number}" for one in (record.supervisor, record.first) if record.lives(one)]
    if not record.session:
        return left
    with suppress(AssertionError):
        left.append(f"launcher {launcher_of(record)}")
    if ControlGroup.open(group_of(record.session)).exists():
        left.append(f"cgroup lab/{record.session}")
    return left + [str(path) for path in (RUNTIME / record.session, home() / "tmp" / record.session) if path.exists()]


def assert_nothing_left(record: InstanceRecord) -> None:
    assert wait_until(lambda: not what_is_left(record)), f"{record.name}: {what_is_left(record)}"


SCRIPT = """\
trap 'echo asked; exit 5' TERM
echo out $GREETING; echo err >&2
httpd -p 8000 -h /srv
while :; do sleep 9 & wait; done
"""


def check_every_verb(detached: Detached, backend: str) -> None:
    """What a user does with an instance, the same on every backend: one instance, from `run -d` to `rm`."""
    lab, name = detached.lab, detached.name("web")
    options = ("--on", backend, "-p", "0:8000", "-e", "GREETING=good day", "-m", "256M")
    record = detached.run("web", *options, "tiny", "--", "sh", "-c", SCRIPT)
    assert record.backend == backend
    check_listed(detached, record)
    assert wait_until(lambda: lab("logs", name).stderr == "err\n"), "it has said all that it says by itself"
    assert lab("logs", name).stdout == "out good day\n"
    assert lab("logs", "--tail", "1", name).stderr == "err\n"
    done = lab("exec", "-e", "WHO=me", name, "sh", "-c", "echo $WHO $GREETING; exit 3", code=3)
    assert done.stdout == "me good day\n"
    check_published(detached, record)
    check_used(detached, record)
    lab("rm", name, code=1)
    lab("kill", "-s", "NOSUCH", name, code=2)
    waiting = subprocess.Popen([*LAB, "wait", name], stdout=subprocess.PIPE, text=True)
    following = subprocess.Popen(
        [*LAB, "logs", "-f", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert lab("stop", "-t", "30", name).stdout == f"{name}\n"
    assert waiting.communicate(timeout=250)[0] == "5\n"
    assert following.communicate(timeout=250) == ("out good day\nasked\n", "err\n")
    assert_nothing_left(record)
    check_ended(detached)
    assert lab("rm", name).stdout == f"{name}\n"
    assert name not in lab("ps", "-a", "-q").stdout
    lab("rm", name, code=1)


def check_listed(detached: Detached, record: InstanceRecord) -> None:
    assert record.name in detached.lab("ps", "-q").stdout.split()
    assert detached.status("web").startswith("Up ")
    [shown] = json.loads(detached.lab("inspect", record.id[:8]).stdout)
    assert (shown["name"], shown["condition"], shown["limits"]["memory_bytes"]) == (record.name, "running", 256 << 20)
    assert shown["digest"].startswith("sha256:")


def check_published(detached: Detached, record: InstanceRecord) -> None:
    [port] = json.loads(detached.lab("port", "--json", record.name).stdout)
    address = f"127.0.0.1:{port['host_port']}"
    assert detached.lab("port", record.name, "8000").stdout == f"{address}\n"
    assert wait_until(lambda: fetch(port["host_port"]) == GREETING)


def check_used(detached: Detached, record: InstanceRecord) -> None:
    """One row in the table of all, with figures that can be true."""
    [used] = json.loads(detached.lab("top", "--json", record.name).stdout)
    assert used["memory_limit_bytes"] == 256 << 20
    assert 0 < used["memory_bytes"] < 1 << 30
    assert used["pids"] >= 2
    assert used["cpu_percent"] >= 0
    head, row = detached.lab("top", "--once", record.name).stdout.splitlines()
    assert head.split()[:3] == ["NAME", "BACKEND", "CPU"]
    assert row.split()[:2] == [record.name, record.backend]


def check_ended(detached: Detached) -> None:
    name = detached.name("web")
    assert detached.status("web").startswith("Exited (5)")
    assert name not in detached.lab("ps", "-q").stdout
    assert detached.lab("logs", name).stdout == "out good day\nasked\n"
    assert detached.lab("wait", name).stdout == "5\n"
    assert "does not run" in detached.lab("exec", name, "true", code=1).stderr
    assert "does not run" in detached.lab("kill", name, code=1).stderr
    detached.lab("stop", name)  # nothing to do is no error, as with Docker


def fetch(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as response:
            text: str = response.read().decode()
            return text
    except OSError:
        return ""


def check_survival(
    detached: Detached, backend: str, word: str, *options: str, supervisor: bool, launcher: bool
) -> InstanceRecord:
    """Its supervisor, its launcher or both are killed; it goes on, is taken over, and every verb works again."""
    lab, name = detached.lab, detached.name(word)
    before = detached.run(word, "--on", backend, *options, "-p", "0:8000", "tiny", "--", "sh", "-c", SCRIPT)
    assert wait_until(lambda: fetch(before.published[0].host_port) == GREETING)
    kill(*[before.supervisor.number] * supervisor, *[launcher_of(before)] * launcher)
    if supervisor:
        assert wait_until(lambda: "supervisor lost" in detached.status(word))
        assert before.lives(before.first)
        assert name not in lab("clean").stdout
        assert before.lives(before.first), "lab clean leaves it alone"
        assert lab("logs", name).stdout.startswith("out")  # which needs nobody
        done = lab("exec", name, "echo", "again")
        assert (done.stdout, "taken over" in done.stderr) == ("again\n", True)
    assert wait_until(lambda: lab_exec_works(name))
    after = detached.record(word)
    assert (after.first, after.published) == (before.first, before.published)
    assert wait_until(lambda: fetch(after.published[0].host_port) == GREETING)
    assert lab("stop", "-t", "30", name).stdout == f"{name}\n"
    assert lab("logs", name).stdout.endswith("asked\n")
    assert_nothing_left(after)
    return detached.record(word)


def lab_exec_works(name: str) -> bool:
    """While a supervisor starts over, a command may be lost with the one before."""
    return preloaded.run([*LAB, "exec", name, "true"], capture_output=True, check=False, timeout=250).returncode == 0
