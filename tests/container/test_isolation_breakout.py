"""Who breaks out: asked for real on this host, with each control turned around once."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from students import can_read_lab, enrolled

from lab.host.survey import checks
from lab.isolation import breakout
from lab.results.observation import Observation

# On any host where these tests run at all, these can be told.
HELD_BACK = {"secrets-of-root", "files-of-root", "root-of-a-host-process", "kill-host-process", "join-namespace"}
HELD_BACK |= {"mount-on-the-host", "set-hostname", "set-clock", "reboot", "swap", "core-pattern", "cgroup-files"}
HELD_BACK |= {"shared-memory", "packet-capture", "raw-socket", "network-settings", "kernel-messages"}
REACHED = {"kill-process-of-the-user", "host-loopback", "abstract-socket"}


@pytest.fixture(autouse=True)
def needs_root(missing: object) -> None:
    assert callable(missing)
    for check in (checks.namespaces(),):
        if not check.ok:
            missing(f"{check.name} ({check.found})")


def asked() -> dict[str, Observation]:
    return {each.quantity.removeprefix(breakout.PREFIX): each for each in breakout.ask_broken_out()}


def test_the_command_tells_what_root_reaches_and_a_user_does_not() -> None:
    command = [sys.executable, "-m", "lab.cli.main", "isolation", "breakout", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)
    told = {each["probe"]: each for each in json.loads(done.stdout)}
    assert {key for key, each in told.items() if each["answer"] == "no"} >= {*HELD_BACK, "set-user-id"}
    assert {key for key, each in told.items() if each["answer"] == "yes"} >= REACHED
    assert {told[key]["root"]["answer"] for key in HELD_BACK | REACHED} == {"yes"}
    assert not [key for key, each in told.items() if each["as_expected"] is False]


def test_a_user_who_were_root_would_be_a_surprise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakout, "broken_out", breakout.on_host)
    found = asked()
    assert {found[key].text for key in HELD_BACK} == {"yes"}
    assert {found[key].detail["as_expected"] for key in HELD_BACK} == {False}
    assert all(found[key].detail["surprise"] for key in HELD_BACK)


def test_what_root_is_refused_too_can_t_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakout, "on_host", breakout.broken_out)
    found = asked()
    assert {found[key].text for key in HELD_BACK} == {"inconclusive"}
    assert {found[key].detail["root"]["answer"] for key in HELD_BACK} == {"inconclusive"}


def test_a_program_that_changes_no_user_can_t_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control is the user in no namespace, who has to gain root by it; and what has gained it is a surprise."""
    with monkeypatch.context() as patch:
        patch.setattr(breakout, "as_user", breakout.broken_out)
        assert asked()["set-user-id"].text == "inconclusive"
    with monkeypatch.context() as patch:
        patch.setattr(breakout, "broken_out", breakout.as_user)
        assert asked()["set-user-id"].detail["as_expected"] is False
    monkeypatch.setattr(breakout.SetUserId, "places", ("/usr/bin/env",))
    assert asked()["set-user-id"].text == "inconclusive"


def test_what_a_closed_place_allows_can_t_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakout, "in_closed_place", breakout.on_host)
    found = asked()
    assert {found[key].text for key in HELD_BACK | REACHED} == {"inconclusive"}


def test_an_ordinary_user_is_told_that_root_is_the_control() -> None:
    if not can_read_lab():
        pytest.skip("others than root may not read this checkout")
    with tempfile.TemporaryDirectory(prefix="lab-test-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with enrolled(Path(folder)) as student:
            done = student.lab("isolation", "breakout")
    assert (done.returncode, done.stdout) == (1, "")
    assert "sudo" in done.stderr
