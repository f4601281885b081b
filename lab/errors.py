"""Every error that lab raises on purpose.

LabError                      one clear line and the remedy; exit 1
├── UsageError                the command line or a file the user wrote is wrong; exit 2
│   ├── ScenarioError         scenario.toml or the scenario's folder
│   └── DockerfileError       a Dockerfile, with its line
├── ImageError                the image store, a layer, a registry, a build step
├── BackendUnavailable        this host can't run that backend
├── LaunchError               an instance did not come up
│   └── NotReady              … it came up, but never answered correctly
├── CommandError              an external program failed
├── ExitUnknown               an instance ended while nobody could be told its exit code
├── NoInstance                    no detached instance goes by that name
├── GroupGone                 a control group is not there: never made, or removed
├── LimitError                a resource limit could not be set or did not hold
├── ParityError               instances that should be identical are not
└── ResultsError              a run folder that can't be read or resumed
"""

from __future__ import annotations


class LabError(Exception):
    """Something went wrong in a way lab understands.

    ``message`` says what, in one line; ``hint`` holds the remedy, an exact command where there is one;
    ``detail`` holds evidence worth printing below (a log's tail, a program's stderr).
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NoInstance(LabError):
    """No detached instance goes by that name or id."""


class UsageError(LabError):
    """The user asked for something that can't be meant."""

    exit_code = 2


class ScenarioError(UsageError):
    """A scenario's folder or its scenario.toml is wrong."""


class DockerfileError(UsageError):
    """A Dockerfile can't be parsed or asks for something lab doesn't support: ``FILE:LINE: what``."""

    def __init__(
        self, message: str, *, line: int | None = None, file: str = "Dockerfile", hint: str = "", detail: str = ""
    ) -> None:
        super().__init__(f"{file}:{line}: {message}" if line else message, hint=hint, detail=detail)
        self.what = message
        self.line = line

    def at(self, file: str) -> DockerfileError:
        """The same error with the file's real name."""
        return DockerfileError(self.what, line=self.line, file=file, hint=self.hint, detail=self.detail)


class ImageError(LabError):
    """An image can't be found, fetched, built or trusted."""


class BackendUnavailable(LabError):
    """This host can't run that backend."""


class LaunchError(LabError):
    """An instance did not come up; ``exit_code`` follows Docker where Docker has one (125, 126, 127)."""

    def __init__(self, message: str, *, hint: str = "", detail: str = "", exit_code: int = 1) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.exit_code = exit_code


class NotReady(LaunchError):
    """An instance started but was not seen to be ready in time."""


class CommandError(LabError):
    """An external program failed, was missing or took too long."""


class ExitUnknown(LabError):
    """An instance ended while nobody could be told its exit code: a process tells its parent alone (wait(2))."""


class GroupGone(LabError):
    """A control group is not there: it was never made, or it has been removed."""


class LimitError(LabError):
    """A resource limit could not be set, or was set and did not hold."""


class ParityError(LabError):
    """Instances that should be identical are not."""


class ResultsError(LabError):
    """A run folder can't be read, written or resumed."""
