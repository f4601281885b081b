"""Pages of the kernel's ring buffer: what was put into one comes out of it, with its time."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.host.tracing.ringbuffer import (
    PADDING,
    TIME_EXTEND,
    TIME_STAMP,
    Run,
    page_size,
    read_format,
    runs,
)

EXEC = """name: sched_process_exec
ID: 365
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:__data_loc char[] filename;	offset:8;	size:4;	signed:0;
	field:pid_t pid;	offset:12;	size:4;	signed:1;
	field:pid_t old_pid;	offset:16;	size:4;	signed:1;

print fmt: "filename=%s pid=%d old_pid=%d", __get_str(filename), REC->pid, REC->old_pid
"""
HEADER = """	field: u64 timestamp;	offset:0;	size:8;	signed:0;
	field: local_t commit;	offset:8;	size:8;	signed:1;
	field: int overwrite;	offset:8;	size:1;	signed:1;
	field: char data;	offset:16;	size:4080;	signed:0;
"""
LONGEST_DELTA = 1 << 27


def event(delta: int, entry: bytes, *, large: bool = False) -> bytes:
    """As ring_buffer_write puts it: short ones with their length in the header, others with a word for it."""
    assert len(entry) % 4 == 0
    if large or len(entry) > 28 * 4:
        return struct.pack("=II", delta << 5, len(entry) + 4) + entry
    return struct.pack("=I", delta << 5 | len(entry) // 4) + entry


def between(kind: int, delta: int, word: int) -> bytes:
    return struct.pack("=II", (delta & (LONGEST_DELTA - 1)) << 5 | kind, word)


def page(start: int, *parts: bytes, flags: int = 0) -> bytes:
    data = b"".join(parts)
    return (struct.pack("=QQ", start, len(data) | flags) + data).ljust(4096, b"\xff")


NO_EVENT = -1


def records(page: bytes) -> list[Run | tuple[int, bytes]]:
    """Every entry by itself, with its time: where no event's number is the one asked for, none come together."""
    return list(runs(page, NO_EVENT))


entries = st.integers(1, 40).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
steps = st.lists(st.tuples(st.integers(0, 1 << 40), entries, st.booleans()), max_size=20)


@given(st.integers(0, 1 << 58), steps)
def test_every_entry_comes_out_with_its_time(start: int, given_steps: list[tuple[int, bytes, bool]]) -> None:
    parts, expected, now = [], [], start
    for delta, entry, large in given_steps:
        now += delta
        if delta >= LONGEST_DELTA:
            parts.append(between(TIME_EXTEND, delta, delta >> 27))
            delta = 0
        parts.append(event(delta, entry, large=large))
        expected.append((now, entry))
    assert records(page(start, *parts)) == expected


ENTER = 1  # the number of ftrace's own event
entered = st.builds(
    lambda thread, flags, address: struct.pack("=HBBiQQ", ENTER, flags, 0, thread, address, 0),
    st.integers(1, 3), st.sampled_from([0, 1, 0x08, 0x11]), st.integers(0, 5),
)  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.one_of(entered, st.binary(min_size=24, max_size=24))), max_size=60)
)
def test_functions_come_in_runs_that_hold_the_same_as_records(given_steps: list[tuple[int, bytes]]) -> None:
    whole = page(500, *(event(delta, entry) for delta, entry in given_steps))
    once, others = set(), []
    for each in records(whole):
        assert isinstance(each, tuple)
        at, entry = each
        kind, flags, _, thread, address, _ = struct.unpack("=HBBiQQ", entry)
        if kind == ENTER:
            once.add((thread, bool(flags & 0x58), address))
        else:
            others.append((at, entry))
    found, rest = set(), []
    for each in runs(whole, ENTER):
        if isinstance(each, Run):
            assert 500 <= each.first <= each.last
            found |= {(each.thread, False, one) for one in each.own} | {
                (each.thread, True, one) for one in each.interrupts
            }
        else:
            rest.append(each)
    assert (found, rest) == (once, others)


def test_a_run_ends_where_something_else_happens() -> None:
    """Exactly there: an execve between two functions tells to whom each belongs."""
    first, second, third = (struct.pack("=HBBiQQ", ENTER, 0, 0, *who, 0) for who in ((7, 0xA), (7, 0xB), (8, 0xC)))
    parts = [event(1, entry) for entry in (first, b"an execve...", second, third)]
    assert list(runs(page(0, *parts), ENTER)) == [
        Run(7, 1, 1, {0xA}), (2, b"an execve..."), Run(7, 3, 3, {0xB}), Run(8, 4, 4, {0xC}),
    ]  # fmt: skip


def test_absolute_times_and_what_was_thrown_away() -> None:
    thrown = struct.pack("=II", 7 << 5 | PADDING, 12) + b"gonegone"
    parts = [event(5, b"1111"), thrown, between(TIME_STAMP, 9, 3), event(1, b"2222"), struct.pack("=I", PADDING)]
    assert records(page(100, *parts, b"rest")) == [(105, b"1111"), ((3 << 27) + 10, b"2222")]


def test_a_page_that_says_that_events_were_lost_before_it_is_read_as_any() -> None:
    assert records(page(3, event(0, b"1111"), flags=1 << 31)) == [(3, b"1111")]


def test_a_format_says_where_fields_lie() -> None:
    form = read_format(EXEC)
    program = b"/usr/bin/python3\0"
    entry = struct.pack("=HBBiIii", 365, 0, 0, 41, len(program) << 16 | 20, 42, -1) + program
    assert form.id == 365
    assert form.fields["filename"].text(entry) == "/usr/bin/python3"
    assert (form.fields["pid"].number(entry), form.fields["old_pid"].number(entry)) == (42, -1)
    assert page_size(HEADER) == 4096
    with pytest.raises(LabError, match="describes an event"):
        read_format("nothing of the kind")
