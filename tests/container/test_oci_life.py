"""lab-oci, verb by verb; by night the same assertions on runc, which show that they ask for nothing unusual."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import oci
import pytest
from oci import Runtime, until

from lab.host.cgroup.group import Group


@pytest.fixture(scope="module", params=["lab-oci", pytest.param("runc", marks=pytest.mark.nightly)])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    if request.param != "lab-oci" and shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    with oci.opened(request.param) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _clean(runtime: Runtime) -> Iterator[None]:
    """What a failed test leaves must not make the next one fail."""
    yield
    runtime.close()


class TestLife:
    def test_from_create_to_delete(self, runtime: Runtime, tmp_path: Path) -> None:
        name = runtime.new()
        bundle = runtime.bundle("echo started > /tmp/out; sleep 1000")
        pid_file = tmp_path / "pid"
        runtime.ok("create", "--bundle", bundle, "--pid-file", str(pid_file), name)
        state = runtime.state(name)
        assert state["status"] == "created"
        assert state["pid"] == int(pid_file.read_text())
        assert state["bundle"] == bundle
        assert not (runtime.rootfs / "tmp/out").exists()
        runtime.ok("start", name)
        assert runtime.status(name) == "running"
        until((runtime.rootfs / "tmp/out").exists, "output")
        runtime.ok("kill", name, "KILL")
        runtime.wait_until(name, "stopped")
        assert runtime.state(name)["pid"] == 0
        runtime.ok("delete", name)
        assert runtime("state", name).code == 1
        assert runtime.left() == []

    @pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("sh -c 'kill -9 $$'; exit $?", 137)])
    def test_run_ends_as_the_application_does(self, runtime: Runtime, script: str, code: int) -> None:
        """In the last, what was killed is a child, and its shell says so by its own exit code."""
        assert runtime("run", "-b", runtime.bundle(script), runtime.new()).code == code
        assert runtime.left() == []

    def test_run_ends_as_an_application_that_a_signal_ended(self, runtime: Runtime) -> None:
        """From outside: within its pid namespace, nothing kills the first process."""
        name = runtime.new()
        words = runtime.words("run", "-b", runtime.bundle("kill -9 $$; kill -TERM $$; echo > /tmp/lives; sleep 1000"))
        lives = runtime.rootfs / "tmp/lives"
        with subprocess.Popen([*words, name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as running:
            until(lives.exists, "the first process behind its own signals")
            runtime.ok("kill", name, "KILL")
            assert running.wait(120) == 128 + signal.SIGKILL
        lives.unlink()
        assert runtime.left() == []

    def test_a_missing_program_is_told_at_create(self, runtime: Runtime) -> None:
        done = runtime("create", "-b", runtime.bundle("", "no-such-program"), runtime.new())
        assert done.code == 1
        assert "executable file not found in $PATH" in done.err
        assert runtime.left() == []

    def test_what_can_not_be_done_twice(self, runtime: Runtime) -> None:
        name = runtime.running()
        assert runtime("start", name).code == 1
        again = runtime("create", "-b", runtime.bundle("true"), name)
        assert again.code == 1
        assert "already exists" in again.err
        assert runtime.status(name) == "running"
        runtime.ok("delete", "--force", name)
        assert runtime("delete", name).code == 1
        assert runtime("delete", "--force", name).code == 0

    def test_of_two_creates_of_one_name_one_wins(self, runtime: Runtime) -> None:
        if runtime.name == "runc":
            pytest.skip("runc 1.1 does not hold a name while it makes the container: none may win, or two")
        name = runtime.new()
        bundles = [runtime.bundle("sleep 1000") for _ in range(4)]
        with ThreadPoolExecutor(len(bundles)) as threads:
            done = list(threads.map(lambda bundle: runtime("create", "--bundle", bundle, name), bundles))
        assert sorted(each.code for each in done) == [0, 1, 1, 1]
        winner = bundles[[each.code for each in done].index(0)]
        assert runtime.state(name)["bundle"] == winner
        runtime.ok("delete", "--force", name)
        assert runtime.left() == []

    def test_many_at_once(self, runtime: Runtime) -> None:
        bundles = [runtime.bundle("exit 3") for _ in range(10)]
        with ThreadPoolExecutor(len(bundles)) as threads:
            done = list(threads.map(lambda bundle: runtime("run", "-b", bundle, runtime.new()).code, bundles))
        assert done == [3] * len(bundles)
        assert runtime.left() == []

    def test_a_running_container_is_deleted_by_force_alone(self, runtime: Runtime) -> None:
        name = runtime.running()
        done = runtime("delete", name)
        assert done.code == 1
        assert "is not stopped: running" in done.err
        runtime.ok("delete", "--force", name)
        assert runtime.left() == []

    def test_a_created_container_is_deleted_by_force_alone(self, runtime: Runtime) -> None:
        """As the specification says (runtime.md, "Delete"); runc deletes it either way."""
        name = runtime.new()
        runtime.ok("create", "-b", runtime.bundle("true"), name)
        if runtime.name == "lab-oci":
            assert "is not stopped: created" in runtime("delete", name).err
            assert runtime.status(name) == "created"
        runtime.ok("delete", "--force", name)
        assert runtime.left() == []

    def test_a_bundle_without_a_process_is_created_and_not_started(self, runtime: Runtime) -> None:
        """runc can't create one."""
        if runtime.name == "runc":
            pytest.skip("runc 1.1 refuses it at create")

        def without(config: dict[str, Any]) -> None:
            del config["process"]

        bundle, name = runtime.bundle(edit=without), runtime.new()
        runtime.ok("create", "-b", bundle, name)
        done = runtime("start", name)
        assert done.code == 1
        assert "has no process" in done.err
        assert runtime.status(name) == "created", "nothing has happened to it"
        assert runtime.ok("exec", "--env", "PATH=/bin", name, "pwd") == "/\n"
        runtime.ok("delete", "--force", name)
        done = runtime("run", "-b", bundle, runtime.new())
        assert done.code == 2
        assert "process is missing" in done.err
        assert runtime.left() == []

    def test_a_bundle_that_changes_after_create_does_not_matter(self, runtime: Runtime) -> None:
        name, bundle = runtime.new(), runtime.bundle("echo first > /tmp/which")
        runtime.ok("create", "-b", bundle, name)
        file = Path(bundle) / "config.json"
        file.write_text(file.read_text().replace("echo first", "echo second"))
        runtime.ok("start", name)
        runtime.wait_until(name, "stopped")
        assert (runtime.rootfs / "tmp/which").read_text() == "first\n"
        runtime.ok("delete", name)

    @pytest.mark.parametrize("verb", ["create", "start", "state", "kill", "delete", "exec", "pause", "resume"])
    def test_every_verb_wants_a_name(self, runtime: Runtime, verb: str) -> None:
        assert runtime(verb).code != 0
        assert runtime.left() == []

    def test_signals(self, runtime: Runtime) -> None:
        name = runtime.running("trap 'exit 0' USR1; touch /tmp/trapped; while :; do sleep 0.01; done")
        until((runtime.rootfs / "tmp/trapped").exists, "the trap")
        runtime.ok("kill", name, "SIGUSR1")
        runtime.wait_until(name, "stopped")
        done = runtime("kill", name, "TERM")
        assert done.code == 1
        assert "container not running" in done.err
        runtime.ok("delete", name)
        assert runtime("kill", name).code == 1

    def test_all_processes_get_a_signal(self, runtime: Runtime) -> None:
        name = runtime.running("sleep 1000 & sleep 1000 & sleep 1000")
        until(lambda: len(json.loads(runtime.ok("ps", "-f", "json", name))) >= 3, "several processes")
        runtime.ok("kill", "--all", name, "KILL")
        runtime.wait_until(name, "stopped")
        runtime.ok("delete", name)

    def test_run_passes_signals_on(self, runtime: Runtime) -> None:
        bundle = runtime.bundle("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")
        process = subprocess.Popen(runtime.words("run", "-b", bundle, runtime.new()), stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 5
        assert runtime.left() == []

    def test_run_detached(self, runtime: Runtime, tmp_path: Path) -> None:
        name, pid_file = runtime.new(), tmp_path / "pid"
        bundle = runtime.bundle("sleep 1000")
        runtime.ok("run", "--detach", f"--pid-file={pid_file}", f"--bundle={bundle}", name)
        assert runtime.state(name)["pid"] == int(pid_file.read_text())
        assert runtime.status(name) == "running"
        runtime.ok("delete", "-f", name)


class TestTables:
    def test_a_state_is_the_specifications(self, runtime: Runtime) -> None:
        def annotate(config: dict[str, Any]) -> None:
            config["annotations"] = {"a.b": "c"}

        name = runtime.running(edit=annotate)
        state = runtime.state(name)
        assert state["id"] == name
        assert state["ociVersion"].startswith("1.")
        assert state["annotations"]["a.b"] == "c"
        assert state["rootfs"] == str(runtime.rootfs)
        assert {"ociVersion", "id", "status", "pid", "bundle", "rootfs", "created", "annotations"} <= set(state)
        runtime.ok("delete", "-f", name)

    def test_lists(self, runtime: Runtime) -> None:
        names = sorted([runtime.running(), runtime.running()])
        assert sorted(runtime.ok("list", "--quiet").split()) == names
        found = json.loads(runtime.ok("list", "--format", "json"))
        assert sorted(each["id"] for each in found) == names
        assert {"pid", "status", "bundle", "rootfs", "created", "owner"} <= set(found[0])
        table = runtime.ok("list").splitlines()
        assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
        pid = runtime.state(names[0])["pid"]
        assert json.loads(runtime.ok("ps", "--format", "json", names[0])) == [pid]
        assert str(pid) in runtime.ok("ps", names[0])
        for name in names:
            runtime.ok("delete", "-f", name)


class TestGroups:
    def test_paused_and_resumed(self, runtime: Runtime) -> None:
        name = runtime.running()
        runtime.ok("pause", name)
        assert runtime.status(name) == "paused"
        assert runtime("exec", name, "true").code == 255
        runtime.ok("resume", name)
        assert runtime.status(name) == "running"
        assert runtime("resume", name).code == 1
        runtime.ok("pause", name)
        runtime.ok("delete", "--force", name)
        assert runtime.left() == []

    def test_new_limits(self, runtime: Runtime, tmp_path: Path) -> None:
        name = runtime.running()
        group = Group(f"{runtime.group}/c{runtime.count}")
        runtime.ok("update", "--memory", str(64 << 20), "--pids-limit", "23", name)
        runtime.ok("update", "--resources", "-", name, stdin='{"cpu": {"quota": 30000, "period": 60000}}')
        if group.host.is_v2:
            assert group.read("memory", "memory.max") == str(64 << 20)
            assert group.read("cpu", "cpu.max") == "30000 60000"
        else:
            assert group.read("memory", "memory.limit_in_bytes") == str(64 << 20)
            assert group.read("cpu", "cpu.cfs_quota_us") == "30000"
        assert group.read("pids", "pids.max") == "23"
        runtime.ok("delete", "-f", name)

    def test_statistics(self, runtime: Runtime) -> None:
        name = runtime.running()
        event = json.loads(runtime.ok("events", "--stats", name))
        assert event["type"] == "stats"
        assert event["id"] == name
        assert event["data"]["cpu"]["usage"]["total"] > 0
        assert event["data"]["memory"]["usage"]["usage"] > 0
        assert event["data"]["pids"]["current"] == 1
        runtime.ok("delete", "-f", name)


class TestExec:
    @pytest.fixture
    def name(self, runtime: Runtime) -> str:
        return runtime.running()

    @pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 9", 9), ("kill -9 $$", 137)])
    def test_exit_codes(self, runtime: Runtime, name: str, script: str, code: int) -> None:
        assert runtime("exec", name, "sh", "-c", script).code == code

    def test_a_missing_program(self, runtime: Runtime, name: str) -> None:
        done = runtime("exec", name, "no-such-program")
        assert done.code == 255
        assert "executable file not found in $PATH" in done.err

    def test_options(self, runtime: Runtime, name: str) -> None:
        options = ["--user", "12:34", "--cwd", "/tmp", "--env", "GREETING=hello", "-g", "56"]
        out = runtime.ok("exec", *options, name, "sh", "-c", "id -u; id -g; id -G; pwd; echo $GREETING")
        assert out.split("\n") == ["12", "34", "34 56", "/tmp", "hello", ""]

    def test_a_capability(self, runtime: Runtime, name: str) -> None:
        script = "grep CapEff /proc/self/status"
        without, granted = (
            int(runtime.ok("exec", *options, name, "sh", "-c", script).split()[1], 16)
            for options in ([], ["--cap", "CAP_SYS_TIME"])
        )
        assert granted == without | 1 << 25

    def test_a_process_from_a_file(self, runtime: Runtime, name: str, tmp_path: Path) -> None:
        process = {
            "args": ["sh", "-c", "echo $A $(id -u); pwd"],
            "cwd": "/tmp",
            "env": ["PATH=/bin", "A=b"],
            "user": {"uid": 5, "gid": 6},
        }
        (tmp_path / "process.json").write_text(json.dumps(process))
        out = runtime.ok("exec", "--process", str(tmp_path / "process.json"), name)
        assert out == "b 5\n/tmp\n"

    def test_detached(self, runtime: Runtime, name: str, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        runtime.ok("exec", "-d", "--pid-file", str(pid_file), name, "sleep", "1000")
        pid = int(pid_file.read_text())
        assert pid in json.loads(runtime.ok("ps", "-f", "json", name))
        os.kill(pid, signal.SIGKILL)

    def test_a_missing_directory_is_an_error_and_is_not_made(self, runtime: Runtime, name: str) -> None:
        done = runtime("exec", "--cwd", "/not/there", name, "true")
        assert done.code == 255
        assert "/not/there" in done.err
        assert not (runtime.rootfs / "not").exists()

    def test_processors_before_it_is_in_the_container_and_then(
        self, runtime: Runtime, name: str, tmp_path: Path
    ) -> None:
        """``execCPUAffinity``, of 1.2.1: the runtime itself runs on the initial ones."""
        if runtime.name == "runc":
            pytest.skip("runc 1.1 does not know it")
        if len(os.sched_getaffinity(0)) < 2:
            pytest.skip("this host has one processor")
        first, *_, last = sorted(os.sched_getaffinity(0))
        script = "grep Cpus_allowed_list /proc/self/status; echo; exec sleep 1000"
        process = {"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"]}
        for affinity, expected in (
            ({"initial": f"{first}", "final": f"{last}"}, f"{last}"),
            ({"initial": f"{first}"}, ""),
        ):
            (tmp_path / "process.json").write_text(json.dumps(process | {"execCPUAffinity": affinity}))
            words = runtime.words("exec", "--process", str(tmp_path / "process.json"), name)
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as command:
                assert command.stdout is not None
                inside = command.stdout.readline().split()[-1]
                assert os.sched_getaffinity(command.pid) == {first}
                command.kill()
            assert inside == (expected or allowed()), affinity

    def test_it_is_behind_the_same_boundary(self, runtime: Runtime, name: str) -> None:
        first = runtime.state(name)["pid"]
        spaces = ("pid", "mnt", "net", "ipc", "uts", "cgroup")
        out = runtime.ok(
            "exec", name, "sh", "-c", "for kind in $0; do readlink /proc/self/ns/$kind; done", " ".join(spaces)
        )
        assert out.split() == [str(Path(f"/proc/{first}/ns/{kind}").readlink()) for kind in spaces]

    def test_not_in_a_stopped_container(self, runtime: Runtime) -> None:
        name = runtime.running("exit 0")
        runtime.wait_until(name, "stopped")
        assert runtime("exec", name, "true").code == 255
        runtime.ok("delete", name)
        assert runtime("exec", name, "true").code == 255


def allowed() -> str:
    """The processors of this test, as the kernel lists them."""
    return Path("/proc/self/status").read_text().partition("Cpus_allowed_list:")[2].split()[0]


class TestDescriptors:
    SCRIPT = "for each in /proc/self/fd/*; do [ -e $each ] && echo ${each##*/}; done"

    def test_none_leaks(self, runtime: Runtime) -> None:
        read, write = os.pipe()
        os.set_inheritable(write, True)
        try:
            bundle = runtime.bundle(self.SCRIPT)
            run = runtime("run", "-b", bundle, runtime.new(), pass_fds=(write,))
            name = runtime.running()
            beside = runtime("exec", name, "sh", "-c", self.SCRIPT, pass_fds=(write,))
            runtime.ok("delete", "-f", name)
        finally:
            os.close(read)
            os.close(write)
        assert [run.out.split(), beside.out.split()] == [["0", "1", "2"]] * 2

    def test_those_to_preserve_are_handed_over(self, runtime: Runtime) -> None:
        read, write = os.pipe()
        try:
            run = runtime.words("run", "-b", runtime.bundle("echo hello >&3"), "--preserve-fds", "1", runtime.new())
            third = ["bash", "-c", f'exec "$@" 3>&{write}', "-"]  # in a child: here number 3 is somebody else's
            subprocess.run([*third, *run], pass_fds=(write,), check=True, timeout=oci.TIMEOUT_SECONDS)
            assert os.read(read, 100) == b"hello\n"
        finally:
            os.close(read)
            os.close(write)


def with_terminal(config: dict[str, Any]) -> None:
    config["process"]["terminal"] = True


class TestTerminal:
    def test_a_manager_gets_it(self, runtime: Runtime, tmp_path: Path) -> None:
        def with_size(config: dict[str, Any]) -> None:
            config["process"] |= {"terminal": True, "consoleSize": {"height": 33, "width": 44}}

        place = tmp_path / "console"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen()
            name = runtime.new()
            bundle = runtime.bundle("tty; stty size; read word; echo got $word", edit=with_size)
            runtime.ok("create", "-b", bundle, "--console-socket", str(place), name)
            connection, _ = listener.accept()
            with connection:
                _, descriptors, _, _ = socket.recv_fds(connection, 100, 4)
            (master,) = descriptors
            runtime.ok("start", name)
            os.write(master, b"typed\n")
            said = b""
            while b"got typed" not in said:
                said += os.read(master, 1000)
            os.close(master)
        assert b"/dev/pts/0" in said
        assert b"33 44" in said
        runtime.ok("delete", "-f", name)

    def test_in_the_foreground_it_is_the_callers(self, runtime: Runtime) -> None:
        """Size and keys go in, output comes out, and the caller's own terminal is as it was before."""
        master, terminal = pty.openpty()
        termios.tcsetwinsize(master, (20, 70))
        before = termios.tcgetattr(terminal)
        late = "until stty size | grep -q 70; do sleep 0.01; done 2>&-; "  # runc sets it a moment after the start
        script = (late if runtime.name == "runc" else "") + "stty size; read word; echo got $word; exit 4"
        words = runtime.words("run", "-b", runtime.bundle(script, edit=with_terminal), runtime.new())
        with subprocess.Popen(words, stdin=terminal, stdout=terminal) as process:
            said = os.read(master, 1000)
            os.write(master, b"typed\r")
            while b"got typed" not in said:
                said += os.read(master, 1000)
            assert process.wait(120) == 4
        assert b"20 70" in said
        assert termios.tcgetattr(terminal) == before
        os.close(master)
        os.close(terminal)
        assert runtime.left() == []

    def test_there_must_be_somebody_to_hold_it(self, runtime: Runtime) -> None:
        assert runtime("create", "-b", runtime.bundle("true", edit=with_terminal), runtime.new()).code != 0
        assert runtime.left() == []


class TestComplaints:
    def test_the_log_says_what_standard_error_says(self, runtime: Runtime, tmp_path: Path) -> None:
        log = tmp_path / "log.json"
        done = subprocess.run(
            [
                *oci.PROGRAMS[runtime.name],
                "--log",
                log,
                "--log-format=json",
                "--root",
                runtime.root,
                "state",
                "nobody",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        last = json.loads(log.read_text().splitlines()[-1])
        assert last["level"] == "error"
        assert "does not exist" in last["msg"]
        assert last["time"]
        assert "does not exist" in done.stderr

    @pytest.mark.parametrize("name", ["../escape", "a/b", ".."])
    def test_a_name_stays_below_the_root(self, runtime: Runtime, name: str) -> None:
        assert runtime("create", "-b", runtime.bundle("true"), name).code != 0
        assert runtime.left() == []

    def test_no_bundle(self, runtime: Runtime, tmp_path: Path) -> None:
        done = runtime("create", "-b", str(tmp_path), runtime.new())
        assert done.code == 1
        assert "config.json" in done.err


class TestForeground:
    def test_a_command_that_waits_for_long_is_small(self, runtime: Runtime) -> None:
        """Little more than a bare interpreter; the signal and the exit code find their way."""
        code = "import sys; sys.path.append(sys.argv[1]); import lab.runtime.oci.main, lab.runtime.oci.verbs.awaiting"
        words = [oci.BASE_INTERPRETER, "-IS", "-c", code, str(Path(__file__).parents[2])]
        subprocess.run(words, check=True)  # compiled from now on: one that compiles takes more
        bundle = runtime.bundle("trap 'exit 6' TERM; touch /tmp/waiting; while :; do sleep 0.01; done")
        with ended(subprocess.Popen(runtime.words("run", "-b", bundle, runtime.new()))) as process:
            if runtime.name == "lab-oci":
                until(lambda: b"\0await\0" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "patience")
                words = [oci.BASE_INTERPRETER, "-IS", "-c", "print(flush=True); input()"]
                with ended(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as bare:
                    assert bare.stdout
                    assert bare.stdout.readline() == b"\n", "it waits by now"
                    until(lambda: anonymous_kib(process.pid) < anonymous_kib(bare.pid) * 1.4, "being small")
            until((runtime.rootfs / "tmp/waiting").exists, "the trap")
            process.terminate()
            assert process.wait(120) == 6
        assert runtime.left() == []


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """It is killed at the end, if it has not ended: a test that has failed waits for nobody."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def anonymous_kib(pid: int) -> int:
    """What it has of its own. Of files, more or fewer pages are mapped from one start to the next."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("Anonymous:")[2].split()[0])
