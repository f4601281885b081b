"""A time limit for what others do, which a host that is emulated gets longer.

What is waited for is watched, not slept through, so a longer limit costs nothing where all goes well. But whether the
host is emulated is not known for nothing: it is asked once the usual time has passed, and no sooner, so that nothing
which is being timed waits for the answer.
"""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Sequence


class Deadline:
    """``seconds`` from now, and on an emulated host as many times that as `Platform.patience` says."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._begin = time.monotonic()
        self._extended = False

    def left(self) -> float:
        """The seconds that are left, 0 once all have passed."""
        left = self._begin + self.seconds - time.monotonic()
        if left <= 0 and not self._extended:
            from lab.host.survey.virtualisation import platform

            self._extended = True
            self.seconds *= platform().patience
            left = self._begin + self.seconds - time.monotonic()
        return max(0.0, left)

    def ended(self, process: subprocess.Popen[bytes]) -> int | None:
        """Its exit code as soon as it has ended, None where the time ran out first."""
        while True:
            left = self.left()
            try:
                return process.wait(left)
            except subprocess.TimeoutExpired:
                if not left:
                    return None

    def ready(self, descriptors: Sequence[int]) -> list[int]:
        """Those that can be read, as soon as there are any; none where the time ran out first."""
        while True:
            left = self.left()
            found, _, _ = select.select(descriptors, [], [], left)
            if found or not left:
                return found
