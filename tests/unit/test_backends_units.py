"""Sizes and CPU counts as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.host.units import format_bytes, parse_bytes, parse_cpus


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("256M", 256 * 1024**2),
        ("256m", 256 * 1024**2),
        ("256MiB", 256 * 1024**2),
        ("256 MB", 256 * 1024**2),
        ("1.5g", 3 * 512 * 1024**2),
        ("2T", 2 * 1024**4),
        ("7b", 7),
    ],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "256X", "1e3", "0", "0.0001", "1..5M", "256 M M", "inf", "½M"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_bytes(text)
    assert "256M" in caught.value.hint


@given(st.integers(min_value=1, max_value=2**60), st.sampled_from(["", "K", "M", "g", "TiB"]))
def test_a_size_without_a_point_is_exact(number: int, unit: str) -> None:
    power = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}[unit[:1].lower()]
    assert parse_bytes(f"{number}{unit}") == number * 1024**power


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    try:
        assert parse_bytes(text) > 0
    except UsageError:
        pass


@given(st.text(max_size=12))
def test_any_text_is_a_cpu_count_or_a_usage_error(text: str) -> None:
    try:
        assert 0 < parse_cpus(text) < float("inf")
    except UsageError:
        pass


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "two", "", "1e30", "8193", "0.009"])
def test_what_is_no_cpu_count_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_cpus(text)


def test_cpus_may_be_fractions() -> None:
    assert parse_cpus("0.5") == 0.5


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (268435456, "256 MiB"), (2**50, "1024 TiB")]
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(min_value=1, max_value=1023), st.sampled_from("KMGT"))
def test_what_is_written_can_be_read_again(number: int, unit: str) -> None:
    size = parse_bytes(f"{number}{unit}")
    assert parse_bytes(format_bytes(size)) == size
