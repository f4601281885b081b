"""The ``work`` table of a scenario.toml: a load generator or a job of the scenario's own.

::

    [work]
    beside = "redis-benchmark -h {address} -p {port} --csv"   # or: inside = "…"
    expect = '"GET"'                  # a regular expression that the output must match; default: none
    timeout_seconds = 60              # default 120

    [[work.figures]]                  # a number in the output becomes the quantity work.NAME
    name = "get"
    label = "GET requests"            # default: the name
    definition = "…"                  # default: none
    unit = "requests/s"
    pattern = '"GET","([0-9.]+)"'     # exactly one group
    take = "last"                     # of several matches; or "median", "p95" of them all
    scale = 1.0                       # the unit's multiple that is printed: 0.001 for milliseconds
    better = "more"                   # or "less", the default
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import ScenarioError
from lab.model import Figure, Place, Take, Work

Kinds = Mapping[str, type | tuple[type, ...]]

KEYS: Kinds = {"inside": str, "beside": str, "expect": str, "timeout_seconds": (int, float), "figures": list}
FIGURE_KEYS: Kinds = {
    "name": str,
    "pattern": str,
    "unit": str,
    "label": str,
    "definition": str,
    "take": str,
    "scale": (int, float),
    "better": str,
}
NAME = re.compile("[a-z][a-z0-9_]*")
RESERVED = ("seconds", "cpu")


def parse(table: Mapping[str, Any], path: Path) -> Work:
    """The table, whose keys and kinds were checked. Raises ScenarioError with the key that is wrong."""
    places = [place for place in Place if place in table]
    if len(places) != 1:
        raise ScenarioError(f"{path}: work needs one of inside, beside", hint='like inside = "fio job.fio"')
    try:
        argv = tuple(shlex.split(table[places[0]]))
        for word in argv:
            word.format_map({"address": "", "port": ""})
    except (ValueError, KeyError, IndexError) as error:
        raise ScenarioError(
            f"{path}: work.{places[0]}: {error}", hint="{address} and {port} are known; write {{ for a brace"
        ) from error
    if not argv:
        raise ScenarioError(f"{path}: work.{places[0]} is empty", hint="write a command")
    timeout_seconds = float(table.get("timeout_seconds", 120.0))
    if timeout_seconds <= 0:
        raise ScenarioError(f"{path}: work.timeout_seconds must be above 0", hint="see docs/scenarios.md")
    figures = tuple(_figure(entry, path, number) for number, entry in enumerate(table.get("figures", []), 1))
    names = [figure.name for figure in figures]
    if len(set(names)) < len(names):
        raise ScenarioError(f"{path}: two work.figures have one name", hint="names must differ")
    return Work(
        argv=argv,
        place=places[0],
        expect=_pattern(table.get("expect", ""), path, "work.expect"),
        timeout_seconds=timeout_seconds,
        figures=figures,
    )


def _figure(entry: object, path: Path, number: int) -> Figure:
    where = f"work.figures, number {number}"
    if not isinstance(entry, Mapping):
        raise ScenarioError(f"{path}: {where} is no table", hint="write [[work.figures]]")
    for key, value in entry.items():
        kinds = FIGURE_KEYS.get(key)
        if kinds is None:
            raise ScenarioError(f"{path}: {where}: unknown key {key}", hint=f"known: {', '.join(FIGURE_KEYS)}")
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ScenarioError(f"{path}: {where}: {key} = {value!r}", hint="see docs/scenarios.md")
    for key in ("name", "pattern", "unit"):
        if not entry.get(key):
            raise ScenarioError(f"{path}: {where}: {key} is missing", hint="name, pattern and unit are needed")
    name = entry["name"]
    if not NAME.fullmatch(name) or name in RESERVED:
        raise ScenarioError(
            f"{path}: {where}: {name!r} can't be a name",
            hint=f"small letters, digits and underscores; not {' or '.join(RESERVED)}",
        )
    if entry.get("better", "less") not in ("more", "less"):
        raise ScenarioError(f"{path}: {where}: better = {entry['better']!r}", hint='"more" or "less"')
    if entry.get("take", Take.LAST) not in list(Take):
        raise ScenarioError(f"{path}: {where}: take = {entry['take']!r}", hint=f"one of: {', '.join(Take)}")
    return Figure(
        name=name,
        pattern=_pattern(entry["pattern"], path, f"{where}: pattern", groups=1),
        unit=entry["unit"],
        label=entry.get("label", name.replace("_", " ")),
        definition=entry.get("definition", ""),
        take=Take(entry.get("take", Take.LAST)),
        scale=float(entry.get("scale", 1.0)),
        more_is_better=entry.get("better", "less") == "more",
    )


def _pattern(text: str, path: Path, where: str, groups: int | None = None) -> str:
    try:
        compiled = re.compile(text, re.MULTILINE)
    except re.error as error:
        raise ScenarioError(f"{path}: {where} is no regular expression", hint=str(error)) from error
    if groups is not None and compiled.groups != groups:
        raise ScenarioError(f"{path}: {where} has {compiled.groups} groups", hint="put ( ) around the number alone")
    return text
