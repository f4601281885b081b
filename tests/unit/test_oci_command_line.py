"""lab-oci's command line and words, without a container: options, signals, amounts, names, logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError, UsageError
from lab.runtime import versions
from lab.runtime.config import model, mountoptions
from lab.runtime.oci import install, main, options, store
from lab.runtime.oci.log import Log
from lab.runtime.oci.options import FLAG, LIST, VALUE
from lab.runtime.oci.steps import Steps
from lab.runtime.oci.verbs import events, groups, signals
from lab.runtime.process import trampoline

KNOWN = {"bundle b": VALUE, "force f": FLAG, "env e": LIST}


@pytest.mark.parametrize(
    "words", [["--bundle", "x"], ["--bundle=x"], ["-b", "x"], ["-b=x"], ["-bundle", "x"], ["-bundle=x"]]
)
def test_an_option_may_be_written_in_any_way_that_callers_do(words: list[str]) -> None:
    given = options.parse("verb", KNOWN, [*words, "id", "--force"])
    assert given.value("bundle") == "x"
    assert given.words == ["id", "--force"]  # what follows the first word is not ours
    assert not given.flag("force")


def test_flags_lists_and_the_end_of_options() -> None:
    given = options.parse("verb", KNOWN, ["-f", "-e", "A=b", "--env=C=d", "--", "-x"])
    assert given.flag("force")
    assert given.values("env") == ["A=b", "C=d"]
    assert given.words == ["-x"]
    assert not options.parse("verb", KNOWN, ["--force=false"]).flag("force")


@pytest.mark.parametrize("words", [["--unknown"], ["--bundle"], ["--force=maybe"]])
def test_what_can_not_be_meant(words: list[str]) -> None:
    with pytest.raises(UsageError):
        options.parse("verb", KNOWN, words)


@given(st.lists(st.text(alphabet="-=ab ", max_size=5), max_size=5))
def test_any_command_line_is_parsed_or_refused(words: list[str]) -> None:
    with suppress(UsageError):
        options.parse("verb", KNOWN, words)


@pytest.mark.parametrize(
    ("word", "number"),
    [("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("1", 1), ("RTMIN+3", signal.SIGRTMIN + 3), ("RTMAX-1", 63)],
)
def test_signals_by_name_and_number(word: str, number: int) -> None:
    assert signals.signal_number(word) == number


@pytest.mark.parametrize("word", ["", "0", "65", "NOPE", "SIG", "_DFL", "RTMIN+", "RTMIN+99", "BLOCK+x"])
def test_no_signals(word: str) -> None:
    with pytest.raises(UsageError):
        signals.signal_number(word)


def test_amounts_and_durations() -> None:
    assert groups.amount("memory", "512m") == groups.amount("memory", "512MiB") == 512 << 20
    assert groups.amount("memory-swap", "-1") == -1
    assert groups.amount("pids-limit", "7") == 7
    assert [events.seconds(word) for word in ("5s", "500ms", "1.5m")] == [5, 0.5, 90]
    for wrong in ("7x", "m", ""):
        with pytest.raises(UsageError):
            groups.amount("memory", wrong)
        with pytest.raises(UsageError):
            events.seconds(wrong)


@given(st.text(max_size=20))
def test_a_name_is_a_file_name_or_refused(name: str) -> None:
    try:
        assert store.validated(name) == name
    except UsageError:
        return
    assert Path("/root") / name != Path("/root")
    assert (Path("/root") / name).parent == Path("/root")
    assert ".." not in Path(name).parts


def test_a_log_is_one_line_an_entry(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), "json")
    log.error('a "quoted"\nline')
    log.debug("not asked for")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line)["msg"] == 'a "quoted"\nline'
    with pytest.raises(UsageError):
        Log("", "xml")


def test_an_error_begins_with_its_step() -> None:
    def use(error: Exception) -> None:
        with Steps("start") as steps:
            steps.enter("let it go")
            raise error

    with pytest.raises(LabError, match=r"^let it go: no$"):
        use(LabError("no"))
    with pytest.raises(LabError, match=r"^let it go: /x: no such file or directory$"):
        use(FileNotFoundError(2, os.strerror(2), "/x"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--systemd-cgroup", "list"], "systemd"),
        (["--cgroup-manager=systemd", "list"], "systemd"),
        (["--rootless=yes", "list"], "--rootless"),
        (["checkpoint", "x"], "no verb checkpoint"),
        (["create"], "exactly one container id"),
    ],
)
def test_what_is_not_done_is_refused_by_name(words: list[str], complaint: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*install.command(), "--root", tmp_path, *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == main.MISUSED
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_verb_tells_its_options() -> None:
    for verb in main.VERBS:
        done = subprocess.run([*install.command(), verb, "--help"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.splitlines()[0].split()[:3]) == (0, ["usage:", "lab-oci", verb])


def test_what_this_runtime_can_do() -> None:
    done = subprocess.run([*install.command(), "features"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["ociVersionMin"], found["ociVersionMax"]) == (versions.OLDEST, versions.NEWEST)
    linux = found["linux"]
    assert linux["apparmor"] == linux["selinux"] == {"enabled": True}, "whatever this host has"
    assert linux["intelRdt"] == {"enabled": True, "schemata": True, "monitoring": True}
    assert "MPOL_BIND" in linux["memoryPolicy"]["modes"]
    assert linux["netDevices"] == {"enabled": True}
    assert {"ro", "rbind", "rprivate", "tmpcopyup"} <= set(found["mountOptions"])
    assert mountoptions.parse(found["mountOptions"]).data == (), "one of them would be left to the file system"
    for name in found["hooks"]:
        hooks = {name: [{"path": "/x"}]}
        model.from_json({"ociVersion": "1.0.0", "root": {"path": "r"}, "hooks": hooks})
    assert "SCMP_ACT_ERRNO" in found["linux"]["seccomp"]["actions"]


def test_one_range_of_versions_is_told_everywhere(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = subprocess.run([*install.command(), *words], capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout

    assert f"runtime-spec {versions.RANGE}" in said("--help")
    assert f"spec: {versions.NEWEST}" in said("--version")
    said("spec")
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["ociVersion"] == versions.NEWEST
    model.from_json(written)
    docs = Path(__file__).parents[2] / "docs"
    for page in ("lab-oci.md", "oci-configuration.md", "resources.md"):
        assert f"{versions.RANGE}" in (docs / page).read_text(), page


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the stub is for x86-64")
@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (["/bin/echo", "echo", "a b"], 0, "a b\n"),
        (["/etc/passwd", "x"], 126, ""),
        (["/no-such", "x"], 127, ""),
        (["/bin/true"], 126, ""),
    ],
)
def test_the_stub_executes_what_it_is_given(words: list[str], code: int, out: str) -> None:
    stub = trampoline.make()
    try:
        done = subprocess.run(
            words, executable=f"/proc/self/fd/{stub}", pass_fds=[stub], capture_output=True, text=True, check=False
        )
        with pytest.raises(OSError):
            os.pwrite(stub, b"x", 0)
    finally:
        os.close(stub)
    assert (done.returncode, done.stdout) == (code, out)
    assert bool(done.stderr) == (code != 0)
