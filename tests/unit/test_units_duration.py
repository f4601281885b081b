"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.host.units import parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("90s", 90), ("45", 45), ("1h30m", 5400), ("1.5h", 5400), (" 2M ", 120)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_every_combination_adds_up(hours: int, minutes: int, seconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s"
    total = hours * 3600 + minutes * 60 + seconds
    if total:
        assert parse_seconds(text) == total
    else:
        with pytest.raises(UsageError):
            parse_seconds(text)


@pytest.mark.parametrize("text", ["", "5 minutes", "-3", "m5", "0", "nan", "1m2h", "5mm"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_seconds(text)
