"""Reading what ``lab run --explain`` prints, fresh or pasted into a page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.cli.instances.explanations import EXPLANATIONS

STEP = re.compile(
    r"^ *(?P<at>[\d.]+) +(?P<took>[\d.]+)  (?P<side>\w+) +(?P<number>\d+)? +(?P<step>\S(?:.*?\S)?) {2,}(?P<page>\S+)"
)
PART = re.compile(r"^ {10,}(?P<took>[\d.]+) {2,}(?P<text>\S.*)$")
HOST_PATH = re.compile(r"^/\S+ (?=on /)")  # where the host keeps what is mounted: another folder in each run
CONTROLLERS = re.compile(r": .*")


@dataclass(frozen=True, slots=True)
class Line:
    """One step as printed; times in milliseconds since the request, ``parts`` without what is the host's."""

    at: float
    took: float
    side: str
    number: int | None
    step: str
    page: str
    parts: tuple[str, ...]

    @property
    def told(self) -> tuple[object, ...]:
        """All that is the same in every run."""
        return self.side, self.number, self.step, self.page, self.parts


def parse(text: str) -> list[Line]:
    """The steps of a trace, in the order they were printed."""
    found: list[Line] = []
    for line in text.splitlines():
        if step := STEP.match(line):
            number = int(step["number"]) if step["number"] else None
            times = float(step["at"]), float(step["took"])
            found.append(Line(*times, step["side"], number, step["step"], step["page"], ()))
        elif found and (part := PART.match(line)):
            last = found.pop()
            what = CONTROLLERS.sub("", HOST_PATH.sub("… ", part["text"]))
            found.append(Line(last.at, last.took, last.side, last.number, last.step, last.page, (*last.parts, what)))
    return found


def sentences(text: str) -> list[str]:
    """What is said about a step whatever the run: the explanations, without what is this start's own."""
    known = {said for each in EXPLANATIONS.values() for said in (each.what, each.reason) if said}
    return [line.strip() for line in text.splitlines() if line.strip() in known]


@dataclass(slots=True)
class Shown:
    """A trace pasted into a page, below the command that printed it."""

    page: Path
    command: str
    trace: str

    def rewrite(self) -> None:
        """Put a fresh one there, printed by the very command, without the places of this host."""
        words = shlex.split(self.command.removeprefix("$ sudo ./bootstrap lab "))
        lab = [sys.executable, "-m", "lab.cli.main", *words]
        fresh = subprocess.run(lab, capture_output=True, text=True, timeout=240, check=True).stderr
        fresh = re.sub(r"/\S+(/tmp/\w+/|/inside/)", r"/var/lib/lab\1", fresh)
        text = self.page.read_text()
        self.page.write_text(text.replace(f"{self.command}\n{self.trace}```", f"{self.command}\n{fresh}```", 1))
        self.trace = fresh


def shown_in(page: Path, name: str) -> Shown:
    """The trace below the marker that names it; with ``LAB_WRITE_TRACES=1`` a fresh one, put there."""
    marker = f"<!-- trace of {name} -->\n\n```console\n"
    _, found, after = page.read_text().partition(marker)
    assert found, f"{page.name} has lost its trace of {name}"
    block = after.partition("```")[0]
    command, _, trace = block.partition("\n")
    shown = Shown(page, command, trace)
    if os.environ.get("LAB_WRITE_TRACES"):
        shown.rewrite()
    return shown
