"""Descriptors that a new process is given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


def pipe(opened: ExitStack) -> tuple[int, int]:
    """A pipe whose read end is closed with ``opened``; the write end is the caller's to close."""
    read, write = os.pipe2(os.O_CLOEXEC)
    opened.callback(os.close, read)
    return read, write


def memory_file(content: bytes, opened: ExitStack) -> int:
    """A descriptor to read ``content`` from, without a thread to feed a pipe."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    opened.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@contextmanager
def null_unless(descriptor: int | None) -> Iterator[int]:
    """``descriptor``, or /dev/null for as long as it is needed."""
    if descriptor is not None:
        yield descriptor
        return
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield null
    finally:
        os.close(null)
