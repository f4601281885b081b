"""How quiet the host was, by the sentinel's observations: the metric ``host``, which belongs to no arm.

What is excluded is decided by a rule that run.json held before the first block, and it is counted and named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab.analysis.inference import statistics as st

HOST = "host"
COMPUTE = "host.compute"
SLOWER, STOLEN, OTHERS, CLOCK = 1.25, 0.01, 0.25, 0.05
"""What is worth a warning: a computation that took that many times its median, that share of time stolen, that many
processors used by others, a clock that changed by that share."""
DRIFTING_Z, DRIFTING_CHANGE, DRIFTING_BLOCKS = 2.58, 0.05, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What was noticed about the host: of which kind, a sentence, and what to do about it."""

    kind: str
    sentence: str
    advice: str


def observations(frame: pd.DataFrame, quantity: str = "") -> pd.DataFrame:
    """The host's successful observations, of one quantity if named; warm-ups too, for the host does not warm up."""
    host = frame[(frame["metric"] == HOST) & frame["value"].notna()]
    return host[host["quantity"] == quantity] if quantity else host


def noisy_blocks(frame: pd.DataFrame, factor: float) -> tuple[int, ...]:
    """The blocks whose computation took more than ``factor`` times the median of all blocks' computations.

    A block that was resumed was measured twice; its slowest counts.
    """
    slowest = observations(frame, COMPUTE).groupby("block")["value"].max()
    return tuple(int(block) for block in slowest.index[slowest > factor * slowest.median()])


def remarks(frame: pd.DataFrame) -> Iterator[Remark]:
    """What to mind about the host, as far as it was watched."""
    yield from _slower(frame)
    yield from _drifting(frame)
    yield from _busy(frame)
    yield from _stolen(frame)
    yield from _clock(frame)


def _slower(frame: pd.DataFrame) -> Iterator[Remark]:
    found = observations(frame, COMPUTE)
    if len(found) < 2:
        return
    times = found["value"] / found["value"].median()
    slow = found["block"][times > SLOWER].tolist()
    if slow:
        yield Remark(
            kind="noisy host",
            sentence=f"A computation that never changes took up to {times.max():.3g} times its median on the bare "
            f"host; more than {SLOWER:g} times in {len(slow)} of {len(found)} blocks.",
            advice="Something else slowed the host down, and the instances too. Close it and repeat, or declare "
            f"--exclude-noisy {SLOWER:g} beforehand.",
        )


def _drifting(frame: pd.DataFrame) -> Iterator[Remark]:
    values = observations(frame, COMPUTE)["value"].to_numpy(dtype=np.float64)
    if len(values) < DRIFTING_BLOCKS or abs(st.kendall_z(values)) < DRIFTING_Z:
        return
    change = st.slope(values) * (len(values) - 1) / float(np.median(values))
    if abs(change) > DRIFTING_CHANGE:
        yield Remark(
            kind="host drift",
            sentence=f"The host itself became {'slower' if change > 0 else 'faster'} from the first block to the "
            f"last: the time of a computation that never changes moved by {100 * change:+.0f} %.",
            advice="Heat, a clock that adapts, or a neighbour. Ratios within blocks are safe from it, medians not.",
        )


def _busy(frame: pd.DataFrame) -> Iterator[Remark]:
    found = observations(frame, "host.others")["value"]
    if len(found) and found.max() > OTHERS:
        yield Remark(
            kind="other load",
            sentence=f"Others kept up to {found.max():.2g} of the host's processors busy, "
            f"{found.median():.2g} at the median.",
            advice="See in top what it is, stop it and repeat.",
        )


def _stolen(frame: pd.DataFrame) -> Iterator[Remark]:
    found = observations(frame, "host.steal")["value"]
    if len(found) and found.max() > STOLEN:
        yield Remark(
            kind="steal",
            sentence=f"A hypervisor below this host took up to {100 * found.max():.2g} % of its time away.",
            advice="Its other guests are in these figures. Repeat on dedicated processors, or on hardware.",
        )


def _clock(frame: pd.DataFrame) -> Iterator[Remark]:
    found = observations(frame, "host.frequency")["value"]
    if len(found) and (change := (found.max() - found.min()) / found.median()) > CLOCK:
        yield Remark(
            kind="frequency change",
            sentence=f"The processors' clock moved by {100 * change:.2g} % between instances.",
            advice="Fix it: cpupower frequency-set --governor performance, and boost off.",
        )
