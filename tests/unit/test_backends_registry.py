"""Backends are found by themselves, in order, and say what they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lab.backends
from lab.backends.registry import available, find
from lab.commands.measuring import USUAL
from lab.errors import UsageError
from lab.images.process import stop_signal_of
from lab.images.store import Image
from lab.model import ImageConfig, Kernel

ROOT = Path(__file__).parents[2]


def test_from_the_thinnest_boundary_to_the_thickest() -> None:
    assert [kind.name for kind in available()] == [
        "process", "bwrap", "nspawn", "container", "userns", "runc", "crun", "podman", "docker", "gvisor", "uml",
        "microvm", "krun", "vm",
    ]  # fmt: skip
    assert [kind.kernel for kind in available()] == [
        *[Kernel.HOST] * 9,
        Kernel.USER_SPACE,
        Kernel.USER_MODE,
        *[Kernel.OWN] * 3,
    ]
    references = ["bwrap", "nspawn", "userns", "runc", "crun", "podman", "docker", "gvisor", "uml", "krun"]
    assert [kind.name for kind in available() if kind.reference] == references


def test_help_and_pages_name_those_that_are_measured_unasked_and_those_that_are_not() -> None:
    """What is measured where ``--on`` is left out is said in words, and no reference is forgotten."""
    usual = ", ".join(kind.name for kind in available() if not kind.reference)
    assert usual == USUAL
    page = (ROOT / "docs" / "adding-a-backend.md").read_text(encoding="utf-8")
    section = page.split("## A backend that is only a reference\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section.strip().split("\n\n")[0]))
    assert {kind.name for kind in available() if kind.reference} == named & {kind.name for kind in available()}


def test_each_says_what_it_is_and_what_it_cannot_make_equal() -> None:
    assert len(available()) > 2
    for kind in available():
        assert kind.title
        assert kind.mechanism
        assert kind.parity.differences, f"{kind.name} is equal to all others?"
        for sentence in kind.parity.differences:
            assert sentence.endswith("."), sentence


def test_an_unknown_one_is_a_usage_error_that_names_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        find("jail")
    assert "container" in caught.value.hint


def test_two_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "again.py").write_text(
        "from lab.backends.container import ContainerBackend as Base\nclass Again(Base):\n    name = 'container'\n"
    )
    monkeypatch.setattr(lab.backends, "__path__", [*lab.backends.__path__, str(tmp_path)])
    with pytest.raises(TypeError, match="two backends are called container"):
        available()


@pytest.mark.parametrize(
    ("word", "number"),
    [("SIGTERM", 15), ("QUIT", 3), ("SIGUSR1", 10), ("9", 9), ("", 15), ("NONSENSE", 15), ("999", 15)],
)
def test_stop_signals(word: str, number: int) -> None:
    image = Image(
        name="x",
        digest="",
        config=ImageConfig(stop_signal=word),
        layers=(),
        origin=None,
        created=None,  # type: ignore[arg-type]
    )
    assert stop_signal_of(image) == number


def test_what_the_page_says_is_to_be_touched_is_where_it_says() -> None:
    page = (ROOT / "docs" / "adding-a-backend.md").read_text(encoding="utf-8")
    section = page.split("## What else to touch\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| `(\w+)` \|", section, re.MULTILINE)
    assert len(rows) > 12
    for file, name in rows:
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text(encoding="utf-8")), f"{name} in {file}"
