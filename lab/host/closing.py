"""What is closed at the end of a ``with`` block."""

from __future__ import annotations

from typing import Self


class Closing:
    """Gives a class that has a `close` the two methods of a context manager."""

    __slots__ = ()

    def close(self) -> None:
        """Give up all that it holds. Idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
