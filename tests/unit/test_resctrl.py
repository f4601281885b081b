"""Classes of service on a folder that looks like a resctrl file system: what is written, compared and removed.

No machine of ours has the real one: it makes ``schemata`` and ``tasks`` in each new folder, and removes them with it.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.errors import LabError, UsageError
from lab.runtime.cgroup import resctrl
from lab.runtime.cgroup.resctrl import Class
from lab.runtime.config import schema, validate
from lab.runtime.config.model import Config, IntelRdt, Linux, Namespace

SCHEMATA = "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel does when a folder is made or removed, done here."""
    monkeypatch.setattr(resctrl, "mounted", lambda: str(tmp_path))

    def mkdir(path: str) -> None:
        Path(path).mkdir()
        for name in ("schemata", "tasks"):
            (Path(path) / name).write_text("")
        if "mon_groups" not in path:
            (Path(path) / "mon_groups").mkdir()

    kernel = SimpleNamespace(**vars(os))
    kernel.mkdir, kernel.rmdir = mkdir, shutil.rmtree
    monkeypatch.setattr(resctrl, "os", kernel)
    for name, text in (("tasks", ""), ("schemata", SCHEMATA)):
        (tmp_path / name).write_text(text)
    return tmp_path


def wanted(**fields: object) -> IntelRdt:
    found = schema.read(IntelRdt, fields, "linux.intelRdt", schema.refuse)
    assert isinstance(found, IntelRdt)
    return found


def test_a_class_of_its_own_goes_with_the_container(root: Path) -> None:
    made = Class(wanted(schemata=["L3:0=f"], enableMonitoring=True), "c1")
    made.make()
    made.enter(123)
    assert (root / "c1" / "schemata").read_text() == "L3:0=f\n"
    assert (root / "c1" / "tasks").read_text() == "123"
    assert (root / "c1" / "mon_groups" / "c1" / "tasks").read_text() == "123"
    made.remove()
    assert not (root / "c1").exists()
    made.remove()


def test_what_was_there_before_outlives_a_container_that_can_not_be_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator's class may be called as a container is."""
    (root / "c1").mkdir()
    with pytest.raises(FileExistsError):
        Class(wanted(schemata=["L3:0=f"]), "c1").make()
    assert (root / "c1").exists()

    def refuse(path: str, _text: str) -> None:
        raise OSError(errno.EINVAL, "Invalid argument", path)

    monkeypatch.setattr(resctrl, "_write", refuse)
    with pytest.raises(OSError, match="Invalid"):
        Class(wanted(schemata=["L3:0=f"]), "c2").make()
    assert not (root / "c2").exists(), "what was made is gone"


def test_a_class_with_a_name_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Class(wanted(closID="gold", memBwSchema="MB:0=20", l3CacheSchema="L3:0=f\nMB:0=99"), "c1")
    written: list[str] = []
    monkeypatch.setattr(resctrl, "_write", lambda _path, text: written.append(text))
    made.make()
    assert written == ["L3:0=f\n", "MB:0=20\n"], "the cache's line of bandwidth gives way"
    made.remove()
    assert (root / "gold").exists()


def test_one_that_exists_has_to_be_the_same(root: Path) -> None:
    (root / "gold").mkdir()
    (root / "gold" / "schemata").write_text(SCHEMATA)
    Class(wanted(closID="gold", l3CacheSchema="L3:0=07ff"), "c1").make()
    with pytest.raises(LabError, match="gold exists, and has not L3:0=1"):
        Class(wanted(closID="gold", l3CacheSchema="L3:0=1"), "c1").make()
    assert (root / "gold" / "schemata").read_text() == SCHEMATA


def test_one_without_schemata_has_to_exist(root: Path) -> None:
    with pytest.raises(LabError, match="there is no class gold"):
        Class(wanted(closID="gold"), "c1").make()
    default = Class(wanted(closID="/"), "c1")
    default.make()
    default.enter(5)
    default.remove()
    assert (root / "tasks").read_text() == "5"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"closID": "../up"}, "closID is not the name"),
        ({"closID": "info"}, "closID is not the name"),
        ({"memBwSchema": "L3:0=1"}, "memBwSchema is not one line"),
        ({"schemata": ["L3:0=1\nMB:0=1"]}, r"schemata\[0\] is not one line"),
    ],
)
def test_what_can_not_be_meant_is_told(fields: dict[str, object], complaint: str) -> None:
    linux = Linux(namespaces=(Namespace(type="mount"),), intel_rdt=wanted(**fields))
    with pytest.raises(UsageError, match=rf"linux\.intelRdt\.{complaint}"):
        validate.check(Config(linux=linux))
