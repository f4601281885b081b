"""Several copies at once: each is seen or has failed, and all stand until the last is ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.errors import LabError
from lab.experiment.measurement import Measurement
from lab.host.clock import now


@pytest.fixture
def measurement(monkeypatch: pytest.MonkeyPatch) -> tuple[Measurement, list[str]]:
    """One whose copies are their names; "b" does not come up. What stands, and what was stopped behind ``-``."""
    made, heard = Measurement(*(None,) * 4), []  # type: ignore[arg-type]

    @contextmanager
    def serving(_: object, name: Any) -> Iterator[Any]:
        if name == "b":
            raise LabError("it did not come up")
        heard.append(name)
        yield name
        heard.append(f"-{name}")

    monkeypatch.setattr(made, "request", lambda name: name)
    monkeypatch.setattr(made, "serving", serving)
    return made, heard


def test_what_fails_is_a_result_among_the_others(measurement: tuple[Measurement, list[str]]) -> None:
    made, heard = measurement
    found: list[Any] = made.together(None, ["a", "b", "c"], lambda one: f"seen {one}")  # type: ignore[arg-type]
    assert (found[0], found[2]) == ("seen a", "seen c")
    assert isinstance(found[1], LabError)
    assert set(heard[:2]) == {"a", "c"}, "none is stopped before the last is ready"
    assert set(heard[2:]) == {"-a", "-c"}


def test_staggered_requests_keep_their_distance(measurement: tuple[Measurement, list[str]]) -> None:
    made, _ = measurement
    began = now()
    at: list[Any] = made.together(None, ["a", "c", "d"], lambda _: now(), gap_seconds=0.05)  # type: ignore[arg-type]
    assert [at[1] - began >= 0.05, at[2] - began >= 0.1] == [True, True]
