"""Whether a guess was right, by what the run answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.classroom.session.store import Store


def is_right(question: Mapping[str, Any], guess: float) -> bool | None:
    """Whether the guess fits what was measured; None where the run has no answer.

    A choice is right where the answer, or for a number any of its interval, leaves it right. A number is right within
    the question's factor of the measured value, or anywhere in its interval. Of 0 only 0 is.
    """
    answer = question["answer"]
    if "reason" in answer:
        return None
    if question["choices"]:
        return int(guess) in answer["right"]
    value, low, high = answer["value"], answer["low"], answer["high"]
    if low is not None and high is not None and low <= guess <= high:
        return True
    if value <= 0 or guess <= 0:
        return bool(guess == value)
    within = question["within"]
    return bool(1 / within <= guess / value <= within)


def votes(store: Store, question: int) -> tuple[dict[int, float], dict[int, float]]:
    """What each believed before the discussion and, at the end, after it: the second vote, else the first."""
    first, second = store.guesses(question, 1), store.guesses(question, 2)
    return first, first | second
