"""Groups that no session answers for are found and removed; those that one does, or that live, are not."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest

from lab.host.session import orphans
from lab.model import Limits
from lab.runtime.cgroup.instances import limited


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(orphans, "YOUNG_SECONDS", -1.0)
    return uuid.uuid4().hex[:8]


def found(sessions: Path) -> set[str]:
    return {group.path.name for group in orphans.orphan_groups(sessions=sessions)}


def test_an_empty_group_without_a_session_is_an_orphan(name: str, tmp_path: Path) -> None:
    group = limited(f"lab/{name}/one", Limits())
    try:
        assert name in found(tmp_path)
        (tmp_path / name).mkdir()
        assert name not in found(tmp_path)
        (tmp_path / name).rmdir()
        next(one for one in orphans.orphan_groups(sessions=tmp_path) if one.path.name == name).remove()
        assert not group.exists()
    finally:
        group.remove()


def test_a_group_with_a_process_or_a_young_one_is_left_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = limited(f"lab/{name}/one", Limits())
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        group.add(sleeper.pid)
        assert name not in found(tmp_path)
        group.kill()
        assert name in found(tmp_path)
        monkeypatch.setattr(orphans, "YOUNG_SECONDS", 60.0)
        assert name not in found(tmp_path)
    finally:
        sleeper.kill()
        sleeper.wait()
        group.remove()
