"""What counts as left behind by a test, where several processes share the tests."""

from __future__ import annotations

import host_state
import pytest
from host_state import HostState, assert_unchanged, snapshot

OTHERS = HostState.__dataclass_fields__.keys() - {"mounts"}
"""What other tests make and remove meanwhile."""


def test_what_another_process_of_the_tests_mounts_for_itself_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    monkeypatch.setattr(host_state, "_mount_points", lambda: ["/", "/tmp/pytest-0/popen-gw0/test_0/small"])
    before = snapshot()
    monkeypatch.setattr(host_state, "_mount_points", lambda: ["/"])
    assert_unchanged(before, within_seconds=0, ignore=OTHERS)
    for found in (["/", "/tmp/pytest-0/popen-gw1/test_0/small"], ["/", "/mnt"], []):
        monkeypatch.setattr(host_state, "_mount_points", lambda found=found: found)
        with pytest.raises(AssertionError, match="mounts: "):
            assert_unchanged(before, within_seconds=0, ignore=OTHERS)
