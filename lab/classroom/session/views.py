"""What each page is told. Nothing that was measured is in what a student or the projector gets before the reveal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.classroom.session.course import OF_RUN, VOTES, Course, Phase
from lab.classroom.session.grading import is_right, votes
from lab.classroom.session.histogram import histogram, label
from lab.classroom.session.store import Student

HIDDEN_UNTIL_REVEALED = ("explanation", "mechanism", "answer")


def common(course: Course) -> dict[str, Any]:
    """What everybody may know."""
    material, phase = course.material, course.phase
    told: dict[str, Any] = {
        "title": material["title"],
        "phase": phase,
        "question": course.question,
        "of": len(material["questions"]),
        "vote": VOTES.get(phase, 0),
        "asked": None,
    }
    if phase is Phase.LOBBY:
        return told | {"intro": material["intro"], "about": material["about"]}
    if phase is Phase.OVER:
        return told
    hidden = () if phase is Phase.REVEAL else HIDDEN_UNTIL_REVEALED
    return told | {
        "asked": {key: value for key, value in course.asked.items() if key not in ("bind", "ready", *OF_RUN, *hidden)}
    }


def of_student(course: Course, student: Student) -> dict[str, Any]:
    """A phone's: the question, the student's own guesses, and once it is revealed whether they were right."""
    own = course.store.guesses_of(student.id)
    guesses = {vote: own.get((course.question, vote)) for vote in (1, 2)}
    told = common(course) | {"nickname": student.nickname, "guesses": guesses}
    if course.phase is Phase.REVEAL:
        told["right"] = {vote: None if one is None else is_right(course.asked, one) for vote, one in guesses.items()}
    if course.phase is Phase.OVER:
        told |= _score(course, own)
    return told


def _score(course: Course, own: Mapping[tuple[int, int], float]) -> dict[str, Any]:
    right, of = 0, 0
    for place, question in enumerate(course.material["questions"]):
        last = own.get((place, 2), own.get((place, 1)))
        if "reason" not in question["answer"]:
            of += 1
            right += last is not None and bool(is_right(question, last))
    return {"score": right, "score_of": of}


def of_screen(course: Course, address: str) -> dict[str, Any]:
    """The projector's: how to join, the question, how many have guessed, and guesses once they are shown."""
    told = common(course) | {"code": course.code, "address": address, "joined": course.store.number()}
    told |= course.measured
    if told["asked"] is None:
        return told
    revealed = course.phase is Phase.REVEAL
    told["guessed"] = len(course.store.guesses(course.question, told["vote"])) if told["vote"] else 0
    shown = revealed or (course.shown and course.phase in (Phase.TALK, Phase.DONE))
    told["chart"] = _chart(course, revealed=revealed) if shown else None
    return told


def of_teacher(course: Course, address: str) -> dict[str, Any]:
    """The controls': everything, names and answers included. Its chart tells no more than the projector's: the
    teacher's screen may be what is projected.
    """
    told = of_screen(course, address)
    names = [{"id": each.id, "nickname": each.nickname} for each in course.store.students()]
    told |= {"students": names, "locked": course.locked, "shown": course.shown}
    if told["asked"] is not None:
        told["ready"] = course.asked.get("ready", True)
        told |= {"asked": dict(course.asked), "chart": _chart(course, revealed=course.phase is Phase.REVEAL)}
        voted = set(course.store.guesses(course.question, told["vote"] or 1))
        told["waiting"] = [each["nickname"] for each in names if each["id"] not in voted]
    return told


def _chart(course: Course, *, revealed: bool) -> dict[str, Any]:
    first, both = votes(course.store, course.question)
    second = course.store.guesses(course.question, 2)
    after = list(both.values()) if second else None
    chart = histogram(course.asked, list(first.values()), after, revealed=revealed)
    return chart | {"first": len(first), "second": len(second) if second else None}


def said(question: Mapping[str, Any], guess: float | None) -> str:
    """A guess in words."""
    if guess is None:
        return ""
    if question["choices"]:
        return str(question["choices"][int(guess)])
    return label(guess, question["unit"])
