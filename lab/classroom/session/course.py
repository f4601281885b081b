"""How a class goes: phases, who may do what in which, and which guesses are allowed.

    lobby ─start→ vote ─close→ talk ─again→ again ─close→ done ─reveal→ reveal ─next→ vote … over

While ``talk``, neighbours convince each other; then they vote ``again``: peer instruction. From every phase of a
question the teacher may reveal.
"""

from __future__ import annotations

import math
import secrets
import time
import unicodedata
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

from lab.classroom.questions.unmeasured import NOT_HERE, NOT_YET, ended
from lab.classroom.session.store import Store, Student
from lab.errors import LabError, UsageError

CODE_LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""None that is mistaken for another."""
CODE_LENGTH = 6
LONGEST_NICKNAME = 24
MOST_STUDENTS = 500
LARGEST_GUESS = 1e15


class Phase(StrEnum):
    """Where a class is."""

    LOBBY = "lobby"
    VOTE = "vote"
    TALK = "talk"
    AGAIN = "again"
    DONE = "done"
    REVEAL = "reveal"
    OVER = "over"


STEPS = {
    ("start", Phase.LOBBY): Phase.VOTE,
    ("close", Phase.VOTE): Phase.TALK,
    ("reopen", Phase.TALK): Phase.VOTE,
    ("again", Phase.TALK): Phase.AGAIN,
    ("close", Phase.AGAIN): Phase.DONE,
    ("reopen", Phase.DONE): Phase.AGAIN,
    **{("reveal", each): Phase.REVEAL for each in (Phase.VOTE, Phase.TALK, Phase.AGAIN, Phase.DONE)},
    ("next", Phase.REVEAL): Phase.VOTE,
}
VOTES = {Phase.VOTE: 1, Phase.AGAIN: 2}
"""Which vote is open in which phase."""
OF_RUN = ("run", "where", "day")
"""Which run has answered: of the whole material, or of a question that was revealed before there was another run."""
SWITCHES = {"show": ("shown", True), "hide": ("shown", False), "lock": ("locked", True), "unlock": ("locked", False)}


VIEWS = {"answer": "", "race": "race", "figure": "figure"}
"""What the projector shows once a question is revealed, by what the teacher asks for; "" is the answer."""


class Refused(LabError):
    """What a class does not allow now; said to whoever asked."""


class Course:
    """One class, on its store. Every method leaves the store consistent."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.material: Mapping[str, Any] = store.get("material")
        self.code: str = store.get("code")
        self.phase = Phase(store.get("phase"))
        self.question: int = store.get("question")
        self.shown: bool = store.get("shown")
        self.locked: bool = store.get("locked")
        self.view: str = store.get("view", "")
        self.revealed: set[int] = set(store.get("revealed", []))

    @classmethod
    def begin(cls, store: Store, material: Mapping[str, Any], keep_days: int) -> Course:
        """The one in ``store``, or where there is none yet a new one about ``material``.

        Raises UsageError when that in ``store`` is about another lesson.
        """
        now, there = time.time(), store.get("material")
        if there is not None and there["lesson"] != material["lesson"]:
            raise UsageError(
                f"{store.folder.name} is a class about {there['lesson']}", hint="--session NAME begins another one"
            )
        if there is None:
            code = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
            store.put(
                material=material, code=code, phase=Phase.LOBBY, question=0, shown=False, locked=False, key="",
                created=now, used=now, keep_days=keep_days,
            )  # fmt: skip
        store.put(used=now, keep_days=keep_days)
        return cls(store)

    @property
    def asked(self) -> Mapping[str, Any]:
        """The question that the class is at."""
        found: Mapping[str, Any] = self.material["questions"][self.question]
        return found

    # --- the teacher

    def act(self, action: str, phase: str, question: int, showable: Collection[str] = ()) -> None:
        """Take a step from ``phase`` of ``question``, where the teacher's page believes to be: a second click on a
        button does not skip a phase. ``showable`` are those of `VIEWS` that the run has. Raises Refused.
        """
        if phase != self.phase or question != self.question:
            raise Refused("the class has moved on meanwhile")
        if action in SWITCHES:
            name, value = SWITCHES[action]
            setattr(self, name, value)
        elif action in VIEWS:
            if self.phase is not Phase.REVEAL or (VIEWS[action] and action not in showable):
                raise Refused(f"there is no {action} to be shown now")
            self.view = VIEWS[action]
        else:
            after = STEPS.get((action, self.phase))
            if after is None:
                raise Refused(f"{action} is not possible now")
            if action == "reveal" and not self.asked.get("ready", True):
                raise Refused("what is being measured can't answer that yet")
            if action == "reveal":
                self.revealed.add(self.question)
            if action == "next" and self.question + 1 == len(self.material["questions"]):
                after = Phase.OVER
            elif action == "next":
                self.question += 1
            self.phase, self.shown, self.view = after, False, ""
        self.store.put(
            phase=self.phase, question=self.question, shown=self.shown, locked=self.locked, view=self.view,
            revealed=sorted(self.revealed), used=time.time(),
        )  # fmt: skip

    @property
    def measured(self) -> dict[str, str]:
        """The run that has answered the question that the class is at: `OF_RUN`."""
        question = self.asked if self.phase is Phase.REVEAL else {}
        return {name: question.get(name, self.material[name]) for name in OF_RUN}

    # --- a run that is being measured

    def learn(self, material: Mapping[str, Any]) -> None:
        """Take over what the run answers by now; what was revealed stays as the class has seen it."""
        old = self.material["questions"]
        measured = {name: self.material[name] for name in OF_RUN}  # another run may follow, which did not say this
        questions = [
            measured | old[at] if at in self.revealed else each for at, each in enumerate(material["questions"])
        ]
        self.material = {**material, "questions": questions}
        self.store.put(material=self.material)

    def settle(self) -> None:
        """Nothing more will be measured: every question may be revealed, with its answer or the reason for none."""
        if not all(each.get("ready", True) for each in self.material["questions"]):
            material = {**self.material, "intro": self.material["intro"].replace(NOT_YET, NOT_HERE)}
            self.learn({**material, "questions": [ended(each) for each in self.material["questions"]]})

    # --- the students

    def join(self, code: str, nickname: str) -> tuple[Student, str]:
        """Somebody new, and the token for their cookie. Raises Refused, WrongCode for another code."""
        if not secrets.compare_digest(code.strip().upper().encode(), self.code.encode()):
            raise WrongCode("this is not the code on the screen")
        if self.locked:
            raise Refused("nobody can join any more; ask your teacher")
        name = tidy(nickname)
        if self.store.number() >= MOST_STUDENTS:
            raise Refused("the class is full")
        token = secrets.token_urlsafe(32)
        student = self.store.join(name, token)
        if student is None:
            raise Refused(f"somebody is called {name} already")
        return student, token

    def guess(self, student: Student, question: int, vote: int, guess: float) -> None:
        """Keep a student's guess: the place of a choice, or a number in the question's unit. Raises Refused."""
        if VOTES.get(self.phase) != vote or question != self.question:
            raise Refused("this vote is closed")
        choices = self.asked["choices"]
        if choices and guess not in range(len(choices)):
            raise Refused("there is no such choice")
        if not choices and not (math.isfinite(guess) and 0 <= guess <= LARGEST_GUESS):
            raise Refused("a number, please: 0 or more")
        self.store.guess(student.id, question, vote, float(guess))


class WrongCode(Refused):
    """A try that counts."""


def tidy(nickname: str) -> str:
    """A nickname on one line, in letters that can be seen. Raises Refused for one that is empty or too long."""
    plain = unicodedata.normalize("NFC", nickname)
    shown = "".join(" " if each.isspace() else each for each in plain if each.isspace() or each.isprintable())
    name = " ".join(shown.split())
    if not name:
        raise Refused("a nickname, please")
    if len(name) > LONGEST_NICKNAME:
        raise Refused(f"{LONGEST_NICKNAME} letters at most")
    return name
