"""How instances are accompanied by what their application does: serve, run on and say nothing, or end by itself.

What is observed at the moment of readiness counts at once where something was asked of the application. Where nothing
was, it is held back until the application is seen not to fail: one that crashes has no boot time.
"""

from __future__ import annotations

from dataclasses import replace

from lab.errors import LaunchError, NotReady
from lab.experiment.setup import Treatment
from lab.host.clock import now
from lab.instance import INSIDE, Instance
from lab.metrics.ready.readiness import ending, log_tail
from lab.model import DoneReadiness, Phase, Scenario, StartedReadiness

WAIT = (INSIDE, "call", "ppoll", "0", "0", "0", "0")  # nothing to wait for, and no end: until a signal


def is_job(scenario: Scenario) -> bool:
    """Whether its application ends by itself."""
    return isinstance(scenario.readiness, DoneReadiness)


def is_silent(scenario: Scenario) -> bool:
    """Whether nothing is asked of it, so that a start alone may be the start of a failure."""
    return isinstance(scenario.readiness, StartedReadiness | None)


def waiting(treatment: Treatment) -> Treatment:
    """The same image and limits with a process that waits, to be asked in place of an application that ends."""
    return replace(treatment, process=replace(treatment.process, argv=WAIT, working_directory="/"))


def wait_done(instance: Instance, timeout_seconds: float) -> None:
    """Block until the job has ended by itself; marks DONE. Raises LaunchError for any exit code but 0, NotReady when
    the time runs out.
    """
    code = instance.wait(timeout_seconds)
    at = now()
    if code is None:
        logs = instance.request.log_directory
        raise NotReady(
            f"{instance.name} was not done within {timeout_seconds:g} s",
            hint="timeout_seconds of [readiness] in its scenario.toml",
            detail=log_tail(logs),
        )
    require_success(instance, code)
    instance.timeline.mark(Phase.DONE, at)


def linger(instance: Instance, seconds: float) -> bool:
    """Watch an application of which nothing is asked until so long after its execve; whether it is still there.

    Raises LaunchError when it failed meanwhile.
    """
    running = instance.timeline.running()
    left = 0.0 if running is None else running + seconds - now()
    code = instance.wait(max(0.0, left))
    require_success(instance, code)
    return code is None


def require_success(instance: Instance, code: int | None) -> None:
    """Raises LaunchError, with what it said last, for an application that ended with another exit code than 0."""
    if code:
        logs = instance.request.log_directory
        said = log_tail(logs)
        last = said.splitlines()[-1].strip() if said else ""
        raise LaunchError(
            f"{instance.name} {ending(instance, code)}" + (f": {last}" if last else ""),
            hint=f"its logs are in {logs}",
            detail=said,
            exit_code=code,
        )
