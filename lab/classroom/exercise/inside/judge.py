"""Executes the teacher's tests, in a process and a container of their own.

A name that a test uses and the teacher's cells don't define is asked for: `Remote` stands for a function of the
hand-in's, everything else is a plain copy. Requests are lines of JSON on standard input. Answers, and questions to
the hand-in, are lines on standard output, which no code of a student's can write to.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
import types
from typing import Any, BinaryIO

from lab.classroom.exercise.inside.plain import BUILTINS, CELL, NotPlain, decode, encode, line_of, needed

RAISED = {
    kind.__name__: kind
    for kind in (
        ArithmeticError, AttributeError, IndexError, KeyError, LookupError, NameError, NotImplementedError,
        OverflowError, RuntimeError, TypeError, ValueError, ZeroDivisionError,
    )
}  # fmt: skip
"""What a hand-in's function may raise that its test can catch. StopIteration is not among them: it would end the
test's own loop. Nor is AssertionError, which is the test's to raise.
"""


class HandInError(Exception):
    """The hand-in did not give a plain value: it has ended, took too long, or raised something of its own."""


class TookTooLong(BaseException):
    """A test did not end in its time."""


class Line:
    """The way to lab, and through it to the hand-in."""

    def __init__(self) -> None:
        self.requests: BinaryIO = os.fdopen(os.dup(0), "rb")
        self.number = 0  # of the request that is being carried out
        self._answers = os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1):
            os.dup2(null, descriptor)

    def say(self, told: dict[str, Any]) -> None:
        text = json.dumps(told | {"id": self.number}).encode() + b"\n"
        while text:
            text = text[os.write(self._answers, text) :]

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the hand-in answers. Raises HandInError when there is none.

        The test's time stands still meanwhile, else a slow answer would be taken for that of the next question.
        """
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        self.say({"ask": question})
        answer: dict[str, Any] = json.loads(self.requests.readline())
        signal.setitimer(signal.ITIMER_REAL, left)
        if "ended" in answer:
            raise HandInError(answer["ended"])
        return answer


class Remote:
    """A function of the hand-in's: called with plain values, it gives one."""

    def __init__(self, line: Line, name: str) -> None:
        self._line, self.__name__ = line, name

    def __call__(self, *values: object, **named: object) -> Any:
        told = {key: encode(value) for key, value in named.items()}
        answer = self._line.ask(
            {"do": "call", "name": self.__name__, "values": [encode(each) for each in values], "named": told}
        )
        if "error" in answer:
            kind, message = str(answer["error"].get("type", "")), str(answer["error"].get("message", ""))
            raise RAISED.get(kind, HandInError)(message)
        return _value(answer, f"{self.__name__}(…)")


def _value(answer: dict[str, Any], what: str) -> Any:
    if "value" not in answer:
        raise HandInError(f"{what}: {answer.get('strange', 'it gave nothing')}")
    try:
        return decode(answer["value"])
    except NotPlain as error:
        raise HandInError(f"{what}: {error}") from None


def main() -> None:
    line = Line()
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    signal.signal(signal.SIGALRM, _ring)
    for request in line.requests:
        asked = json.loads(request)
        if "source" not in asked:
            continue  # an answer that nobody waits for
        line.number = asked["id"]
        told: dict[str, Any] = {"done": True}
        try:
            signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
            try:
                points = _execute(asked["source"], vars(module), line)
                told["points"] = points
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException as error:
            told["error"] = {
                "type": type(error).__name__, "message": str(error)[:500], "line": line_of(error),
                "hand_in": isinstance(error, HandInError),
            }  # fmt: skip
        line.say(told)


def _ring(number: int, frame: object) -> None:
    raise TookTooLong("the test took too long")


def _execute(source: str, namespace: dict[str, Any], line: Line) -> float | None:
    """Run a cell; the number that its last expression is, if it is one."""
    wanted = needed(source) - namespace.keys() - BUILTINS
    theirs = _theirs(sorted(wanted), line) if wanted else {}
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    namespace.update(theirs)
    try:
        if not isinstance(last, ast.Expr):
            exec(compile(tree, CELL, "exec", dont_inherit=True), namespace)
            return None
        tree.body.pop()
        exec(compile(tree, CELL, "exec", dont_inherit=True), namespace)
        value = eval(compile(ast.Expression(last.value), CELL, "eval", dont_inherit=True), namespace)
    finally:
        for name in theirs:  # the next test sees what they are by then
            namespace.pop(name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _theirs(wanted: list[str], line: Line) -> dict[str, Any]:
    answer = line.ask({"do": "look", "names": wanted})
    if "error" in answer:
        raise HandInError(str(answer["error"].get("message", "")))
    found: dict[str, Any] = {}
    for name, told in answer["found"].items():
        if name in wanted:
            found[name] = Remote(line, name) if told.get("callable") is True else _value(told, name)
    for name in wanted:
        if name not in found:
            raise HandInError(f"{name} is not defined")
    return found
