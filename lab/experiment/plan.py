"""What a run will do, decided before it starts: arms, blocks and their random orders.

Randomised complete blocks: every block runs every arm once, in an order drawn from the stored seed, so that
whatever drifts on the host (temperature, caches, a neighbour) meets every arm alike. One backend appears
twice, under two labels: the A/A pair, whose difference is noise by construction and bounds what the report
may claim.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

MINIMUM_BLOCKS = 3
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
    """Arms and blocks of one run. ``blocks`` None: as many as the budget allows, at least three."""

    arms: tuple[PlannedArm, ...]
    seed: int
    blocks: int | None
    budget_seconds: float

    def order(self, block: int) -> tuple[PlannedArm, ...]:
        """The arms in the random order of ``block``; the same for the same seed, whatever ran before."""
        arms = list(self.arms)
        random.Random(f"{self.seed}/{block}").shuffle(arms)
        return tuple(arms)

    def another(self, done: int, spent_seconds: float, longest_block_seconds: float) -> bool:
        """Whether to start a further block after ``done`` blocks took ``spent_seconds`` in all.

        A block is started only when it can be expected to end within the budget.
        """
        if self.blocks is not None:
            return done < self.blocks
        return done < MINIMUM_BLOCKS or spent_seconds + longest_block_seconds <= self.budget_seconds


def arms(backends: Sequence[str]) -> tuple[PlannedArm, ...]:
    """One arm per backend, and the A/A twin of one of them."""
    planned = [PlannedArm(label=name, backend=name) for name in backends]
    twin = next((name for name in (*AA_PREFERENCE, *backends) if name in backends), None)
    if twin is not None:
        planned.append(PlannedArm(label=twin + AA_SUFFIX, backend=twin))
    return tuple(planned)
