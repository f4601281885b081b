"""Tables as data, rendered alike in HTML and Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.analysis.checks import placement
from lab.analysis.data import detail
from lab.analysis.findings import differs
from lab.analysis.inference.judge import VAST, WITHIN, Verdict, in_percent
from lab.analysis.noise import HOST, observations
from lab.analysis.quantities import (
    KEY,
    QUANTITIES,
    SEGMENTS,
    format_interval,
    format_ratio,
    format_ratios,
    format_value,
    is_key,
)
from lab.analysis.readiness import is_empty_segment, leading, until
from lab.reports.answers import SHORTER, WORDS
from lab.reports.charts import compared
from lab.reports.material import FEWEST_FOR_P95, Material, Ratio, Value, stamp
from lab.reports.style import REACH
from lab.results.record import Arm


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A value and what stands small below it. At a column's head, ``arm`` says whose column it is; ``verdict`` what a
    comparison came to, as one word: see `VERDICTS`.
    """

    text: str
    note: str = ""
    arm: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row's header, its explanation, and a cell per column. ``arm`` where the whole row is about one backend."""

    header: str
    note: str = ""
    arm: str = ""
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``columns`` are the headers of the cells; ``corner`` that of the rows' headers."""

    caption: str
    corner: str
    columns: tuple[Cell, ...]
    rows: tuple[Row, ...]


MEMORY = tuple(name for name in QUANTITIES if name.startswith("memory."))
CPU = tuple(name for name in QUANTITIES if name.startswith("cpu."))
LOAD = tuple(name for name in QUANTITIES if name.startswith(("load.", "openloop.")))
SHARES = ("host.steal", "host.pressure.")
JOB = ("job.seconds", "job.total", "job.cpu", "job.memory")
CALLS = ("call.create", "call.start", "call.run")
BOOT = (*SEGMENTS, *CALLS, "boot.total", *JOB, "boot.read", "caches.resident", "teardown.total")


def arm_columns(material: Material) -> tuple[Cell, ...]:
    """A column per backend, with its accelerator."""
    return tuple(Cell(text=arm.label, note=stamp(arm), arm=arm.label) for arm in material.arms)


def quantities(material: Material, names: Sequence[str], caption: str, state: str = "") -> Table:
    """A row per quantity with its definition, a column per backend: median, interval, n."""
    rows = []
    for name in names:
        cells = tuple(_cell(material, name, arm, state) for arm in material.arms)
        if not is_empty_segment(name, material.run) and any(cell.text != "–" for cell in cells):
            rows.append(Row(header=material.label(name), note=material.definition(name), cells=cells))
    return Table(caption=caption, corner="quantity", columns=arm_columns(material), rows=tuple(rows))


def work_names(material: Material) -> list[str]:
    """The quantities of the scenario's own client or job."""
    return [*(name for name in QUANTITIES if name.startswith("work.")), *material.figures]


def work(material: Material) -> Table:
    """What the scenario's own client or job said, in the order in which the scenario declares it."""
    return quantities(material, work_names(material), "The scenario's own work: medians over blocks, 95 % intervals")


def _cell(material: Material, name: str, arm: Arm, state: str) -> Cell:
    tried = material.attempts(name, arm.label, state)
    if tried is None:
        return Cell(text="–")
    if name == "load.latency.p99" and not material.enough_requests(arm.label):
        return Cell(text="–", note="fewer than 300 requests")
    return Cell(text=format_value(tried.median, tried.unit), note=sureness(tried))


def sureness(value: Value) -> str:
    """Interval, n, p95 where it is more than the largest value, polling error and failures of a value."""
    parts = [format_interval(value.low, value.high, value.unit), f"n = {value.n}"]
    if value.n >= FEWEST_FOR_P95:
        parts.append(f"p95 {format_value(value.p95, value.unit)}")
    if value.resolution:
        parts.append(f"±{format_value(value.resolution, value.unit, 2)} polling")
    parts += [
        f"✗ {count} {word}" for count, word in ((value.failed, "failed"), (value.timeout, "timed out")) if count
    ]
    return " · ".join(part.replace(" ", "\u00a0") for part in parts if part != "–")


VERDICTS: Mapping[Verdict, str] = {Verdict.DIFFERENT: "≠", Verdict.SAME: "≈", Verdict.OPEN: ""}
"""The classes of a comparison, and the mark of each; an open one has none, so that what is known stands out."""

HEADLINE = (
    ("memory.pss", "idle", "memory at idle"),
    ("cpu.per_1000_requests", "", "CPU per 1,000 requests"),
    ("load.requests_per_second", "", "answers per second"),
)


def headline(material: Material) -> Table:
    """A row per backend: whose kernel, what it costs, how its probes answered. Nothing is added up to a score."""
    own = [(name, "", material.label(name)) for name in list(material.figures)[:1] or ["work.seconds"]]
    shown = [
        (quantity, state, title)
        for quantity, state, title in ((leading(material.run), "", f"until {until(material.run)}"), *HEADLINE, *own)
        if any(material.value(quantity, arm.label, state) for arm in material.arms)
    ][:MOST_COLUMNS]
    columns = [title for _, _, title in shown]
    probes = material.isolation
    if probes:
        columns.append(f"of {len(probes)} questions")
    rows = []
    for arm in material.arms:
        cells = []
        for quantity, state, _ in shown:
            value = material.value(quantity, arm.label, state)
            text = format_value(value.median, value.unit).removesuffix(" requests/s") if value else "–"
            note = compared(material, quantity, arm, state) if value else material.lost(quantity, arm.label, state)
            told = [note, material.beside(quantity, arm.label, state)]
            cells.append(Cell(text=text, note=", ".join(filter(None, told))))
        if probes:
            cells.append(Cell(text="", note=tally(material, arm).replace(" ", "\u00a0").replace("\u00a0\u00a0", " ")))
        kernel = "own kernel" if arm.has_own_kernel else "host's kernel"
        rows.append(
            Row(header=arm.label, note=f"{kernel}, {stamp(arm).split()[0]}", arm=arm.label, cells=tuple(cells))
        )
    return Table(
        caption="Medians", corner="backend",
        columns=tuple(Cell(text=column) for column in columns), rows=tuple(rows),
    )  # fmt: skip


def headline_note(material: Material) -> str:
    """The words that the headline's table is read by."""
    said = [f"“×” says how many times {material.baseline}: the mean over pairs of the same block, which may miss the "
            f"quotient of the two medians a little. “≈”: proven the same within {WITHIN}; “–”: neither."]  # fmt: skip
    if any(material.value("memory.pss", arm.label, "idle") for arm in material.arms):
        said.append("Memory is PSS, the proportional set size: a page that several processes share counts in parts.")
    if material.isolation:
        said.append("Questions: " + ", ".join(f"{REACH[name][2]} {WORDS[name]}" for name in ("open", "own", "closed"))
                    + f", {REACH['unknown'][2]} {WORDS['unknown']}. Nothing here is a score.")  # fmt: skip
    return " ".join(said)


MOST_COLUMNS = 4
"""Of costs: more don't fit beside a picture."""


def tally(material: Material, arm: Arm) -> str:
    """How the arm's probes were answered, by class: ``✗ 2  ◐ 0  ✓ 10``. A count, never a score."""
    reaches = [probe.cells[arm.label].reach for probe in material.isolation if arm.label in probe.cells]
    kinds = ("open", "own", "closed", "unknown")
    return "  ".join(
        f"{REACH[kind][2]} {reaches.count(kind)}" for kind in kinds if kind != "unknown" or kind in reaches
    )


def broken_out(material: Material) -> Table:
    """A row per question of `lab.isolation.breakout`: what is reached from root's container, and from a user's."""
    rows = {}
    for row in material.loaded.broken_out.itertuples():
        raw: dict[str, Any] = row.detail if isinstance(row.detail, dict) else {}
        root, evidence = raw.get("root") or {}, detail(raw, "evidence")
        remark = (
            f"expected {detail(raw, 'expected')}: {detail(raw, 'surprise')}. " if differs(raw, str(row.text)) else ""
        )
        rows[str(row.quantity)] = Row(
            header=detail(raw, "question"),
            note=detail(raw, "reason") if detail(raw, "expected") else "",
            cells=(
                Cell(text=_answered(detail(root, "answer"), detail(root, "reach"))),
                Cell(text=_answered(str(row.text), detail(raw, "reach")), note=f"{remark}{evidence}"),
            ),
        )
    columns = (Cell(text="out of root's container"), Cell(text="out of an ordinary user's", note="rootless"))
    return Table(caption="Who breaks out", corner="reached on this host", columns=columns, rows=tuple(rows.values()))


def _answered(answer: str, reach: str) -> str:
    return f"{REACH[reach][2] if reach in REACH else '?'} {SHORTER.get(answer, answer)}"


def ratios(material: Material) -> Table:
    """Every comparison of a key quantity with the baseline: how sure, and whether it may be claimed."""
    arms = [arm for arm in material.arms if arm.label != material.baseline]
    rows = []
    pairs = dict.fromkeys(zip(material.ratios["quantity"], material.ratios["state"], strict=True))
    for quantity, state in sorted(
        pairs, key=lambda pair: list(QUANTITIES).index(pair[0]) if pair[0] in KEY else len(QUANTITIES)
    ):
        found = [material.ratio(quantity, arm.label, state) for arm in arms]
        if is_key(quantity) and any(found):
            name = material.label(quantity) + (f", {state.replace('-', ' ')}" if state else "")
            rows.append(Row(header=name, note=_family(found), cells=tuple(_compared(each) for each in found)))
    columns = tuple(Cell(text=f"{arm.label} ÷ {material.baseline}", note=stamp(arm), arm=arm.label) for arm in arms)
    return Table(
        caption=f"How sure: each backend ÷ {material.baseline} in the same block (the paired ratio)",
        corner="quantity", columns=columns, rows=tuple(rows),
    )  # fmt: skip


def _family(found: Sequence[Ratio | None]) -> str:
    judged = [each.judged for each in found if each is not None]
    needs = max((each.needs for each in judged if math.isfinite(each.needs)), default=math.nan)
    price = "" if math.isnan(needs) else f"; 10 % takes {needs:,.0f} {judged[0].per}"
    return judged[0].family + price


def _compared(found: Ratio | None) -> Cell:
    if found is None:
        return Cell(text="–")
    judged = found.judged
    delta = "" if math.isnan(found.delta) else f"δ {found.delta:+.2f}"
    shows = (
        f"{'≥ ' * (judged.shows <= VAST)}{in_percent(judged.shows)}"
        if math.isfinite(judged.shows) and not judged.claim
        else ""
    )
    parts = [format_ratios(found.low, found.high), delta, shows]
    text = f"{format_ratio(found.ratio)} {VERDICTS[judged.verdict]}".rstrip()
    return Cell(
        text=text, note=" · ".join(part for part in parts if part), verdict=judged.verdict.name.lower()
    )  # fmt: skip


def ratio_words(material: Material) -> list[tuple[str, str]]:
    """The words of the table of ratios, explained below it."""
    base, twin = material.baseline, material.twin
    told = [
        (VERDICTS[Verdict.DIFFERENT], f"a difference from {base} is proven"),
        (VERDICTS[Verdict.SAME], f"the two are proven to be the same within {WITHIN}"),
        ("no mark, pale", "neither is proven: the interval holds 1, or it is one of so many comparisons that "
                          "one of them had to look like that by chance"),
        ("1.9–2.3 ×", "the interval of 95 %: were the run repeated many times, 95 of 100 such intervals would hold "
                      "the true ratio"),
        ("δ", "Cliff's delta: the chance that a value of this backend is larger than one of the baseline's, less the "
              "chance that it is smaller. +1 means that all are larger, 0 that neither tends to be"),
        ("≥ 12 %", "what this run could have shown: a difference of that size would be found four times in five"),
        ("headline, exploratory", "headline quantities were declared before the run; for each backend the chance of "
                                  "any false claim among them is below 5 %, and in a report of k backends up to k "
                                  "times that. Of the differences claimed among all others, the exploratory ones, "
                                  "one in twenty may be false"),
    ]  # fmt: skip
    if twin is not None:
        same = (
            f"{twin.backend} is measured twice, under two names. If the two differ, the run has a defect; in one run "
            "of twenty they seem to, by chance"
        )
        told.append(("A/A pair", same))
    return told


def quietness(material: Material) -> Table:
    """What was observed of the host itself: a row per quantity; shares in per cent."""
    rows = []
    for name in (name for name in QUANTITIES if name.startswith(f"{HOST}.")):
        found = observations(material.loaded.frame, name)
        if not found.empty:
            unit = "%" if name.startswith(SHARES) else str(found["unit"].iloc[0])
            values = found["value"] * (100 if unit == "%" else 1)
            worst = int(found["block"].iloc[int(found["value"].argmax())])
            cells = [Cell(text=format_value(value, unit)) for value in (values.median(), values.min(), values.max())]
            where = f"block {worst}" if worst > 0 else "the warm-up"
            cells.append(Cell(text=where, note=f"n = {len(found)}"))
            rows.append(Row(header=material.label(name), note=material.definition(name), cells=tuple(cells)))
    heads = ("median", "lowest", "highest", "highest in")
    return Table(
        caption="The host itself, while it was measured", corner="quantity",
        columns=tuple(Cell(text=head) for head in heads), rows=tuple(rows),
    )  # fmt: skip


def parity(material: Material) -> Table:
    """What was verified to be equal inside every instance, and what is not."""
    rows = []
    for arm in material.loaded.arms:
        wanted = str(material.loaded.image_of(arm).get("manifest_digest", ""))
        seen = material.run.parity.get(arm.label) or material.run.parity.get(arm.backend) or {}
        digest = str(seen.get("manifest_digest", "")) if isinstance(seen, dict) else str(seen)
        limits = seen.get("limits", {}) if isinstance(seen, dict) else {}
        same = (
            "another system"
            if arm.foreign
            else "not verified"
            if not digest
            else "same, verified inside"
            if digest == wanted
            else "DIFFERENT"
        )
        cells = (
            Cell(text=same, note=shorten_digest(arm.image if arm.foreign else digest)),
            Cell(text=_limit(limits, "memory_bytes", "bytes")),
            Cell(text=_limit(limits, "cpus", "1")),
            Cell(text=_limit(limits, "pids", "1")),
            Cell(text="", note=_sentences([*arm.differences, *_where(material, limits)])),
        )
        rows.append(Row(header=arm.label, note=stamp(arm), arm=arm.label, cells=cells))
    heads = ("files of the image", "memory", "CPUs", "processes", "what differs all the same")
    return Table(
        caption="Same image, same limits: what every backend saw"
        + ("; of another system, what is known of it" if any(arm.foreign for arm in material.loaded.arms) else ""),
        corner="backend",
        columns=tuple(Cell(text=head) for head in heads), rows=tuple(rows),
    )  # fmt: skip


def _where(material: Material, limits: Mapping[str, object]) -> Iterator[str]:
    """What its limits are, and where its processes may run if that was decided."""
    yield f"the limits are: {limits.get('as', 'not recorded')}"
    if placement.kept(material.run.settings):
        yield f"its processes may run on the host's {placement.named(str(limits.get('cpus_allowed', '–')))}"


def _sentences(texts: list[str]) -> str:
    return " ".join(f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in texts if text)


def _limit(limits: dict[str, object], key: str, unit: str) -> str:
    value = limits.get(key)
    return format_value(float(value), unit) if isinstance(value, int | float) else "no limit" if limits else "–"


def shorten_digest(digest: str) -> str:
    """``sha256:5f5f5f5f5f5f…``; the whole digest is in run.json."""
    kind, colon, rest = digest.rpartition(":")
    return f"{kind}{colon}{rest[:12]}…" if len(rest) > 12 else digest
