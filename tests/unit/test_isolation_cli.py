"""``lab isolation``: what is chosen, what is explained, and one line for what can't be meant."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from lab.cli import isolation
from lab.errors import UsageError
from lab.experiment.isolation import Asked
from lab.instance import Backend
from lab.isolation.base import Group
from lab.isolation.registry import choose, probes
from lab.model import Accelerator
from lab.results.observation import Observation


def answer(text: str, reach: str, *, as_expected: bool | None, **more: Any) -> Observation:
    detail = {
        "reach": reach, "as_expected": as_expected, "expected": "no", "reason": "the filter refuses it",
        "surprise": "the filter has a hole", "evidence": "mount: succeeded", **more,
    }  # fmt: skip
    return Observation(quantity="isolation.mount", value=None, unit="answer", text=text, detail=detail)


def asked(*answers: Observation) -> Asked:
    made = cast("Backend", SimpleNamespace(name="made"))
    return Asked(backend=made, accelerator=Accelerator.NATIVE, answers=answers)


def test_without_a_choice_all_are_asked() -> None:
    assert tuple(choose("", "")) == probes()


def test_a_group_is_meant_by_its_beginning() -> None:
    chosen = choose("time, Net", "")
    assert {probe.group for probe in chosen} == {Group.TIME, Group.NETWORK}
    assert [probe.id for probe in choose("priv", "mount,reboot")] == ["mount", "reboot"]


@pytest.mark.parametrize(
    ("groups", "names", "message", "hint"),
    [
        ("", "mounted", "no probe is called mounted", "mount"),
        ("", "zzzzzz", "no probe is called zzzzzz", "lab isolation ls"),
        ("gardening", "", "no group is called gardening", "kernel sharing"),
        ("network", "mount", "no probe of mount is in network", "lab isolation ls"),
    ],
)
def test_what_is_no_probe_is_told_with_what_may_be_meant(groups: str, names: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose(groups, names)
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_a_list_and_an_explanation_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    isolation.list_probes(group="devices", as_json="-")
    listed = json.loads(capsys.readouterr().out)
    assert [each["probe"] for each in listed] == [probe.id for probe in choose("devices", "")]
    isolation.explain("kvm", as_json="-")
    (kvm,) = (each for each in listed if each["probe"] == "kvm")
    assert json.loads(capsys.readouterr().out) == kvm
    assert kvm["expected"]["container"] == {"answers": ["no"], "because": kvm["expected"]["container"]["because"]}


def test_a_list_has_every_question_in_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    isolation.list_probes(group="", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    for probe in probes():
        assert [line for line in lines if line.split()[:1] == [probe.id] and probe.question in line]


def test_a_surprise_is_marked_and_told_with_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    mount = choose("", "mount")
    isolation._print_matrix([asked(answer("yes", "open", as_expected=False))], mount)
    shown = capsys.readouterr().out
    assert "✗ yes !" in shown
    assert "! made, mount: “yes” instead of “no” (the filter refuses it): the filter has a hole." in shown
    isolation._print_matrix([asked(answer("no", "closed", as_expected=True))], mount)
    shown = capsys.readouterr().out
    assert "✓ no" in shown
    assert "instead of" not in shown


def test_what_cant_be_told_is_no_tick_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    unclear = answer("inconclusive", "unknown", as_expected=None, evidence="inconclusive: the host too")
    isolation._print_matrix([asked(unclear), asked(unclear)], choose("", "mount"))
    shown = capsys.readouterr().out
    assert shown.count("? unclear") == 2
    assert "? mount (made, made): inconclusive: the host too" in shown
    assert "✓ no" not in shown


@pytest.mark.parametrize(("as_expected", "code"), [(True, 0), (None, 0), (False, 1)])
def test_only_a_surprise_is_a_failure(as_expected: bool | None, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "become_root", lambda *names: None)
    found = [asked(answer("yes", "open", as_expected=as_expected))]
    monkeypatch.setattr(isolation, "_ask", lambda on, chosen, scenario: found)
    done = CliRunner().invoke(isolation.app, ["--probe", "mount", "--json=-"])
    assert done.exit_code == code
    assert json.loads(done.stdout)[0]["as_expected"] is as_expected
