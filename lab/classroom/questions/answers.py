"""What a run answers to an expression: a value with its interval, or a word; or why it can't tell.

Nothing is ever made up: an arm, a state, a probe or a study that the run has not is an `Unanswered` with its reason.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.data import counted
from lab.analysis.inference.estimate import FEWEST, estimates
from lab.analysis.inference.judge import WITHIN, Verdict
from lab.analysis.loaded import Loaded
from lab.analysis.quantities import format_interval, format_ratio, format_ratios, format_value, label
from lab.analysis.summary import one
from lab.classroom.questions.expressions import TIMES, Expression, Form
from lab.model import Accelerator
from lab.results.record import Arm, Status

EMULATED = "{} ran under emulation (TCG): its times, CPU and load say nothing about hardware virtualisation."
QUIET, RATE = "quiet", "noisy.rate"
IMAGE = {Form.IMAGE_LAYERS: "layers", Form.IMAGE_FILES: "files", Form.IMAGE_SIZE: "size_bytes"}
ANSWER_SAYS = {
    "yes": "yes, on the host",
    "host": "it is the host's",
    "no limit": "there is no limit",
    "no": "no",
    "effective": "yes, the limit holds",
    "own": "it is one of its own",
    "guest": "yes, on its own kernel only",
}
"""What the answers of `lab isolation` mean, in a class."""
WORD_SAYS = {
    "more": "more, proven",
    "less": "less, proven",
    "same": f"the same within {WITHIN}, proven",
    "open": "not proven either way",
}
KERNEL_SAYS = {"host": "the host's kernel", "own": "a kernel of its own"}
FILES_SAY = {"same": "the same files, bit for bit", "different": "different files"}
RUN_BY = {
    Accelerator.NATIVE: "the processor, natively",
    Accelerator.KVM: "the processor, by KVM",
    Accelerator.TCG: "software: QEMU's emulation (TCG)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was measured: ``value`` in ``unit`` with its interval of 95 % (NaN where it has none), or a ``word``.

    ``says`` is that for people; ``sure`` the interval and what it is made of; ``notes`` what else to mind.
    """

    says: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    word: str = ""
    sure: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """Why this run can't tell."""

    reason: str


@dataclass(slots=True)
class Evaluator:
    """Answers expressions from one run; tables that several of them need are made once."""

    loaded: Loaded
    _summary: pd.DataFrame | None = None
    _ratios: dict[str, pd.DataFrame] = field(default_factory=dict)

    def __call__(self, expression: Expression) -> Answer | Unanswered:
        """Never raises for what a run lacks."""
        arms = {arm.label: arm for arm in self.loaded.all_arms}
        for name in expression.arms:
            if name not in arms:
                return Unanswered(reason=f"this run has no {name}; it has {', '.join(arms)}")
        return _ASK[expression.form](self, expression, [arms[name] for name in expression.arms])

    def summary(self) -> pd.DataFrame:
        if self._summary is None:
            self._summary = self.loaded.summary()
        return self._summary

    def ratios(self, baseline: str) -> pd.DataFrame:
        if baseline not in self._ratios:
            self._ratios[baseline] = self.loaded.ratios(baseline)
        return self._ratios[baseline]


def _value(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    row = one(ask.summary(), of.quantity, arms[0].label, of.state or None)
    if row is None:
        return _not_measured(ask, of)
    if math.isnan(row["median"]):
        return Unanswered(reason=f"no instance of {arms[0].label} succeeded")
    interval = format_interval(row["low"], row["high"], row["unit"])
    return Answer(
        says=format_value(row["median"], row["unit"]), value=row["median"], low=row["low"], high=row["high"],
        unit=row["unit"], sure=_sure(interval, int(row["n"]), "observations"), notes=_timed(of, arms),
    )  # fmt: skip


def _ratio(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    row = _row_of_ratio(ask, of, arms)
    if isinstance(row, Unanswered):
        return row
    return Answer(
        says=format_ratio(row["ratio"]), value=row["ratio"], low=row["low"], high=row["high"], unit=TIMES,
        sure=_sure(format_ratios(row["low"], row["high"]), int(row["n"]), "blocks"), notes=_timed(of, arms),
    )  # fmt: skip


def _verdict(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    row = _row_of_ratio(ask, of, arms)
    if isinstance(row, Unanswered):
        return row
    word = {Verdict.SAME: "same", Verdict.OPEN: "open"}.get(Verdict(row["verdict"]))
    word = word or ("more" if row["ratio"] > 1 else "less")
    interval = (
        f"{format_ratio(row['ratio'])}; {_sure(format_ratios(row['low'], row['high']), int(row['n']), 'blocks')}"
    )
    why = (f"Why: {row['why']}.",) if row["why"] else ()
    return Answer(says=WORD_SAYS[word], word=word, sure=interval, notes=(*why, *_timed(of, arms)))


def _row_of_ratio(ask: Evaluator, of: Expression, arms: list[Arm]) -> dict[str, Any] | Unanswered:
    above, below = (arm.label for arm in arms)
    row = one(ask.ratios(below), of.quantity, above, of.state or None)
    if row is None or row["baseline"] != below:
        return _not_measured(ask, of)
    if math.isnan(row["ratio"]):
        return Unanswered(reason=f"there is no ratio of {above} to {below}: {row['why'] or 'no pair succeeded'}")
    return row


def _scatter(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    row = one(ask.summary(), of.quantity, arms[0].label, of.state or None)
    if row is None or not row["median"] > 0:
        return _not_measured(ask, of)
    scaled = 1.4826 * row["mad"] / row["median"]  # of a normal distribution this is its standard deviation
    return Answer(
        says=f"± {scaled:.0%}".replace("%", " %"), value=scaled, unit="1",
        sure=f"from {int(row['n'])} observations: the median absolute deviation, scaled, over the median",
        notes=_timed(of, arms),
    )  # fmt: skip


def _longest(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    rows = counted(ask.loaded.frame)
    rows = rows[(rows["arm"] == arms[0].label) & rows["quantity"].isin(of.words) & rows["value"].notna()]
    if rows.empty:
        return _not_measured(ask, of)
    longest = [str(each["quantity"].iloc[int(each["value"].argmax())]) for _, each in rows.groupby("instance")]
    word, times = Counter(longest).most_common(1)[0]
    median = float(rows[rows["quantity"] == word]["value"].median())
    return Answer(
        says=f"“{label(word)}”, {format_value(median, 'seconds')}", word=word,
        sure=f"the longest in {times} of {len(longest)} starts", notes=_timed(of, arms),
    )  # fmt: skip


def _answer(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    arm, probe = of.arguments
    rows = ask.loaded.answers
    rows = rows[(rows["arm"] == arm) & (rows["quantity"] == f"isolation.{probe}")]
    if rows.empty:
        return Unanswered(reason=f"this run did not ask {probe} of {arm}")
    row = rows.iloc[0]
    if row["status"] != Status.OK:
        return Unanswered(reason=f"{probe} could not be answered on this host: {row['detail'].get('evidence', '')}")
    reach = str(row["detail"].get("reach", ""))
    said = f"Asked: {row['detail'].get('question', probe)} Seen: {row['detail'].get('evidence', '')}"
    return Answer(
        says=ANSWER_SAYS.get(str(row["text"]), str(row["text"])),
        word=reach,
        sure="asked from inside, by trying",
        notes=(said,),
    )


def _count(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    arm, reach = of.arguments
    rows = ask.loaded.answers
    rows = rows[rows["arm"] == arm].drop_duplicates("quantity")
    if rows.empty:
        return Unanswered(reason=f"this run asked {arm} no isolation questions")
    known = rows["status"] == Status.OK
    reaches = rows["detail"].map(lambda detail: detail.get("reach", "")).where(known, "unknown")
    number = int((reaches == reach).sum())
    return Answer(says=f"{number} of {len(rows)}", value=float(number), unit="1",
                  sure="counted; not a score, and not how hard it is to break")  # fmt: skip


def _kernel(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    word = "own" if arms[0].has_own_kernel else "host"
    return Answer(says=KERNEL_SAYS[word], word=word, sure=f"it calls itself {arms[0].kernel}")


def _accelerator(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    by = arms[0].accelerator
    return Answer(says=RUN_BY[by], word=str(by), sure="stamped on every sample")


def _files(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    digests = [str(ask.loaded.run.parity.get(arm.label, {}).get("manifest_digest", "")) for arm in arms]
    if not all(digests):
        return Unanswered(reason="this run did not compare the files inside")
    word = "same" if len(set(digests)) == 1 else "different"
    number = ask.loaded.run.image.get("files", 0)
    sure = f"{number:,} files listed inside with mode, owner and hash: {' and '.join(one[:12] for one in digests)}"
    return Answer(says=FILES_SAY[word], word=word, sure=sure)


def _image(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    number = ask.loaded.run.image.get(IMAGE[of.form])
    if not isinstance(number, int):
        return Unanswered(reason="this run does not say that of its image")
    name = str(ask.loaded.run.image.get("name", ""))
    return Answer(
        says=format_value(number, of.unit) if of.unit == "bytes" else f"{number:,}", value=float(number),
        unit=of.unit, sure=f"counted in the image {name}",
    )  # fmt: skip


def _slowdown(ask: Evaluator, of: Expression, arms: list[Arm]) -> Answer | Unanswered:
    arm, kind, condition = of.arguments
    frame = ask.loaded.frame
    rows = frame[(frame["quantity"] == RATE) & (frame["arm"] == arm)]
    rows = rows[rows["detail"].map(lambda each: each.get("limits") == condition.replace("-", " ")).astype(bool)]
    kinds = rows["detail"].map(lambda detail: str(detail.get("kind", "")))
    if not {QUIET, kind} <= set(kinds):
        return Unanswered(reason=f"this run measured no neighbour “{kind}” beside {arm}; that is what lab noisy does")
    blocks = np.sort(rows["block"].unique())
    quiet, disturbed = (
        rows[kinds == one].groupby("block")["value"].median().reindex(blocks).to_numpy(dtype=np.float64)
        for one in (QUIET, kind)
    )
    if np.isnan(disturbed).any():
        return Unanswered(reason=f"beside “{kind}” {arm} answered nobody in some blocks: the slowdown has no number")
    row = estimates(np.log(quiet / disturbed)[None, :]).iloc[0]
    return Answer(
        says=format_ratio(row["ratio"]), value=row["ratio"], low=row["low"], high=row["high"], unit=TIMES,
        sure=_sure(format_ratios(row["low"], row["high"]), len(blocks), "blocks"), notes=_timed(of, arms),
    )  # fmt: skip


def _not_measured(ask: Evaluator, of: Expression) -> Unanswered:
    what = f"{of.quantity or 'phases of a start'}{f', {of.state}' if of.state else ''}"
    return Unanswered(reason=f"this run has no {what} of {' and '.join(of.arms)}")


def _sure(interval: str, number: int, of: str) -> str:
    if interval in ("", "–"):
        return f"{number} {of}, too few for an interval (it takes {FEWEST})"
    return f"95 % interval {interval}, from {number} {of}"


def _timed(of: Expression, arms: list[Arm]) -> tuple[str, ...]:
    """Whatever depends on how fast instructions are executed says so where they were emulated."""
    if of.quantity.startswith("memory."):
        return ()
    return tuple(EMULATED.format(arm.label) for arm in arms if arm.accelerator is Accelerator.TCG)


_ASK = {
    Form.VALUE: _value,
    Form.RATIO: _ratio,
    Form.VERDICT: _verdict,
    Form.SCATTER: _scatter,
    Form.LONGEST: _longest,
    Form.ANSWER: _answer,
    Form.COUNT: _count,
    Form.KERNEL: _kernel,
    Form.ACCELERATOR: _accelerator,
    Form.FILES: _files,
    Form.IMAGE_LAYERS: _image,
    Form.IMAGE_FILES: _image,
    Form.IMAGE_SIZE: _image,
    Form.SLOWDOWN: _slowdown,
}
