"""Two labs at once: each makes and removes groups below one common parent."""

from __future__ import annotations

import subprocess
import sys
import uuid

LOOP = """
import sys
from lab.model import Limits
from lab.runtime.cgroup.instances import limited
for number in range(250):
    limited(f"lab/{sys.argv[1]}/{sys.argv[2]}", Limits(pids=8)).remove()
"""

ROOM = """
import sys
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import Unused, host_hierarchies, make_room
for number in range(150):
    name = f"lab/{sys.argv[1]}-{sys.argv[2]}-{number}/one"
    make_room(name)
    for tree in (host_hierarchies(), Unused.detect()):
        for mount in tree.joined():
            (mount / name).mkdir()  # as another runtime does it: once
        ControlGroup.open(name, hierarchies=tree).remove()
"""


def test_room_for_another_runtimes_group_stays_until_it_is_used() -> None:
    run_together(ROOM)


def test_removing_the_common_parent_disturbs_nobody() -> None:
    run_together(LOOP)


def run_together(code: str) -> None:
    common = uuid.uuid4().hex[:8]
    running = [
        subprocess.Popen([sys.executable, "-c", code, common, str(number)], stderr=subprocess.PIPE)
        for number in range(3)
    ]
    for child in running:
        _, said = child.communicate(timeout=250)
        assert child.returncode == 0, said.decode()
