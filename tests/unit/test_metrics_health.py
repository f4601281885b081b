"""HEALTHCHECK: Docker's rules for when an instance is healthy, on the host itself."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from local_instance import LOOPBACK, LocalInstance

from lab.errors import LaunchError, NotReady
from lab.host.execution.contract import Execution
from lab.metrics.base import Subject
from lab.metrics.ready.health import Health, State, readiness_of
from lab.metrics.ready.readiness import wait_ready
from lab.model import Healthcheck, HealthReadiness, ImageConfig, Phase, Scenario, TerminalSize


class Child(Execution):
    """A command on the host as an execution."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def resize(self, size: TerminalSize) -> None:
        raise AssertionError("a check has no terminal")

    def close(self) -> None:
        if self._process.returncode is None:  # nobody else can have its number yet
            os.killpg(self._process.pid, signal.SIGKILL)  # with what a shell has started
        self._process.wait()


class Checked(LocalInstance):
    """A local instance in which further commands can be begun."""

    def begin(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None,
        stdout: int,
        stderr: int,
        terminal: TerminalSize | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str = "",
        user: str = "",
    ) -> Execution:
        try:
            return Child(
                subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True)
            )
        except FileNotFoundError:
            raise LaunchError(f"{argv[0]}: not found", exit_code=127) from None


@pytest.fixture
def instance(tmp_path: Path) -> Checked:
    return Checked(["sleep", "600"], tmp_path)


def check(line: str, **options: float) -> HealthReadiness:
    return HealthReadiness(check=Healthcheck(test=("CMD-SHELL", line), **options))  # type: ignore[arg-type]


def test_what_an_image_says_of_its_readiness() -> None:
    check = Healthcheck(test=("CMD", "true"))
    assert readiness_of(ImageConfig()) is None
    assert readiness_of(ImageConfig(health=Healthcheck(test=("NONE",)))) is None
    assert readiness_of(ImageConfig(health=check, shell=("/bin/bash", "-c"))) == HealthReadiness(
        check=check, shell=("/bin/bash", "-c")
    )


@pytest.mark.parametrize(
    ("test", "seconds", "code", "output"),
    [
        (("CMD", "true"), 60.0, 0, b""),
        (("CMD-SHELL", "echo no; exit 3"), 60.0, 3, b"no\n"),
        (("CMD", "/no/such/program"), 60.0, 127, b"/no/such/program: not found"),
        (("CMD", "sleep", "600"), 0.3, 137, b""),
    ],
)
def test_a_probe(instance: Checked, test: tuple[str, ...], seconds: float, code: int, output: bytes) -> None:
    with instance:
        health = Health(instance, HealthReadiness(check=Healthcheck(test=test, timeout_seconds=seconds)))
        probe = health.probe()
    assert (probe.exit_code, probe.output) == (code, output)
    assert health.last == probe


def test_it_becomes_healthy_unhealthy_after_its_retries_and_healthy_again(instance: Checked, tmp_path: Path) -> None:
    fine = tmp_path / "fine"
    counted = f"echo >> {tmp_path}/probes; test -e {fine}"
    seen: list[State] = []
    stop = threading.Event()
    with instance:
        for state in Health(instance, check(counted, interval_seconds=0.01, retries=4)).states(stop):
            seen.append(state)
            match seen:
                case [State.STARTING]:
                    fine.touch()
                case [_, State.HEALTHY]:
                    fine.unlink()
                    (tmp_path / "probes").unlink()
                case [_, _, State.UNHEALTHY]:
                    assert len((tmp_path / "probes").read_text()) == 4
                    fine.touch()
                case _:
                    stop.set()
    assert seen == [State.STARTING, State.HEALTHY, State.UNHEALTHY, State.HEALTHY]


def test_failures_in_the_start_period_do_not_count(instance: Checked, tmp_path: Path) -> None:
    third = f"echo >> {tmp_path}/probes; test $(wc -l < {tmp_path}/probes) -ge 3"
    readiness = check(third, interval_seconds=60.0, retries=1, start_period_seconds=60.0, start_interval_seconds=0.01)
    with instance:
        states = Health(instance, readiness).states(threading.Event())
        assert [next(states), next(states)] == [State.STARTING, State.HEALTHY]


def test_a_check_that_the_deadline_cuts_short_says_less_than_the_one_before(
    instance: Checked, tmp_path: Path
) -> None:
    scenario = Scenario(
        name="s", title="s", directory=tmp_path, dockerfile=tmp_path / "Dockerfile", ready_timeout_seconds=4,
        readiness=check(f"test -e {tmp_path}/asked && sleep 60; touch {tmp_path}/asked; echo not yet; exit 1"),
    )  # fmt: skip
    hurried = Subject.before_launch(scenario=scenario, network=LOOPBACK, idle_seconds=0.0)
    hurried.launched(instance)
    with instance, pytest.raises(NotReady, match="its HEALTHCHECK exits with 1: not yet"):
        wait_ready(hurried)


def test_readiness_by_the_image_s_own_check(instance: Checked, tmp_path: Path) -> None:
    scenario = Scenario(
        name="s", title="s", directory=tmp_path, dockerfile=tmp_path / "Dockerfile", ready_timeout_seconds=5,
        readiness=check(f"test -e {tmp_path}/up || {{ echo not yet; exit 1; }}"),
    )  # fmt: skip
    hurried, patient = (
        Subject.before_launch(scenario=each, network=LOOPBACK, idle_seconds=0.0)
        for each in (scenario, replace(scenario, ready_timeout_seconds=120))
    )
    hurried.launched(instance)
    patient.launched(instance)
    with instance:
        with pytest.raises(NotReady, match="its HEALTHCHECK exits with 1: not yet"):
            wait_ready(hurried)
        (tmp_path / "up").touch()
        wait_ready(patient)
        assert instance.timeline.at(Phase.RESPONDED) is not None
