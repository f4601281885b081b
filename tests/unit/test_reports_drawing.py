"""What the drawings of the page must not cut."""

from __future__ import annotations

import re

import pytest
from synthetic import write_run

from lab.backends.registry import available
from lab.reports import style
from lab.reports.charts import Panel
from lab.reports.drawing import inline, looks_of
from lab.reports.figures.isolation import chart
from lab.reports.material import Material

MIB = 1 << 20


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.read(write_run(tmp_path_factory.mktemp("results"), blocks=2).path)


@pytest.mark.parametrize(("value", "anchor"), [(20.05, "end"), (24.0, "middle")])
def test_the_last_words_of_an_axis_are_whole(value: float, anchor: str, material: Material) -> None:
    row = {
        "label": "process",
        "arm": "process",
        "value": value * MIB,
        "low": None,
        "high": None,
        "text": "",
        "tip": [],
    }
    panel = Panel(kind="bars", title="", rows=(row,), unit="bytes")
    drawn = inline(panel, looks_of(material.loaded.all_arms), "x", "", width=300, base=12.5)
    (style,) = re.findall(r'<text style="([^"]*)"[^>]*>20 MiB<', drawn)
    assert f"text-anchor: {anchor}" in style


def test_what_a_figure_says_in_words_is_short_enough_to_be_heard(material: Material) -> None:
    alt = chart(material).alt
    assert len(alt) < 1500
    assert re.search(r"visibility, \d+ questions: the host is reached by \d+ from process", alt)


def test_each_backend_has_a_colour_and_a_mark_of_its_own() -> None:
    own = [kind for kind in available() if kind.__module__.startswith("lab.backends.")]
    names = {kind.name for kind in own if ":" not in kind.name}
    assert {"docker", "gvisor", "podman", "vm"} <= names
    assert names <= set(style.BACKENDS)
    fills, inks, marks = zip(*style.BACKENDS.values(), style.OTHER, strict=True)
    for looks in (fills, inks, marks):
        assert len(set(looks)) == len(looks)
