"""THE STORY OF A HAND-IN: two containers → its cells and the tests, in the teacher's order → marks → nothing is left.

After each of the student's cells comes the next, whatever it raised; a test asks for what it needs and its mark is
taken at once. A hand-in that ends, or whose time is up, keeps the marks that it has by then.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lab.classroom.exercise.graded import BY_HAND, Graded, Mark, Shown, clean, verdict
from lab.classroom.exercise.handin import Step
from lab.classroom.exercise.notebook import Role
from lab.commands.grading.sandbox import Ended, Peer, Sandbox

CELL_SECONDS, TEST_SECONDS = 10.0, 20.0
LONGEST_OUTPUT = 20_000


class Grading:
    """One hand-in that is being executed."""

    def __init__(self, student: Peer, judge: Peer, until: float) -> None:
        self._student, self._judge, self._until = student, judge, until
        self.ended = ""  # why the student's process answers no more
        self._judge_ended = ""
        self._requests = itertools.count(1)

    def shown(self, step: Step) -> Shown:
        """Execute a cell, whatever it is for."""
        cell = step.cell
        output = error = ""
        mark: Mark | None = None
        match cell.role:
            case Role.TEST:
                mark = self._test(step)
            case Role.BY_HAND | Role.TASK:
                is_open = step.is_answered
                says = BY_HAND if is_open else "not answered"
                got = None if is_open else 0.0
                mark = Mark(key=cell.key, points=cell.points, got=got, says=says, is_by_hand=True)
        if cell.is_code and cell.role is not Role.TEST:
            output, error = self._run(step)
        return Shown(
            role=cell.role, key=cell.key, source=clean(cell.source, LONGEST_OUTPUT), is_code=cell.is_code,
            output=output, error=error, mark=mark,
        )  # fmt: skip

    def _run(self, step: Step) -> tuple[str, str]:
        """What a cell printed, and how it failed. The teacher's cells are executed beside the tests, too."""
        if step.cell.role in (Role.PARAMETERS, Role.SHOWN):
            self._beside({"source": step.cell.source, "seconds": TEST_SECONDS})
        if not step.cell.source.strip():
            return "", ""
        told = self._ask({"do": "run", "source": step.cell.source, "seconds": CELL_SECONDS})
        printed = clean(self._student.printed(), LONGEST_OUTPUT)
        return printed, _failure(told)

    def _test(self, step: Step) -> Mark:
        told = self._beside({"source": step.cell.source, "seconds": TEST_SECONDS})
        self._student.printed()  # what it says when it is asked is nobody's to read
        mark = verdict(step.cell, told)
        if self.ended and mark.got == 0:
            return Mark(key=mark.key, points=mark.points, got=0.0, says=f"not answered: {self.ended}")
        return mark

    def _beside(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have the judge execute a cell; what it asks of the hand-in goes there and back."""
        if not self._judge_ended:
            number = next(self._requests)
            try:
                told = self._judge.ask({**request, "id": number}, self._until)
                while "ask" in told and told["id"] == number:
                    told = self._judge.ask(self._answered(told["ask"]), self._until)
                if told["id"] == number:
                    return told
                self._judge_ended = "they answered another question"
            except Ended as ended:
                self._judge_ended = str(ended)
        return {"error": {"type": "", "message": f"the tests ended: {self._judge_ended}", "hand_in": True}}

    def _answered(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What the hand-in answers a test, reduced to what an answer may have."""
        answer = self._ask({**question, "seconds": CELL_SECONDS})
        if self.ended:
            return {"ended": self.ended}
        found = answer.get("found")
        kept: dict[str, Any] = {key: answer[key] for key in ("value", "strange") if key in answer}
        if isinstance(found, dict):
            kept["found"] = {name: told for name, told in found.items() if isinstance(told, dict)}
        if isinstance(answer.get("error"), dict):
            kept["error"] = answer["error"]
        return kept

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if not self.ended:
            try:
                return self._student.ask(request, self._until)
            except Ended as ended:
                self.ended = str(ended)
        return {"error": {"type": "", "message": f"not executed: {self.ended}"}}


def _failure(told: Mapping[str, Any]) -> str:
    error = told.get("error")
    if not isinstance(error, dict):
        return ""
    kind, message, line = clean(error.get("type", ""), 100), clean(error.get("message", "")), error.get("line")
    where = f"line {line}: " if isinstance(line, int) and line > 0 else ""
    return f"{where}{kind}: {message}" if kind else f"{where}{message}"


def grade(
    sandbox: Sandbox,
    name: str,
    person: Mapping[str, str],
    steps: Sequence[Step],
    timeout_seconds: float,
    remark: str = "",
) -> Graded:
    """Execute a hand-in and judge it, in ``timeout_seconds`` at most. Raises LaunchError when lab can't."""
    with ExitStack() as opened:
        student = opened.enter_context(sandbox.start("student"))
        judge = opened.enter_context(sandbox.start("judge"))
        grading = Grading(student, judge, time.monotonic() + timeout_seconds)
        shown = tuple(grading.shown(step) for step in steps)
    marks = tuple(each.mark for each in shown if each.mark is not None)
    remarks = "; ".join(filter(None, (remark, f"ended early: {grading.ended}" if grading.ended else "")))
    return Graded(name=name, person=person, marks=marks, shown=shown, remark=remarks)
