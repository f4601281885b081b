"""Executes a hand-in's cells, and answers what the tests ask: values of names, results of calls.

It is in the same process as code that nobody has read, so whatever it says is only what that code claims. It has no
test, no expected value and no mark. Requests are lines of JSON on standard input, answers lines on standard output;
what the cells print goes to standard error.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
import types
from typing import Any

from lab.classroom.exercise.inside.plain import CELL, LARGEST_ANSWER, NotPlain, decode, encode, line_of, refused


class TookTooLong(BaseException):
    """A cell or a call did not end in its time. No Exception: `except Exception` shall not keep it going."""


def main() -> None:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGALRM, _ring)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    for line in requests:
        answer = _answer(json.loads(line), vars(module))
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # it may be anything by now
                pass
        text = json.dumps(answer).encode() + b"\n"
        if len(text) > LARGEST_ANSWER:
            text = json.dumps({"error": {"type": "", "message": "what is asked for is too large"}}).encode() + b"\n"
        while text:
            text = text[os.write(answers, text) :]


def _ring(number: int, frame: object) -> None:
    raise TookTooLong


def _answer(asked: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    try:
        signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
        try:
            if asked["do"] == "run":
                return _run(asked, namespace)
            if asked["do"] == "look":
                return {"found": {name: _look(namespace[name]) for name in asked["names"] if name in namespace}}
            return _call(asked, namespace)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TookTooLong:
        return {"error": {"type": "TimeoutError", "message": f"it took longer than {asked['seconds']} seconds"}}
    except BaseException as error:  # SystemExit, too
        return {"error": {"type": type(error).__name__, "message": _text(error), "line": line_of(error)}}


def _run(asked: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    source = asked["source"]
    if why := refused(source):
        return {"error": {"type": "", "message": why}}
    exec(compile(ast.parse(source), CELL, "exec", dont_inherit=True), namespace)
    return {}


def _look(value: object) -> dict[str, Any]:
    try:
        return {"value": encode(value)}
    except NotPlain as error:
        return {"callable": True} if callable(value) else {"strange": str(error)}


def _call(asked: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    named = {key: decode(value) for key, value in asked["named"].items()}
    result = namespace[asked["name"]](*map(decode, asked["values"]), **named)
    try:
        return {"value": encode(result)}
    except NotPlain as error:
        return {"strange": str(error)}


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except BaseException:
        return ""
