"""What ``lab build`` prints, and when it holds its tongue."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lab.commands.building.images import _agent, _labels, parse_arguments, parse_secret
from lab.commands.building.view import Live, Steps
from lab.errors import UsageError
from lab.images.progress import Note, Output, StepFinished, StepStarted, Warned

QUICK = (
    StepStarted(number=1, total=2, line=1, text="FROM x"),
    StepFinished(number=1, cached=False, seconds=0.001, note="x:latest (recipe) sha256:0123"),
    StepStarted(number=2, total=2, line=2, text="COPY a /"),
    StepFinished(number=2, cached=True, seconds=0.002),
)


def test_steps_say_where_they_are_and_what_was_cached() -> None:
    out = io.StringIO()
    for event in QUICK:
        Steps(out)(event)
    assert out.getvalue() == ("[1/2] FROM x\n      x:latest (recipe) sha256:0123\n[2/2] COPY a /\n      CACHED\n")


def test_a_patient_listener_says_nothing_of_what_takes_no_time() -> None:
    out = io.StringIO()
    steps = Steps(out, patient=True)
    for event in QUICK:
        steps(event)
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    "event",
    [Note(text="slow"), Output(data=b"said"), StepFinished(number=3, cached=False, seconds=2.0)],
)
def test_a_patient_listener_tells_all_once_it_is_worth_it(event: Note | Output | StepFinished) -> None:
    out = io.StringIO()
    steps = Steps(out, patient=True)
    for each in (*QUICK, event):
        steps(each)
    assert out.getvalue().startswith("[1/2] FROM x\n")


def test_the_next_step_starts_on_a_line_of_its_own() -> None:
    out = io.StringIO()
    steps = Steps(out)
    steps(Output(data=b"no newline"))
    steps(QUICK[0])
    assert out.getvalue() == "no newline\n[1/2] FROM x\n"


def test_build_arguments() -> None:
    assert parse_arguments(["A=1", "B=x=y", "C"], {"C": "from outside"}) == {
        "A": "1",
        "B": "x=y",
        "C": "from outside",
    }
    for wrong in ("NONE", "=x"):
        with pytest.raises(UsageError, match="has no value"):
            parse_arguments([wrong], {})


def test_stages_side_by_side_are_told_apart() -> None:
    out = io.StringIO()
    steps = Steps(out)
    steps(StepStarted(number=1, total=2, line=1, text="FROM x", stage="a"))
    steps(Output(data=b"one\nhal", stage="a"))
    steps(Output(data=b"other\n", stage="b"))
    steps(Output(data=b"f", stage="a"))
    steps(StepFinished(number=1, cached=False, seconds=0.0, stage="a"))
    assert out.getvalue() == "[a 1/2] FROM x\n[a] one\n[b] other\n[a] half\n"


def test_warnings_alone_break_no_silence() -> None:
    out = io.StringIO()
    steps = Steps(out, patient=True)
    steps(Warned(line=3, rule="Rule", text="odd"))
    assert out.getvalue() == ""
    steps(Note(text="slow"))
    assert out.getvalue() == "warning: line 3: odd (Rule)\n      slow\n"


def test_the_live_view_shows_what_runs_and_keeps_what_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    with Live() as live:
        for event in (*QUICK, StepStarted(number=3, total=3, line=3, text="RUN x"), Output(data=b"said\n")):
            live(event)
        shown = str(live._render())
    assert "[3/3] RUN x" in shown
    assert "said" in shown
    assert "[2/2] COPY a /  CACHED" in capsys.readouterr().out


def test_labels_secrets_and_agents(tmp_path: Path) -> None:
    assert _labels(["a=b=c", "d"]) == {"a": "b=c", "d": ""}
    file = tmp_path / "token"
    file.write_bytes(b"\0secret")
    assert parse_secret(f"id=s,src={file}", {}) == ("s", b"\0secret")
    assert parse_secret("id=s,env=V", {"V": "x"}) == ("s", b"x")
    assert parse_secret("id=V", {"V": "x"}) == ("V", b"x")
    for wrong in ("src=f", "id=s,env=V", "id=s,src=/no/such/file", "id=s,env=V,src=f", "id=s,what=1"):
        with pytest.raises(UsageError, match="--secret"):
            parse_secret(wrong, {})
    with pytest.raises(UsageError, match="--label"):
        _labels(["=x"])
    with pytest.raises(UsageError, match="no agent's socket"):
        _agent(f"default={file}")
