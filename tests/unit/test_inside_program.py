"""The static helper: compiled once, and every verb does what it says, for real."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.host import compiler
from lab.images.manifest import write_manifest
from lab.images.tree import Tree
from lab.inside import build
from lab.metrics.cpu import COMPUTE_CHECKSUM, COMPUTE_ROUNDS


def inside(*words: str | Path, stdin: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [build.program(), *words], input=stdin, capture_output=True, text=True, timeout=250, check=False, **more
    )


def reply(*words: str | Path) -> dict[str, Any]:
    done = inside(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# Building


def test_built_once_alone_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several ask for it at once; what gcc would take, a sleep does."""
    compiled = []

    def compile_(argv: Sequence[str | Path], **_: object) -> None:
        compiled.append(argv)
        time.sleep(0.2)
        Path(argv[argv.index("-o") + 1]).touch()

    monkeypatch.setattr(compiler, "run", compile_)
    with ThreadPoolExecutor(4) as threads:
        built = set(threads.map(build.program, [tmp_path] * 4))
    assert len(compiled) == 1
    assert built == {tmp_path / "inside" / build.digest() / "inside"}
    (program,) = built
    assert list(program.parent.iterdir()) == [program]
    assert {path.name for path in (tmp_path / "inside").iterdir()} == {".lock", build.digest()}
    made = program.stat()
    assert build.program(tmp_path).stat().st_mtime_ns == made.st_mtime_ns


def test_it_says_what_it_was_built_from_and_is_built_without_a_warning() -> None:
    assert inside("version").stdout.strip() == build.digest()
    strict = [*build.COMPILE, "-Werror", "-fsyntax-only", *build.SOURCES.rglob("*.c")]
    subprocess.run(strict, check=True)


def test_static_so_that_it_runs_in_any_image() -> None:
    headers = subprocess.run(["readelf", "-l", build.program()], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in headers


def test_no_compiler_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError) as caught:
        build.program(tmp_path / "home")
    assert "apt-get install gcc" in caught.value.hint
    assert not list((tmp_path / "home" / "inside").glob(".build-*"))


# init


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["/absent"], 127),
        (["absent-from-path"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
    ],
)
def test_init_exit_codes(argv: list[str], code: int) -> None:
    assert inside("init", "--", *argv).returncode == code


@pytest.mark.parametrize(("argv", "said"), [(["sleep", "600"], b""), (["/absent"], b"2"), (["/etc/passwd"], b"13")])
def test_init_tells_when_the_program_was_executed(argv: list[str], said: bytes) -> None:
    """End-of-file as soon as execve succeeded, though the program still runs; the errno otherwise."""
    reader, writer = os.pipe()
    command = [build.program(), "init", "--status-fd", str(writer), "--", *argv]
    with subprocess.Popen(command, pass_fds=[writer]) as running:
        os.close(writer)
        assert select.select([reader], [], [], 120)[0]
        assert os.read(reader, 100) == said
        if not said:
            assert running.poll() is None
            running.send_signal(signal.SIGTERM)
    os.close(reader)
    assert running.returncode == {b"": 143, b"2": 127, b"13": 126}[said]


@pytest.mark.parametrize(("argv", "said"), [(["sleep", "600"], b"0"), (["/absent"], b"2"), (["/etc/passwd"], b"13")])
def test_init_reports_where_others_hold_the_descriptor_too(argv: list[str], said: bytes) -> None:
    """The writing end stays open here, as it does in a manager of containers: there is no end-of-file."""
    reader, writer = os.pipe()
    command = [build.program(), "init", "--report-fd", str(writer), "--", *argv]
    with subprocess.Popen(command, pass_fds=[writer]) as running:
        assert select.select([reader], [], [], 120)[0]
        assert os.read(reader, 100) == said
        if said == b"0":
            assert running.poll() is None
            running.send_signal(signal.SIGTERM)
    os.close(reader)
    os.close(writer)
    assert running.returncode == {b"0": 143, b"2": 127, b"13": 126}[said]


def test_init_takes_another_descriptor_for_its_input() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"by another way")
    os.close(writer)
    command = [build.program(), "init", "--socket-fd", str(reader), "--", "cat"]
    done = subprocess.run(command, pass_fds=[reader], capture_output=True, check=True, timeout=250)
    os.close(reader)
    assert done.stdout == b"by another way"


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT"])
def test_init_forwards_signals(name: str) -> None:
    script = f"trap 'echo {name}; exit 7' {name}; echo ready; while :; do sleep 0.02; done"
    command = [build.program(), "init", "--", "sh", "-c", script]
    number = getattr(signal, f"SIG{name}")
    before = signal.signal(number, signal.SIG_DFL)  # a shell starts what it puts in the background with some ignored
    try:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(number, before)
    with running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            running.send_signal(number)
            assert running.stdout.readline() == f"{name}\n"
            assert running.wait(120) == 7
        finally:
            running.kill()


def test_init_starts_the_program_with_the_signals_it_was_given() -> None:
    status = inside("init", "--", "grep", "SigBlk", "/proc/self/status")
    assert status.stdout.split() == ["SigBlk:", "0" * 16]


def test_init_reaps_orphans() -> None:
    """A grandchild whose parent ended becomes init's, and no zombie of it stays."""
    script = (
        'orphan=$(sh -c "sleep 0.05 & echo \\$!"); i=0;'
        " while [ -e /proc/$orphan ] && [ $i -lt 3000 ]; do sleep 0.02; i=$((i+1)); done; test ! -e /proc/$orphan"
    )
    assert inside("init", "--", "sh", "-c", script).returncode == 0


def test_init_changes_directory() -> None:
    assert inside("init", "--directory", "/usr", "--", "pwd").stdout == "/usr\n"
    assert inside("init", "--directory", "/absent", "--", "pwd").returncode == 127


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_init_becomes_a_user() -> None:
    done = inside("init", "--user", "1000:1001:1002:1003", "--", "sh", "-c", "id -u; id -g; id -G")
    assert done.stdout.split("\n")[:3] == ["1000", "1001", "1001 1002 1003"]


@pytest.mark.parametrize("words", [["init"], ["init", "--"], ["init", "--what", "1", "--", "true"], ["absent"], []])
def test_wrong_use_is_one_line_and_2(words: list[str]) -> None:
    done = inside(*words)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")


# manifest


def nasty_tree(root: Path) -> None:
    for directory in ("a", "a-b", "proc/1", "sys", "dev", ".lab", "etc", "srv/deep/er"):
        (root / directory).mkdir(parents=True)
    names = [
        "a/x",
        "a b",
        "tab\there",
        "new\nline",
        "back\\slash",
        "é",
        "etc/hosts",
        "etc/hostsx",
        "proc/1/x",
        "~",
        "-",
    ]
    for number, name in enumerate(names):
        (root / name).write_bytes(bytes(range(256)) * number)
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\x01")).write_bytes(b"not UTF-8")
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 65535, 65536, 65537):
        (root / f"srv/size-{size}").write_bytes(b"\x5a" * size)
    (root / "link").symlink_to("where\\ to\n")
    (root / "dangling").symlink_to("/absent")
    os.link(root / "a/x", root / "srv/second name")
    os.mkfifo(root / "pipe", 0o640)
    (root / "a/x").chmod(0o4755)
    (root / "srv").chmod(0o1777)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    if os.geteuid() == 0:
        os.mknod(root / "null", 0o020666, os.makedev(1, 3))
        os.chown(root / "~", 1234, 70000)


def test_the_manifest_equals_the_one_of_the_image_store(tmp_path: Path) -> None:
    tree, text = tmp_path / "tree", tmp_path / "manifest"
    tree.mkdir()
    nasty_tree(tree)
    write_manifest(Tree([tree]), text)
    printed = inside("manifest", tree).stdout
    assert printed == text.read_text("ascii")
    digest, lines = inside("manifest", "--digest", tree).stdout.split()
    assert digest == hashlib.sha256(text.read_bytes()).hexdigest()
    assert int(lines) == printed.count("\n") > 30


def test_a_manifest_is_whole_or_fails(tmp_path: Path) -> None:
    assert inside("manifest", tmp_path / "absent").returncode == 2
    assert inside("manifest").returncode == 2


def test_a_manifest_of_many_files_has_a_line_for_each(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / str(number)).mkdir()
        for name in range(100):
            (tmp_path / str(number) / str(name)).touch()
    assert inside("manifest", "--digest", tmp_path).stdout.split()[1] == str(4041)


# Questions


def test_call_reports_result_and_error() -> None:
    assert reply("call", "getuid") == {"ret": os.getuid(), "errno": 0, "name": ""}
    assert reply("call", "kill", "-1", "999") == {"ret": -1, "errno": 22, "name": "EINVAL"}
    assert reply("call", "39")["ret"] > 1  # getpid, by its number
    assert reply("call", "chroot", "s:/absent")["name"] == "ENOENT"
    assert reply("call", "clock_settime", "0", "x:ffffffffffffffff" + "ff" * 8)["name"] in ("EINVAL", "EPERM")
    assert inside("call", "no_such_call").returncode == 2


def test_open_never_creates(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("content")
    assert reply("open", kept, "write")["errno"] == 0
    assert kept.read_text() == "content"
    assert reply("open", tmp_path / "absent", "write")["name"] == "ENOENT"
    assert not (tmp_path / "absent").exists()


def test_read_escapes_what_json_can_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(256)))
    answer = reply("read", path)
    assert (answer["ret"], answer["text"]) == (256, bytes(range(256)).decode("latin-1"))
    assert reply("read", path, "3")["text"] == "\0\1\2"
    assert reply("read", tmp_path / "absent") == {"ret": -1, "errno": 2, "name": "ENOENT", "text": ""}


def test_list_stat_namespaces(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    assert sorted(reply("list", tmp_path)["names"]) == ["one", "two"]
    assert reply("stat", tmp_path / "one")["inode"] == (tmp_path / "one").stat().st_ino
    assert reply("namespaces")["pid"] == Path("/proc/self/ns/pid").stat().st_ino


def test_processes_finds_a_word_in_a_command_line() -> None:
    token = f"word-{os.getpid()}"
    with subprocess.Popen([build.program(), "hold", token], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout
        assert held.stdout.readline(), (
            "it has its own words by now, which execve(2) gives after it closed Popen's pipe"
        )
        assert reply("processes", token)["found"] == [held.pid]
        held.communicate()
    assert reply("processes", token)["found"] == []


def test_batch_answers_every_line_whatever_happens_in_it(tmp_path: Path) -> None:
    """From a pipe and from a file, whose offset a forked child must not move."""
    lines = "call getuid\ncall unshare 0x20000\n\nabsent\nhold\ncall 39\nnamespaces\n"
    (tmp_path / "lines").write_text(lines)
    from_pipe = inside("batch", stdin=lines)
    with (tmp_path / "lines").open() as opened:
        command = [build.program(), "batch"]
        from_file = subprocess.run(command, stdin=opened, capture_output=True, text=True, timeout=250, check=False)
    for done in (from_pipe, from_file):
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == 6
        assert answers[0]["ret"] == os.getuid()
        assert [answer.get("died") for answer in answers] == [None, None, 2, 2, None, None]
        assert answers[5]["mnt"] == Path("/proc/self/ns/mnt").stat().st_ino  # unshare ended with its own line


# Work and pressure


def test_the_fixed_computation_has_one_result() -> None:
    assert reply("compute", str(COMPUTE_ROUNDS))["checksum"] == COMPUTE_CHECKSUM
    assert reply("compute", "1")["checksum"] != reply("compute", "2")["checksum"]


def test_allocate_says_how_far_it_got() -> None:
    answer = reply("allocate", str(8 << 20))
    assert answer == {"asked": 8 << 20, "touched": 8 << 20, "fate": "done", "signal": 0}
    assert reply("allocate", str(1 << 62))["fate"] == "refused"


def test_fork_counts_and_leaves_nobody() -> None:
    answer = reply("fork", "20")
    assert (answer["made"], answer["errno"]) == (20, 0)
    assert inside("fork", "1000000").returncode == 2


def test_spin_takes_its_time() -> None:
    answer = reply("spin", "0.2", "1")
    assert 0.2 <= answer["wall_seconds"] < 60
    assert 0 < answer["cpu_seconds"] <= answer["wall_seconds"]
    assert inside("spin", "1000", "1").returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_a_closed_place_refuses_what_the_host_allows() -> None:
    asked = ("read /proc/self/status", "namespaces", "clock 1", "read /proc/uptime", "call unshare 0x10000000")
    done = inside("closed", stdin="\n".join((*asked, "files 100", "space /\n")))
    assert done.returncode == 0, done.stderr
    status, spaces, clock, uptime, unshare, files, space = map(json.loads, done.stdout.splitlines())
    here = reply("namespaces")
    assert not {name for name in spaces if spaces[name] == here.get(name)}
    assert "CapEff:\t0000000000000000\n" in status["text"]
    assert [clock["name"], uptime["name"], unshare["name"], files["name"]] == ["EPERM", "ENOENT", "EPERM", "EMFILE"]
    assert files["made"] < 100
    assert space["bytes"] == 16 << 20


def test_a_neighbour_is_found_by_its_socket_its_port_and_its_memory() -> None:
    token = f"token-{os.getpid()}"
    with subprocess.Popen([build.program(), "hold", token], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout
        offered = json.loads(held.stdout.readline())
        told = [reply("greet", f"@{token}"), reply("greet", str(offered["port"]))]
        told.append(reply("shared-memory", str(offered["shared_memory"])))
        assert [each["text"] for each in told] == [token] * 3
        assert reply("enter", str(held.pid))["name"] == ("" if os.geteuid() == 0 else "EPERM")
    assert reply("greet", f"@{token}")["name"] == "ECONNREFUSED"
    assert reply("shared-memory", str(offered["shared_memory"]))["name"] in ("EINVAL", "EIDRM")
    assert reply("enter", str(held.pid))["name"] == "ESRCH"


def test_clocks_and_space_are_told_as_the_host_sees_them(tmp_path: Path) -> None:
    before, seen, after = time.monotonic(), reply("clock", str(time.CLOCK_MONOTONIC)), time.monotonic()
    assert before <= seen["seconds"] <= after
    assert 0 < seen["resolution"] < 1
    found = os.statvfs(tmp_path)
    assert reply("space", tmp_path)["bytes"] == found.f_blocks * found.f_bsize
    assert reply("space", "/absent/path")["name"] == "ENOENT"


def test_init_takes_the_environment_that_a_descriptor_holds(tmp_path: Path) -> None:
    (tmp_path / "variables").write_bytes(b"A=1\0B=two words\nand a line\0")
    with (tmp_path / "variables").open("rb") as given:
        number = given.fileno()
        words = ("init", "--environment-fd", str(number), "--", "/usr/bin/env", "-0")
        done = inside(*words, pass_fds=[number], env={"C": "3"})
    assert sorted(done.stdout.split("\0")[:-1]) == ["A=1", "B=two words\nand a line"]


def test_boot_tells_the_kernels_own_id_and_when_it_booted() -> None:
    told = reply("boot")
    assert told["text"] == Path("/proc/sys/kernel/random/boot_id").read_text()
    assert told["masked"] is False
    assert abs(told["booted"] - (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))) < 2
