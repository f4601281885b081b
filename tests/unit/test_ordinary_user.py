"""Who is taken for an ordinary user's lab, which ids and groups are his, and which places he may use."""

from __future__ import annotations

import errno
import grp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.commands.options import limits
from lab.errors import LabError, LimitError
from lab.host import command, entering, syscalls
from lab.host.cgroup import delegation, descent, given, mounted, systemd
from lab.host.cgroup.hierarchy import Hierarchies
from lab.host.cgroup.mounted import Mounted
from lab.host.identity import ownspace, private, privilege
from lab.host.session import strays
from lab.images.tar import attributes, inodes
from lab.images.tree import OPAQUE, USERS_OPAQUE, opaque_mark
from lab.model import Limits
from lab.runtime.rootfs.mounts import overlay_options

WHOLE = [(0, 0, 4294967295)]
RANGE = [(0, 1000, 1), (1, 100000, 65535)]
ALONE = [(0, 1000, 1)]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What the kernel would say; filled by the test."""
    found: list[tuple[int, int, int]] = []
    monkeypatch.setattr(ownspace, "_table", found)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return found


@pytest.mark.parametrize(
    ("word", "kernel", "owner"),
    [
        ("1000", RANGE, 1000),
        ("1000", ALONE, 1000),
        ("1000", WHOLE, -1),  # root of the host, whatever its environment says
        ("0", WHOLE, -1),
        ("0", [(0, 0, 1)], -1),  # root's own namespace
        ("100000", [(0, 100000, 65536)], -1),  # root of a container with a user namespace, made by others
        ("1001", RANGE, -1),
        ("", RANGE, -1),
        ("-1", RANGE, -1),
        ("\u0661", RANGE, -1),
    ],
)
def test_a_word_in_the_environment_is_believed_where_the_kernel_says_the_same(
    monkeypatch: pytest.MonkeyPatch,
    table: list[tuple[int, int, int]],
    word: str,
    kernel: list[tuple[int, int, int]],
    owner: int,
) -> None:
    table.extend(kernel)
    monkeypatch.setenv(ownspace.WORD, word)
    assert ownspace.owner() == owner
    assert privilege.is_rootless() == (owner > 0)
    assert privilege.is_system_wide() == (owner < 0)
    assert privilege.account() == max(owner, 0)


@pytest.mark.parametrize(("kernel", "has"), [(RANGE, True), (ALONE, False)])
def test_files_have_owners_where_there_are_ids_for_them(
    monkeypatch: pytest.MonkeyPatch, table: list[tuple[int, int, int]], kernel: list[tuple[int, int, int]], has: bool
) -> None:
    table.extend(kernel)
    monkeypatch.setenv(ownspace.WORD, "1000")
    assert privilege.granted(privilege.Need.CONTAIN)
    assert privilege.granted(privilege.Need.OWNERS) == has == inodes.has_owners()
    assert ownspace.keeps_groups() != has
    if not has:
        with pytest.raises(LabError, match="subordinate ids"):
            privilege.require(privilege.Need.OWNERS, "building", "build")


def test_root_s_overlays_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, table: list[tuple[int, int, int]]) -> None:
    table.extend(RANGE)
    monkeypatch.delenv(ownspace.WORD, raising=False)
    assert overlay_options("l", "u", "w").endswith(",redirect_dir=off,metacopy=off")
    assert opaque_mark() == OPAQUE
    monkeypatch.setenv(ownspace.WORD, "1000")
    assert overlay_options("l", "u", "w").endswith(",userxattr")
    assert opaque_mark() == USERS_OPAQUE
    assert not attributes.keeps_xattr(USERS_OPAQUE)  # what an archive holds can forge none of them
    assert not attributes.keeps_xattr(OPAQUE)


def test_ids_are_the_longest_range_of_the_user(tmp_path: Path) -> None:
    (users := tmp_path / "subuid").write_text(
        "# no\n77777:500000:10\n77777:600000:65536\nother:1:999999\n77777:x:9\n"
    )
    (groups := tmp_path / "subgid").write_text("77777:700000:1000\n")
    found = entering.ids_of(77777, 88, users, groups)
    assert (found.users, found.groups, found.is_alone) == ((600000, 65535), (700000, 1000), False)
    assert entering.remark(found) == ""
    nobody = entering.ids_of(77778, 88, users, tmp_path / "absent")
    assert (nobody.users, nobody.groups, nobody.is_alone) == ((0, 0), (0, 0), True)
    assert "--add-subuids" in entering.remark(nobody)


def test_a_safe_place_is_reached_through_nobody_else_s(tmp_path: Path) -> None:
    entering.require_safe(tmp_path / "not" / "there")
    (opened := tmp_path / "open").mkdir()
    opened.chmod(0o777)
    (tmp_path / "link").symlink_to(opened)
    for place in (opened, opened / "below", tmp_path / "link", tmp_path / "link" / "below"):
        with pytest.raises(LabError, match="is no place for lab"):
            entering.require_safe(place)
    opened.chmod(0o1777)
    entering.require_safe(opened / "below")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to a group")
def test_what_a_group_may_exchange_is_safe_if_it_is_the_user_s_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (common := tmp_path / "common").mkdir()
    os.chown(common, 0, 4711)
    common.chmod(0o775)
    monkeypatch.setattr(entering, "_name_of", lambda user: "ada")
    for name, members, is_safe in (("ada", [], True), ("ada", ["bob"], False), ("students", [], False)):
        found = grp.struct_group((name, "x", 4711, members))
        monkeypatch.setattr(grp, "getgrgid", lambda number, found=found: found)
        if is_safe:
            entering.require_safe(common / "below")
        else:
            with pytest.raises(LabError, match="can be changed by others"):
                entering.require_safe(common / "below")
    common.chmod(0o755)
    entering.require_safe(common / "below")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
def test_what_belongs_to_somebody_else_is_no_safe_place(tmp_path: Path) -> None:
    (theirs := tmp_path / "theirs").mkdir()
    os.chown(theirs, 4711, 4711)
    for place in (theirs, theirs / "below"):
        with pytest.raises(LabError, match="is another user's"):
            entering.require_safe(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
def test_who_was_faster_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (common := tmp_path / "common").mkdir()
    common.chmod(0o1777)
    entering.claim(common / "mine")
    assert (common / "mine").stat().st_mode & 0o777 == 0o700

    def lose(folder: Path) -> None:
        folder.mkdir()
        os.chown(folder, 4711, 4711)

    monkeypatch.setattr(private, "make_folder", lose)
    with pytest.raises(LabError, match="is another user's"):
        entering.claim(common / "wanted")


def children() -> set[str]:
    """This process's, those that have ended too; other tests may have left it some."""
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


def test_where_no_namespace_can_be_made_nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(flags: int) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(privilege, "granted", lambda need: False)
    monkeypatch.setattr(entering, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(entering, "runtime_root", lambda: tmp_path / "run")
    monkeypatch.setattr(entering, "ids_of", lambda *_: entering.Ids(user=1, group=1, users=(5, 9), groups=(5, 9)))
    monkeypatch.setattr(syscalls, "unshare", refuse)
    before = children()
    with pytest.raises(LabError, match="user namespace can't be made") as caught:
        entering.enter()
    assert "user namespaces" in caught.value.hint
    assert children() <= before, "its helper has ended and was waited for"


def test_a_delegated_part_takes_the_place_of_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tree(name: str, *groups: str) -> Path:
        for group in ("", *groups):
            (tmp_path / name / group).mkdir(parents=True, exist_ok=True)
            (tmp_path / name / group / "cgroup.procs").touch()
        return tmp_path / name

    memory, cpu, unified = tree("memory", "mine", "mine/shell"), tree("cpu"), tree("unified", "mine")
    allowed = [memory / "mine", memory / "mine/shell", unified / "mine"]
    monkeypatch.setattr(os, "access", lambda path, mode: any(str(path).startswith(str(each)) for each in allowed))
    own = {"memory": "mine/shell", "cpu": "", "": "mine"}
    monkeypatch.setattr(mounted, "groups_of_this_process", lambda root: own)
    host = Mounted({"memory": str(memory), "cpu": str(cpu)}, str(unified), ())
    found = host.delegated()
    assert (found.v1, found.unified) == ({"memory": str(memory / "mine")}, str(unified / "mine"))
    assert Mounted({}, str(unified), ["memory"]).delegated().joined() == ()


def test_on_cgroup_v2_the_slice_of_the_user_s_own_systemd_takes_the_place_of_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can be asked. What is asked of it, and where, is looked at; `tests/machines` has a real one."""
    monkeypatch.setattr(ownspace, "owner", lambda: 1000)
    monkeypatch.setattr(ownspace, "here", lambda: True)
    monkeypatch.setattr(systemd, "holds", lambda name, pid: True)
    unified = tmp_path / "cgroup"
    service = unified / "user.slice/user-1000.slice/user@1000.service"
    service.mkdir(parents=True)
    (service / "cgroup.controllers").write_text("cpu memory pids\n")
    host, bus = Mounted({}, str(unified), ["memory"]), tmp_path / "run/user/1000/bus"
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert host.delegated(str(tmp_path)).joined() == ()
    assert not delegation.delegates(str(tmp_path), host.delegated(str(tmp_path)))
    bus.parent.mkdir(parents=True)
    bus.touch()
    found = host.delegated(str(tmp_path))
    assert (found.unified, found.mount_of("pids")) == (f"{service}/app.slice", f"{service}/app.slice")
    assert delegation.delegates(str(tmp_path), found)
    asked: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(command, "run", lambda words, *, environment, **_: asked.append((words, environment)))
    systemd.start_scope("lab-1.scope", [7], "")
    words, environment = asked[0]
    assert "--user" in words[: words.index("--")]
    assert words[words.index("Slice") + 2] == "app.slice"
    assert environment == {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus"}


def test_a_limit_without_a_group_is_left_out_or_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Limits(memory_bytes=1 << 26, cpus=0.5, pids=9)
    monkeypatch.setattr(given, "host_hierarchies", lambda: Hierarchies(v1={"cpu": Path("/x")}))
    monkeypatch.setattr(privilege, "is_rootless", lambda: True)
    assert limits.as_far_as_given(wanted) == Limits(cpus=0.5)
    assert "memory, processes" in capsys.readouterr().err
    limits.require_given(Limits(cpus=0.5))
    with pytest.raises(LimitError, match="--memory"):
        limits.require_given(wanted)
    monkeypatch.setattr(privilege, "is_rootless", lambda: False)  # root's are the runtime's to judge
    assert limits.as_far_as_given(wanted) == wanted
    limits.require_given(wanted)


def test_what_descends_is_found_and_ended() -> None:
    script = "import subprocess, time; subprocess.Popen(['sleep', '60']); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        assert len(descent.below(parent.pid)) == 1
        assert descent.family(parent.pid) == {parent.pid} | descent.below(parent.pid)
        pidfd = os.pidfd_open(parent.pid)
        descent.kill_below(parent.pid, pidfd=pidfd)
        assert parent.poll() is None
        parent.kill()
    assert descent.family(parent.pid) == set()
    with subprocess.Popen(["sleep", "60"]) as another:
        descent.kill_below(os.getpid(), pidfd=pidfd)  # the number may be another's by now: nothing happens
        assert another.poll() is None
        another.kill()
    os.close(pidfd)


def test_a_range_is_parted_and_stays_whole() -> None:
    assert entering.parted(700000, 1) == ["1", "700000", "1"]
    seen = set()
    for _ in range(50):
        one, first, part, other, second, rest = map(int, entering.parted(700000, 65535))
        assert (one, first, other, second, part + rest) == (1, 700000, 1 + part, 700000 + part, 65535)
        assert min(part, rest) > 0
        seen.add(part)
    assert len(seen) > 40
    assert entering.parted(5, 2) == ["1", "5", "1", "2", "6", "1"]


def test_a_namespace_without_lab_s_mark_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its number may be another's by now; here it is that of this very process."""
    killed: list[int] = []
    own = strays.own_namespace().name
    monkeypatch.setattr(strays, "stale_sessions", lambda: [tmp_path / "dead"])
    monkeypatch.setattr(strays, "is_of_this_boot", lambda folder: True)
    monkeypatch.setattr(strays, "runtime_root", lambda: tmp_path)
    monkeypatch.setattr(strays, "_namespaces", lambda folder: {own})
    monkeypatch.setattr(strays, "_kill", lambda pid, *_: killed.append(pid))
    monkeypatch.setattr(strays, "KILL_SECONDS", 0.5)
    strays.end_strays()
    assert killed == []
    monkeypatch.setattr(strays, "MARKED", 0)
    strays.end_strays()
    assert os.getpid() in killed


def test_a_process_that_ends_while_it_is_looked_at_has_no_company(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    seen = [{ended.pid}, set[int]()]
    monkeypatch.setattr(descent, "family", lambda pid: seen.pop(0))
    assert descent.company(ended.pid, ("mnt", "pid")) == set()
