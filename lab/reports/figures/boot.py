"""Boot: where its time goes, and every single boot."""

from __future__ import annotations

from itertools import islice

from lab.analysis.quantities import SEGMENTS, format_interval, format_value
from lab.analysis.readiness import is_empty_segment, leading, phrase, title
from lab.reports import style
from lab.reports.charts import Chart, Data, Panel, is_wide, mark, sureness, tip, whose
from lab.reports.material import Material, stamp, stamped
from lab.results.record import Arm

PARTS = (*SEGMENTS, "job.seconds")

Segments = list[tuple[str, float]]


def phases(material: Material) -> Chart:
    """Each boot stretched to the same length, its whole beside it: how long the wholes are, other figures show."""
    rows: list[Data] = []
    arms = [arm for arm in _with_restored(material) if material.value(leading(material.run), arm.label)]
    for arm in arms:
        total = material.value(leading(material.run), arm.label)
        found = [(name, value) for name in PARTS if (value := material.value(name, arm.label)) is not None]
        parts: list[Data] = [
            {
                "value": value.median,
                "fill": style.PHASES[name][0],
                "ink": style.PHASES[name][1],
                "text": format_value(value.median, "seconds", 2),
                "tip": tip(value, arm, _part(material, name)),
            }
            for name, value in found
            if value.median > 0 and not is_empty_segment(name, material.run)
        ]
        if total is not None and parts:
            whole = format_value(total.median, "seconds")
            rows.append(whose(arm) | {"parts": parts, "text": whole, "beside": sureness(total)})
    used = {name for arm in arms for name, _ in _segments(material, arm)}
    legend = tuple((style.PHASES[name][0], material.label(name)) for name in PARTS if name in used)
    return Chart(
        title=f"From the request until {phrase(material.run)}",
        how="each row is stretched to the same length · medians · on the right the whole with its 95 % interval",
        panels=(Panel(kind="shares", title="", rows=tuple(rows), legend=legend),),
        alt="Phases of a start. " + " ".join(_sentence(arm, material, _segments(material, arm)) for arm in arms),
    )  # fmt: skip


def distribution(material: Material) -> Chart:
    """Every boot a marker; a band for the interval of the median, a line for the median."""
    rows: list[Data] = []
    arms = _with_twin(material)
    for arm in arms:
        value = material.value(leading(material.run), arm.label)
        if value is None:
            continue
        points = [
            {
                "value": seconds,
                "block": int(block),
                "tip": [
                    f"{arm.label} · {stamp(arm)}",
                    f"one instance: {format_value(seconds, 'seconds')}",
                    f"block {block}",
                ],
            }
            for block, seconds in material.points(leading(material.run), arm.label).itertuples(index=False)
        ]
        row = whose(arm) | mark(value, arm, "median of all starts") | {"points": points}
        rows.append(row | {"text": format_value(value.median, "seconds"), "note": sureness(value)})
    wide = is_wide(point["value"] for row in rows for point in row["points"])
    panel = Panel(
        kind="dots", title="", unit="seconds", rows=tuple(rows), logarithmic=wide,
        axis=title(material.run) + (", logarithmic: equal distances are equal ratios" if wide else ""),
    )  # fmt: skip
    return Chart(
        title="Every start that was measured", panels=(panel,),
        how="a marker is one start · line: median · band: its 95 % interval · #aa: the same backend again",
        alt="Every start. " + " ".join(_spread(arm, material) for arm in arms),
    )  # fmt: skip


def _with_twin(material: Material) -> list[Arm]:
    quantity, all_arms = leading(material.run), (*material.arms, material.twin)
    arms = [arm for arm in all_arms if arm is not None and material.value(quantity, arm.label)]
    return sorted(arms, key=lambda arm: (arm.order, arm.label))


def _with_restored(material: Material) -> list[Arm]:
    """The references, and below each one that is restored instead of booted: its phases are others."""
    others = [arm for arm in material.loaded.arms if arm not in material.arms]
    found = []
    for arm in material.arms:
        restored = (each for each in others if each.backend == arm.backend)
        found += [arm, *islice((each for each in restored if material.value("boot.restored", each.label)), 1)]
    return found


def _part(material: Material, name: str) -> str:
    """A segment in words: boots are named by the phase that ends them."""
    return "for the job itself" if name == "job.seconds" else f"until “{material.label(name)}”"


def _segments(material: Material, arm: Arm) -> Segments:
    found = ((name, material.value(name, arm.label)) for name in PARTS)
    return [
        (name, value.median)
        for name, value in found
        if value is not None and value.median > 0 and not is_empty_segment(name, material.run)
    ]


def _sentence(arm: Arm, material: Material, segments: Segments) -> str:
    total = material.value(leading(material.run), arm.label)
    if total is None or not segments:
        return ""
    name, longest = max(segments, key=lambda each: each[1])
    whole, part = format_value(total.median, "seconds"), format_value(longest, "seconds")
    return f"{stamped(arm)}: {whole} in all (n = {total.n}), of which {part} {_part(material, name)}."


def _spread(arm: Arm, material: Material) -> str:
    value = material.value(leading(material.run), arm.label)
    if value is None:
        return ""
    interval = format_interval(value.low, value.high, "seconds")
    return f"{stamped(arm)}: median {format_value(value.median, 'seconds')}, interval {interval}, n = {value.n}."
