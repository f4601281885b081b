"""A restored machine runs, also where libvirt told it so before its state had been read."""

from __future__ import annotations

from typing import Any

import pytest

from lab.errors import LabError
from lab.hypervisor.domains import connection
from lab.hypervisor.domains.connection import Domain


def domain(monkeypatch: pytest.MonkeyPatch, states: list[str]) -> tuple[Domain, list[str]]:
    """One whose QEMU passes through those states, from "paused" only when it is told to."""
    found, told = object.__new__(Domain), list[str]()
    found.name = "a machine"

    def ask(_self: Domain, command: str) -> Any:
        if command == "cont":
            told.append(states.pop(0))
            return {}
        state = states[0]
        if state != "paused" and len(states) > 1:
            states.pop(0)
        return {"status": state}

    monkeypatch.setattr(Domain, "_ask", ask)
    return found, told


@pytest.mark.parametrize(
    ("states", "told"),
    [(["running"], []), (["inmigrate", "running"], []), (["inmigrate", "paused", "running"], ["paused"])],
)
def test_it_is_told_again_if_it_has_forgotten(
    monkeypatch: pytest.MonkeyPatch, states: list[str], told: list[str]
) -> None:
    found, said = domain(monkeypatch, states)
    found.go_on()
    assert said == told
    assert states == ["running"]


def test_one_that_never_runs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RESTORE_SECONDS", 0.1)
    found, _ = domain(monkeypatch, ["inmigrate"])
    with pytest.raises(LabError, match="inmigrate"):
        found.go_on()
