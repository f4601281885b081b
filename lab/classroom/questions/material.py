"""A lesson evaluated on a run: plain data, all that a class is shown and judged by, as JSON could hold it.

It is made before anything is served, so that what serves needs neither the run nor the analysis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.classroom.questions.answers import Answer, Evaluator, Unanswered
from lab.classroom.questions.expressions import Form
from lab.classroom.questions.lesson import INSERTED, Choice, Lesson, Question, inserted
from lab.classroom.questions.unmeasured import LATER, NOT_HERE, NOT_YET


def material(lesson: Lesson, run: Path) -> dict[str, Any]:
    """``lesson`` with the answers of the run in the folder ``run``. Raises ResultsError when that is no run.

    ``title``, ``about``, ``intro`` (HTML), ``run``, ``where`` it was measured, and ``questions``: each with ``name``,
    ``text``, ``explanation`` and ``mechanism`` (HTML), ``choices`` (texts), ``unit``, and ``answer``: of
    `lab.classroom.questions.answers.Answer`, numbers in the question's unit, None for NaN, and ``right``, the places
    of the choices that the answer leaves right; or a ``reason`` why there is no answer, with ``needs``.
    """
    from lab.analysis.loaded import load

    loaded = load(run)
    ask = Evaluator(loaded)
    values = {inside: ask(each) for inside, each in inserted(lesson).items()}
    written = _writer({inside: _said(each) for inside, each in values.items()})
    host = loaded.run.host
    return {
        "lesson": lesson.name,
        "title": lesson.title,
        "about": lesson.about,
        "intro": written(lesson.intro),
        "run": loaded.run.name,
        "where": f"{host.get('cpu', {}).get('model', 'unknown processor')}, {host.get('distribution', '')}".strip(
            ", "
        ),
        "day": loaded.run.started[:10],
        "questions": [_asked(each, ask(each.bind), written) for each in lesson.questions],
    }


def pending(lesson: Lesson) -> dict[str, Any]:
    """The same of a run that is about to be measured: it answers nothing yet, and no question is ``ready``."""
    written = _writer(dict.fromkeys(inserted(lesson), NOT_YET))
    later = Unanswered(reason=LATER)
    return {
        "lesson": lesson.name, "title": lesson.title, "about": lesson.about, "intro": written(lesson.intro),
        "run": "", "where": "", "day": "", "live": True,
        "questions": [_asked(each, later, written) | {"ready": False} for each in lesson.questions],
    }  # fmt: skip


def growing(lesson: Lesson, run: Path, *, over: bool) -> dict[str, Any]:
    """`material` of a run that is being measured, or is ``over``. ``ready`` says of each question whether it may be
    revealed: more blocks make an interval narrower, and may still change a verdict.
    """
    made = material(lesson, run)
    for question, asked in zip(lesson.questions, made["questions"], strict=True):
        asked["ready"] = over or _is_settled(question.bind.form, asked["answer"])
    return made | {"live": True}


def _is_settled(form: Form, answer: Mapping[str, Any]) -> bool:
    if "reason" in answer or form in (Form.VERDICT, Form.SCATTER, Form.LONGEST):
        return False
    return form not in (Form.VALUE, Form.RATIO, Form.SLOWDOWN) or answer["low"] is not None


def _asked(question: Question, found: Answer | Unanswered, written: Callable[[str], str]) -> dict[str, Any]:
    return {
        "name": question.name,
        "bind": question.bind.text,
        "text": written(question.text),
        "explanation": written(question.explanation),
        "mechanism": written(question.mechanism),
        "choices": [choice.text for choice in question.choices],
        "unit": question.unit,
        "within": question.within,
        "answer": _answer(question, found),
    }


def _answer(question: Question, found: Answer | Unanswered) -> dict[str, Any]:
    if isinstance(found, Unanswered):
        return {"reason": found.reason, "needs": question.needs}
    numbers = {name: _number(getattr(found, name) / question.factor) for name in ("value", "low", "high")}
    right = [place for place, choice in enumerate(question.choices) if is_right(choice, found)]
    return {**asdict(found), **numbers, "notes": list(found.notes), "right": right}


def is_right(choice: Choice, found: Answer) -> bool:
    """Whether the answer leaves the choice right: its word; its number, or where it has one any of its interval."""
    if found.word:
        return found.word in choice.words
    low, high = (found.value if math.isnan(end) else end for end in (found.low, found.high))
    return choice.low <= high and low < choice.high


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _said(found: Answer | Unanswered) -> str:
    return found.says if isinstance(found, Answer) else NOT_HERE


def _writer(values: Mapping[str, str]) -> Callable[[str], str]:
    """Markdown as HTML, in which what the run measured has replaced the expressions. No HTML of a lesson's own, and
    no picture from elsewhere, comes through.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")

    return lambda text: str(parser.render(INSERTED.sub(lambda each: values[each[1]], text)))
