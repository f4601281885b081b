"""Living with detached instances on the host's kernel: every verb, on every backend alike."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import preloaded
import pytest
from detached import LAB, Detached, assert_nothing_left, check_every_verb, detached
from host_state import wait_until
from tiny import tiny_image

from lab.errors import LabError
from lab.images.store import Origin, Store
from lab.model import Healthcheck, PublishedPort
from lab.supervisor import client
from lab.supervisor import record as records
from lab.supervisor.record import Condition, Pid, State


@pytest.fixture(scope="module", autouse=True)
def image(lab_home: Path) -> str:
    return tiny_image(Store.open(lab_home)).name


@pytest.fixture
def instances() -> Iterator[Detached]:
    with detached() as made:
        yield made


@pytest.mark.parametrize(
    "backend",
    [
        "container",
        pytest.param("process", marks=pytest.mark.nightly),
        pytest.param("runc", marks=pytest.mark.nightly),
    ],
)
def test_every_verb(backend: str, instances: Detached, missing: Callable[[str], None]) -> None:
    if backend == "runc" and shutil.which("runc") is None:
        missing("runc")
    check_every_verb(instances, backend)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["absent"], 1, "no image, scenario or folder is called absent"),
        (["tiny", "--", "/absent"], 127, "No such file"),
        (["tiny", "--", "/etc/passwd"], 126, "Permission denied"),
        (["tiny", "--memory", "1x"], 2, "is not a size"),
        (["tiny", "--on", "absent"], 2, "no backend is called absent"),
    ],
)
def test_what_can_not_run_is_told_as_in_the_foreground(
    instances: Detached, words: list[str], code: int, message: str
) -> None:
    done = instances.lab("run", "-d", "--name", instances.name("none"), *words, code=code)
    assert message in done.stderr
    assert done.stdout == ""
    assert not records.folder(instances.name("none")).exists(), "the name is free again"


def test_a_port_in_use_and_a_name_in_use(instances: Detached) -> None:
    first = instances.run("first", "-p", "0:8000", "tiny")
    taken = f"{first.published[0].host_port}:8000"
    done = instances.lab("run", "-d", "--name", instances.name("second"), "-p", taken, "tiny", code=125)
    assert "in use" in done.stderr
    done = instances.lab("run", "-d", "--name", first.name, "tiny", code=1)
    assert f"an instance is called {first.name} already" in done.stderr
    assert instances.record("first") == first


def test_one_that_ends_at_once(instances: Detached) -> None:
    record = instances.run("quick", "tiny", "--", "sh", "-c", "echo done; exit 9")
    assert instances.lab("wait", record.name).stdout == "9\n"
    assert instances.lab("logs", "-f", record.name).stdout == "done\n"


def test_wait_returns_when_the_port_answers_and_start_begins_anew(instances: Detached, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("from the host\n")
    serve = "sleep 0.5; cat /data/word; echo more > /data/word; exec httpd -f -p 8000 -h /"
    volume = f"{tmp_path}:/data:ro"
    record = instances.run("late", "--wait", "-p", "0:8000", "-v", volume, "tiny", "--", "sh", "-c", serve)
    port = record.published[0].host_port
    with socket.create_connection(("127.0.0.1", port), 60):
        instances.lab("stop", "-t", "0", record.name)
    assert (tmp_path / "word").read_text() == "from the host\n", "a read-only volume was written to"
    assert instances.lab("start", record.name).stdout == f"{record.name}\n"
    again = instances.record("late")
    assert again.runs
    assert again.id == record.id
    assert again.first != record.first
    assert instances.lab("start", record.name).stdout == f"{record.name}\n", "one that runs is left as it is"
    assert instances.record("late").first == again.first
    assert wait_until(lambda: instances.lab("logs", record.name).stdout.count("from the host") == 2)


def test_wait_tells_of_one_that_ends_first_and_of_nothing_to_wait_for(instances: Detached) -> None:
    done = instances.lab("run", "-d", "--wait", "--name", instances.name("x"), "tiny", "--", "sleep", "9", code=2)
    assert "HEALTHCHECK" in done.stderr
    words = ["run", "-d", "--wait", "-p", "0:8000", "--name", instances.name("brief"), "tiny", "--", "false"]
    assert "exit code 1" in instances.lab(*words, code=1).stderr
    instances.lab("rm", instances.name("brief"))


def test_what_another_command_starts_again_meanwhile_is_left_to_it(instances: Detached) -> None:
    record = instances.run("twice", "tiny", "--", "sleep", "600")
    instances.lab("stop", "-t", "0", record.name)
    ended = instances.record("twice")
    begun = records.write(replace(ended, state=State.CREATED, supervisor=Pid.of(os.getpid()), again=True))
    with pytest.raises(LabError, match="being started"):
        client.start_again(ended)  # it looked before the other wrote
    assert records.stored(record.name) == begun
    records.write(ended)


def test_what_fails_to_start_again_is_as_it_was(instances: Detached) -> None:
    record = instances.run("taken", "-p", "0:8000", "tiny", "--", "sleep", "600")
    instances.lab("stop", "-t", "0", record.name)
    ended = instances.record("taken")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = PublishedPort(host_port=other.getsockname()[1], instance_port=8000)
        records.write(replace(ended, wanted=(port,)))
        assert "in use" in instances.lab("start", record.name, code=125).stderr
    assert instances.record("taken").condition is Condition.EXITED
    assert instances.lab("start", record.name).stdout == f"{record.name}\n"


def test_rm_forgets_it_when_it_ends(instances: Detached) -> None:
    record = instances.run("brief", "--rm", "tiny", "--", "sleep", "600")
    instances.lab("kill", record.name)
    assert wait_until(lambda: not records.folder(record.name).exists())


def test_several_at_once_and_one_that_is_not_there(instances: Detached) -> None:
    names = [instances.run(word, "tiny", "--", "sleep", "600").name for word in ("a", "b")]
    done = instances.lab("stop", "-t", "0", names[0], instances.name("absent"), names[1], code=1)
    assert done.stdout.split() == names
    assert "no instance is called" in done.stderr
    assert {instances.status("a")[:12], instances.status("b")[:12]} == {"Exited (137)"}
    assert instances.lab("rm", *names).stdout.split() == names
    done = instances.lab("rm", "-f", names[0])
    assert (done.stdout, "no instance is called" in done.stderr) == ("", True)
    instances.lab("rm", names[0], code=1)


def test_exec_passes_its_own_streams(instances: Detached) -> None:
    """Input and output go straight through, of any size, and a command that nobody waits for any more ends."""
    record = instances.run("io", "tiny", "--", "sleep", "600")
    sent = os.urandom(1 << 20)
    done = preloaded.run(
        [*LAB, "exec", "-i", record.name, "cat"], input=sent, capture_output=True, timeout=250, check=True
    )
    assert done.stdout == sent
    with subprocess.Popen([*LAB, "exec", record.name, "sh", "-c", "echo $$; exec sleep 500"], stdout=-1) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    running = [*LAB, "exec", record.name, "sh", "-c", "ps | grep -c '[s]leep 500'"]
    assert wait_until(lambda: subprocess.run(running, capture_output=True, check=False).stdout == b"0\n")


def test_the_command_that_starts_it_is_killed_half_way(instances: Detached) -> None:
    """Wherever it is hit, what it began is ended: no instance, no name, nothing on the host."""
    word = "orphan"
    with subprocess.Popen(
        [*LAB, "run", "-d", "--name", instances.name(word), "tiny", "--", "sleep", "600"]
    ) as process:
        place = records.folder(instances.name(word))
        assert wait_until(lambda: supervised_by_another(place.name, process.pid))
        process.send_signal(signal.SIGSTOP)
        record = records.stored(place.name)
        process.kill()
    assert record is not None
    if record.condition is not Condition.RUNNING:  # else it was told in the moment before
        assert wait_until(lambda: not place.exists())
        assert_nothing_left(record)


def supervised_by_another(name: str, starter: int) -> bool:
    """Whether its supervisor has begun: a starter that is stopped before would never have one."""
    record = records.stored(name)
    return record is not None and record.supervisor.number != starter


def test_filters_and_json(instances: Detached) -> None:
    record = instances.run("listed", "tiny", "--", "sleep", "600")
    for key, value in {"id": record.id, "status": "running", "backend": "container", "image": "tiny"}.items():
        words = ("ps", "--json", "--filter", f"name={record.name}", "--filter", f"{key}={value}")
        [shown] = json.loads(instances.lab(*words).stdout)
        assert shown["name"] == record.name
    assert (
        json.loads(instances.lab("ps", "--json", "--filter", f"name={record.name}", "-f", "backend=vm").stdout) == []
    )
    instances.lab("ps", "--filter", "colour=red", code=2)
    words = ("--format", "{{.name}} {{json .limits.pids}}")
    assert instances.lab("ps", "--filter", f"name={record.name}", *words).stdout == f"{record.name} null\n"
    assert instances.lab("inspect", *words, record.name).stdout == f"{record.name} null\n"
    instances.lab("inspect", "--format", "{{.colour}}", record.name, code=2)


def test_health_is_what_the_image_says(instances: Detached, lab_home: Path) -> None:
    """Starting, unhealthy after so many failures in a row, healthy by one success."""
    store = Store.open(lab_home)
    tiny = store.find("tiny")
    check = Healthcheck(test=("CMD-SHELL", "test -e /tmp/well"), interval_seconds=0.2, retries=2)
    config = replace(tiny.config, health=check, command=("sleep", "600"))
    store.add_image("tiny-health", config=config, layers=tiny.layers, origin=Origin.BUILT)
    record = instances.run("ill", "tiny-health")
    assert wait_until(lambda: instances.record("ill").health == "unhealthy")
    assert instances.status("ill").endswith("(unhealthy)")
    instances.lab("exec", record.name, "touch", "/tmp/well")
    assert wait_until(lambda: instances.status("ill").endswith("(healthy)"))


LEFT_SCREEN = b"\x1b[?1049l"


@pytest.mark.parametrize(("end", "code"), [("q", 0), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_top_on_a_terminal_shows_the_table_again_and_again(
    instances: Detached, end: str | signal.Signals, code: int
) -> None:
    """Whatever ends it, the terminal has its own screen back."""
    record = instances.run("shown", "tiny", "--", "sleep", "600")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen([*LAB, "top", record.name], env={**environment, "TERM": "xterm"}, **streams) as process:
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + 120
        while shown.count(record.name.encode()) < 2 and time.monotonic() < deadline:
            shown += os.read(ours, 65536) if select.select([ours], [], [], 1)[0] else b""
        if isinstance(end, str):
            os.write(ours, end.encode())
        else:
            process.send_signal(end)
        while LEFT_SCREEN not in shown and time.monotonic() < deadline:
            shown += os.read(ours, 65536) if select.select([ours], [], [], 1)[0] else b""
        assert process.wait(120) == code
    os.close(ours)
    assert LEFT_SCREEN in shown
    assert shown.count(record.name.encode()) >= 2
    assert b"MEMORY /" in shown
    assert b"Traceback" not in shown
