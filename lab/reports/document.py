"""The report as HTML and Markdown: the same content through two templates."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from lab.analysis.quantities import format_value
from lab.reports import factors, tables, words
from lab.reports.anchors import anchors
from lab.reports.answers import WORDS, matrix
from lab.reports.charts import embed
from lab.reports.figures import Drawn
from lab.reports.material import Material, stamp, stamped
from lab.reports.pages import embedded, read, render
from lab.reports.style import REACH

SCRIPTS = ("axes.js", "charts.js", "tables.js", "report.js")


def html(material: Material, drawn: Sequence[Drawn]) -> str:
    """One page: styles, pictures and script inside, nothing fetched; complete without the script too."""
    figures = {
        each.name: {
            "alt": each.alt,
            "data": embedded("image/svg+xml", each.svg),
            "csv": embedded("text/csv", each.csv),
        }
        for each in drawn
    }
    charts = {each.name: each.chart for each in drawn if each.chart is not None}
    context = _context(material) | {"figures": figures}
    return render("report.html.j2", context, scripts=SCRIPTS, charts=embed(material.arms, charts))


def markdown(material: Material, drawn: Sequence[Drawn]) -> str:
    """The same in Markdown, its pictures linked under ``plots/``."""
    import jinja2

    environment = jinja2.Environment(trim_blocks=False, lstrip_blocks=False, undefined=jinja2.StrictUndefined)
    figures = {each.name: {"alt": each.alt} for each in drawn}
    text: str = environment.from_string(read("report.md.j2")).render(_context(material), figures=figures)
    return text.rstrip() + "\n"


def _context(material: Material) -> dict[str, Any]:
    probes = matrix(material)
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
        "story": words.STORY,
        "headline": tables.headline(material),
        "statements": words.statements(material),
        "warnings": material.findings,
        "ratios": tables.ratios(material),
        "boot_story": words.boot_story(material),
        "boot": tables.quantities(material, tables.BOOT, "Boot: medians, 95 % intervals"),
        "memory": memory,
        "cpu": tables.quantities(material, tables.CPU, "CPU: medians, 95 % intervals"),
        "load": tables.quantities(material, tables.LOAD, "Load: medians over blocks, 95 % intervals"),
        "work": tables.work(material),
        "factors": factors.section(material),
        "probes": probes,
        "groups": [(group, list(members)) for group, members in groupby(probes, key=lambda probe: probe.group)],
        "symbols": {name: symbol for name, (_, _, symbol) in REACH.items()},
        "key": key,
        "key_words": ", ".join(f"{symbol} {word}" for _, symbol, word in key),
        "parity": tables.parity(material),
        "quietness": tables.quietness(material),
        "clock": words.clock(material),
        "anchors": anchors(material),
        "not_to_conclude": [*words.not_to_conclude(material), *factors.not_to_conclude(material)],
        "provenance": provenance(material),
        "repeat": shlex.join(material.run.command_line),
    }
    return context | {"contents": _contents(context)}


def _contents(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections there are, in the order of the page: each is a template below ``templates/report``."""
    sections = [
        ("findings", "What was found", True), ("factors", "Factors", context["factors"] is not None),
        ("boot", "Boot", bool(context["boot"].rows)),
        ("memory", "Memory", bool(context["memory"])), ("cpu", "CPU", bool(context["cpu"].rows)),
        ("load", "Load", bool(context["load"].rows)),
        ("work", "The scenario's own work", bool(context["work"].rows)),
        ("isolation", "Isolation", bool(context["probes"])),
        ("parity", "Were they the same?", True),
        ("host", "How quiet was the host?", bool(context["quietness"].rows)),
        ("method", "How it was measured", True),
        ("published", "What others measured", True), ("not", "What you may not conclude", True),
        ("provenance", "Where the numbers come from", True),
    ]  # fmt: skip
    return [(name, title) for name, title, there in sections if there]


def _subtitle(material: Material) -> str:
    run = material.run
    arms = ", ".join(stamped(arm) for arm in material.arms)
    blocks = material.loaded.blocks
    when = run.started[:16].replace("T", " ")
    at = (
        f" Shown at the first level of each factor ({material.levels}), unless said otherwise."
        if material.levels
        else ""
    )
    how = "Cold starts. " if run.host_levels.get("caches") == "cold" else ""
    boundaries = "one boundary" if len(material.arms) == 1 else f"{len(material.arms)} boundaries"
    return f"{how}The same image behind {boundaries}: {arms}. {blocks} blocks, {when} UTC.{at}"


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
        ("Limits", _join(*(f"{key} {value}" for key, value in run.limits.items() if value is not None))),
        ("Versions", _join(*(f"{name} {version}" for name, version in run.versions.items()))),
        ("Host identity", _join(host.get("identity"))),
    ]  # fmt: skip
    return [(term, text) for term, text in entries if text]


def _sub(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = raw.get(key)
    return found if isinstance(found, Mapping) else {}


def _named(raw: Mapping[str, Any], key: str, words_: str) -> str:
    return words_.format(raw[key]) if raw.get(key) not in (None, "") else ""


def _join(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))
