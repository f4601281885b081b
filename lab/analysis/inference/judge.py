"""The one judge of comparisons: every claim that two arms differ, or are the same, comes from here, wherever it is
shown. What another test claims takes its rate from here (`ALPHA`): that memory grows with each copy
(`lab.studies.density.analyse`) and that hosts disagree (`lab.analysis.hosts.merged`) take the correction as well
(`adjusted`); that nights have changed (`lab.analysis.history`) is corrected by the number of series.

A comparison has one of three answers: the two *differ*; they are *the same*, within a margin of 5 %; or this run
proves *neither*. Which it is, is decided for all comparisons of a report together, since of twenty that don't differ
one seems to by chance:

* The **headline family** is declared beforehand (``headline`` in quantities.toml): three or four quantities, for each
  pair of backends. Holm's correction keeps the probability of any false claim in a family below 5 %.
* Everything else is **exploratory**, marked so, and judged by Benjamini and Hochberg's false discovery rate: of what
  is claimed there, one in twenty may be false.
* The **A/A pair** is a diagnostic: a backend that differs from itself is the defect of a run, no claim of it.

A p that is missing claims nothing. `statsmodels.stats.multitest.multipletests` does both corrections.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.inference.estimate import FEWEST, MARGIN, needed, shown
from lab.analysis.inference.statistics import Floats

ALPHA = 0.05
"""The rate that each family keeps."""

DETECTED = 1.1
"""The difference whose price in blocks is told beside each comparison."""

HEADLINE, EXPLORATORY, TWIN = "headline", "exploratory", "A/A"
WITHIN = f"{100 * (MARGIN - 1):.0f} %"


class Verdict(StrEnum):
    """The three answers."""

    DIFFERENT = "different"
    SAME = "the same"
    OPEN = "not proven"

    @property
    def words(self) -> str:
        """The answer in a phrase that can stand beside a number."""
        return {
            Verdict.DIFFERENT: "a difference",
            Verdict.SAME: f"the same within {WITHIN}, proven",
            Verdict.OPEN: "not proven either way",
        }[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What may be said of one comparison, and why no more.

    ``family`` is `HEADLINE`, `EXPLORATORY` or `TWIN`. ``p`` is of this comparison alone, ``adjusted`` of it as one of
    its family. ``why`` says what stands against a claim; "" for a difference. ``shows`` is the smallest ratio that a
    run like this one finds four times in five, ``needs`` how many of ``per``, blocks or sessions, find one of 1.1 as
    often; NaN where the scatter is not known.
    """

    verdict: Verdict
    family: str
    p: float
    adjusted: float
    why: str
    shows: float
    needs: float
    per: str = "blocks"

    @property
    def claim(self) -> bool:
        """Whether a difference may be claimed."""
        return self.verdict is Verdict.DIFFERENT

    @property
    def words(self) -> str:
        """The answer; marked where it is exploratory."""
        return self.verdict.words + (" (exploratory)" if self.family == EXPLORATORY and self.is_proven else "")

    @property
    def is_proven(self) -> bool:
        """Whether it is either of the two that are something."""
        return self.verdict is not Verdict.OPEN

    @property
    def power(self) -> str:
        """``could show differences from 12 % on; 10 % takes 14 blocks``; "" where the scatter is not known."""
        if not math.isfinite(self.shows):
            return ""
        shows = f"could show differences from {in_percent(self.shows)} on"
        if self.shows > VAST:
            shows = f"could show differences of {in_percent(self.shows)} alone"
        return f"{shows}; 10 % takes {self.needs:,.0f} {self.per}"


VAST = 100
"""A difference of more times than that is told as such: nobody asks how much more."""

JUDGED = tuple(each.name for each in fields(Judgement))
"""The columns that `judge` adds to a table, besides ``claim``."""


def judgement(row: Mapping[Any, Any]) -> Judgement:
    """That of a row of a judged table."""
    return Judgement(**{**{name: row[name] for name in JUDGED}, "verdict": Verdict(row["verdict"])})


def in_percent(ratio: float) -> str:
    """How much more a ratio above 1 is: ``12 %``, ``0.4 %``; from a doubling on a multiple, ``2.5 ×``. What is beyond
    `VAST` is all the same.
    """
    if ratio > VAST:
        return f"more than {VAST} ×"
    if ratio >= 2:
        return f"{ratio:.2g} ×"
    return f"{100 * (ratio - 1):.2g} %"


def judge(table: pd.DataFrame, families: pd.Series, *, per: str = "blocks") -> pd.DataFrame:
    """``table`` with the columns of `JUDGED` and ``claim``, in the same order.

    It has the columns of `lab.analysis.inference.estimate.estimates`, and ``bar``: why no difference may be claimed
    whatever the numbers say; "" mostly. ``bar_same`` says as much of "the same"; where there is no such column, what
    stands against the one stands against the other. ``families`` names that of each row: one that begins with
    `HEADLINE` is corrected by Holm, all others by the false discovery rate. What follows a colon tells families of
    one kind apart. ``per`` says what an independent observation is.
    """
    judged = table.reset_index(drop=True)
    of = families.to_numpy(dtype=np.str_)
    p, same, units, scatter = judged[["p", "same", "units", "scatter"]].to_numpy(dtype=np.float64).T
    corrected, together, shows, needs = np.full((4, len(judged)), math.nan)
    for name in np.unique(of):
        rows, is_headline = of == name, name.startswith(HEADLINE)
        corrected[rows], together[rows] = adjusted(p[rows], is_headline), adjusted(same[rows], is_headline)
        level = _level(corrected[rows], is_headline)
        shows[rows] = shown(units[rows], scatter[rows], level)
        needs[rows] = needed(scatter[rows], level, DETECTED)
    against_same = judged["bar_same" if "bar_same" in judged else "bar"].to_numpy()
    different = (corrected <= ALPHA) & (judged["bar"].to_numpy() == "")  # NaN is not below anything
    alike = together <= ALPHA
    proven = alike & (against_same == "") & ~different
    verdicts = np.select([different, proven], [str(Verdict.DIFFERENT), str(Verdict.SAME)], str(Verdict.OPEN))
    judged = judged.assign(
        per=per, family=[str(name).partition(":")[0] for name in of], adjusted=corrected, shows=shows, needs=needs,
        verdict=verdicts,
    )  # fmt: skip
    bars = np.where(judged["bar"] == "", np.where(alike, against_same, ""), judged["bar"])
    whys = [_why(row, bar) for row, bar in zip(judged.to_dict("records"), bars, strict=True)]
    return judged.assign(why=whys, claim=different)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """statsmodels collects garbage after each correction by Holm, which takes a large process a quarter of a second:
    what is there already is kept out of it.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def adjusted(p_values: Floats, is_headline: bool) -> Floats:
    """Corrected for being one of many; NaN is left out of the count and stays NaN."""
    found, known = np.full(len(p_values), math.nan), ~np.isnan(p_values)
    if known.any():
        from statsmodels.stats.multitest import multipletests

        with _without_collecting():
            found[known] = multipletests(p_values[known], ALPHA, method="holm" if is_headline else "fdr_bh")[1]
    return found


def _level(of_family: Floats, is_headline: bool) -> float:
    """At which one more of a family would be claimed: Holm's first step, or the next of Benjamini and Hochberg."""
    count = max(int((~np.isnan(of_family)).sum()), 1)
    return ALPHA / count if is_headline else ALPHA * min(int((of_family <= ALPHA).sum()) + 1, count) / count


def _why(row: Mapping[Any, Any], bar: str) -> str:
    """What stands against a difference; "" for one. ``bar`` is what does whatever the numbers say."""
    if row["verdict"] == Verdict.DIFFERENT:
        return ""
    if bar and row["verdict"] != Verdict.SAME:
        return bar
    if math.isnan(row["ratio"]):
        return "no ratio of values that are not positive"
    if row["units"] < FEWEST or math.isnan(row["p"]):
        return f"{row['units']:.0f} shared {row['per']} are too few"
    if row["verdict"] == Verdict.SAME:
        return f"any difference is smaller than {WITHIN}"
    if row["p"] <= ALPHA:
        name = "Holm" if row["family"] == HEADLINE else "Benjamini and Hochberg"
        return f"one of many comparisons: p = {row['adjusted']:.2g}, corrected by {name}"
    return "the interval holds 1"
