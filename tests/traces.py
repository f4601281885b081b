"""Reading what ``lab run --explain`` prints, fresh or pasted into a page."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
