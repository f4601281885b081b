"""Whether KSM had time enough: what ksmd had looked at when memory was read."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from lab.analysis.data import counted
from lab.analysis.noise import Remark
from lab.analysis.quantities import some
from lab.model import KSM_PASSES

MERGED = "memory.ksm.merged"


def remarks(frame: pd.DataFrame) -> Iterator[Remark]:
    """Instances whose memory was read, at idle, before ksmd had passed over it as often as merging takes."""
    measured = counted(frame)
    idle = measured[(measured["quantity"] == MERGED) & (measured["state"] == "idle")]
    passes = [int(each.get("full_scans", KSM_PASSES)) for each in idle["detail"]]
    early = idle[[number < KSM_PASSES for number in passes]]
    if len(early):
        arms = some(list(dict.fromkeys(str(arm) for arm in early["arm"])))
        yield Remark(
            kind="ksm",
            sentence=f"KSM was not done with {len(early)} of {len(idle)} instances when their memory was read "
            f"({arms}): ksmd had ended as few as {min(passes)} passes since the launch, and merging takes "
            f"{KSM_PASSES}.",
            advice="What it saves is a lower bound. Give it time: a longer --idle.",
        )
