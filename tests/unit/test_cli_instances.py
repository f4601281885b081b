"""The verbs of detached instances, as far as no instance is needed: words, numbers."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cli.instances.ending import parse_signal
from lab.cli.instances.logs import _start_of_last
from lab.errors import UsageError


@pytest.mark.parametrize(("word", "number"), [("KILL", 9), ("sigterm", 15), ("9", 9), ("USR1", 10)])
def test_signals_by_name_and_number(word: str, number: int) -> None:
    assert parse_signal(word) == number


@pytest.mark.parametrize("word", ["", "NOSUCH", "0", "999", "-9", "9x"])
def test_what_is_no_signal(word: str) -> None:
    with pytest.raises(UsageError):
        parse_signal(word)


@given(
    st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"")), max_size=20),
    st.integers(0, 25),
    st.booleans(),
)
def test_the_last_lines_are_those_that_tail_shows(lines: list[bytes], wanted: int, ended: bool) -> None:
    content = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    expected = b"".join(re.findall(rb"[^\n]*\n|[^\n]+", content)[-wanted:]) if wanted else b""
    with io.BytesIO(content) as file:
        assert content[_start_of_last(file, wanted) :] == expected
