"""What ``lab doctor`` concludes from its checks, prints and exits with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from lab.backends import registry
from lab.cli.host import doctor
from lab.host.identity import privilege
from lab.host.survey import checks
from lab.model import Accelerator, Check, Kernel

GOOD = Check(name="root", ok=True, found="user id 0", required_by=checks.ALL)
NO_QEMU = Check(name="qemu", ok=False, found="not installed", remedy="apt-get install qemu", required_by=("vm",))
NO_LIBVIRT = Check(name="libvirt", ok=False, found="can't be opened", remedy="install it")
NO_WRK = Check(name="wrk", ok=False, found="not installed", remedy="apt-get install wrk", costs="the load")
NO_IPV6 = Check(name="IPv6", ok=False, found="off", remedy="turn it on")
NO_CGROUPS = Check(name="cgroups", ok=False, found="none", remedy="mount them", required_by=checks.ALL)


def backend(name: str, kernel: Kernel, *own: Check) -> Any:
    return SimpleNamespace(name=name, title=name.title(), kernel=kernel, reference=False, check=lambda: list(own))


@pytest.mark.parametrize(
    ("host", "own", "obstacles"),
    [
        ([GOOD], [], ()),
        ([GOOD, NO_WRK], [], ()),  # lacking, but no backend needs it
        ([GOOD, NO_QEMU], [], ("qemu",)),
        ([GOOD, NO_CGROUPS], [], ("cgroups",)),
        ([GOOD], [NO_LIBVIRT], ("libvirt",)),
    ],
)
def test_a_backend_is_unusable_by_what_concerns_it(
    host: list[Check], own: list[Check], obstacles: tuple[str, ...]
) -> None:
    verdict = doctor.judge(backend("vm", Kernel.OWN), doctor.merge([*host, *own]), own)
    assert verdict.obstacles == obstacles
    assert verdict.usable is (not obstacles)


def test_what_one_backend_lacks_does_not_concern_another() -> None:
    assert doctor.judge(backend("container", Kernel.HOST), [GOOD, NO_QEMU, NO_LIBVIRT], [GOOD]).usable


def test_merging_keeps_order_and_the_failure() -> None:
    failed = Check(name="root", ok=False, found="user id 1000", remedy="sudo")
    assert doctor.merge([GOOD, NO_WRK, failed, GOOD]) == [failed, NO_WRK]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """A host with two backends, whose checks a test may add to."""
    found = [GOOD, NO_WRK]
    kinds = (backend("container", Kernel.HOST), backend("vm", Kernel.OWN))
    monkeypatch.setattr(doctor, "become_root", lambda: None)  # this process is to stay where it is
    monkeypatch.setattr(registry, "available", lambda: kinds)
    monkeypatch.setattr(checks, "host_checks", lambda: found)
    monkeypatch.setattr(doctor, "_accelerate", lambda _verdicts, again: (Accelerator.TCG, doctor.FALLING_BACK))
    return found


def test_a_usable_host_is_shown_with_the_fallback(host: list[Check], capsys: pytest.CaptureFixture[str]) -> None:
    doctor.doctor()
    shown = capsys.readouterr().out
    assert "falling back to TCG" in shown
    assert "✓  vm" in shown
    assert "usable, tcg" in shown
    assert "! wrk: apt-get install wrk" in shown


def test_an_unusable_backend_exits_with_1_and_the_remedy(
    host: list[Check], capsys: pytest.CaptureFixture[str]
) -> None:
    host.append(NO_QEMU)
    with pytest.raises(typer.Exit) as exited:
        doctor.doctor()
    assert exited.value.exit_code == 1
    shown = capsys.readouterr().out
    assert "unusable: qemu" in shown
    assert "✗ qemu: apt-get install qemu" in shown
    assert "✓  container" in shown


def test_what_costs_most_comes_first_and_says_what(host: list[Check], capsys: pytest.CaptureFixture[str]) -> None:
    host[:] = [GOOD, NO_IPV6, NO_WRK, NO_QEMU, NO_CGROUPS]
    with pytest.raises(typer.Exit):
        doctor.doctor()
    lines = [line.strip() for line in capsys.readouterr().out.partition("Remedies")[2].splitlines()[1:]]
    assert [line.split()[1].rstrip(":") for line in lines if line[0] in "✗!"] == ["cgroups", "qemu", "wrk", "IPv6"]
    assert [line.partition("no ")[2] for line in lines if line[0] not in "✗!"] == ["container, vm", "vm", "the load"]


def test_json_says_the_same(host: list[Check], capsys: pytest.CaptureFixture[str]) -> None:
    host.append(NO_QEMU)
    with pytest.raises(typer.Exit):
        doctor.doctor(as_json="-")
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is False
    assert [(each["name"], each["usable"]) for each in found["backends"]] == [("container", True), ("vm", False)]
    assert found["accelerator"] == "tcg"
    assert {"name": "qemu", "remedy": "apt-get install qemu"}.items() <= found["checks"][2].items()
    assert found["host"]["cpu"]["online"] >= 1
    assert found["versions"]["lab"]


@pytest.mark.parametrize("rootless", [True, False])
def test_an_ordinary_user_is_told_what_is_roots_alone(monkeypatch: pytest.MonkeyPatch, rootless: bool) -> None:
    monkeypatch.setattr(privilege, "is_rootless", lambda: rootless)
    found = {check.name: check for check in checks.host_checks()}
    assert (checks.roots_alone().name in found) is rootless
    if not rootless:
        return
    told = found[checks.roots_alone().name]
    assert (told.ok, told.required_by) == (False, ()), "said, and no obstacle"
    assert "not traced" in told.found
    assert "lab isolation" in told.costs
    page = (Path(__file__).parents[2] / "docs/rootless.md").read_text()
    rows = [line.split(" | ")[0] for line in page.splitlines() if " | yes | no" in line and line.startswith("| `")]
    assert sorted(set(re.findall("`([^`]+)`", " ".join(rows)))) == sorted(checks.OF_ROOT), "as the page has them"
