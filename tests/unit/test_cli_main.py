"""Every command ends orderly: one clear line, the remedy, and an exit code that means something."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli.app import COMMANDS, names

LAB = [sys.executable, "-m", "lab.cli.main"]

# A command of the test's own in place of `report`: it does what the argument says.
STAND_IN = """
import os, signal, sys, time
from lab.cli import main
from lab.cli.results import report

def report_(what: str) -> None:
    exec(what)

report.report = report_
main.main()
"""


def lab(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LAB, *words], capture_output=True, text=True, timeout=250, **options)  # type: ignore[call-overload,no-any-return]


def perform(code: str) -> subprocess.CompletedProcess[str]:
    """Signals are at their defaults, also where the tests run under nohup(1)."""
    return subprocess.run(
        [sys.executable, "-c", STAND_IN, "report", code], capture_output=True, text=True, timeout=250,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "line", "hint"),
    [
        (("frob",), "there is no command lab frob", "lab --help"),
        (("comprae", "x"), "there is no command lab comprae", "did you mean compare?"),
        (("images",), "there is no command lab images", "lab image ls"),
        (("pull", "x"), "there is no command lab pull", "lab image pull"),
        (("compare", "--bogus"), "no such option: --bogus", "lab compare --help"),
        (("compare", "x", "--blocks", "0"), "invalid value for '--blocks'", "lab compare --help"),
        (("build",), "missing argument 'DIR'", "lab build --help"),
    ],
)
def test_a_wrong_command_line_gets_one_line_and_where_to_read_on(
    words: tuple[str, ...], line: str, hint: str
) -> None:
    done = lab(*words)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert len(said) == 2, done.stderr
    assert said[0].startswith(f"lab: {line}")
    assert said[1].strip() == hint


def test_the_help_fits_a_narrow_terminal() -> None:
    done = lab("--help", env={**os.environ, "COLUMNS": "80"})
    commands = done.stdout.partition(f"{next(iter(COMMANDS))}:")[2].splitlines()
    assert len([line for line in commands if line.startswith("  ")]) == len(names())
    assert not [line for line in commands if line.endswith("...")]
    assert lab("-h").stdout == lab("--help").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_any_command_once(number: signal.Signals) -> None:
    done = perform(
        f"""
try:
    os.kill(os.getpid(), {number.value})
    time.sleep(600)
finally:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    print("cleaned up")
"""
    )
    assert done.returncode == 128 + number
    assert done.stdout == "cleaned up\n"
    assert "Traceback" not in done.stderr
    assert "stopping" in done.stderr


def test_what_was_ignored_for_nohup_stays_ignored() -> None:
    code = "os.kill(os.getpid(), signal.SIGHUP); print('went on')"
    words = ["nohup", sys.executable, "-c", STAND_IN, "report", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        words = [sys.executable, "-c", STAND_IN, "report", "print('a line')"]
        done = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, timeout=250)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_pipe_that_breaks_inside_lab_is_an_error() -> None:
    done = perform("raise BrokenPipeError(32, 'Broken pipe')")
    assert done.returncode == 1
    assert "Broken pipe" in done.stderr


def test_a_full_disk_behind_the_output_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*LAB, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=250)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "df -h" in done.stderr


def test_closed_streams_are_no_obstacle_and_are_not_taken_by_files() -> None:
    words = [sys.executable, "-c", STAND_IN, "report", "f = open('/dev/zero'); assert f.fileno() > 2; print('x')"]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words], timeout=250, check=False)
    assert done.returncode == 0


def test_a_terminal_is_told_nothing_by_what_strangers_say() -> None:
    """Names of files and a guest's last words stand in errors; one that is no UTF-8 is told as well."""
    said = "'\\x1b]0;title\\x07 \\x9b2J \\udcff'"
    done = perform(f"from lab.errors import LabError; raise LabError({said}, hint={said}, detail={said})")
    assert done.returncode == 1
    assert done.stderr == "  | ?]0;title? ?2J ?\nlab: ?]0;title? ?2J ?\n     ?]0;title? ?2J ?\n"
    assert perform(f"from lab.commands.output import say; say({said})").stderr == "?]0;title? ?2J ?\n"


def test_an_unforeseen_exception_is_one_line() -> None:
    done = perform("{}['no such key']")
    assert done.returncode == 1
    assert "a bug in lab: KeyError" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to give it up")
@pytest.mark.parametrize(
    "words",
    [["compare", "a b", "--on", "docker"], ["run", "x", "--on", "docker"], ["bench", "self"]],
)
def test_without_root_the_line_to_type_is_said(words: list[str]) -> None:
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run([*unprivileged, *LAB, *words], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 1
    assert done.stderr == f"lab: lab {words[0]} needs root\n     sudo ./bootstrap lab {shlex.join(words)}\n"
