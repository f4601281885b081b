"""What a reader must know before believing the figures: typed findings, each with advice.

A finding says what was seen and what to do about it. It never changes a number and never drops one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis import noise
from lab.analysis.checks import caches, crossings, merging, placement
from lab.analysis.data import TWIN, Observed, detail
from lab.analysis.inference import statistics as st
from lab.analysis.inference.estimate import FEWEST
from lab.analysis.inference.judge import TWIN as FAMILY_OF_TWIN
from lab.analysis.precision import in_percent, widths
from lab.analysis.quantities import format_ratio, format_value, is_key, label, some
from lab.analysis.readiness import called
from lab.host.survey.virtualisation import NESTED
from lab.model import Accelerator
from lab.results.record import Arm, Ending, Status

NOISY = 0.10
"""A scatter (scaled MAD over median) above this is worth saying."""
DRIFTING_Z, DRIFTING_CHANGE, DRIFTING_BLOCKS = 2.58, 0.05, 6
CLUSTERED_GAP, CLUSTERED_COUNT = 2.0, 10
COARSE = 0.10
RESTORED_PAGES = {"container": "how-a-container-starts", "gvisor": "gvisor"}  # all others': how-a-vm-starts


class Kind(StrEnum):
    """What a finding is about."""

    FAILED = "failed instances"
    INCONCLUSIVE = "inconclusive probes"
    INTERRUPTED = "run ended early"
    FEW_BLOCKS = "few blocks"
    PRECISION = "precision not reached"
    EMULATED = "emulation"
    NO_TWIN = "no A/A pair"
    TWIN = "A/A pair differs"
    NOISE = "noise"
    DRIFT = "drift"
    CLUSTERS = "two clusters"
    CACHES = "caches"
    KSM = "ksm"
    NOISY_HOST = "noisy host"
    HOST_DRIFT = "host drift"
    OTHER_LOAD = "other load"
    STEAL = "steal"
    FREQUENCY = "frequency change"
    EXCLUDED = "excluded blocks"
    COARSE = "coarse polling"
    RESTORED = "restored"
    PARITY = "parity"
    ISOLATION = "isolation"


class Severity(StrEnum):
    """How much a finding weighs."""

    SERIOUS = "serious"  # a conclusion may be wrong
    WARNING = "warning"  # a conclusion is weaker than it looks
    NOTE = "note"  # good to know


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence about what was seen, one that advises."""

    kind: Kind
    severity: Severity
    sentence: str
    advice: str


def findings(loaded: Observed, ratios: pd.DataFrame) -> tuple[Finding, ...]:
    """Everything there is to warn of: a backend that differs from itself before all else, then the most serious
    first.

    ``ratios`` is lab.analysis.compare.ratios()'s.
    """
    detectors = (
        _failed, _inconclusive, _interrupted, _parity, _isolation, emulated, few_blocks, _imprecise, _noise, _drift,
        _clusters, _coarse, _restored, _host, _excluded,
    )  # fmt: skip
    found = [finding for detect in detectors for finding in detect(loaded)]
    found += _twin(loaded, ratios) if loaded.blocks else ()
    return tuple(
        sorted(found, key=lambda finding: (finding.kind is not Kind.TWIN, list(Severity).index(finding.severity)))
    )


def _failed(loaded: Observed) -> Iterator[Finding]:
    frame = loaded.frame[loaded.frame["arm"] != ""]  # and not what was observed of the host itself
    bad = frame[(frame["status"] != Status.OK) & (frame["unit"] != "answer")].drop_duplicates("instance")
    if bad.empty:
        return
    total = frame["instance"].nunique()
    cases = [
        f"{row.arm} in {_when(row.block)} ({row.status}{_because(own_words(str(row.text), str(row.instance)))})"
        for row in bad.itertuples()
    ]
    yield Finding(
        kind=Kind.FAILED,
        severity=Severity.SERIOUS,
        sentence=f"{len(bad)} of {total} instances failed or ran out of time: {some(cases)}.",
        advice=f"They count as failures, never as fast. Read logs/{bad.iloc[0]['instance']}/ and the others' logs.",
    )


def _inconclusive(loaded: Observed) -> Iterator[Finding]:
    answers = loaded.answers
    bad = answers[answers["status"] != Status.OK]
    if not bad.empty:
        where: dict[str, list[str]] = {}
        for row in bad.itertuples():
            where.setdefault(str(row.quantity).removeprefix("isolation."), []).append(str(row.arm))
        cases = [f"{probe} ({', '.join(arms)})" for probe, arms in where.items()]
        yield Finding(
            kind=Kind.INCONCLUSIVE,
            severity=Severity.WARNING,
            sentence=f"{_count(len(where), 'isolation question')} could not be answered everywhere: {some(cases)}.",
            advice="Such a cell says nothing, neither good nor bad. Its evidence tells why.",
        )


def own_words(text: str, instance: str) -> str:
    """What was recorded of an instance's failure without its name, which the reader is told anyway."""
    return text.removeprefix(f"{instance} ")


def _when(block: Any) -> str:
    return f"block {block}" if block > 0 else "the warm-up"


def _because(text: str) -> str:
    return f": {text}" if text else ""


def _interrupted(loaded: Observed) -> Iterator[Finding]:
    because = loaded.run.ended_because
    if because in list(Ending):
        return
    yield Finding(
        kind=Kind.INTERRUPTED,
        severity=Severity.WARNING,
        sentence=f"The run is not complete: it ended with “{because}”." if because else "The run has not ended yet.",
        advice="Read the logs, and mend what is wrong; then start a new run."
        if because.startswith("error:") and not loaded.blocks
        else f"Continue it: lab compare --resume {loaded.run.name}",
    )


def few_blocks(loaded: Observed) -> Iterator[Finding]:
    """How little may be claimed from so few repetitions."""
    blocks = loaded.blocks
    if blocks >= 6:
        return
    if blocks < FEWEST:
        yield Finding(
            kind=Kind.FEW_BLOCKS,
            severity=Severity.WARNING,
            sentence=f"{_count(blocks, 'block')} is too little for any interval."
            if blocks
            else "Nothing was measured.",
            advice="Nothing is claimed."
            if not blocks
            else "Nothing is claimed. Repeat with --blocks 10 or a larger --budget.",
        )
        return
    reach = 100 * st.reachable_level(blocks)
    yield Finding(
        kind=Kind.FEW_BLOCKS,
        severity=Severity.WARNING,
        sentence=f"With {_count(blocks, 'block')} even the range from the smallest to the largest value holds the "
        f"true median only {reach:.3g} % of the time: intervals of 95 % rest on Student's t, and are wide.",
        advice="Small differences are rarely proven so. Repeat with --blocks 10 or a larger --budget for them.",
    )


def _imprecise(loaded: Observed) -> Iterator[Finding]:
    asked = loaded.run.settings.get("precision")
    if asked is None or loaded.run.ended_because == Ending.PRECISION:
        return
    wide = {arm: width for arm, width in widths(loaded.frame).items() if width > asked}
    cases = [f"{arm} {in_percent(width)}" for arm, width in wide.items()]
    if cases:
        yield Finding(
            kind=Kind.PRECISION,
            severity=Severity.WARNING,
            sentence=f"Intervals of the median boot are wider than the asked {in_percent(asked)}: {some(cases)}.",
            advice="A larger --budget allows more blocks; half the width takes four times as many.",
        )


def emulated(loaded: Observed) -> Iterator[Finding]:
    """That times of an emulated host, or of emulated machines, say nothing about hardware."""
    if loaded.run.emulated:
        yield Finding(
            kind=Kind.EMULATED,
            severity=Severity.SERIOUS,
            sentence=f"The host itself was {loaded.run.host['platform']['title']}. {NESTED}, and neither do those of "
            "bare processes.",
            advice="Sizes, counts and answers are right. For times, repeat on hardware or in a virtual machine under "
            "KVM.",
        )
    arms = [arm.label for arm in loaded.references if arm.accelerator is Accelerator.TCG]
    if arms:
        yield Finding(
            kind=Kind.EMULATED,
            severity=Severity.SERIOUS,
            sentence=f"{some(arms)} ran under TCG, which emulates every instruction in software because KVM was not "
            "usable here.",
            advice="Time, CPU and load of these say nothing about hardware virtualisation. Repeat on a host where "
            "“lab doctor” proves KVM.",
        )


def _noise(loaded: Observed) -> Iterator[Finding]:
    cases = []
    for quantity, state, arm, values in _key_series(loaded):
        middle = float(np.median(values))
        if len(values) >= 3 and middle > 0 and (scatter := st.MAD_TO_SIGMA * st.mad(values) / middle) > NOISY:
            cases.append((scatter, f"{_series_name(quantity, state)} of {arm} (±{100 * scatter:.0f} %)"))
    if cases:
        worst_first = [text for _, text in sorted(cases, reverse=True)]
        yield Finding(
            kind=Kind.NOISE,
            severity=Severity.WARNING,
            sentence=f"Repetitions scatter by more than {100 * NOISY:.0f} %: {some(worst_first)}.",
            advice="Close what else runs on the host, fix the CPU frequency, or measure more blocks.",
        )


def _drift(loaded: Observed) -> Iterator[Finding]:
    cases = []
    for quantity, state, arm, values in _key_series(loaded):
        middle = float(np.median(values))
        if len(values) < DRIFTING_BLOCKS or middle <= 0 or abs(st.kendall_z(values)) < DRIFTING_Z:
            continue
        change = st.slope(values) * (len(values) - 1) / middle
        if abs(change) > DRIFTING_CHANGE:
            cases.append(f"{_series_name(quantity, state)} of {arm} ({100 * change:+.0f} %)")
    if cases:
        yield Finding(
            kind=Kind.DRIFT,
            severity=Severity.WARNING,
            sentence=f"Values moved steadily from the first block to the last: {some(cases)}.",
            advice="Something warmed up, filled up or slowed down. Random order spreads it over all arms.",
        )


def _clusters(loaded: Observed) -> Iterator[Finding]:
    cases = [
        f"{_series_name(quantity, state)} of {arm}"
        for quantity, state, arm, values in _key_series(loaded)
        if len(values) >= CLUSTERED_COUNT and st.gap_ratio(values) > CLUSTERED_GAP
    ]
    if cases:
        yield Finding(
            kind=Kind.CLUSTERS,
            severity=Severity.WARNING,
            sentence=f"Values fall into two groups with nothing between: {some(cases)}.",
            advice="A median between two groups describes neither. Look at the plot and the logs for what differs.",
        )


def _coarse(loaded: Observed) -> Iterator[Finding]:
    measured = loaded.measured
    polled = measured[(measured["resolution"] > COARSE * measured["value"].abs()) & measured["value"].notna()]
    if not polled.empty:
        cases = sorted({f"{_called(str(row.quantity), loaded)} of {row.arm}" for row in polled.itertuples()})
        yield Finding(
            kind=Kind.COARSE,
            severity=Severity.WARNING,
            sentence=f"Polling was coarser than {100 * COARSE:.0f} % of the value: {some(cases)}.",
            advice="Read these values with the resolution printed beside them.",
        )


def _called(quantity: str, loaded: Observed) -> str:
    """Its name in this run: ``first answer``, ``port open``, as what was waited for has it."""
    known = called(quantity, loaded.run)
    return known.label if known else label(quantity)


def _host(loaded: Observed) -> Iterator[Finding]:
    told = (each for one in (noise, caches, merging, crossings) for each in one.remarks(loaded.frame))
    for one in (*told, *placement.remarks(loaded)):
        yield Finding(kind=Kind(one.kind), severity=Severity.WARNING, sentence=one.sentence, advice=one.advice)


def _excluded(loaded: Observed) -> Iterator[Finding]:
    factor = loaded.run.settings.get("exclude_noisy")
    if factor and loaded.excluded:
        blocks = some([str(block) for block in loaded.excluded])
        yield Finding(
            kind=Kind.EXCLUDED,
            severity=Severity.NOTE,
            sentence=f"{_count(len(loaded.excluded), 'block')} of {len(loaded.excluded) + loaded.blocks} ({blocks}) "
            "left out of every statistic, by the rule declared before the first: a fixed computation took more than "
            f"{factor:g} times its median there.",
            advice="Their samples are in the folder, and marked in samples.csv.",
        )


def _restored(loaded: Observed) -> Iterator[Finding]:
    saved = loaded.measured[loaded.measured["quantity"].str.startswith("snapshot.")]
    if len(sizes := saved.groupby(["arm", "quantity"])["value"].median().groupby("arm").sum()):
        cases = [f"{arm} from {format_value(float(size), 'bytes')}" for arm, size in sizes.items()]
        pages = {f"docs/{RESTORED_PAGES.get(backend, 'how-a-vm-starts')}.md" for backend in saved["backend"]}
        yield Finding(
            kind=Kind.RESTORED,
            severity=Severity.NOTE,
            sentence=f"Some went on from a saved one instead of booting: {some(cases)} on disk or in memory. The "
            "boot that was saved, and the writing, are in no figure.",
            advice="It pays where many start from one. What was random or remembered when it was saved, they share: "
            f"see “Restored instead of …” in {' and '.join(sorted(pages))}.",
        )


def _parity(loaded: Observed) -> Iterator[Finding]:
    for arm in loaded.arms:
        mismatch = parity_mismatch(loaded, arm)
        if mismatch:
            yield Finding(
                kind=Kind.PARITY,
                severity=Severity.SERIOUS,
                sentence=f"{arm.label} did not run what the others ran: {mismatch}.",
                advice="Don't compare it. Build the image again and repeat the run.",
            )
    if foreign := [arm.label for arm in loaded.references if arm.foreign]:
        mixed = len(foreign) < len(loaded.references)
        own = " What the boundary costs, lab's own vm shows, which runs the same image." if mixed else ""
        yield Finding(
            kind=Kind.PARITY,
            severity=Severity.SERIOUS if mixed else Severity.WARNING,
            sentence=f"{some(foreign)} {'boots a system' if len(foreign) == 1 else 'boot systems'} that lab did not "
            "make, and nothing of lab's is inside: whether the same application answers there is not known.",
            advice=f"Read their figures as those of whole systems.{own}",
        )
    different = [arm.label for arm in loaded.references if arm.differences]
    if different:
        yield Finding(
            kind=Kind.PARITY,
            severity=Severity.NOTE,
            sentence=f"Not everything could be made equal: {some(different)} "
            f"{'list' if len(different) > 1 else 'lists'} what differs all the same.",
            advice="Read it under “Were they the same?” before you explain a result by the boundary alone.",
        )


def parity_mismatch(loaded: Observed, arm: Arm) -> str:
    """How the files seen inside ``arm`` differ from the image; empty when they are the same or were not checked."""
    seen = loaded.run.parity.get(arm.label)
    digest = seen if isinstance(seen, str) else _digest(seen)
    wanted = _digest(loaded.image_of(arm))
    return f"manifest {digest} instead of {wanted}" if digest and wanted and digest != wanted else ""


def _digest(raw: Any) -> str:
    if not isinstance(raw, Mapping):
        return ""
    for key in ("manifest", "manifest_digest"):
        if raw.get(key):
            return str(raw[key])
    return ""


def _isolation(loaded: Observed) -> Iterator[Finding]:
    seen: dict[str, None] = {}
    for row in loaded.every_answer.itertuples():
        raw: dict[str, Any] = row.detail if isinstance(row.detail, dict) else {}
        if differs(raw, str(row.text)):
            who, question = str(row.backend) or "an escaped process", detail(raw, "question") or str(row.quantity)
            why = f" ({detail(raw, 'surprise')})" if detail(raw, "surprise") else ""
            seen[f"{who} – {question} “{row.text}” instead of “{detail(raw, 'expected')}”{why}"] = None
    if seen:
        yield Finding(
            kind=Kind.ISOLATION,
            severity=Severity.SERIOUS,
            sentence=f"A boundary answered otherwise than expected: {some(list(seen))}.",
            advice="The boundary, the host's set-up or the expectation is wrong: read the evidence in the matrix, "
            "and what lab isolation explain says.",
        )


def differs(raw: dict[str, Any], answer: str) -> bool:
    """Whether a probe's answer is another than the expected one."""
    if raw.get("as_expected") is not None:
        return not raw["as_expected"]
    expected = detail(raw, "expected")
    return bool(expected) and expected != answer


def _twin(loaded: Observed, ratios: pd.DataFrame) -> Iterator[Finding]:
    if not loaded.measured["arm"].str.endswith(TWIN).any():
        yield Finding(
            kind=Kind.NO_TWIN,
            severity=Severity.WARNING,
            sentence="No backend was measured against itself, so a defect of the run that makes equal things differ "
            "could not be seen.",
            advice="Run lab compare with its A/A pair.",
        )
        return
    if not loaded.twin_alike:
        yield Finding(
            kind=Kind.NO_TWIN,
            severity=Severity.NOTE,
            sentence="The second label of the A/A pair was treated otherwise than the first "
            f"({loaded.run.settings['twin']}), by an earlier version of lab: it is compared in boots alone.",
            advice="Measure again for a whole A/A pair.",
        )
    differing = ratios[(ratios["family"] == FAMILY_OF_TWIN) & ratios["claim"]]
    cases = [
        f"{_series_name(str(row['quantity']), str(row['state']))} by {format_ratio(float(row['ratio']))}"
        for row in differing.sort_values("adjusted").to_dict("records")
    ]
    if cases:
        yield Finding(
            kind=Kind.TWIN,
            severity=Severity.SERIOUS,
            sentence=f"The same backend, measured twice under two labels ({differing.iloc[0]['arm']}), differs from "
            f"itself: {some(cases)}. By chance that happens to one run in twenty.",
            advice="Something in this run makes equal things differ. Don't believe its differences of that size "
            "before another run repeats them.",
        )


def _key_series(loaded: Observed) -> Iterator[tuple[str, str, str, st.Floats]]:
    """Every key quantity's successful values per state and arm, in the order they were made."""
    frame = loaded.measured
    frame = frame[frame["quantity"].map(is_key).astype(bool) & frame["value"].notna()]
    for key, group in frame.groupby(["quantity", "state", "arm"], sort=False, observed=True):
        yield str(key[0]), str(key[1]), str(key[2]), group["value"].to_numpy(dtype=np.float64)


def _series_name(quantity: str, state: str) -> str:
    return f"{label(quantity)}, {state}" if state else label(quantity)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
