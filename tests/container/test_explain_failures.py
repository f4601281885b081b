"""A start that fails is told up to the step that failed. That nothing is left, test_runtime_failures.py looks at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.cli.instances.explanations import number
from lab.errors import LaunchError
from lab.host.clock import Remark, Taken, Timeline
from lab.model import Phase, Process
from lab.runtime import bundle
from lab.runtime.launcher.launcher import Launcher, Overlay, Spec
from lab.runtime.plan import Before, Step

USUAL = [str(step) for step in Step if step not in (Step.HOOKS, Step.CONSOLE, Step.START_HOOKS)]


class Heard:
    """A listener that keeps the names of the steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def remark(self, remarks: Mapping[str, Remark]) -> None:
        assert set(remarks) <= set(Step)

    def taken(self, taken: Taken) -> None:
        self.steps.append(taken.step)

    def marked(self, phase: Phase, at: float) -> None: ...


@pytest.mark.parametrize("step", USUAL)
def test_what_was_taken_before_a_failure_is_told(launcher: Launcher, busybox_root: Path, step: str) -> None:
    heard = Heard()
    config = bundle.container_config(Process(argv=("true",)))
    spec = Spec(name=f"told{number(step)}", config=config, root=Overlay(lower=(busybox_root,)), fail_at=step)
    with Path(os.devnull).open("w") as null, pytest.raises(LaunchError, match="injected"):
        launcher.launch(spec, stdout=null.fileno(), stderr=null.fileno(), timeline=Timeline(heard))
    surroundings = [Before.CGROUP, Before.DEVICES, Before.WRITES, Before.PLAN]
    assert heard.steps == [*surroundings, *USUAL[: USUAL.index(step)]]
