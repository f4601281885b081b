"""Scenarios are looked for in the current folder, into which the user need not see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.errors import ScenarioError
from lab.experiment.scenarios import scenario

NOBODY = 65534
FOUND, REFUSED = 0, 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user that a folder is closed to")
def test_a_folder_that_is_closed_to_the_user_holds_none(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    child = os.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        code = REFUSED
        try:
            scenario.names()
            scenario.locate("absent")
        except ScenarioError:
            code = FOUND
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == FOUND
