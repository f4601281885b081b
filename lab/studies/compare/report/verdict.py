"""The first screen's words: the warning that weighs most, and the verdict in three sentences.

Both are made from the run's data, and from nothing else; the multiples in them come from the judge of the ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.analysis.findings import Finding, Kind, Severity
from lab.analysis.inference.judge import WITHIN, Verdict
from lab.analysis.quantities import format_ratio, format_value
from lab.analysis.readiness import leading
from lab.model import Accelerator
from lab.reports.answers import Probe
from lab.reports.material import Material, Ratio
from lab.reports.words.readiness import achieves
from lab.reports.words.statements import nothing
from lab.results.record import Arm

SENTENCES = 3

GRAVITY = (Kind.PARITY, Kind.TWIN, Kind.EMULATED, Kind.FAILED, Kind.ISOLATION, Kind.NO_TWIN, Kind.NOISY_HOST)
"""Which of two equally severe findings is told first: the one that makes more of the comparison doubtful."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """How a quantity is spoken of. ``base`` tells the baseline's value, with ``{arm}`` and ``{value}``; ``verb`` and
    ``times`` tell another arm's: "takes 71 times as long (5.33 s)".
    """

    quantity: str
    state: str = ""
    base: str
    verb: str
    times: str


def gravest_first(found: Sequence[Finding]) -> list[Finding]:
    """The findings by severity, then by what they make doubtful."""
    severities, kinds = list(Severity), [*GRAVITY, *(kind for kind in Kind if kind not in GRAVITY)]
    return sorted(found, key=lambda each: (severities.index(each.severity), kinds.index(each.kind)))


def verdict(material: Material) -> list[str]:
    """At most three plain sentences: time, memory, isolation, and what else there is where one is missing."""
    told = [
        *(f"{each.sentence} {each.sure}" for each in nothing(material)),
        _cost(material, _start(material)), _cost(material, MEMORY), _isolation(material),
        *(_cost(material, subject) for subject in _others(material)),
    ]  # fmt: skip
    return [each for each in told if each][:SENTENCES]


MEMORY = Subject(
    quantity="memory.pss", state="idle", base="At idle {arm} occupies {value} of the host's memory",
    verb="occupies", times="times as much",
)  # fmt: skip


def _start(material: Material) -> Subject:
    return Subject(
        quantity=leading(material.run), base=f"{{arm}} {achieves(material.run)} {{value}} after the request",
        verb="takes", times="times as long",
    )  # fmt: skip


def _others(material: Material) -> list[Subject]:
    own = [
        Subject(
            quantity=name, base=f"{material.label(name)}: {{arm}} has {{value}}", verb="has", times="times as much"
        )
        for name in list(material.figures)[:1]
    ]
    return [
        *own,
        Subject(
            quantity="cpu.per_1000_requests", base="The host spends {value} of CPU time on 1,000 requests to {arm}",
            verb="costs", times="times as much",
        ),
        Subject(
            quantity="load.requests_per_second", base="{arm} answers {value}", verb="answers",
            times="times as many",
        ),
    ]  # fmt: skip


def _cost(material: Material, subject: Subject) -> str:
    """What the baseline needs, for whom no difference from it is proven, how many times as much others need, and who
    failed so often that nobody knows.
    """
    quantity, state = subject.quantity, subject.state
    base = material.value(quantity, material.baseline, state)
    failed = [
        f"of {_named(arm)} {said}" for arm in material.arms if (said := material.lost(quantity, arm.label, state))
    ]
    if base is None:
        return f"{material.label(quantity)}: nothing can be compared, {_and(failed)}." if failed else ""
    others: list[tuple[Arm, str, Ratio | None]] = []
    for arm in material.arms:
        value = material.value(quantity, arm.label, state)
        if value is not None and arm.label != material.baseline:
            told = [format_value(value.median, value.unit), material.beside(quantity, arm.label, state)]
            others.append((arm, ", ".join(filter(None, told)), material.ratio(quantity, arm.label, state)))
    first = next(arm for arm in material.arms if arm.label == material.baseline)
    parts = [subject.base.format(arm=_named(first), value=format_value(base.median, base.unit))]
    same = [_named(arm, value) for arm, value, ratio in others if _is(ratio, Verdict.SAME)]
    if same:
        parts.append(f"{_and(same)} {'is' if len(same) == 1 else 'are'} proven to be the same within {WITHIN}")
    alike = [_named(arm, value) for arm, value, ratio in others if ratio is None or _is(ratio, Verdict.OPEN)]
    if alike:
        parts.append(f"for {_and(alike)} no difference from that is proven")
    claimed = [
        f"{_named(arm)} {subject.verb} {format_ratio(ratio.ratio).removesuffix(' ×')} {subject.times} ({value})"
        for arm, value, ratio in others
        if ratio is not None and ratio.claim
    ]
    if claimed:
        parts.append(_and(claimed))
    return f"{'; '.join([*parts, *failed])}."


def _is(ratio: Ratio | None, verdict: Verdict) -> bool:
    return ratio is not None and ratio.judged.verdict is verdict


def _isolation(material: Material) -> str:
    probes = material.isolation
    counts = [(arm, count) for arm in material.arms if (count := _counted(probes, arm, "open")) is not None]
    if not counts:
        return ""
    some = [f"{count} from {arm.label}" for arm, count in counts if count]
    none = [arm.label for arm, count in counts if not count]
    unknown = sorted({_counted(probes, arm, "unknown") or 0 for arm, _ in counts})
    asked = f"Of {len(probes)} questions asked from inside"
    if some:
        parts = [f"{asked}, {_and(some)} met something of the host's"]
        parts += [f"from {_and(none, 'or')} no answer did"] if none else []
    else:
        parts = [f"{asked}, none from {_and(none, 'or')} met anything of the host's"]
    if unknown[-1]:
        parts.append(f"{' to '.join(map(str, dict.fromkeys((unknown[0], unknown[-1]))))} of them got no answer")
    return f"{'; '.join(parts)}."


def _counted(probes: Sequence[Probe], arm: Arm, reach: str) -> int | None:
    """How many answers of ``arm`` are of that reach; None where it was asked nothing."""
    asked = [probe.cells[arm.label] for probe in probes if arm.label in probe.cells]
    return sum(cell.reach == reach for cell in asked) if asked else None


def _named(arm: Arm, value: str = "") -> str:
    """``vm (emulated, 10.3 s)``: what must be known of the arm whenever a time of it is told, and its value."""
    emulated = "emulated" if arm.nested or arm.accelerator is Accelerator.TCG else ""
    aside = ", ".join(filter(None, ("another system" if arm.foreign else "", emulated, value)))
    return f"{arm.label} ({aside})" if aside else arm.label


def _and(texts: Sequence[str], word: str = "and") -> str:
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} {word} {texts[-1]}"
