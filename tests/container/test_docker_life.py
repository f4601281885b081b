"""Docker Engine with lab-oci as its runtime: how containers begin, what is done with them, how they end."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest
from dockering import Docker
from oci import until

TRAPS = "trap 'exit 4' TERM; trap 'echo usr1' USR1; echo up; while :; do sleep 0.1; done"


# From the beginning to the end


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 7"], 7, ""),
        (["no-such-program"], 127, 'exec: "no-such-program": executable file not found in $PATH'),
        (["/srv/given"], 126, 'exec: "/srv/given": permission denied'),
    ],
    ids=["0", "7", "127", "126"],
)
def test_exit_codes(docker: Docker, command: list[str], code: int, said: str) -> None:
    done = docker.run("--", *command)
    assert done.code == code
    assert said in done.err


def test_the_code_of_a_program_that_a_signal_ended(docker: Docker) -> None:
    assert docker.run("--init", "--", "sh", "-c", "kill -SEGV $$").code == 139


def test_both_streams(docker: Docker) -> None:
    done = docker.run("--", "sh", "-c", "echo one; echo two >&2")
    assert (done.out, done.err) == ("one\n", "two\n")


def test_standard_input(docker: Docker) -> None:
    text = "line\n" * 20_000
    assert docker.run("--interactive", "--", "cat", stdin=text).out == text


def test_an_entrypoint(docker: Docker) -> None:
    assert docker.output("--entrypoint", "/bin/echo", "--", "hello") == "hello"


def test_create_then_start_attached(docker: Docker) -> None:
    name = docker.name()
    docker.ok("create", "--name", name, *docker.words("--", "sh", "-c", "echo hello; exit 5"))
    assert docker.look(name, "State.Status") == "created"
    done = docker("start", "--attach", name)
    assert (done.code, done.out) == (5, "hello\n")
    assert docker("start", "--attach", name).code == 5, "an ended container starts again"


def test_four_at_once(docker: Docker) -> None:
    words = docker.engine.words("run", "--rm", *docker.words("--", "echo", "hello"))
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=250)[0] for process in started] == ["hello\n"] * 4
    assert [process.returncode for process in started] == [0] * 4


def test_stop_kill_and_logs(docker: Docker) -> None:
    name = docker.background("--", "sh", "-c", TRAPS)
    docker.until_said(name, "up")
    docker.ok("kill", "--signal", "USR1", name)
    docker.until_said(name, "usr1")
    assert docker.look(name, "State.Running") == "true"
    docker.ok("stop", "--time", "20", name)
    assert docker.look(name, "State.ExitCode") == "4"
    assert docker.ok("logs", name) == "up\nusr1"
    done = docker("kill", name)
    assert done.code == 1
    assert "is not running" in done.err


def test_what_does_not_stop_is_killed(docker: Docker) -> None:
    name = docker.background("--", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    docker.until_said(name, "up")
    began = time.monotonic()
    docker.ok("stop", "--time", "1", name)
    assert time.monotonic() - began >= 1
    assert docker.look(name, "State.ExitCode") == "137"


def test_a_signal_to_stop_of_ones_own(docker: Docker) -> None:
    name = docker.background("--stop-signal", "USR1", "--", "sh", "-c", TRAPS.replace("echo usr1", "exit 6"))
    docker.until_said(name, "up")
    docker.ok("stop", "--time", "20", name)
    assert docker.look(name, "State.ExitCode") == "6"


def test_kill_and_wait(docker: Docker) -> None:
    name = docker.background()
    with subprocess.Popen(docker.engine.words("wait", name), stdout=subprocess.PIPE, text=True) as waiting:
        docker.ok("kill", name)
        assert waiting.communicate(timeout=250)[0] == "137\n"


def test_remove_by_force(docker: Docker) -> None:
    name = docker.background("--init", "--", "sh", "-c", "sleep 1000 & sleep 1000")
    assert docker("rm", name).code == 1, "it runs"
    docker.ok("rm", "--force", name)
    assert name not in docker.ok("ps", "--all", "--format", "{{.Names}}").split()


def test_restart(docker: Docker) -> None:
    name = docker.background("--", "sh", "-c", f"echo x >> /srv/starts; {TRAPS}")
    docker.until_said(name, "up")
    before = docker.look(name, "State.Pid")
    docker.ok("restart", "--time", "20", name)
    until(lambda: docker("exec", name, "cat", "/srv/starts").out == "x\nx\n", "the second start")
    assert docker.look(name, "State.Running") == "true"
    assert docker.look(name, "State.Pid") != before


def test_a_policy_that_restarts(docker: Docker) -> None:
    name = docker.background("--restart", "on-failure:2", "--", "sh", "-c", "echo began; exit 3")
    docker.until(name, "State.Status", "exited")
    docker.until(name, "RestartCount", "2")
    assert docker.ok("logs", name).split() == ["began"] * 3
    assert docker.look(name, "State.ExitCode") == "3"


def test_following_a_log(docker: Docker) -> None:
    name = docker.background("--", "sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.1; done")
    assert docker.ok("logs", "--follow", name) == "1\n2\n3"


def test_pause(docker: Docker) -> None:
    """What it has counted is read from its own file: of its log, the Engine may still have a part in its hands."""
    name = docker.background("--", "sh", "-c", "while :; do echo >> /tmp/count; sleep 0.02; done")
    count = f"/proc/{docker.look(name, 'State.Pid')}/root/tmp/count"
    until(lambda: docker.engine.beside("sh", "-c", f"cat {count} || true"), "the first of it")
    docker.ok("pause", name)
    assert docker.look(name, "State.Status") == "paused"
    before = docker.engine.beside("cat", count)
    assert "is paused" in docker("exec", name, "true").err
    assert docker.engine.beside("cat", count) == before
    docker.ok("unpause", name)
    until(lambda: docker.engine.beside("cat", count) != before, "more of it")
    docker.ok("pause", name)
    docker.ok("rm", "--force", name)


def test_events(docker: Docker) -> None:
    name = docker.background("--", "sh", "-c", TRAPS)
    docker.until_said(name, "up")
    docker("exec", name, "sh", "-c", "exit 9")
    docker.until_told(name, "exec_die 9")
    docker.ok("stop", "--time", "20", name)
    docker.until_told(name, "die 4")
    events = [event for event in docker.events(name) if not event.startswith("exec_create")]
    assert events[:5] == ["create", "start", "exec_start: sh -c exit 9", "exec_die 9", "kill"]
    assert sorted(events[5:]) == ["die 4", "stop"], "two threads of the Engine's tell them, in either order"


# What goes on beside it


def test_exec(docker: Docker) -> None:
    name = docker.waiting()
    done = docker("exec", name, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert docker.ok("exec", "--interactive", name, "cat", stdin="typed\n") == "typed"


@pytest.mark.parametrize(
    ("program", "said"),
    [("no-such-program", "executable file not found in $PATH"), ("/srv/given", "permission denied")],
)
def test_exec_of_what_is_no_program(docker: Docker, program: str, said: str) -> None:
    done = docker("exec", docker.waiting(), program)
    assert done.code == 126
    assert f'exec: "{program}": {said}' in done.out + done.err


def test_exec_as_somebody_somewhere_with_something(docker: Docker) -> None:
    words = ["--user", "guest", "--workdir", "/tmp", "--env", "GIVEN=word"]
    said = docker.ok("exec", *words, docker.waiting(), "sh", "-c", "id -u; id -g; id -G; pwd; echo $GIVEN $HOME")
    assert said.split("\n") == ["1000", "1000", "1000 2000", "/tmp", "word /home/guest"]


def test_exec_in_the_background(docker: Docker) -> None:
    name = docker.waiting()
    docker.ok("exec", "--detach", name, "sh", "-c", "echo made > /tmp/made")
    until(lambda: docker("exec", name, "cat", "/tmp/made").out == "made\n", "the file")


def test_exec_with_the_containers_limits_and_names(docker: Docker) -> None:
    name = docker.waiting()
    links = "for kind in pid mnt net ipc uts cgroup; do readlink /proc/{}/ns/$kind; done; cat /proc/{}/cgroup"
    first, second = (docker.ok("exec", name, "sh", "-c", links.replace("{}", pid)) for pid in ("1", "self"))
    assert first == second
    status = "grep -E 'Cap|NoNewPrivs|Seccomp' /proc/{}/status"
    first, second = (docker.ok("exec", name, "sh", "-c", status.replace("{}", pid)) for pid in ("1", "self"))
    assert first == second


def test_exec_when_it_has_ended(docker: Docker) -> None:
    name = docker.background("--", "true")
    docker.until(name, "State.Status", "exited")
    assert "is not running" in docker("exec", name, "true").err


def test_exec_where_there_is_no_such_folder(docker: Docker) -> None:
    name = docker.waiting()
    done = docker("exec", "--workdir", "/no/such", name, "true")
    assert done.code != 0
    assert "/no/such" in done.out + done.err
    assert docker("exec", name, "test", "-e", "/no").code == 1, "and none is made"


def test_top_and_pid(docker: Docker) -> None:
    name = docker.background("--", "sh", "-c", "sleep 1234 & exec sleep 2345")

    def shown() -> str:
        return docker.ok("top", name, "-o", "pid,args")

    programs = ["sleep 2345", "sleep 1234"]  # until both are executed, the shell's own words name them
    until(lambda: re.findall(r"(?m)^\d+ +(\S.*)$", shown()) == programs, "its programs")
    pid = docker.look(name, "State.Pid")
    assert docker.engine.beside("cat", f"/proc/{pid}/cmdline") == "sleep\x002345\x00"
    assert pid in shown().split()


def test_health(docker: Docker) -> None:
    every = ["--health-interval", "200ms", "--health-retries", "1", "--health-timeout", "10s"]
    name = docker.background("--health-cmd", "test ! -e /tmp/ill || { echo ill; exit 1; }", *every)
    docker.until(name, "State.Health.Status", "healthy")
    docker.ok("exec", name, "touch", "/tmp/ill")
    docker.until(name, "State.Health.Status", "unhealthy")
    assert "ill" in docker.ok("inspect", "--format", "{{json .State.Health.Log}}", name)


def test_an_init_reaps_and_passes_signals_on(docker: Docker) -> None:
    script = f"sh -c 'sleep 0.123 & exit' & {TRAPS}"
    name = docker.background("--init", "--", "sh", "-c", script)
    docker.until_said(name, "up")
    assert "docker-init" in docker.ok("exec", name, "cat", "/proc/1/cmdline")

    def left() -> list[str]:
        """What runs still, or has ended and was not waited for: its arguments are gone, and ps lists ``[sleep]``."""
        running = docker.ok("exec", name, "ps", "-o", "args").split("\n")
        return [line for line in running if line == "sleep 0.123" or line.startswith("[")]

    until(lambda: not left(), "its child's end, and that the init waits for it")
    docker.ok("stop", "--time", "20", name)
    assert docker.look(name, "State.ExitCode") == "4"


def test_attach(docker: Docker) -> None:
    name = docker.background(
        "--interactive", "--", "sh", "-c", "read first; echo got $first; read second; exit $second"
    )
    words = docker.engine.words("attach", name)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got one\n"
        process.stdin.write(b"8\n")
        process.stdin.flush()
        assert process.wait(120) == 8


# Terminals

SIZED = (
    "until stty size 2> /dev/null | grep -q '^[1-9]'; do sleep 0.05; done"  # docker tells the size after the start
)


def test_a_terminal(docker: Docker) -> None:
    script = (
        f"tty; {SIZED}; stty size; ls -l /dev/console | cut -c 1; stty -echo; echo ready; read word; echo got $word"
    )
    words = docker.engine.words("run", "--rm", *docker.words("--interactive", "--tty", "--", "sh", "-c", script))
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (41, 141))
    with subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True) as process:
        os.close(terminal)
        said = read_until(master, b"ready")
        os.write(master, b"typed\n")
        said += read_until(master, b"got typed")
        assert process.wait(120) == 0
    os.close(master)
    assert said.decode().split("\r\n")[:3] == ["/dev/pts/0", "41 141", "c"]


def test_a_terminal_for_exec(docker: Docker) -> None:
    said = docker.ok("exec", "--tty", docker.waiting(), "sh", "-c", "tty && test -t 0 && test -t 1 && test -t 2")
    assert said.startswith("/dev/pts/")


def test_a_terminal_that_changes_its_size(docker: Docker) -> None:
    script = f"{SIZED}; stty size; while stty size | grep -q '^30 100'; do sleep 0.1; done; stty size"
    words = docker.engine.words("run", "--rm", *docker.words("--interactive", "--tty", "--", "sh", "-c", script))
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (30, 100))
    with subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        read_until(master, b"30 100")
        termios.tcsetwinsize(master, (31, 101))
        said = b""
        while b"31 101" not in said:  # docker tells the first size before it listens for later ones
            process.send_signal(signal.SIGWINCH)  # this terminal is nobody's controlling one
            said += os.read(master, 1000) if select.select([master], [], [], 0.1)[0] else b""
        assert process.wait(120) == 0
    os.close(master)


def read_until(descriptor: int, text: bytes) -> bytes:
    said = b""
    while text not in said:
        said += os.read(descriptor, 1000)
    return said


# Files


def test_copying_in_and_out(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given")
    name = docker.background()
    docker.ok("cp", f"{tmp_path}/in", f"{name}:/tmp/there")
    assert docker.ok("exec", name, "cat", "/tmp/there") == "given"
    docker.ok("cp", f"{name}:/etc", f"{tmp_path}/etc")
    assert (tmp_path / "etc" / "group").read_text().startswith("root:")
    docker.ok("kill", name)
    docker.ok("cp", f"{name}:/tmp/there", f"{tmp_path}/out")
    assert (tmp_path / "out").read_text() == "given"


def test_what_has_changed_becomes_an_image(docker: Docker) -> None:
    name = docker.background("--", "sh", "-c", "echo more > /srv/made; rm /srv/given; sleep 1000")
    until(lambda: docker("exec", name, "test", "!", "-e", "/srv/given").code == 0, "the change")
    assert sorted(docker.ok("diff", name).split("\n")) == ["A /srv/made", "C /srv", "D /srv/given"]
    image = f"tiny-{docker.runtime}"
    docker.ok("commit", name, image)
    run = ["run", "--rm", "--runtime", docker.runtime, "--network=none", image]
    assert docker.ok(*run, "sh", "-c", "cat /srv/*") == "more"
    docker.ok("rmi", image)


# The network, which Docker Engine gives a container by a hook


def test_two_on_a_bridge(docker: Docker) -> None:
    server = docker.background("--network=bridge", "--", "sh", "-c", "cd /srv; exec httpd -f -p 80")
    until(lambda: docker("exec", server, "grep", "-q", ":0050 .* 0A ", "/proc/net/tcp6").code == 0, "its port")
    address = docker.look(server, "NetworkSettings.IPAddress")
    for network, asked in (("bridge", address), (f"container:{server}", "127.0.0.1")):
        fetch = f"ip link show eth0 > /dev/null && printf 'GET /given HTTP/1.0\\r\\n\\r\\n' | nc -w 20 {asked} 80"
        said = docker.output(f"--network={network}", "--", "sh", "-c", fetch)
        assert said.endswith("from the image"), network
