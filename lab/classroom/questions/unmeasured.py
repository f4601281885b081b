"""What is written where a run has no number for a lesson's text or question, while it is measured and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_HERE = "(this run does not tell)"
NOT_YET = "(being measured)"
LATER = "it has not been measured yet"
NEVER = "the measurement ended before it"
TEXTS = ("text", "explanation", "mechanism")


def ended(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A question of `lab.classroom.questions.material` once nothing more is measured: it may be revealed, and says
    nothing of what was still to come.
    """
    answer = dict(asked["answer"])
    if answer.get("reason") == LATER:
        answer["reason"] = NEVER
    written = {name: asked[name].replace(NOT_YET, NOT_HERE) for name in TEXTS}
    return {**asked, **written, "answer": answer, "ready": True}
