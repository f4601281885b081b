"""What a run will do, decided before it starts: arms, blocks and their random orders.

Randomised complete blocks: every block runs every arm once, in an order drawn from the stored seed, so that
whatever drifts on the host (temperature, caches, a neighbour) meets every arm alike. One backend appears
twice, under two labels: the A/A pair, treated the same in everything. It is a second observation of that backend in
each block; where it differs from itself, the run has a defect.

With factors an arm is a backend at one level of each factor that applies to it, and every combination is an arm. The
one at the first level of all is the backend's *reference*: its label is the backend's name alone, the others' say
what is different of them, ``container[memory=256M,cpus=1]``.

It ends after so many blocks, or at the budget, or as soon as the intervals are narrow enough. Whoever stops by what
was seen, stops on a lucky day a little more often than on an unlucky one: with fewer than six blocks an interval of
95 % then covers the truth 88 % of the time, from six on 92 to 95 % (simulated; the tests repeat it).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from lab.experiment.factors import Factor
from lab.results.record import PRECISE_BLOCKS, Ending

MINIMUM_BLOCKS = 3
AA_SUFFIX = "#aa"
BASELINE = "process"
"""What all others are compared with, where it is there; else the first, which has the thinnest boundary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArm:
    """One label of the comparison, the backend behind it, and its level of each factor that applies to it.

    ``slug`` names its instances: as short as it can be, in characters that file and host names have.
    """

    label: str
    backend: str
    factors: Mapping[str, str] = field(default_factory=dict, hash=False)
    slug: str = ""

    @property
    def is_twin(self) -> bool:
        """True for the second label of the A/A pair."""
        return self.label.endswith(AA_SUFFIX)

    @property
    def is_reference(self) -> bool:
        """True for a backend at the first level of every factor."""
        return self.label == self.backend

    @property
    def instance(self) -> str:
        """What its instances' names end with."""
        return self.slug or re.sub(r"[^A-Za-z0-9.-]", "-", self.label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Arms and blocks of one run. ``blocks`` None: as many as the budget allows, at least three.

    Both are those of one session; there are ``sessions`` of them, each in a process of its own.
    ``exclude_noisy`` is the rule by which blocks will be left out: see `lab.analysis.noise`.
    ``factors`` are those that the arms were made of.
    ``precision`` ends it before the budget does: at most so wide shall an interval be, as a share of its median.
    ``detect`` does so after as many blocks as it takes to show a difference of that share, which the first
    `PRECISE_BLOCKS`, the pilot, tell.
    """

    arms: tuple[PlannedArm, ...]
    seed: int
    blocks: int | None
    budget_seconds: float
    precision: float | None = None
    detect: float | None = None
    exclude_noisy: float | None = None
    sessions: int = 1
    factors: tuple[Factor, ...] = ()

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
        self,
        done: int,
        spent_seconds: float,
        longest_block_seconds: float,
        width: float = math.inf,
        needed: float = math.inf,
    ) -> Ending | None:
        """Why no further block is started, or None.

        ``width`` is that of the widest interval, as ``precision`` is; ``needed`` the blocks that ``detect`` takes.
        """
        if self.blocks is not None:
            return Ending.BLOCKS if done >= self.blocks else None
        if self.precision is not None and done >= PRECISE_BLOCKS and width <= self.precision:
            return Ending.PRECISION
        if self.detect is not None and done >= PRECISE_BLOCKS and done >= needed:
            return Ending.DETECT
        if done >= MINIMUM_BLOCKS and spent_seconds + longest_block_seconds > self.budget_seconds:
            return Ending.BUDGET
        return None


LONGEST_SLUG = 24
"""Instances are host names too, and folders that hold Unix sockets, whose paths are short (unix(7))."""


def arms(
    backends: Sequence[str],
    factors: Sequence[Factor] = (),
    possible: Callable[[PlannedArm], bool] = lambda arm: True,
) -> tuple[PlannedArm, ...]:
    """Every backend at every combination of levels of the factors that apply to it, and the A/A twin of one of them.

    Combinations that are not ``possible`` are left out; those of first levels must be. The twin repeats the baseline,
    which is in every ratio: as its second observation in each block it makes all of them surer.
    """
    planned = [arm for name in backends for arm in _combinations(name, factors) if possible(arm)]
    twin = next((name for name in (BASELINE, *backends) if name in backends), None)
    if twin is not None:
        repeated = next(arm for arm in planned if arm.label == twin)
        planned.append(PlannedArm(label=twin + AA_SUFFIX, backend=twin, factors=repeated.factors))
    return tuple(planned)


def _combinations(backend: str, factors: Sequence[Factor]) -> list[PlannedArm]:
    applying = [factor for factor in factors if backend in factor.of]
    combinations = [
        dict(zip([factor.name for factor in applying], levels, strict=True))
        for levels in product(*(factor.of[backend] for factor in applying))
    ]
    named = re.sub(r"[^A-Za-z0-9.-]", "-", backend)
    slugs = [
        "-".join([named, *(re.sub(r"[^A-Za-z0-9.]", "", level) for level in each.values())]) for each in combinations
    ]
    if len(set(slugs)) < len(slugs) or max(len(slug) for slug in slugs) > LONGEST_SLUG:
        slugs = [f"{named}-{number}" for number in range(1, len(slugs) + 1)]
    return [
        PlannedArm(
            label=label(backend, each, {factor.name: factor.of[backend][0] for factor in applying}),
            backend=backend,
            factors=each,
            slug=slug if applying else "",
        )
        for each, slug in zip(combinations, slugs, strict=True)
    ]


def label(backend: str, levels: Mapping[str, str], reference: Mapping[str, str]) -> str:
    """The backend's name, and in brackets the levels that are not those of ``reference``."""
    different = ",".join(f"{name}={level}" for name, level in levels.items() if level != reference.get(name))
    return f"{backend}[{different}]" if different else backend
