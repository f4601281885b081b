"""The report as HTML and Markdown: the same content through two templates."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from lab.analysis.quantities import format_value
from lab.reports import tables
from lab.reports.answers import WORDS
from lab.reports.drawing import inline, looks_of
from lab.reports.figures import Drawn
from lab.reports.material import Material, stamp
from lab.reports.page.anchors import anchors
from lab.reports.page.render import embedded_text, read, render
from lab.reports.style import REACH, adaptive, colour, ink
from lab.reports.words import crossings, debt, factors, statements
from lab.studies.compare.report.verdict import gravest_first, verdict

SCRIPTS = ("axes.js", "charts.js", "tables.js", "report.js")

BASE = 13.0
"""The size of a figure's words on the page, in pixels."""
WHOLE, NARROW = 1240.0, 300.0
"""How wide a figure may become there, and how wide a panel of the first screen is."""


def html(material: Material, drawn: Sequence[Drawn], growing: Mapping[str, int] | None = None) -> str:
    """One page: styles, pictures and script inside, nothing fetched; complete without the script too. ``growing``
    says of a run that is still measured how many blocks there are, when that was, and after how long to look again.
    """
    context = _context(material) | {
        "growing": growing,
        "figures": {each.name: _figure(material, each) for each in drawn},
    }
    arms = [{"label": arm.label, "fill": adaptive(colour(arm)), "ink": adaptive(ink(arm))} for arm in material.arms]
    return render("report.html.j2", context, scripts=SCRIPTS, data=arms)


def _figure(material: Material, each: Drawn) -> dict[str, Any]:
    """What a template needs of a figure: its words, its panels drawn, its data."""
    looks, chart, columns = looks_of(material.loaded.all_arms), each.chart, max(1, each.chart.columns)
    width = NARROW if each.name == "overview" else (WHOLE - 36 * (columns - 1)) / columns
    size = BASE - 0.5 if each.name == "overview" else BASE
    panels = []
    for index, panel in enumerate(chart.panels):
        alt = chart.alt if len(chart.panels) == 1 else f"{panel.title}. {chart.alt}"
        drawing = inline(panel, looks, f"{each.name}{index}", alt, width=width, base=size)
        legend = [(fill if fill == "diamond" else adaptive(fill), words) for fill, words in panel.legend]
        panels.append({"title": panel.title, "svg": Markup(drawing), "legend": legend,
                       "logarithmic": panel.logarithmic})  # fmt: skip
    return {
        "title": chart.title, "how": chart.how, "alt": chart.alt, "columns": columns, "panels": panels,
        "csv": embedded_text("text/csv", each.csv),
    }  # fmt: skip


def markdown(material: Material, drawn: Sequence[Drawn]) -> str:
    """The same in Markdown, its pictures linked under ``plots/``."""
    import jinja2

    environment = jinja2.Environment(trim_blocks=False, lstrip_blocks=False, undefined=jinja2.StrictUndefined)
    figures = {each.name: {"alt": each.chart.alt} for each in drawn}
    text: str = environment.from_string(read("report.md.j2")).render(_context(material), figures=figures)
    return text.rstrip() + "\n"


def _context(material: Material) -> dict[str, Any]:
    probes = material.isolation
    shown = [
        name for name in REACH if name != "unknown" or any(c.reach == name for p in probes for c in p.cells.values())
    ]
    key = [(name, REACH[name][2], WORDS[name]) for name in shown]
    memory = [
        tables.quantities(material, tables.MEMORY, f"Memory, {state.replace('-', ' ')}", state)
        for state in ("idle", "after-load")
        if any(material.value(name, arm.label, state) for name in tables.MEMORY for arm in material.arms)
    ]
    context = {
        "run": material.run,
        "arms": material.arms,
        "stamp": stamp,
        "baseline": material.baseline,
        "subtitle": _subtitle(material),
        "story": statements.story(material),
        "verdict": verdict(material),
        "headline": tables.headline(material),
        "first_figure": "overview",
        "headline_note": tables.headline_note(material),
        "statements": statements.statements(material),
        "warnings": gravest_first(material.findings),
        "ratios": tables.ratios(material),
        "ratio_words": tables.ratio_words(material),
        "boot_story": statements.boot_story(material),
        "boot": tables.quantities(material, tables.BOOT, "Boot: medians, 95 % intervals"),
        "memory": memory,
        "cpu": tables.quantities(material, tables.CPU, "CPU: medians, 95 % intervals"),
        "load": tables.quantities(material, tables.LOAD, "Load: medians over blocks, 95 % intervals"),
        "work": tables.work(material),
        "crossings": crossings.table(material),
        "debt": debt.table(material),
        "debt_intro": debt.INTRO,
        "debt_statements": [*debt.statements(material), *debt.growth(material)],
        "factors": factors.section(material),
        "probes": probes,
        "broken_out": tables.broken_out(material),
        "groups": [(group, list(members)) for group, members in groupby(probes, key=lambda probe: probe.group)],
        "symbols": {name: symbol for name, (_, _, symbol) in REACH.items()},
        "key": key,
        "key_words": ", ".join(f"{symbol} {word}" for _, symbol, word in key),
        "parity": tables.parity(material),
        "quietness": tables.quietness(material),
        "clock": statements.clock(material),
        "anchors": anchors(material),
        "not_to_conclude": [*statements.not_to_conclude(material), *factors.not_to_conclude(material)],
        "provenance": provenance(material),
        "repeat": shlex.join(material.run.command_line),
    }
    return context | {"contents": _contents(context)}


def _contents(context: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The sections there are, in the order of the page, each with what one finds in it: templates in ``report``."""
    sections = [
        ("findings", "What was found, and how sure it is", "each comparison with its interval", True),
        ("factors", "Factors", "what else makes a difference", context["factors"] is not None),
        ("boot", "Boot", "where the time of a start goes, and every start", bool(context["boot"].rows)),
        ("memory", "Memory", "never one number", bool(context["memory"])),
        ("cpu", "CPU", "what the host spends to start it, to answer, to do nothing", bool(context["cpu"].rows)),
        ("load", "Load", "answers per second, and how long one waits", bool(context["load"].rows)),
        ("work", "The scenario's own work", "what its client or job measured", bool(context["work"].rows)),
        ("crossings", "Crossings", "what a boundary makes dear, and what not", bool(context["crossings"].rows)),
        ("debt", "Right after the start", "what is still owed after the first answer", bool(context["debt"].rows)),
        ("isolation", "Isolation", "what each boundary lets through, by trying", bool(context["probes"])),
        ("parity", "Were they the same?", "image, limits, and what differs all the same", True),
        ("host", "How quiet was the host?", "what else it did meanwhile", bool(context["quietness"].rows)),
        ("method", "How it was measured", "clock, order, intervals, caches", True),
        ("published", "What others measured", "and why ours differs", True),
        ("not", "What you may not conclude", "read it before you quote a number", True),
        ("story", "What is compared, for a first look", "an apartment and a room in a shared house", True),
        ("provenance", "Where the numbers come from", "host, image, versions, the command that repeats it", True),
    ]  # fmt: skip
    return [(name, title, gist) for name, title, gist, there in sections if there]


def _subtitle(material: Material) -> str:
    run = material.run
    arms = ", ".join(arm.label for arm in material.arms)
    blocks = material.loaded.blocks
    when = run.started[:16].replace("T", " ")
    at = (
        f" Shown at the first level of each factor ({material.levels}), unless said otherwise."
        if material.levels
        else ""
    )
    how = "Cold starts. " if run.host_levels.get("caches") == "cold" else ""
    return f"{how}{_compared(material)}: {arms}. {blocks} block{'s' * (blocks != 1)}, {when} UTC.{at}"


def _compared(material: Material) -> str:
    """What the arms have in common: the image, but for disks that lab did not make."""
    same = sum(not arm.foreign for arm in material.arms)
    disks = len(material.arms) - same
    of_disks = f"{disks} system{'s' * (disks != 1)} from disks" if disks else ""
    boundaries = "one boundary" if same == 1 else f"{same} boundaries"
    behind = f"The same image behind {boundaries}" if same else ""
    return " and ".join(filter(None, (behind, of_disks)))


def provenance(material: Material) -> list[tuple[str, str]]:
    """Host, software and image of the run, as far as they were recorded."""
    run = material.run
    host, cpu, memory, cgroups = run.host, _sub(run.host, "cpu"), _sub(run.host, "memory"), _sub(run.host, "cgroups")
    image, base = run.image, _sub(run.image, "base")
    total = memory.get("total_bytes")
    entries = [
        ("Run", f"{run.name}, {run.started} to {run.ended or 'not ended'}"),
        ("CPU", _join(cpu.get("model"), _named(cpu, "online", "{} online"), _named(cpu, "smt", "SMT {}"),
                      _named(cpu, "governor", "governor {}"),
                      "the host is itself a virtual machine" if cpu.get("virtualised") else "")),
        ("Memory", _join(format_value(float(total), "bytes") if total else "", _named(memory, "ksm", "KSM {}"),
                         _named(memory, "transparent_huge_pages", "huge pages {}"))),
        ("System", _join(host.get("distribution"), _named(host, "kernel_release", "kernel {}"),
                         host.get("architecture"))),
        ("Cgroups", _join(cgroups.get("mode"))),
        ("Mitigations", _join(*(f"{name}: {text}" for name, text in _sub(host, "mitigations").items()))),
        ("Kernels", _join(*(f"{arm.label}: {arm.kernel}" for arm in material.arms if arm.kernel))),
        ("Image", _join(image.get("name"), image.get("digest"), _named(image, "files", "{} files"),
                        image.get("origin"))),
        ("Base image", _join(base.get("name"), base.get("digest"), _named(base, "origin", "from: {}"))),
        ("Limits", _join(*(f"{key} {value}" for key, value in run.limits.items() if value is not None),
                         _left_out(run.settings.get("limits_left_out", [])))),
        ("User", "an ordinary one, root of a user namespace of its own" if host.get("rootless") else ""),
        ("Versions", _join(*(f"{name} {version}" for name, version in run.versions.items()))),
        ("Host identity", _join(host.get("identity"))),
    ]  # fmt: skip
    return [(term, text) for term, text in entries if text]


def _left_out(names: Sequence[str]) -> str:
    return f"left out, since the user had no control group for them: {', '.join(names)}" if names else ""


def _sub(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = raw.get(key)
    return found if isinstance(found, Mapping) else {}


def _named(raw: Mapping[str, Any], key: str, words_: str) -> str:
    return words_.format(raw[key]) if raw.get(key) not in (None, "") else ""


def _join(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))
