"""Isolation: a row per group of questions, a bar of counts per boundary; the page has each question besides."""

from __future__ import annotations

from lab.reports import style
from lab.reports.answers import WORDS, Probe
from lab.reports.charts import Chart, Data, Panel, whose
from lab.reports.figures.counted import ORDER, parts_of
from lab.reports.material import Material, stamped


def chart(material: Material) -> Chart:
    """One panel; what reaches the host is always on the left, whatever way round a question was asked."""
    probes = material.isolation
    groups: dict[str, list[Probe]] = {}
    for probe in probes:
        groups.setdefault(probe.group or "others", []).append(probe)
    rows: list[Data] = []
    for group, members in groups.items():
        cells = {arm.label: whose(arm) | {"parts": parts_of(members, arm), "group": group} for arm in material.arms}
        asked = {label: cell for label, cell in cells.items() if cell["parts"]}
        rows.append({"label": group, "stamp": "", "cells": asked})
    legend = tuple((style.REACH[reach][0], f"{style.REACH[reach][2]} {WORDS[reach]}") for reach in ORDER)
    panel = Panel(
        kind="groups", title="", rows=tuple(rows), ticks=tuple(arm.label for arm in material.arms), legend=legend
    )
    return Chart(
        title="What each boundary lets through", panels=(panel,),
        how=f"{len(probes)} questions, tried from inside · a count is no ranking of security",
        alt="Isolation answers, counted by group; the table below has each. "
        + " ".join(_sentence(group, members, material) for group, members in groups.items()),
    )  # fmt: skip


def _sentence(group: str, members: list[Probe], material: Material) -> str:
    """``visibility: 13 of 14 reach the host from process, 3 from container.``"""
    reached = {
        stamped(arm): sum(probe.cells[arm.label].reach == "open" for probe in members if arm.label in probe.cells)
        for arm in material.arms
    }
    counts = ", ".join(f"{count or 'none'} from {arm}" for arm, count in reached.items())
    return f"{group}, {len(members)} questions: the host is reached by {counts}."
