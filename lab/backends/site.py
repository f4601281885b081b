"""Where instances live: what those of one session share, and the backends that make them.

with Site.open() as site:
    with site.backend("container").launch(request) as instance: …
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from lab.backends.registry import find
from lab.backends.support.base import SiteBackend
from lab.backends.support.shared import SharedParts
from lab.host.session.ledger import Session


class Site(SharedParts):
    """One session's shared parts, with a backend of each name."""

    def __init__(self, home: Path, session: Session, stack: ExitStack) -> None:
        super().__init__(home, session, stack)
        self._backends: dict[str, SiteBackend] = {}

    def backend(self, name: str) -> SiteBackend:
        """The backend called ``name``, one per site. Raises UsageError when there is none."""
        with self._lock:
            if name not in self._backends:
                backend = find(name)(self)
                self._stack.callback(backend.close)
                self._backends[name] = backend
            return self._backends[name]
