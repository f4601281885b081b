"""Which step of a verb is being done, for an error to name it; and failing there on purpose.

``LAB_OCI_FAIL_AT`` names a step of a verb ("create: make the cgroup"), or one of `lab.runtime.plan.Step` for the
container's own part: so tests prove that a failure at every one of them leaves nothing behind. ``LAB_OCI_DIE_AT``
is a step at which the command kills itself, and can undo nothing.
"""

from __future__ import annotations

import os

from lab.errors import LabError
from lab.shims import signal

FAIL_AT, DIE_AT = "LAB_OCI_FAIL_AT", "LAB_OCI_DIE_AT"

ALL: dict[str, tuple[str, ...]] = {
    "create": (
        "read the bundle",
        "claim the name",
        "note what will be made",
        "make the cgroup",
        "plan",
        "start the first process",
        "leave it waiting",
        "write the pid file",
        "note that it exists",
    ),
    "run": (
        "read the bundle",
        "claim the name",
        "note what will be made",
        "make the cgroup",
        "plan",
        "start the first process",
        "write the pid file",
        "note that it exists",
        "let it go",
    ),
    "start": ("reach the first process", "let it go"),
    "exec": ("read the process", "plan", "start the process", "write the pid file"),
    "delete": ("kill", "remove the cgroup", "forget"),
}
"""Every step of every verb that has several, in order."""


class Steps:
    """One verb on its way."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.step = ""
        self.fail_at = os.environ.get(FAIL_AT, "")
        self._die_at = os.environ.get(DIE_AT, "")

    def enter(self, step: str) -> None:
        """``step`` begins. Raises LabError if it is to fail."""
        assert step in ALL[self.verb], step
        self.step = step
        if self.fail_at and self.fail_at == f"{self.verb}: {step}":
            raise LabError("injected failure")
        if self._die_at and self._die_at == f"{self.verb}: {step}":
            os.kill(os.getpid(), signal.SIGKILL)

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """What stopped the verb, in one line that begins with the step."""
        if isinstance(error, LabError):
            if self.step:
                error.message = f"{self.step}: {error.message}"
        elif isinstance(error, Exception):
            raise LabError(f"{self.step}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror.lower() if error.strerror[1:2].islower() else error.strerror
        return f"{os.fsdecode(error.filename)}: {text}" if error.filename else text
    if hasattr(error, "step"):  # lab.runtime.plan.StepFailed: it names a step of the container's own
        return f"{error}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
