"""What a run will do, decided before it starts: arms, blocks and their random orders.

Randomised complete blocks: every block runs every arm once, in an order drawn from the stored seed, so that
whatever drifts on the host (temperature, caches, a neighbour) meets every arm alike. One backend appears
twice, under two labels: the A/A pair, whose difference is noise by construction and bounds what the report
may claim.

It ends after so many blocks, or at the budget, or as soon as the intervals are narrow enough. Whoever stops by what
was seen, stops on a lucky day a little more often than on an unlucky one: with fewer than six blocks an interval of
95 % then covers the truth 88 % of the time, from six on 92 to 95 % (simulated; the tests repeat it).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from lab.results.record import Ending

MINIMUM_BLOCKS = 3
PRECISE_BLOCKS = 6
"""Before so many blocks no interval is trusted to be as narrow as it looks."""
AA_SUFFIX = "#aa"
AA_PREFERENCE = ("container", "process")
"""Which backend is paired with itself: the cheapest to repeat among those that matter most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArm:
    """One label of the comparison and the backend behind it."""

    label: str
    backend: str

    @property
    def is_twin(self) -> bool:
        """True for the second label of the A/A pair."""
        return self.label.endswith(AA_SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Arms and blocks of one run. ``blocks`` None: as many as the budget allows, at least three.

    Both are those of one session; there are ``sessions`` of them, each in a process of its own.
    ``exclude_noisy`` is the rule by which blocks will be left out: see `lab.analysis.host`.
    ``precision`` ends it before the budget does: at most so wide shall an interval be, as a share of its median.
    """

    arms: tuple[PlannedArm, ...]
    seed: int
    blocks: int | None
    budget_seconds: float
    precision: float | None = None
    exclude_noisy: float | None = None
    sessions: int = 1

    def order(self, block: int) -> tuple[PlannedArm, ...]:
        """The arms in the random order of ``block``; the same for the same seed, whatever ran before."""
        arms = list(self.arms)
        random.Random(f"{self.seed}/{block}").shuffle(arms)
        return tuple(arms)

    def another(self, done: int, spent_seconds: float, longest_block_seconds: float) -> bool:
        """Whether to start a further block after ``done`` blocks took ``spent_seconds`` in all.

        A block is started only when it can be expected to end within the budget.
        """
        return self.ending(done, spent_seconds, longest_block_seconds) is None

    def ending(
        self, done: int, spent_seconds: float, longest_block_seconds: float, width: float = math.inf
    ) -> Ending | None:
        """Why no further block is started, or None. ``width`` is that of the widest interval, as ``precision`` is."""
        if self.blocks is not None:
            return Ending.BLOCKS if done >= self.blocks else None
        if self.precision is not None and done >= PRECISE_BLOCKS and width <= self.precision:
            return Ending.PRECISION
        if done >= MINIMUM_BLOCKS and spent_seconds + longest_block_seconds > self.budget_seconds:
            return Ending.BUDGET
        return None


def arms(backends: Sequence[str]) -> tuple[PlannedArm, ...]:
    """One arm per backend, and the A/A twin of one of them."""
    planned = [PlannedArm(label=name, backend=name) for name in backends]
    twin = next((name for name in (*AA_PREFERENCE, *backends) if name in backends), None)
    if twin is not None:
        planned.append(PlannedArm(label=twin + AA_SUFFIX, backend=twin))
    return tuple(planned)
