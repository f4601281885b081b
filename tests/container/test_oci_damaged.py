"""A state that was damaged, by a full disk or by hand, is told in a line; `delete --force` removes what there is."""

from __future__ import annotations

from collections.abc import Iterator

import oci
import pytest
from oci import Runtime

from lab.host.cgroup.group import Group


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with oci.opened("lab-oci") as opened:
        yield opened


STATES = {
    "cut off": '{"id": "x", "gro',
    "empty": "",
    "no object": "[]",
    "facts missing": "{}",
    "nested": "[" * 100_000,
    "a group that is everybody's": "{text}",
}


@pytest.mark.parametrize("damage", STATES)
def test_a_damaged_state_is_told_and_can_be_deleted(runtime: Runtime, damage: str) -> None:
    name = runtime.running()
    pid = runtime.state(name)["pid"]
    assert pid in runtime.processes()
    state = runtime.root / name / "state.json"
    whole = state.read_text()
    group = Group(f"{runtime.group}/c{runtime.count}").path
    assert group in whole
    state.write_text(STATES[damage].replace("{text}", whole.replace(f'"{group}"', '"/"')))
    for verb in (["state", name], ["delete", name], ["exec", name, "true"], ["kill", name, "KILL"]):
        done = runtime(*verb)
        assert done.code in (1, 255), verb
        assert "damaged" in done.err, verb
        assert len(done.err.splitlines()) <= 2, done.err
    assert name not in runtime.ok("list", "-q")
    runtime.ok("delete", "--force", name)
    assert not (runtime.root / name).exists()
    assert pid not in runtime.processes()
    assert not Group(f"{runtime.group}/c{runtime.count}").places


def test_a_damaged_configuration_does_not_keep_a_container(runtime: Runtime) -> None:
    name = runtime.running()
    (runtime.root / name / "config.json").write_text("{")
    assert "damaged" in runtime("exec", name, "true").err
    runtime.ok("delete", "--force", name)
    assert not (runtime.root / name).exists()


def test_both_damaged_leave_at_least_no_name(runtime: Runtime) -> None:
    name = runtime.running()
    for file in ("state.json", "config.json"):
        (runtime.root / name / file).write_text("{")
    runtime.ok("delete", "--force", name)
    assert not (runtime.root / name).exists()
