"""Cgroups below ``lab`` that no session answers for, because its folder was lost before they were removed.

Rare: a session's folder goes last. But /run can be emptied by others, and an empty group costs kernel memory.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from lab.host.cgroup import ControlGroup
from lab.host.hierarchy import Hierarchies, Unused
from lab.host.home import runtime_root

SESSION = re.compile(r"[0-9a-f]{8}")
YOUNG_SECONDS = 60.0
"""A group this young may be one whose session is just being made elsewhere."""


def orphan_groups(hierarchies: Hierarchies | None = None, sessions: Path | None = None) -> list[ControlGroup]:
    """Groups ``lab/<session>`` without a session's folder and without a living process, in any hierarchy."""
    known = sessions or runtime_root()
    found = []
    for tree in (hierarchies,) if hierarchies else (Hierarchies.detect(), Unused.detect()):
        tops = {path for mount in tree.joined() for path in (mount / "lab").glob("*") if SESSION.fullmatch(path.name)}
        names = {path.name for path in tops if time.time() - path.stat().st_ctime > YOUNG_SECONDS}
        groups = [ControlGroup.open(f"lab/{name}", hierarchies=tree) for name in sorted(names)]
        found += [group for group in groups if not (known / group.path.name).exists() and not group.processes()]
    return found


def describe(group: ControlGroup) -> str:
    """As `lab clean` names it."""
    return f"cgroup {group.path}, which no session owns"
