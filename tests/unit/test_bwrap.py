"""bubblewrap without a sandbox: which program is used, and what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from bare import bare_host, program

from lab.backends.bubble import options
from lab.backends.bwrap import Bwrap
from lab.errors import BackendUnavailable, UsageError
from lab.model import Process
from lab.record import replace
from lab.runtime.bundle import container_config
from lab.runtime.config.model import Config, User

ROOT = "/scratch/root"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without any, whose apt knows no Debian; the folder that is its PATH."""
    return bare_host(tmp_path, monkeypatch, "/usr/sbin:/sbin")


def test_the_hosts_own_comes_first_if_it_can_be_used(alone: Path, tmp_path: Path) -> None:
    kept = program(tmp_path / "home/programs/bubblewrap-0.8/bwrap", "bubblewrap 0.8.0")
    assert Bwrap.program().path == kept
    own = program(alone / "bwrap", "bubblewrap 0.11.1")
    assert Bwrap.program().path == own
    assert Bwrap.unfetched() == ""
    assert Bwrap._check_program().ok


@pytest.mark.parametrize("said", ["bubblewrap 0.4.1", "bubblewrap", "bwrap 0.9.0", ""])
def test_one_that_is_too_old_or_none_is_passed_over(alone: Path, tmp_path: Path, said: str) -> None:
    own = program(alone / "bwrap", said)
    assert not Bwrap._check_program().ok
    with pytest.raises(UsageError):
        Bwrap.program()
    with pytest.raises(UsageError):
        Bwrap.settle({"binary": str(own)})
    kept = program(tmp_path / "home/programs/bubblewrap-0.8/bwrap", "bubblewrap 0.8.0")
    assert Bwrap.program().path == kept


def test_without_an_archive_nothing_is_fetched(alone: Path) -> None:
    told: list[str] = []
    with pytest.raises(BackendUnavailable):
        Bwrap.fetch(told.append)
    assert told == []


def configuration(*, uid: int = 0, every_capability: bool = False, filtered: bool = False) -> Config:
    process = Process(
        argv=("app", "-x"), environment={"A": "b=c d", "E": ""}, working_directory="/srv", uid=uid, gid=uid
    )
    usual = container_config(process, hostname="one", network_namespace="/net")
    return options.confined(usual, every_capability=every_capability, filtered=filtered)


def pairs(words: list[str], option: str, count: int) -> list[tuple[str, ...]]:
    """What follows each ``option``."""
    return [tuple(words[at + 1 : at + 1 + count]) for at, word in enumerate(words) if word == option]


def test_it_is_told_the_environment_and_nothing_else_of_it_is_left() -> None:
    words = options.options(configuration(), ROOT, survives=False)
    variables = dict(pairs(words, "--setenv", 2))
    assert variables["A"] == "b=c d"
    assert variables["E"] == ""
    assert words.index("--clearenv") < words.index("--setenv")
    assert pairs(words, "--hostname", 1) == [("one",)]
    assert pairs(words, "--bind", 2) == [(ROOT, "/")]


def test_only_one_that_is_to_survive_outlives_its_starter() -> None:
    assert "--die-with-parent" in options.options(configuration(), ROOT, survives=False)
    assert "--die-with-parent" not in options.options(configuration(), ROOT, survives=True)


def test_of_capabilities_nothing_is_left_unless_asked_for_or_to_change_the_user() -> None:
    words = options.options(configuration(), ROOT, survives=False)
    assert pairs(words, "--cap-drop", 1) == [("ALL",)]
    assert pairs(words, "--cap-add", 1) == []
    words = options.options(configuration(uid=7), ROOT, survives=False)
    assert {name for (name,) in pairs(words, "--cap-add", 1)} == set(options.FOR_THE_HELPER)
    words = options.options(configuration(every_capability=True), ROOT, survives=False)
    assert "--cap-drop" not in words


def test_root_s_groups_leave_it_no_capability() -> None:
    """An image's /etc/group names them. What the helper would need to take them, execve(2) leaves to user 0."""
    bare = configuration()
    grouped = replace(bare, process=replace(bare.process, user=User(uid=0, gid=1, additional_gids=(2,))))
    assert pairs(options.options(grouped, ROOT, survives=False), "--cap-add", 1) == []
    assert "--user" not in options.command(grouped.process, [])


def test_what_a_second_process_gets_is_what_the_first_is_told() -> None:
    """The configuration that commands are executed by says what the options say."""
    bare = configuration()
    assert bare.process.capabilities.bounding == bare.process.capabilities.effective == ()
    assert bare.process.no_new_privileges
    assert bare.linux.seccomp is None
    assert bare.linux.masked_paths == bare.linux.readonly_paths == ()
    assert bare.linux.resources.devices == ()
    filtered = configuration(filtered=True)
    assert filtered.linux.seccomp is not None
    assert pairs(options.options(filtered, ROOT, survives=False), "--seccomp", 1) == [(str(options.FILTER),)]


def test_the_helper_is_told_the_application_and_its_user() -> None:
    words = options.command(configuration(uid=7).process, [])
    assert words[words.index("--user") + 1] == "7:7"
    assert words[words.index("--directory") + 1] == "/srv"
    assert words[-3:] == ["--", "app", "-x"]
    assert "--user" not in options.command(configuration().process, [])
