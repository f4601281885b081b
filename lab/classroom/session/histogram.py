"""Guesses as bars, on an axis on which what was measured has its place, too. Places are shares of the width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

BINS = 12
WRITTEN = {"times": "×", "percent": "%"}
WIDE = 8.0
"""From this quotient of the largest and the smallest on, the axis is logarithmic."""
TINIEST = 1e-9
"""What a smaller guess counts as on a logarithmic axis."""


def histogram(
    question: Mapping[str, Any], first: Sequence[float], second: Sequence[float] | None, *, revealed: bool
) -> dict[str, Any]:
    """What the page draws of the guesses of one or two votes (None: there was no second).

    Of choices: ``bars``, each with ``first``, ``second`` and, once ``revealed``, ``right``. Of numbers: ``bars`` with
    their ``left`` and ``width``; ``ticks`` with ``at`` and ``label``; and once revealed ``value``, ``low`` and
    ``high``, the places of what was measured. Places are shares of the width, 0 to 1.
    """
    answer = question["answer"] if revealed else {}
    if question["choices"]:
        rights = set(answer.get("right", ()))
        return {
            "bars": [
                {"text": text, "first": _count(first, place), "right": place in rights}
                | {"second": None if second is None else _count(second, place)}
                for place, text in enumerate(question["choices"])
            ]
        }
    measured = {name: answer.get(name) for name in ("value", "low", "high")}
    known = [*first, *(second or ()), *(each for each in measured.values() if each is not None)]
    axis = Axis(known)
    edges = [each / BINS for each in range(BINS + 1)]
    bars = [
        {"left": left, "width": right - left, "first": _within(axis, first, left, right)}
        | {"second": None if second is None else _within(axis, second, left, right)}
        for left, right in pairwise(edges)
    ]
    places = {name: None if each is None else axis.place(each) for name, each in measured.items()}
    return {"bars": bars, "ticks": axis.ticks(question["unit"]), **places}


class Axis:
    """From a little below the smallest of ``values`` to a little above the largest; logarithmic where they are far
    apart. What is 0 lies at the left end of a logarithmic one.
    """

    def __init__(self, values: Sequence[float]) -> None:
        positive = [max(each, TINIEST) for each in values if each > 0]
        least, most = min(values, default=0.0), max(values, default=1.0)
        self.logarithmic = bool(positive) and most / min(positive) > WIDE
        if self.logarithmic:
            self._low, self._high = math.log10(min(positive)), math.log10(most)
        else:
            self._low, self._high = least, most
        room = (self._high - self._low) * 0.08 or abs(self._high) * 0.25 or 1.0
        self._low, self._high = self._low - room, self._high + room
        if not self.logarithmic and least >= 0:
            self._low = max(0.0, self._low)

    def place(self, value: float) -> float:
        """Where a value lies; values beyond the ends lie at them."""
        if self.logarithmic:
            value = math.log10(max(value, TINIEST)) if value > 0 else self._low
        return min(1.0, max(0.0, (value - self._low) / (self._high - self._low)))

    def value(self, place: float) -> float:
        """What lies at a place: the inverse of `place`."""
        value = self._low + place * (self._high - self._low)
        return 10.0**value if self.logarithmic else value

    def ticks(self, unit: str) -> list[dict[str, Any]]:
        """At most eight round numbers with their labels."""
        if self.logarithmic:
            decades = range(math.ceil(self._low) - 1, math.floor(self._high) + 1)
            steps = (1, 2, 5) if len(decades) <= 3 else (1,)
            values = [step * 10.0**decade for decade in decades for step in steps]
            values = [each for each in values if self._low <= math.log10(each) <= self._high]
            values = values[:: math.ceil(len(values) / 8) or 1]
        else:
            step = _round((self._high - self._low) / 6)
            first = math.ceil(self._low / step)
            values = [each * step for each in range(first, math.floor(self._high / step) + 1)]
        return [{"at": self.place(each), "label": label(each, unit)} for each in values]


def label(value: float, unit: str) -> str:
    """A guess with its unit, for people."""
    return f"{value:,.12g} {WRITTEN.get(unit, unit)}"


def _round(step: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= step)


def _count(guesses: Sequence[float], place: int) -> int:
    return sum(int(each) == place for each in guesses)


def _within(axis: Axis, guesses: Sequence[float], left: float, right: float) -> int:
    return sum(left <= axis.place(each) < right or (right == 1.0 and axis.place(each) == 1.0) for each in guesses)
