"""What copies that were just ready owed: their first hundred answers beside a hundred of the same copies later."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lab.analysis.compare import Series
from lab.analysis.data import TWIN, Observed, counted, sessions_of
from lab.analysis.inference import statistics as st
from lab.analysis.inference.estimate import estimates, median_interval
from lab.analysis.inference.judge import EXPLORATORY, judge
from lab.analysis.quantities import SEGMENTS

SECONDS, FIRST, LATER = "debt.seconds", "first", "later"
RESTORED = "boot.restored"
LATENCIES = "latency_seconds"
"""Where the detail of `SECONDS` has each answer."""

PLACES = {"1": 1, "2": 2, "3–4": 4, "5–8": 8, "9–16": 16, "17–32": 32, "33–64": 64, "65–100": 100}
"""The answers that are looked at together, and the number of the last of each."""

OWED_COLUMNS = (
    "quantity", "state", "arm", "against", "n", "ratio", "low", "high", "family", "p", "adjusted", "verdict", "claim",
    "why", "shows", "needs", "units", "per",
)  # fmt: skip


def owed(loaded: Observed) -> pd.DataFrame:
    """A row per arm: how many times as long its first hundred answers took as its later hundred.

    Columns: quantity, state and arm; against (the state that it is compared with); n (blocks that have both), ratio,
    low and high (interval, 95 %), and those of `lab.analysis.inference.judge.Judgement`. Each is within copies, so
    that what a block did to a copy, and what the client takes, is on both sides. All of them are exploratory.
    """
    measured = loaded.measured
    asked = measured[measured["quantity"] == SECONDS]
    if not (asked["value"].notna() & (asked["state"] == LATER)).any():
        return pd.DataFrame(columns=list(OWED_COLUMNS))
    series, rows, logs = Series(asked), [], []
    for arm in loaded.arms:
        keys = [(SECONDS, state, arm.label) for state in (FIRST, LATER)]
        if not all(key in series.values for key in keys):
            continue
        differences = series.logs(*keys[0]) - series.logs(*keys[1])
        logs.append(differences)
        failed = any(series.missing(*key) for key in keys)
        rows.append(
            {
                "quantity": SECONDS, "state": FIRST, "arm": arm.label, "against": LATER,
                "n": int(np.isfinite(differences).sum()), "bar": "its answers were wrong at times" if failed else "",
            }
        )  # fmt: skip
    sessions = sessions_of(asked, series.blocks)
    table = pd.DataFrame(rows).join(estimates(np.stack(logs), sessions))
    per = "blocks" if sessions is None else "sessions"
    return judge(table, pd.Series([EXPLORATORY] * len(rows)), per=per)[list(OWED_COLUMNS)]


def by_request(frame: pd.DataFrame) -> pd.DataFrame:
    """How long an answer took, by its number: a row per arm, in the order of `PLACES`, then ``later``.

    Columns: arm, requests, n (copies), median, low and high (seconds): of each copy the median of those answers, over
    the copies the median with its interval over blocks. The A/A twin's copies are its arm's.
    """
    measured = counted(frame)
    asked = measured[(measured["quantity"] == SECONDS) & measured["value"].notna()]
    asked = asked.assign(arm=asked["arm"].str.removesuffix(TWIN))
    blocks = np.sort(asked["block"].unique()).astype(np.int64)
    sessions = sessions_of(asked, blocks)
    rows = []
    for arm, of_arm in asked.groupby("arm", sort=False, observed=True):
        for requests, state, begin, end in _places():
            rows_of = of_arm[of_arm["state"] == state]
            values = np.array([np.median(each[LATENCIES][begin:end]) for each in rows_of["detail"]], dtype=np.float64)
            if not len(values):
                continue
            matrix = st.by_block(values, rows_of["block"].to_numpy(dtype=np.int64), blocks)
            low, high = median_interval(st.medians(matrix), sessions=sessions)
            rows.append({"arm": arm, "requests": requests, "n": len(values), "median": float(np.median(values)),
                         "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "requests", "n", "median", "low", "high"])


def went_on(frame: pd.DataFrame) -> dict[str, float]:
    """Of arms that were restored: the median of the seconds from the request until a copy went on, by the phases."""
    measured = counted(frame)
    until = SEGMENTS[: SEGMENTS.index(RESTORED) + 1]
    phases = measured[measured["quantity"].isin(until) & measured["value"].notna()]
    restored = phases.loc[phases["quantity"] == RESTORED, "instance"]
    of_copies = phases[phases["instance"].isin(restored)].groupby(["arm", "instance"], observed=True)["value"].sum()
    return {str(arm): float(value) for arm, value in of_copies.groupby("arm").median().items()}


def _places() -> list[tuple[str, str, int, int]]:
    """Name, state, and from which to which of its answers."""
    begins = [0, *list(PLACES.values())[:-1]]
    found = [(name, FIRST, begin, end) for begin, (name, end) in zip(begins, PLACES.items(), strict=True)]
    return [*found, (LATER, LATER, 0, max(PLACES.values()))]
