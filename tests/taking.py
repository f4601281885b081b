"""Somebody at the other end of a pipe, who takes what comes."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def taken(descriptor: int, size: int = 4096) -> Iterator[None]:
    """What comes is read and thrown away, ``size`` bytes at a time, until the end of the block."""
    ended = threading.Event()

    def take() -> None:
        while not ended.is_set():
            if select.select([descriptor], [], [], 0.05)[0]:
                os.read(descriptor, size)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
