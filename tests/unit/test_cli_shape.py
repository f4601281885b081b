"""What all commands have alike: their help, their JSON, old names of options; and the page that lists them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lab.cli import app as command_line
from lab.cli import help as shape
from lab.cli.app import ELSEWHERE, LazyGroup, app
from lab.cli.main import HELP
from lab.commands.progress import _Lines
from lab.studies.registry import studies

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
LAB = [sys.executable, "-m", "lab.cli.main"]
ALIKE = {
    "--json": {"[=FILE]"},
    "--seed": {"N"},
    "--blocks": {"N"},
    "--out": {"DIR", "FILE"},
    "--results": {"DIR"},
    "--memory": {"SIZE"},
    "--cpus": {"N"},
    "--budget": {"TIME"},
}
"""Options that several commands have, and what may stand behind them."""


def every() -> Iterator[tuple[str, Any]]:
    """Each command that can be typed, with its path behind ``lab``."""
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    context = group.make_context("lab", [], resilient_parsing=True)
    for name in command_line.names():
        yield from below(name, group.get_command(context, name))


def below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    commands = getattr(command, "commands", {})
    if not commands or command.invoke_without_command:
        yield path, command
    for name, one in commands.items():
        yield from below(f"{path} {name}", one)


def options(command: Any) -> list[Any]:
    context = command.make_context("x", [], resilient_parsing=True)
    return [one for one in command.get_params(context) if one.param_type_name == "option"]


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    return dict(every())


def own_options(command: Any) -> list[str]:
    return [name for one in options(command) if (name := max(one.opts, key=len)) != "--help"]


def test_the_page_lists_every_command_and_option(commands: dict[str, Any]) -> None:
    """``LAB_WRITE_PAGES=1`` puts the options there first; the column of exit codes stays as it was written."""
    if os.environ.get("LAB_WRITE_PAGES"):
        write_page(commands)
    rows = dict(re.findall(r"^\| `lab ([^`]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    assert set(rows) == set(commands)
    for path, command in commands.items():
        told = re.findall(r"`(--[a-z-]+)`", rows[path])
        assert told == own_options(command), f"docs/commands.md, lab {path}"


def test_the_help_that_lies_ready_is_what_typer_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """``LAB_WRITE_PAGES=1`` puts it there first."""
    monkeypatch.setenv("COLUMNS", "120")
    group = get_command(app)
    said = group.make_context("lab", [], resilient_parsing=True).get_help() + "\n"
    if os.environ.get("LAB_WRITE_PAGES"):
        HELP.write_text(said)
    assert HELP.read_text() == said


@pytest.mark.parametrize(("columns", "imported"), [("80", False), ("60", True)])
def test_help_is_printed_without_typer_but_for_a_narrow_terminal(columns: str, imported: bool) -> None:
    words = [sys.executable, "-X", "importtime", "-m", "lab.cli.main", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"COLUMNS": columns}, check=True)
    assert ("typer" in done.stderr) is imported
    assert (done.stdout == HELP.read_text()) is not imported
    assert {name in done.stdout for name in command_line.names()} == {True}


def write_page(commands: dict[str, Any]) -> None:
    text = PAGE.read_text()
    head = text[: text.index("| `lab ")]
    codes = dict(re.findall(r"^\| `lab ([^`]+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE))
    for path, command in commands.items():
        names = own_options(command)
        always = "always" if path.endswith("inspect") else "–"
        json = "yes" if "--json" in names else always
        shown = " ".join(f"`{name}`" for name in names) or "–"
        head += f"| `lab {path}` | {shown} | {json} | {codes.get(path, '–')} |\n"
    PAGE.write_text(head)


def test_a_groups_sentence_is_its_commands_own(commands: dict[str, Any]) -> None:
    group = get_command(app)
    context = group.make_context("lab", [], resilient_parsing=True)
    for below in command_line.commands().values():
        for name, (_, sentence) in below.items():
            command = group.get_command(context, name)
            assert command.get_short_help_str(200) == sentence
    for study in studies():
        command = commands[study.command]
        assert command.get_short_help_str(200) == study.sentence


def test_a_groups_help_says_every_sentence_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for group in ("image", "class", "results", "scenario"):
        said = CliRunner().invoke(app, [group, "-h"]).stdout
        listed = said.partition("Commands:\n")[2]
        assert listed.rstrip().endswith(".")
        assert "..." not in listed


def test_options_mean_the_same_everywhere_and_show_no_type_of_pythons(commands: dict[str, Any]) -> None:
    for path, command in commands.items():
        context = command.make_context("x", [], resilient_parsing=True)
        text = command.get_help(context)
        assert not re.search(r"<\w+( range)?>|x>=|<=x", text), path
        for option in options(command):
            for name in option.opts:
                if name in ALIKE:
                    assert option.metavar in ALIKE[name], f"{path} {name}"


def test_what_measures_in_random_order_takes_a_seed_and_blocks(commands: dict[str, Any]) -> None:
    for path in ("compare", "noisy", "isolation ladder", "isolation surface", "bench self"):
        names = {name for one in options(commands[path]) for name in one.opts}
        assert {"--seed", "--blocks"} <= names, path
        (seed,) = (one for one in options(commands[path]) if "--seed" in one.opts)
        assert seed.default is None, f"{path}: a seed nobody gave is drawn"


def test_what_leads_elsewhere_leads_to_a_command(commands: dict[str, Any]) -> None:
    for name, there in ELSEWHERE.items():
        assert name not in command_line.names()
        assert there.partition(" -")[0] in commands


@pytest.mark.parametrize("words", [("scenario", "ls", "--json"), ("scenario", "ls", "--json", "--quiet")])
def test_json_goes_to_standard_output(words: tuple[str, ...]) -> None:
    done = subprocess.run([*LAB, *words], capture_output=True, text=True, timeout=60, check=True)
    assert {each["name"] for each in json.loads(done.stdout)} >= {"web-app"}


def test_json_goes_into_a_file_with_the_equals_sign_or_where_nothing_else_could_be_meant(tmp_path: Path) -> None:
    for words in (("scenario", "show", "idle", "--json={}"), ("scenario", "ls", "--json", "{}")):
        file = tmp_path / words[1]
        argv = [*LAB, *(word.format(file) for word in words)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == ""
        assert json.loads(file.read_text())
    argv = [*LAB, "scenario", "ls", "--json=/nonexistent/file"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "/nonexistent/file" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_name_is_understood_and_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    for path, names in shape.RENAMED.items():
        command = dict(every())[path]
        context = command.make_context("x", [], resilient_parsing=True)
        for old, new in names.items():
            assert shape._rewritten(command, path, context, [old, "3", f"{old}=4", "--", old]) == [
                new, "3", f"{new}=4", "--", old,
            ]  # fmt: skip
            assert f"{old} is called {new}" in capsys.readouterr().err


def test_an_options_value_is_no_command_of_a_group_and_no_option_of_labs(commands: dict[str, Any]) -> None:
    group = commands["isolation"]
    context = group.make_context("x", [], resilient_parsing=True)
    words = ["--on", "container", "--group", "ls", "--probe", "--quiet", "--json"]
    assert shape._rewritten(group, "isolation", context, words) == [*words[:-1], "--json=-"]
    assert shape._rewritten(group, "isolation", context, ["ls", "--json"]) == ["ls", "--json"]


def test_what_a_command_is_to_run_is_left_alone(commands: dict[str, Any]) -> None:
    command = commands["exec"]
    context = command.make_context("x", [], resilient_parsing=True)
    words = ["web", "curl", "--quiet", "--json"]
    assert shape._rewritten(command, "exec", context, words) == words


def test_a_log_gets_a_line_per_instance(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _Lines()
    lines.doing("preparing container")
    for number in range(2):
        for step in ("booting", "idle", "under load"):
            lines.doing(f"container: {step}")
        lines.progress(number + 1, 2)
    assert [line.strip() for line in capsys.readouterr().err.splitlines()] == [
        "preparing container", "container", "[2/2] container",
    ]  # fmt: skip


def test_quiet_says_nothing_and_colours_can_be_had_without(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    code = "import os; from lab.cli import help; from lab.commands import output; "
    code += "help.speak(quiet=True, no_color=True); output.say('x'); "
    code += "assert os.environ['NO_COLOR'] and output.Manner.quiet"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("compare", "web-app", "--blocks", "0"), "it is 1 at least"),
        (("compare", "web-app", "--port", "99999"), "it is 65535 at most"),
        (("bench", "self", "--blocks", "x"), "not a number"),
        (("compare", "web-app", "--blok", "3"), "did you mean"),
        (("isolation", "ladder", "web-app", "--results", "x"), "no such option: --results\n"),
    ],
)
def test_what_the_parser_refuses_is_said_in_a_reader_s_words(words: tuple[str, ...], says: str) -> None:
    done = subprocess.run([*LAB, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Input should" not in done.stderr
