"""A report on disks that lab did not make says so wherever a reader may take their figures for a boundary's."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic import draw_nothing, leave_pictures_empty, write_run

from lab.analysis import Kind, load
from lab.analysis.findings import Severity
from lab.analysis.questions.conditions import parse
from lab.experiment.plan import PlannedArm, arms
from lab.reports.figures import overview
from lab.reports.material import Material
from lab.reports.words import statements
from lab.studies.compare.report.verdict import verdict
from lab.studies.compare.report.writer import write

RENAMED = {"vm": "vm:debian12", "microvm": "vm:debian13"}
DISKS_ALONE = {"process": "vm:alpha", "container": "vm:beta", "microvm": "vm:gamma", "vm": "vm:delta"}


def written(root: Path, renamed: dict[str, str], file: str = "a.qcow2") -> Path:
    """A run in which some arms are disks instead: a report knows of them by what the run says alone."""
    folder = write_run(root, blocks=6)
    run = json.loads((folder.path / "run.json").read_text())
    for order, arm in enumerate(run["arms"], start=51):
        if (own := renamed.get(arm["backend"])) is not None:
            arm |= {"label": arm["label"].replace(arm["backend"], own), "backend": own, "order": order}
            arm |= {"foreign": True, "title": f"virtual machine (QEMU) from {file}", "kernel": ""}
            arm |= {"accelerator": "tcg"}
    (folder.path / "run.json").write_text(json.dumps(run))
    samples = [json.loads(line) for line in (folder.path / "samples.jsonl").read_text().splitlines()]
    kept = []
    for sample in samples:
        if (own := renamed.get(sample["backend"])) is not None:
            sample |= {"backend": own, "arm": sample["arm"].replace(sample["backend"], own), "accelerator": "tcg"}
            if sample["metric"] == "isolation" or ".guest." in sample["quantity"]:
                continue
        kept.append(sample)
    (folder.path / "samples.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in kept))
    return folder.path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("results"), RENAMED)


def test_the_gravest_finding_is_that_they_are_other_systems(mixed: Path) -> None:
    found = [each for each in load(mixed).findings() if each.kind is Kind.PARITY and "did not make" in each.sentence]
    assert [each.severity for each in found] == [Severity.SERIOUS]
    assert all(label in found[0].sentence for label in RENAMED.values())
    plain = load(written(mixed.parent, {}))
    assert not any("did not make" in each.sentence for each in plain.findings()), "the control"


@pytest.mark.parametrize("renamed", [RENAMED, DISKS_ALONE])
def test_no_sentence_names_one_without_saying_what_it_is(tmp_path: Path, renamed: dict[str, str]) -> None:
    """The one that the others are compared with as little as these."""
    material = Material(load(written(tmp_path, renamed)))
    told = [*verdict(material), *(each.sentence for each in statements.statements(material))]
    assert any(renamed["vm"] in each for each in told)
    for sentence in told:
        for label in renamed.values():
            for _, _, after in (sentence[at:].partition(label) for at in _places(sentence, label)):
                assert "another system" in after.partition(")")[0], sentence


def _places(text: str, word: str) -> list[int]:
    return [at for at in range(len(text)) if text.startswith(word, at)]


def test_the_page_says_what_is_compared(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
    write(mixed)
    text = (mixed / "report.md").read_text()
    assert "The same image behind 2 boundaries and 2 systems from disks" in text
    assert "somebody's own disk boots" in text
    assert "What a boundary costs, from vm:debian13 and vm:debian12" in text
    assert (mixed / "report.html").exists()
    alone = written(mixed.parent, DISKS_ALONE)
    write(alone, ["md"])
    text = (alone / "report.md").read_text()
    assert "The same image" not in text.partition("## What others")[0]
    assert "file for file" not in text


def test_a_figure_of_disks_alone_compares_no_boundaries(mixed: Path) -> None:
    """And none with a disk in it claims one image for all."""
    figures = {}
    for name, renamed in (("plain", {}), ("mixed", RENAMED), ("alone", DISKS_ALONE)):
        figures[name] = overview.chart(Material(load(written(mixed.parent / name, renamed))))
    assert {name for name, figure in figures.items() if "boundary" in figure.title} == {"plain", "mixed"}
    assert {name for name, figure in figures.items() if "same image" in figure.how} <= {"plain"}


def test_a_condition_can_name_one() -> None:
    condition = parse("boot.ratio(vm:debian13, vm:debian12) > 1.5")
    assert (condition.first, condition.second) == ("vm:debian13", "vm:debian12")


def test_its_instances_have_names_that_hosts_may_have() -> None:
    planned = arms(["container", "vm:debian12"])
    assert [arm.label for arm in planned] == ["container", "vm:debian12", "container#aa"]
    assert PlannedArm(label="vm:debian12", backend="vm:debian12").instance == "vm-debian12"
    assert planned[1].is_reference


class Elements(HTMLParser):
    """What a browser would make of a page: the names of its elements with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_a_disks_name_is_text_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's name is somebody else's, and an arm's may be in a run that somebody else made."""
    leave_pictures_empty(monkeypatch)
    bad = "<img src=x onerror=alert(1)>"
    run = written(tmp_path, {"vm": f"vm:{bad}"}, file=f"{bad}`|</script>.qcow2")
    write(run, ["html"])
    page = (run / "report.html").read_text()
    elements = Elements()
    elements.feed(page)
    assert page.count("onerror=alert(1)") > 3, "the control: it is told"
    assert not any("onerror" in attributes for _, attributes in elements.seen)
    assert not any(attributes.get("src") == "x" for _, attributes in elements.seen)
    named = written(tmp_path / "named", {"vm": "vm:disk"}, file=f"{bad}`|.qcow2")
    write(named, ["md"])
    for line in (named / "report.md").read_text().splitlines():
        assert bad not in re.sub(r"`[^`]*`", "", line), line
