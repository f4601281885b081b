"""Two labs at once: each makes and removes groups below one common parent."""

from __future__ import annotations

import subprocess
import sys
import uuid

LOOP = """
import sys
from lab.host.cgroup import ControlGroup
from lab.model import Limits
for number in range(250):
    ControlGroup.create(f"lab/{sys.argv[1]}/{sys.argv[2]}", Limits(pids=8)).remove()
"""


def test_removing_the_common_parent_disturbs_nobody() -> None:
    common = uuid.uuid4().hex[:8]
    running = [
        subprocess.Popen([sys.executable, "-c", LOOP, common, str(number)], stderr=subprocess.PIPE)
        for number in range(3)
    ]
    for child in running:
        _, said = child.communicate(timeout=60)
        assert child.returncode == 0, said.decode()
