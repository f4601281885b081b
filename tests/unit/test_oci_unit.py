"""Which unit of systemd's a container's configuration asks for, and the process that holds it until there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.host.cgroup import cgroupfs, delegation, mounted
from lab.host.cgroup.mounted import Mounted
from lab.runtime.oci.unit import Holder, Unit


@pytest.fixture(params=[True, False], ids=["systemd's tree", "nobody's tree"])
def systemds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(delegation, "_here", [request.param])
    monkeypatch.setattr(mounted, "_host", [Mounted({}, "/nowhere", ())])
    return bool(request.param)


@pytest.mark.parametrize(
    ("path", "parent", "scope"),
    [
        ("system.slice:docker:0f1e", "system.slice", "system.slice/docker-0f1e.scope"),
        ("machine-a.slice:libpod:x", "machine-a.slice", "machine.slice/machine-a.slice/libpod-x.scope"),
        (":cri:x", "system.slice", "system.slice/cri-x.scope"),
        ("-.slice::x", "-.slice", "x.scope"),
        ("", "system.slice", "system.slice/lab-oci-a\\x2bb.scope"),
    ],
)
def test_where_a_client_says(path: str, parent: str, scope: str, *, systemds: bool) -> None:
    unit = Unit.wanted(path, "a+b", by_systemd=True)
    assert unit is not None
    assert (unit.parent, unit.path, unit.group.path) == (parent, scope, f"{scope}/container")


def test_a_path_is_a_path(*, systemds: bool) -> None:
    for path in ("/a/b", "a:b", "/a:b:c"):
        assert Unit.wanted(path, "one", by_systemd=False) is None
    assert (Unit.wanted("", "one", by_systemd=False) is not None) is systemds


@pytest.mark.parametrize(
    ("path", "by_systemd"),
    [
        ("system.slice:lab:x", False),
        ("/system.slice/x", True),
        ("system:lab:x", True),
        ("../x.slice:lab:x", True),
        ("system.slice:lab:../../x", True),
        ("system.slice:lab:a b", True),
        (f"system.slice:lab:{'x' * 256}", True),
    ],
)
def test_what_can_not_be_meant(path: str, *, by_systemd: bool, systemds: bool) -> None:
    with pytest.raises(UsageError, match=r"linux\.cgroupsPath"):
        Unit.wanted(path, "one", by_systemd=by_systemd)


def test_a_holder_waits_and_ends_with_its_maker() -> None:
    holder = Holder()
    assert cgroupfs.lives(holder.pid)
    pid = holder.pid
    holder.end()
    holder.end()
    assert not cgroupfs.lives(pid)
    told, tell = os.pipe()
    maker = os.fork()
    if maker == 0:
        os.write(tell, str(Holder().pid).encode())
        os._exit(0)  # killed, say
    os.waitpid(maker, 0)
    pid = int(os.read(told, 20))
    cgroupfs.wait_dead({pid}, 5)
    assert not cgroupfs.lives(pid)
    assert not Path(f"/proc/{maker}").exists()
    os.close(told)
    os.close(tell)
