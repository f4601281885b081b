"""What an experiment tells whoever watches it. The command line draws it; tests record it."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Called from the measuring thread; does as little as possible, since measurements are running."""

    def doing(self, what: str) -> None:
        """What happens now: ``block 2, vm: booting``."""

    def progress(self, done: int, expected: int) -> None:
        """Instances observed so far, and how many are expected by now to be observed in all."""

    def note(self, sentence: str) -> None:
        """Something worth reading that is no progress: a failure that was recorded, a retry."""


class Silent:
    """For ``--quiet``: what matters is in the run's folder, and said at the end."""

    def doing(self, what: str) -> None:
        """Ignored."""

    def progress(self, done: int, expected: int) -> None:
        """Ignored."""

    def note(self, sentence: str) -> None:
        """Ignored."""
