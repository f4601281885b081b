"""Whatever stops lab-oci half-way leaves nothing: an error at any step, and a SIGKILL once delete has been called."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import oci
import pytest
from oci import Runtime, until

from lab.runtime.oci.steps import ALL
from lab.runtime.plan import Step

CHILD_OF_CREATE = {
    Step.CLONE, Step.MAP_IDS, Step.PLACE, Step.JOIN, Step.ROOT, Step.MOUNTS, Step.CONSOLE, Step.MASKS, Step.ENTER,
    Step.HOSTNAME, Step.HOOKS, Step.LIMITS, Step.DESCRIPTORS, Step.DIRECTORY, Step.CAPABILITIES,
    Step.NO_NEW_PRIVILEGES, Step.SECCOMP,
}  # fmt: skip
CHILD_OF_START = {Step.START_HOOKS, Step.EXECVE}


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with oci.opened("lab-oci") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _clean(runtime: Runtime) -> Iterator[None]:
    yield
    runtime.close()


def with_everything(config: dict[str, Any]) -> None:
    """Hooks, so that the steps for those are taken, too."""
    config["hooks"] = {"createRuntime": [{"path": "/bin/true"}], "startContainer": [{"path": "/bin/true"}]}


def fail_at(step: str) -> dict[str, str]:
    return {"LAB_OCI_FAIL_AT": step}


def test_every_step_of_the_container_is_asked_for() -> None:
    assert set(Step) == CHILD_OF_CREATE | CHILD_OF_START


@pytest.mark.parametrize("step", ALL["create"])
def test_a_failure_at_a_step_of_create(runtime: Runtime, step: str) -> None:
    name = runtime.new()
    done = runtime("create", "-b", runtime.bundle("sleep 1000"), name, environment=fail_at(f"create: {step}"))
    assert done.code == 1
    assert f"{step}: injected failure" in done.err
    assert runtime.left() == []


@pytest.mark.parametrize("step", ALL["run"])
def test_a_failure_at_a_step_of_run(runtime: Runtime, step: str) -> None:
    name = runtime.new()
    done = runtime("run", "-d", "-b", runtime.bundle("sleep 1000"), name, environment=fail_at(f"run: {step}"))
    assert done.code == 1
    assert f"{step}: injected failure" in done.err
    assert runtime.left() == []


@pytest.mark.parametrize("step", sorted(CHILD_OF_CREATE - {Step.MAP_IDS, Step.CONSOLE}))
def test_a_failure_of_the_first_process_at_create(runtime: Runtime, step: str) -> None:
    bundle = runtime.bundle("sleep 1000", edit=with_everything)
    done = runtime("create", "-b", bundle, runtime.new(), environment=fail_at(step))
    assert done.code == 1
    assert f"{step}: " in done.err
    assert "injected failure" in done.err
    assert runtime.left() == []


@pytest.mark.parametrize("step", sorted(CHILD_OF_START - {Step.EXECVE}))
def test_a_failure_of_the_first_process_at_start(runtime: Runtime, step: str) -> None:
    """The container stays, stopped, for its owner to delete (runtime.md, "Start")."""
    name = runtime.new()
    bundle = runtime.bundle("sleep 1000", edit=with_everything)
    runtime.ok("create", "-b", bundle, name, environment=fail_at(step))
    done = runtime("start", name)
    assert done.code == 1
    assert f"{step}: injected failure" in done.err
    runtime.wait_until(name, "stopped")
    runtime.ok("delete", name)
    assert runtime.left() == []


@pytest.mark.parametrize("step", ALL["start"])
def test_a_failure_at_a_step_of_start(runtime: Runtime, step: str) -> None:
    name = runtime.new()
    runtime.ok("create", "-b", runtime.bundle("sleep 1000"), name)
    done = runtime("start", name, environment=fail_at(f"start: {step}"))
    assert done.code == 1
    assert f"{step}: injected failure" in done.err
    assert runtime.status(name) == "created"
    runtime.ok("start", name)
    runtime.ok("delete", "--force", name)
    assert runtime.left() == []


@pytest.mark.parametrize("step", ALL["exec"])
def test_a_failure_at_a_step_of_exec(runtime: Runtime, step: str) -> None:
    name = runtime.running()
    before = runtime.processes()
    done = runtime("exec", "-d", name, "sleep", "1000", environment=fail_at(f"exec: {step}"))
    assert done.code == 255
    assert f"{step}: injected failure" in done.err
    until(lambda: runtime.processes() == before, "the end of what exec had started")
    assert runtime.status(name) == "running"


@pytest.mark.parametrize(
    "step", sorted(CHILD_OF_START - {Step.EXECVE, Step.START_HOOKS} | {Step.CLONE, Step.PLACE, Step.JOIN, Step.ENTER})
)
def test_a_failure_of_a_process_beside_the_first(runtime: Runtime, step: str) -> None:
    name = runtime.running()
    before = runtime.processes()
    done = runtime("exec", "-d", name, "sleep", "1000", environment=fail_at(step))
    assert done.code == 255
    assert f"{step}: " in done.err
    assert "injected failure" in done.err
    until(lambda: runtime.processes() == before, "the end of what exec had started")
    assert runtime.status(name) == "running"


@pytest.mark.parametrize("step", ALL["delete"])
def test_delete_can_be_called_again(runtime: Runtime, step: str) -> None:
    name = runtime.running()
    done = runtime("delete", "--force", name, environment=fail_at(f"delete: {step}"))
    assert done.code == 1
    assert f"{step}: injected failure" in done.err
    runtime.ok("delete", "--force", name)
    assert runtime.left() == []


@pytest.mark.parametrize("step", ALL["create"])
def test_delete_mends_what_a_sigkill_interrupted(runtime: Runtime, step: str) -> None:
    name = runtime.new()
    done = runtime(
        "create", "-b", runtime.bundle("sleep 1000"), name, environment={"LAB_OCI_DIE_AT": f"create: {step}"}
    )
    assert done.code == -9
    runtime.ok("delete", "--force", name)
    until(lambda: runtime.left() == [], "the end of everything")


def test_an_interrupted_create_is_seen_as_stopped(runtime: Runtime) -> None:
    name = runtime.new()
    runtime("create", "-b", runtime.bundle("true"), name, environment={"LAB_OCI_DIE_AT": "create: plan"})
    assert runtime.status(name) == "stopped"
    runtime.ok("delete", name)
    assert runtime.left() == []


def test_a_terminated_create_undoes_itself(runtime: Runtime) -> None:
    def slow(config: dict[str, Any]) -> None:
        config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]}

    name = runtime.new()
    with subprocess.Popen(runtime.words("create", "-b", runtime.bundle("true", edit=slow), name)) as process:
        hooks: list[int] = []
        until(
            lambda: hooks.extend(pid for pid in children(process.pid) if "sleep\0" in cmdline(pid)) or hooks, "hook"
        )
        process.terminate()
        assert process.wait(120) == 128 + 15
        until(lambda: "sleep\0" not in cmdline(hooks[0]), "the hook's end")
    for pid in runtime.processes():
        assert "sleep\0" not in cmdline(pid)
    assert runtime.left() == []


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123
        return [int(word) for word in file.read().split()]


def cmdline(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""
