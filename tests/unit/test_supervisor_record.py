"""What is known of a detached instance on disk, and what it means when processes have died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError, UsageError
from lab.images.image import Image, Origin
from lab.images.layers import Layer
from lab.model import Healthcheck, ImageConfig, Limits, Process, PublishedPort
from lab.supervisor import client, source
from lab.supervisor import record as records
from lab.supervisor.names import random_name
from lab.supervisor.record import NAME, Condition, InstanceRecord, Pid, State

NOBODY = Pid(number=0, started=0)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    return tmp_path


def me() -> Pid:
    return Pid.of(os.getpid())


def made(name: str = "web", **fields: object) -> InstanceRecord:
    known: dict[str, object] = {
        "id": "0123456789ab",
        "backend": "container",
        "image": "tiny:latest",
        "digest": "sha256:00",
        "process": Process(argv=("sh", "-c", "true"), environment={"A": "b"}, additional_gids=(1, 2)),
        "limits": Limits(memory_bytes=1 << 20, cpus=0.5),
        "wanted": (PublishedPort(host_port=0, instance_port=80),),
        "created": 1.5,
        "supervisor": me(),
    }
    return InstanceRecord(name=name, **known | fields)  # type: ignore[arg-type]


def test_what_is_written_is_read() -> None:
    ports = (PublishedPort(host_port=1, instance_port=80),)
    record = made(stamps={"requested": 1.0}, exit_code=3, published=ports, knobs={"machine": "q35"})
    records.reserve(record)
    assert records.read("web") == record
    changed = records.write(replace(record, state=State.RUNNING))
    assert records.read("web") == changed
    assert records.find("web") == records.find("0123") == changed


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
def test_what_is_no_record_is_refused(value: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        InstanceRecord.from_json(value)  # type: ignore[arg-type]


def test_a_damaged_record_is_none() -> None:
    records.reserve(made())
    for text in ("", "{", "[]", "7", json.dumps({"name": "web"})):
        (records.folder("web") / records.RECORD).write_text(text)
        assert records.read("web") is None
        assert records.records() == []


def test_a_name_is_taken_once() -> None:
    """By one of many at the same moment."""
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(records.reserve, made(id=f"{number:012x}")) for number in range(32)]
    failures = [future.exception() for future in futures if future.exception()]
    assert len(failures) == 31
    assert {str(one) for one in failures} == {"an instance is called web already (lab rm web, or another --name)"}
    assert [path.name for path in records.root().iterdir()] == ["web"]


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", ".x", "x" * 64, "a b"])
def test_what_can_not_be_a_name(name: str) -> None:
    with pytest.raises(UsageError):
        records.reserve(made(name))
    with pytest.raises(LabError, match="no instance is called"):
        records.find(name)


def test_every_random_name_is_a_name() -> None:
    assert all(NAME.fullmatch(random_name()) for _ in range(100))


def test_the_beginning_of_an_id_must_be_one_alone() -> None:
    records.reserve(made("a", id="aaaa00000000"))
    records.reserve(made("b", id="aabb00000000"))
    assert records.find("aaa").name == "a"
    with pytest.raises(LabError, match="2 ids"):
        records.find("aa")


@pytest.mark.parametrize(
    ("fields", "condition"),
    [
        ({}, Condition.STARTING),
        ({"supervisor": NOBODY}, Condition.FAILED),
        ({"state": State.RUNNING}, Condition.RUNNING),
        ({"state": State.RUNNING, "supervisor": NOBODY, "first": "me"}, Condition.LOST),
        ({"state": State.RUNNING, "supervisor": NOBODY}, Condition.EXITED),
        ({"state": State.RUNNING, "first": "me", "boot_id": "the one before"}, Condition.EXITED),
        ({"state": State.CREATED, "boot_id": "the one before"}, Condition.FAILED),
        ({"state": State.EXITED}, Condition.EXITED),
    ],
)
def test_the_condition_is_that_of_the_processes(fields: dict[str, object], condition: Condition) -> None:
    if fields.get("first") == "me":
        fields = {**fields, "first": me()}
    assert made(**fields).condition is condition


def test_a_number_used_again_is_another_process() -> None:
    assert me().lives()
    assert not replace(me(), started=me().started + 1).lives()


def test_who_ended_without_a_supervisor_has_the_code_its_parent_wrote() -> None:
    records.reserve(made(supervisor=NOBODY, state=State.RUNNING))
    found = records.read("web")
    assert found is not None
    assert (found.state, found.exit_code, found.error) == (State.EXITED, None, "its supervisor died before it")
    (records.folder("web") / records.EXIT).write_text(json.dumps({"code": 7, "ended": 12.5}))
    found = records.read("web")
    assert found is not None
    assert (found.exit_code, found.ended) == (7, 12.5)


def test_mending_settles_what_has_ended_and_forgets_what_never_began() -> None:
    records.reserve(made("ended", supervisor=NOBODY, state=State.RUNNING))
    records.reserve(made("brief", supervisor=NOBODY, state=State.RUNNING, remove=True))
    records.reserve(made("half", supervisor=NOBODY))
    records.reserve(made("lives", state=State.RUNNING))
    (records.root() / ".old-x.00").mkdir()
    said = records.mend(dry_run=True)
    assert sorted(path.name for path in records.root().iterdir()) == [".old-x.00", "brief", "ended", "half", "lives"]
    assert records.mend() == said
    assert len(said) == 4
    assert sorted(path.name for path in records.root().iterdir()) == ["ended", "lives"]
    ended = records.stored("ended")
    assert ended is not None
    assert ended.state is State.EXITED
    assert records.mend() == []


def test_one_supervises_and_its_death_lets_another() -> None:
    records.reserve(made())
    code = "import sys; from lab.supervisor.record import supervising\n"
    code += "with supervising('web'): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LabError, match="has a supervisor already"), records.supervising("web"):
            pass
        holder.kill()
        holder.wait()
        with records.supervising("web"):
            pass


HOLDS = "import sys, time; from lab.supervisor.record import supervising\n"
HOLDS += "with supervising('web'): print('held', flush=True); time.sleep(float(sys.argv[1]))"


def test_a_start_waits_for_the_supervisor_that_is_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lab stop` has returned when the end was told, and the one that told it is there for some milliseconds more."""
    ended = made(state=State.EXITED)
    records.reserve(ended)
    records.write(ended)
    begun: list[str] = []
    monkeypatch.setattr(client, "_supervisor", lambda verb, name: begun.append(f"{verb} {name}"))
    with subprocess.Popen([sys.executable, "-c", HOLDS, "0.5"], stdout=-1) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        client.start_again(ended)
    assert begun == ["launch web"]


def test_a_start_does_not_wait_for_one_that_stays_or_that_another_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LEAVING_SECONDS", 0.1)
    ended = made(state=State.EXITED)
    records.reserve(ended)
    records.write(ended)
    with subprocess.Popen([sys.executable, "-c", HOLDS, "600"], stdout=-1) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(LabError, match="has a supervisor already"):
                client.start_again(ended)
            records.write(replace(ended, state=State.CREATED, supervisor=Pid.of(os.getpid()), again=True))
            monkeypatch.setattr(client, "LEAVING_SECONDS", 600.0)
            with pytest.raises(LabError, match="being started"):
                client.start_again(ended)
        finally:
            holder.kill()


def test_removing_frees_the_name() -> None:
    record = made()
    records.reserve(record)
    records.remove(record)
    records.remove(record)
    assert list(records.root().iterdir()) == []
    records.write(record)  # a supervisor that is late
    assert records.read("web") is None
    records.reserve(record)


def test_an_image_is_kept_with_the_record() -> None:
    layer = Layer(diff_id="sha256:1", digest="sha256:2", size_bytes=3, media_type="application/x")
    image = Image(
        name="my:latest",
        digest="sha256:4",
        config=ImageConfig(
            environment={"A": "b"},
            command=("sh",),
            stop_signal="SIGINT",
            exposed_ports=(80,),
            health=Healthcheck(test=("CMD", "true"), interval_seconds=1.5),
        ),
        layers=(layer,),
        origin=Origin.BUILT,
        created=datetime(2020, 1, 2, tzinfo=UTC),
    )
    found = source.decode_image(json.loads(json.dumps(source.encode_image(image))))
    assert replace(found, annotations={}) == image
    records.reserve(made(source=source.encode_image(image)))
    stored = records.stored("web")
    assert stored is not None
    assert source.decode_image(stored.source) == found
