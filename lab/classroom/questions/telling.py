"""What a run that is being measured answers by now, as one line of JSON, by a process of its own:

    python -m lab.classroom.questions.telling LESSON_FOLDER RUN_FOLDER more|over

Once the run is over the line has ``showing`` too: its race and figures. Nothing of it stays in what measures.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from lab.classroom.questions.lesson import read
from lab.classroom.questions.material import growing
from lab.classroom.questions.showing import as_data, showing

NICENESS = 10
OVER = "over"


def told(lesson: Path, run: Path, *, over: bool) -> dict[str, Any]:
    """An event for `lab.classroom.web.live`. Raises ResultsError, UsageError."""
    found = read(lesson)
    event = {"event": "answers", "material": growing(found, run, over=over)}
    return event | ({"showing": as_data(showing(found, run, run.name))} if over else {})


if __name__ == "__main__":
    os.nice(NICENESS)
    found = told(Path(sys.argv[1]), Path(sys.argv[2]), over=sys.argv[3] == OVER)
    sys.stdout.write(json.dumps(found, allow_nan=False) + "\n")
