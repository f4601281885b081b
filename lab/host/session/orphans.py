"""What no session answers for, because its folder was lost before: cgroups below ``lab``, and scratch folders.

A session's folder goes last. But /run is empty after a restart of the host, where it is a tmpfs, and others can empty
it; an empty group costs kernel memory, and the writable layers of what ran then cost disk space.
"""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import Hierarchies, Unused
from lab.host.home import runtime_root
from lab.host.identity.privilege import user_id

SESSION = re.compile(r"[0-9a-f]{8}")
YOUNG_SECONDS = 60.0
"""A group this young may be one whose session is just being made elsewhere."""


def orphan_groups(hierarchies: Hierarchies | None = None, sessions: Path | None = None) -> list[ControlGroup]:
    """Groups ``lab/<session>`` of this user's without a session's folder and without a living process, in any
    hierarchy. Of another's, root's above all, the session's folder is elsewhere.
    """
    known = sessions or runtime_root()
    found = []
    for tree in (hierarchies,) if hierarchies else (Hierarchies.detect(), Unused.detect()):
        tops = {path for mount in tree.joined() for path in (mount / "lab").glob("*") if SESSION.fullmatch(path.name)}
        names = {path.name for path in tops if _age_seconds(path) > YOUNG_SECONDS and _is_own(path)}
        groups = [ControlGroup.open(f"lab/{name}", hierarchies=tree) for name in sorted(names)]
        found += [group for group in groups if not (known / group.path.name).exists() and not group.processes()]
    return found


def _is_own(group: Path) -> bool:
    try:
        return group.stat().st_uid == user_id()
    except FileNotFoundError:
        return False


def _age_seconds(group: Path) -> float:
    """Less than none of one that its owner has removed meanwhile."""
    try:
        return time.time() - group.stat().st_ctime
    except FileNotFoundError:
        return -math.inf


def orphan_scratch(home: Path) -> list[Path]:
    """Folders ``<home>/tmp/<session>`` without a session's folder, which is made before them, and without a living
    process of that session.
    """
    known = runtime_root()
    folders = sorted(path for path in (home / "tmp").glob("*") if SESSION.fullmatch(path.name))
    return [
        folder
        for folder in folders
        if not (known / folder.name).exists() and not ControlGroup.open(group_of(folder.name)).processes()
    ]


def describe(group: ControlGroup) -> str:
    """As `lab clean` names it."""
    return f"cgroup {group.path}, which no session owns"
