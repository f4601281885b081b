"""What is known of a plan's runs: a file beside them, replaced whole, so that no end of this process tears it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lab.commands.watching.plan import Plan
from lab.errors import ResultsError
from lab.host.units import format_bytes
from lab.results.store import RUN

KEPT_AT_LEAST = 2
"""So many runs stay whatever they take: the next one is compared with the last."""


@dataclass(slots=True, kw_only=True)
class State:
    """``seen``: what was found when the last run ``began``; ``runs``: names of the plan's own, the oldest first."""

    path: Path
    seen: Mapping[str, str] = field(default_factory=dict)
    began: datetime | None = None
    runs: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan) -> State:
        """As it was written last. Raises ResultsError where the file is damaged."""
        path = plan.results / f".watch-{plan.name}.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            began = datetime.fromisoformat(raw["began"]) if raw["began"] is not None else None
            return cls(path=path, seen=dict(raw["seen"]), began=began, runs=[str(name) for name in raw["runs"]])
        except FileNotFoundError:
            return cls(path=path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{path} is damaged: {error}", hint="rm it: the next check measures anew") from error

    def write(self) -> None:
        """Raises ResultsError when the folder can't be written."""
        began = self.began.isoformat() if self.began is not None else None
        data = {"seen": dict(self.seen), "began": began, "runs": self.runs}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, new = tempfile.mkstemp(prefix=f"{self.path.name}.", dir=self.path.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(data, file, indent=1)
            Path(new).replace(self.path)
        except OSError as error:
            raise ResultsError(
                f"{self.path} can't be written: {error.strerror}", hint="df -h shows free space"
            ) from error

    def drop(self, at_most_bytes: int) -> Iterator[str]:
        """Remove the oldest of its own runs until the others fit; says each. What somebody else has removed, or put
        in a run's place, is left out of the list and left alone.
        """
        folder = self.path.parent
        self.runs = [name for name in self.runs if _is_run(folder, name)]
        sizes = {name: _bytes_of(folder / name) for name in self.runs}
        while sum(sizes.values()) > at_most_bytes and len(self.runs) > KEPT_AT_LEAST:
            name = self.runs.pop(0)
            shutil.rmtree(folder / name)
            yield f"dropped {name} ({format_bytes(sizes.pop(name))}): keep.disk is {format_bytes(at_most_bytes)}"


def _is_run(folder: Path, name: str) -> bool:
    """Whether ``name`` is a run's folder in ``folder`` itself: the list may be another's writing."""
    path = folder / name
    return name == path.name and name not in ("", "..") and (path / RUN).is_file() and not path.is_symlink()


def _bytes_of(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
