"""``--detect``: how many blocks a pilot says it takes, and whether so many find it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from claims import write

import lab
from lab.analysis.inference.estimate import estimates, needed
from lab.analysis.inference.judge import ALPHA
from lab.analysis.precision import blocks_needed
from lab.experiment.plan import Plan
from lab.results.record import PRECISE_BLOCKS, Ending


def test_a_noisier_application_takes_more_blocks(tmp_path: Path) -> None:
    quiet, noisy = (
        blocks_needed(lab.load(str(write(tmp_path / str(own), 1, blocks=6, own=own))).ratios(), 0.10)
        for own in (0.02, 0.10)
    )
    assert 3 <= quiet < 10 < noisy
    assert blocks_needed(lab.load(str(tmp_path / "0.1")).ratios(), 0.5) < noisy


def test_blocks_that_a_pilot_plans_find_what_they_were_planned_for() -> None:
    """By the one comparison's own scatter; a report takes the worst of all, and so more blocks. Nor does the pilot,
    whose blocks count, make false claims: it looks at the scatter alone.
    """
    generator, rounds = np.random.default_rng(1), 400
    for effect, low, high in ((1.1, 0.70, 0.90), (1.0, 0.0, 0.04)):
        logs = generator.normal(np.log(effect), 0.1, (rounds, 400))
        pilots = estimates(logs[:, :PRECISE_BLOCKS])
        blocks = np.maximum(needed(pilots["scatter"].to_numpy(), ALPHA / 3, 1.1), PRECISE_BLOCKS).astype(int)
        found = [
            estimates(row[None, :count])["p"].iloc[0] <= ALPHA / 3 for row, count in zip(logs, blocks, strict=True)
        ]
        assert low <= np.mean(found) <= high


def test_it_ends_when_enough_are_there_or_the_budget_is_used_up() -> None:
    plan = Plan(arms=(), seed=1, blocks=None, budget_seconds=100.0, detect=0.1)
    assert plan.ending(PRECISE_BLOCKS - 1, 1.0, 1.0, needed=3) is None
    assert plan.ending(PRECISE_BLOCKS, 1.0, 1.0, needed=3) is Ending.DETECT
    assert plan.ending(PRECISE_BLOCKS, 1.0, 1.0, needed=20) is None
    assert plan.ending(10, 99.5, 1.0, needed=20) is Ending.BUDGET


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_what_is_needed_shrinks_with_what_shall_be_found(share: float) -> None:
    (blocks,) = needed(np.array([0.1]), ALPHA / 3, 1 + share)
    assert (blocks > 20) == (share < 0.1)
