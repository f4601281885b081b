"""What of an ordinary user's configuration becomes which id inside, and who is taken for one."""

from __future__ import annotations

import os

import pytest

from lab.errors import LabError, UsageError
from lab.host.identity import ownspace
from lab.model import Process
from lab.record import replace
from lab.runtime.bundle import rootless_config
from lab.runtime.config.model import Config, IdMapping, MountConfig
from lab.runtime.oci import rootless
from lab.runtime.oci.unit import Unit

TABLE = [(0, 1000, 1), (1, 100_000, 65_536)]
PARTED = [(0, 1000, 1), (1, 100_000, 40_000), (40_001, 140_000, 25_536)]
USER_S = (IdMapping(container_id=0, host_id=1000, size=1), IdMapping(container_id=1, host_id=100_000, size=65_536))


def asking(*mappings: IdMapping) -> Config:
    config = rootless_config(Process(argv=("true",)))
    return replace(config, linux=replace(config.linux, uid_mappings=mappings, gid_mappings=USER_S[:1]))


@pytest.mark.parametrize("table", [TABLE, PARTED])
def test_ids_of_the_host_are_those_of_the_namespace_around(table: list[tuple[int, int, int]]) -> None:
    found = rootless.translated(asking(*USER_S), table, TABLE).linux
    assert [(one.container_id, one.host_id, one.size) for one in found.uid_mappings] == [(0, 0, 1), (1, 1, 65_536)]
    assert [one.host_id for one in found.gid_mappings] == [0]
    last = IdMapping(container_id=7, host_id=165_535, size=1)
    assert rootless.translated(asking(last), table, TABLE).linux.uid_mappings[0].host_id == 65_536


@pytest.mark.parametrize(
    ("first", "size"), [(0, 1), (999, 1), (1000, 2), (99_999, 2), (165_535, 2), (165_536, 1), (0, 4_294_967_295)]
)
def test_an_id_that_is_not_the_user_s_is_refused_by_name(first: int, size: int) -> None:
    wanted = asking(USER_S[0], IdMapping(container_id=1, host_id=first, size=size))
    with pytest.raises(UsageError, match=r"linux\.uidMappings\[1\]"):
        rootless.translated(wanted, TABLE, TABLE)


def test_a_mount_s_ids_are_asked_about_as_well() -> None:
    config = asking(*USER_S)
    strange = (IdMapping(container_id=0, host_id=0, size=1),)
    mount = MountConfig(
        destination="/a", source="/b", options=("bind",), uid_mappings=strange, gid_mappings=USER_S[:1]
    )
    with pytest.raises(UsageError, match=r"mounts\[0\]\.uidMappings\[0\]"):
        rootless.translated(replace(config, mounts=(mount,)), TABLE, TABLE)


@pytest.mark.parametrize(
    ("kernel", "user"),
    [
        (TABLE, 1000),  # podman's, for one
        ([(0, 1000, 1)], 1000),
        ([(0, 0, 4294967295)], -1),  # root of the host
        ([(0, 0, 1)], -1),
        ([(0, 100_000, 65_536)], -1),  # root of a container of root's
        ([(0, 100_000, 1), (1, 100_001, 65_535)], 100_000),
        ([], -1),
    ],
)
def test_who_is_taken_for_an_ordinary_user_in_a_namespace_of_others(
    monkeypatch: pytest.MonkeyPatch, kernel: list[tuple[int, int, int]], user: int
) -> None:
    monkeypatch.setattr(ownspace, "_table", [])
    monkeypatch.setattr(ownspace, "read_table", lambda _name: kernel)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv(ownspace.WORD, "")
    ownspace.recognise()
    assert ownspace.ordinary_user() == user


def test_an_ordinary_user_s_unit_is_in_the_user_s_own_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownspace, "ordinary_user", lambda: 1000)
    unit = Unit.wanted("", "one", by_systemd=True)
    assert unit is not None
    assert (unit.parent, unit.group.path) == ("app.slice", "lab-oci-one.scope/container")
    with pytest.raises(LabError, match=r"user\.slice"):
        Unit.wanted("user.slice:libpod:one", "one", by_systemd=True)


def test_the_word_of_one_that_has_entered_counts_in_a_namespace_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rootless.ENTERED, "1")
    monkeypatch.setattr(ownspace, "_table", [(0, 0, 4294967295)])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    config = asking(*USER_S)
    assert rootless.enter(config) is config
