"""One more command in an instance: what runs it promises, whichever way it is isolated."""

from __future__ import annotations

from abc import ABC, abstractmethod

from lab.host.closing import Closing
from lab.model import TerminalSize


class Execution(Closing, ABC):
    """One more command in an instance, with streams of its own; see `lab.instance.Instance.begin`.

    A context manager: leaving it closes it. Thread-safe.
    """

    @abstractmethod
    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The command's exit code (128 + n after signal n), or None when the time ran out first.

        When it returns a code, all the command's own output has been written to the descriptors given, as far as
        somebody reads them. Raises LabError when the code can't be known, since the instance has gone.
        """

    @abstractmethod
    def signal(self, number: int) -> None:
        """Send a signal to the command. No error if it has ended."""

    @abstractmethod
    def resize(self, size: TerminalSize) -> None:
        """Give its terminal another size; the foreground process there gets SIGWINCH. Nothing without a terminal."""

    @abstractmethod
    def close(self) -> None:
        """Kill the command if it still runs and let go of the descriptors given. Idempotent."""
