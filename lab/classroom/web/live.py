"""A run that is measured while the class guesses, as the server hears of it: lines of JSON, one way, from a pipe.

What measures is another process, root's, which reads nothing of this one. ``doing`` and ``progress`` are for the
projector; ``answers`` is what the run answers by now. The end of the pipe is the end of the measurement.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any

from lab.classroom.questions.showing import from_data
from lab.classroom.web.site import Site

LONGEST_LINE = 32 << 20


@dataclass(slots=True)
class Live:
    """What happens now; ``state`` is measuring, over or failed."""

    what: str = ""
    done: int = 0
    expected: int = 0
    state: str = "measuring"

    def told(self) -> dict[str, Any]:
        """For the projector's page and the teacher's."""
        return {"what": self.what, "done": self.done, "expected": self.expected, "state": self.state}


async def follow(descriptor: int, site: Site, live: Live) -> None:
    """Hear everything until the pipe ends."""
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(descriptor), "rb", buffering=0)
    )
    try:
        while line := await reader.readline():
            _hear(json.loads(line), site, live)
            site.hub.changed()
    except ValueError:
        pass  # half a line: what measured was killed while it told something
    finally:
        transport.close()
        if live.state == "measuring":
            live.state = "failed"
        site.course.settle()
        site.hub.changed()


def _hear(event: dict[str, Any], site: Site, live: Live) -> None:
    match event["event"]:
        case "doing":
            live.what = str(event["what"])
        case "progress":
            live.done, live.expected = int(event["done"]), int(event["expected"])
        case "answers":
            site.course.learn(event["material"])
            if "showing" in event:
                site.showing = from_data(event["showing"])
        case "over":
            live.state = "over"
