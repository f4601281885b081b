"""What per_cpu/cpuN/trace_pipe_raw gives: pages of the kernel's ring buffer. Pure: bytes in, records out.

Sources: Documentation/trace/ring-buffer-design.rst, include/linux/ring_buffer.h.

    page     u64 time of its first event, long size of what follows and flags, events
    event    u32: 5 bits of type or length, 27 bits of nanoseconds since the event before; then its data
    entry    of an event with data: u16 which event, u8 flags, u8 preemption, i32 thread, the event's own fields
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct

from lab.errors import LabError

PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
SIZE = (1 << 30) - 1  # bit 31: events were lost before this page; bit 30: how many is stored behind them

HARD_IRQ, SOFT_IRQ, NMI = 0x08, 0x10, 0x40
"""In an entry's flags: it happened in an interrupt that came in this thread's time (TRACE_FLAG_HARDIRQ, …)."""
INTERRUPT = HARD_IRQ | SOFT_IRQ | NMI

_PAGE, _WORD = Struct("=QQ"), Struct("=I")
COMMON = Struct("=HBBi")
"""How every entry begins: event, flags, preemption count, thread."""


def _next(page: bytes, time: int, at: int, end: int) -> tuple[int, int, bytes | None]:
    """The event at ``at``, the one before it being of ``time``: its time, where the next one is, its entry if any."""
    word = _WORD.unpack_from
    (head,) = word(page, at)
    kind, delta = head & 31, head >> 5
    if kind and kind < PADDING:
        data, at = at + 4, at + 4 + 4 * kind
        return time + delta, at, page[data:at]
    if kind == PADDING and not delta:
        return time, end, None  # the rest of the page is empty
    (second,) = word(page, at + 4)
    if kind == TIME_EXTEND:
        return time + (second << 27) + delta, at + 8, None
    if kind == TIME_STAMP:
        return (second << 27) + delta, at + 8, None
    # an event that was thrown away, or one too large for five bits, whose size includes itself
    data, at = at + 8, at + 4 + second
    return time + delta, at, None if kind else page[data:at]


_ENTERED = Struct("=IHBBiQQ")  # head, event, flags, preemption count, thread, function, caller
_ENTERED_HEAD = (_ENTERED.size - 4) // 4


@dataclass(slots=True)
class Run:
    """Functions that a thread entered one after the other on one processor, from ``first`` to ``last``."""

    thread: int
    first: int
    last: int
    own: set[int] = field(default_factory=set)  # addresses
    interrupts: set[int] = field(default_factory=set)


def runs(page: bytes, function: int) -> Iterator[Run | tuple[int, bytes]]:
    """Every entry of one page with its time, in nanoseconds of the trace's clock; but those of the event numbered
    ``function`` come together: millions of them pass in a second.

    For machines of 64 bits, where such an entry is 24 bytes long (struct ftrace_entry).
    """
    time, size = _PAGE.unpack_from(page)
    view, at, end = memoryview(page), _PAGE.size, _PAGE.size + (size & SIZE)
    while at < end:
        run: Run | None = None
        whole = (end - at) // _ENTERED.size * _ENTERED.size
        for head, event, flags, _, thread, address, _ in _ENTERED.iter_unpack(view[at : at + whole]):
            if head & 31 != _ENTERED_HEAD or event != function:
                break
            time += head >> 5
            at += _ENTERED.size
            if run is None or run.thread != thread:
                if run is not None:
                    yield run
                run = Run(thread, time, time)
            run.last = time
            (run.interrupts if flags & INTERRUPT else run.own).add(address)
        if run is not None:
            yield run
        if at < end:
            time, at, entry = _next(page, time, at, end)
            if entry is not None:
                yield time, entry


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field lies in an entry."""

    offset: int
    size: int
    is_signed: bool
    is_text: bool = False

    def number(self, entry: bytes) -> int:
        """Its value as an integer."""
        return int.from_bytes(entry[self.offset : self.offset + self.size], sys.byteorder, signed=self.is_signed)

    def text(self, entry: bytes) -> str:
        """Its value as a string: in place, or where ``__data_loc`` says (low 16 bits where, high ones how long)."""
        start, length = self.offset, self.size
        if self.is_text:
            place = int.from_bytes(entry[start : start + 4], sys.byteorder)
            start, length = place & 0xFFFF, place >> 16
        return entry[start : start + length].split(b"\0", 1)[0].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Format:
    """An event's file ``format``: the number that its entries carry, and its fields."""

    id: int
    fields: dict[str, Field]


_FIELD = re.compile(
    r"field:(?P<what>[^;]*?)(?P<name>\w+)(\[\w*\])?;\s*offset:(?P<at>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<s>[01]);"
)


def read_format(text: str) -> Format:
    """Parse a file ``format``. Raises LabError when it is none."""
    number = re.search(r"^ID: (\d+)$", text, re.MULTILINE)
    if number is None:
        raise LabError("the kernel describes an event in a way that lab can't read", detail=text)
    found = {
        match["name"]: Field(int(match["at"]), int(match["size"]), match["s"] == "1", "__data_loc" in match["what"])
        for match in _FIELD.finditer(text)
    }
    return Format(int(number[1]), found)


def page_size(header: str) -> int:
    """Bytes of a page, from the file ``events/header_page``."""
    return max((int(match["at"]) + int(match["size"]) for match in _FIELD.finditer(header)), default=4096)
