"""When a machine is saved and for whom, with a machine that a test can do without."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.backends.container import ContainerBackend
from lab.backends.support import saving
from lab.backends.support.saving import START, Snapshots
from lab.errors import LabError, LaunchError
from lab.instance import LaunchRequest
from lab.model import Limits, Process


class Booted:
    """An instance that wants no CPU, and has ended with ``code`` or not at all."""

    def __init__(self, request: LaunchRequest, code: int | None = None) -> None:
        self.request = request
        self.code = code
        self.cgroup = SimpleNamespace(processes=set)

    def __enter__(self) -> Booted:
        return self

    def __exit__(self, *error: object) -> None: ...

    def wait_executed(self) -> None: ...

    def wait(self, _seconds: float) -> int | None:
        return self.code

    def save(self, directory: Path) -> str:
        return str(directory)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[LaunchRequest]:
    monkeypatch.setattr(saving, "LOOK_SECONDS", 0.0)
    return []


def snapshots(tmp_path: Path, launched: list[LaunchRequest], code: int | None = None) -> Snapshots:
    def launch(request: LaunchRequest, _level: str) -> Any:
        launched.append(request)
        return Booted(request, code)

    return Snapshots(cast(Any, SimpleNamespace(scratch=tmp_path)), "microvm", launch)


def request(name: str = "web", knobs: Mapping[str, str] = {START.name: "restore"}, **more: Any) -> LaunchRequest:
    image = SimpleNamespace(digest="sha256:1", config=SimpleNamespace(exposed_ports=()))
    fields = {"process": Process(argv=("serve",)), "limits": Limits(), **more}
    return LaunchRequest(name=name, image=cast(Any, image), log_directory=Path("/"), knobs=knobs, **fields)


def test_booting_is_what_happens_by_itself(tmp_path: Path, launched: list[LaunchRequest]) -> None:
    made = snapshots(tmp_path, launched)
    assert START.levels[0] == "boot"
    assert made.of(request(knobs={})) is None
    assert made.of(request(knobs={START.name: "boot"})) is None
    assert launched == []


def test_one_machine_is_saved_for_all_that_are_alike(tmp_path: Path, launched: list[LaunchRequest]) -> None:
    made = snapshots(tmp_path, launched)
    first = made.of(request("a"))
    assert made.of(request("b")) == first
    assert [(each.name, dict(each.knobs)) for each in launched] == [("microvm-saved-1", {START.name: "boot"})]
    assert launched[0].log_directory.is_relative_to(tmp_path)
    others = [
        request(limits=Limits(memory_bytes=1 << 28)),
        request(process=Process(argv=("other",))),
        request(knobs={START.name: "restore", "console": "off"}),
    ]
    assert len({first, *(made.of(each) for each in others)}) == 4
    assert launched[-1].knobs == {START.name: "boot", "console": "off"}


def test_those_that_come_while_it_is_made_wait_for_it(tmp_path: Path, launched: list[LaunchRequest]) -> None:
    made, found = snapshots(tmp_path, launched), []
    threads = [threading.Thread(target=lambda: found.append(made.of(request()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(launched) == 1
    assert len(found) == 4


def test_a_guest_that_starves_is_not_at_rest(tmp_path: Path) -> None:
    """What counts is the CPU it wants: this very process has had some by now, or has waited for it."""
    instance = cast(Any, Booted(request()))
    instance.cgroup = SimpleNamespace(processes=lambda: {os.getpid()})
    before = saving._wanted_seconds(instance)
    began = time.thread_time()
    while time.thread_time() < began + 0.2:
        pass
    assert saving._wanted_seconds(instance) >= before + 0.1
    assert saving._wanted_seconds(cast(Any, Booted(request()))) == 0.0


def test_what_ends_by_itself_can_not_be_saved(tmp_path: Path, launched: list[LaunchRequest]) -> None:
    with pytest.raises(LaunchError, match="ended with exit code 3 before it could be saved") as caught:
        snapshots(tmp_path, launched, code=3).of(request())
    assert "start=boot" in caught.value.hint


@pytest.mark.parametrize(
    "trouble", [OSError(28, "No space left on device"), LabError("QEMU can't save it: disk full")]
)
def test_what_goes_wrong_is_a_failed_launch_and_is_tried_again(
    tmp_path: Path, launched: list[LaunchRequest], monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def fail(*_: object) -> str:
        raise trouble

    made = snapshots(tmp_path, launched)
    with monkeypatch.context() as patch:
        patch.setattr(Booted, "save", fail)
        with pytest.raises(LaunchError, match=r"No space left|disk full"):
            made.of(request())
    assert made.of(request()) is not None


@pytest.mark.parametrize(
    ("wanted", "why"),
    [({"detached": True}, "can't outlive lab"), ({"mergeable": True}, "can't offer its memory to KSM")],
)
def test_a_restored_container_can_not_be_what_the_saved_one_was_not(
    tmp_path: Path, wanted: dict[str, bool], why: str
) -> None:
    backend = ContainerBackend(cast(Any, SimpleNamespace(scratch=tmp_path)))
    with pytest.raises(LaunchError, match=why) as caught:
        backend.rehearse(request(**wanted))
    assert (caught.value.hint, caught.value.exit_code) == ("start=boot", 125)
    backend.rehearse(request(knobs={}, **wanted))


def test_what_reads_from_somebody_can_not_be_restored(tmp_path: Path, launched: list[LaunchRequest]) -> None:
    with Path(os.devnull).open() as nobody, pytest.raises(LaunchError, match="reads what is typed"):
        snapshots(tmp_path, launched).of(replace(request(), stdin=nobody.fileno()))
    assert launched == []
