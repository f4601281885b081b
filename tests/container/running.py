"""What tests of running containers share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from lab.model import Phase
from lab.runtime.launcher.launcher import Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A container that ran to its end."""

    exit_code: int
    output: str
    stamps: dict[Phase, float]


class Output:
    """A pipe that is read to its end in the background, so that no writer waits."""

    def __init__(self) -> None:
        read, self.descriptor = os.pipe()
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._drain, args=(read,))
        self._thread.start()

    def _drain(self, read: int) -> None:
        with os.fdopen(read, "rb") as file:
            self._parts.append(file.read())

    def handed_over(self) -> None:
        os.close(self.descriptor)

    def text(self) -> str:
        self._thread.join(120)
        return b"".join(self._parts).decode("utf-8", "replace")


Start = Callable[..., tuple[Container, Output]]
Run = Callable[..., Ran]
