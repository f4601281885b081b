"""What ``lab build`` prints, and when it holds its tongue."""

from __future__ import annotations

import io

import pytest

from lab.cli.build import _arguments
from lab.cli.buildview import Steps
from lab.errors import UsageError
from lab.images.progress import Note, Output, StepFinished, StepStarted

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
    assert _arguments(["A=1", "B=x=y", "C"], {"C": "from outside"}) == {"A": "1", "B": "x=y", "C": "from outside"}
    for wrong in ("NONE", "=x"):
        with pytest.raises(UsageError, match="has no value"):
            _arguments([wrong], {})
