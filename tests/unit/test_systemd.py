"""Where lab's groups lie where systemd owns the tree, what systemd is asked for, and what is left to it alone."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from lab.errors import CommandError, LabError
from lab.host import command
from lab.host.cgroup import cgroupfs, delegation, mounted, systemd
from lab.host.cgroup.group import Group
from lab.host.cgroup.mounted import Mounted
from lab.host.identity import ownspace
from lab.host.session import ledger
from lab.host.session.ledger import Resource, ResourceKind, Session
from lab.model import Completed

SESSION = "1f2e3d4c"
SCOPE = f"lab-{SESSION}.scope"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A v2 tree of folders that systemd owns, with the scope of one session."""
    root = tmp_path / "cgroup"
    group(root / SCOPE / "launcher")
    for place in (root, root / SCOPE):
        group(place)
    monkeypatch.setattr(delegation, "_here", [True])
    monkeypatch.setattr(mounted, "_host", [Mounted({}, str(root), ("cpu", "memory"))])
    return root


def group(place: Path, *, enabled: str = "") -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "cgroup.controllers").write_text("cpu memory")
    (place / "cgroup.subtree_control").write_text(enabled)
    (place / "cgroup.procs").write_text("")


class Manager:
    """systemd's manager behind busctl: a scope gets its processes a moment after it was asked for."""

    def __init__(self, tree: Path, *, starts: bool = True) -> None:
        self.tree = tree
        self.starts = starts
        self.calls: list[list[str]] = []
        self.places: dict[int, str] = {}

    def run(self, argv: list[str], **_: Any) -> Completed:
        assert argv[: 4 + ownspace.here()] == ["busctl", *["--user"] * ownspace.here(), "--quiet", "--", "call"]
        method, signature, name, *rest = argv[7 + ownspace.here() :]
        self.calls.append([method, signature, name, *rest])
        if method == "StartTransientUnit" and self.starts:
            at = rest.index("PIDs")
            pids = [int(word) for word in rest[at + 3 : at + 3 + int(rest[at + 2])]]
            threading.Timer(0.05, self.start, (name, pids)).start()
        if method == "AttachProcessesToUnit":
            self.places[int(rest[-1])] = f"{name}{rest[0]}"
        return Completed(exit_code=0, stdout=b"", stderr=b"")

    def start(self, name: str, pids: list[int]) -> None:
        group(self.tree / name)
        self.places.update(dict.fromkeys(pids, name))

    def properties(self) -> list[str]:
        return self.calls[0][3:]


@pytest.fixture
def manager(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager(tree)
    monkeypatch.setattr(command, "run", made.run)
    monkeypatch.setattr(systemd, "_group_of_process", lambda pid: made.places.get(pid, "user.slice/session-1.scope"))
    return made


@pytest.mark.parametrize(
    ("booted", "bus", "v1", "expected"),
    [
        (True, True, False, True),
        (True, True, True, False),  # hybrid: as elsewhere
        (True, False, False, False),  # nobody to ask
        (False, True, False, False),
    ],
)
def test_when_systemd_is_asked(tmp_path: Path, *, booted: bool, bus: bool, v1: bool, expected: bool) -> None:
    for there, name in ((booted, delegation.BOOTED), (bus, delegation.BUS)):
        if there:
            (tmp_path / name).mkdir(parents=True)
    host = Mounted({"memory": "/m"} if v1 else {}, "/u", ())
    assert delegation.delegates(str(tmp_path), host) is expected


def test_groups_lie_in_the_scope_of_their_session_or_below_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegation, "_here", [False])
    assert delegation.group_of(SESSION, "web") == f"lab/{SESSION}/web"
    assert delegation.units_of(f"{SCOPE}/instances/web") == 0
    monkeypatch.setattr(delegation, "_here", [True])
    assert delegation.group_of(SESSION, "web") == f"{SCOPE}/instances/web"
    assert delegation.group_of(SESSION) == f"{SCOPE}/instances"
    assert delegation.units_of(f"{SCOPE}/instances/web") == 1
    assert delegation.units_of("a.slice/b.scope/c.scope/d") == 3
    assert delegation.units_of("lab/oci/one") == 0


def test_where_a_slice_lies() -> None:
    assert delegation.group_of_slice("-.slice") == ""
    assert delegation.group_of_slice("a-b-c.slice") == "a.slice/a-b.slice/a-b-c.slice"
    for wrong in ("a.scope", "slice", "a--b.slice", "-a.slice", "../a.slice", ".slice"):
        with pytest.raises(ValueError, match="slice"):
            delegation.group_of_slice(wrong)


def test_a_scope_is_delegated_unlimited_and_has_its_processes_on_return(manager: Manager) -> None:
    systemd.start_scope("lab-x.scope", [11, 12], "what it is", properties=[("CPUWeight", "t", "200")])
    assert manager.places == {11: "lab-x.scope", 12: "lab-x.scope"}
    assert manager.calls[0][:4] == ["StartTransientUnit", "ssa(sv)a(sa(sv))", "lab-x.scope", "fail"]
    text = " ".join(manager.properties())
    for expected in ("PIDs au 2 11 12", "Slice s -.slice", "Delegate b true", "CPUWeight t 200", "TasksMax t"):
        assert expected in text
    count, known = manager.calls[0][4], ("PIDs", "Slice", "Description", "Delegate", "CollectMode", "TasksMax")
    assert int(count) == sum(word in (*known, "CPUWeight") for word in manager.properties())


def test_a_scope_that_does_not_start_is_an_error(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "START_SECONDS", 0.05)
    manager.starts = False
    with pytest.raises(LabError, match=r"lab-x\.scope"):
        systemd.start_scope("lab-x.scope", [11], "")

    def refuse(*_: Any, **__: Any) -> Completed:
        raise CommandError("busctl failed with exit code 1", detail="Call failed: Access denied")

    monkeypatch.setattr(command, "run", refuse)
    with pytest.raises(CommandError):
        systemd.start_scope("lab-x.scope", [11], "")


def test_a_sessions_processes_are_in_a_group_of_their_own(manager: Manager, tree: Path) -> None:
    scope = systemd.Scope("lab-00000001.scope")
    own = os.getpid()
    group(tree / scope.name / "later")
    (tree / scope.name / "launcher").mkdir()
    with pytest.raises(LabError):  # it is there already: not ours
        scope.start([own], "")
    (tree / scope.name / "launcher").rmdir()
    with pytest.raises(LabError, match="placed"):  # these are no real groups: there is no cgroup.procs to write to
        scope.start([own], "")
    assert (tree / scope.name / "launcher").is_dir()


def test_a_new_supervisor_enters_the_scope_once(manager: Manager, tree: Path) -> None:
    scope = systemd.Scope.of(SESSION)
    scope.enter()
    scope.enter()
    assert [call[:2] for call in manager.calls] == [["AttachProcessesToUnit", "ssau"]]
    assert manager.places[os.getpid()] == f"{SCOPE}/launcher"
    assert not scope.exists()  # for those in it: it ends with them
    systemd.Scope.of("99999999").enter()  # one that is gone
    assert len(manager.calls) == 1


@pytest.mark.parametrize(("rootless", "delegated"), [(True, True), (True, False), (False, True)])
def test_only_an_ordinary_users_process_has_to_enter_the_scope_for_its_children(
    manager: Manager, tree: Path, monkeypatch: pytest.MonkeyPatch, rootless: bool, delegated: bool
) -> None:
    monkeypatch.setattr(ownspace, "here", lambda: rootless)
    monkeypatch.setattr(systemd, "here", lambda: delegated)
    systemd.Scope.of(SESSION).open_to_children()
    assert (os.getpid() in manager.places) == (rootless and delegated)


def test_nothing_above_a_scopes_own_group_is_made_or_written(tree: Path) -> None:
    path = f"{SCOPE}/instances/web"
    with pytest.raises(FileNotFoundError):  # instances, a plain folder here, has no control files
        cgroupfs.make_parents(tree, path, delegate=True)
    assert (tree / SCOPE / "instances").is_dir()
    assert (tree / SCOPE / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (tree / "cgroup.subtree_control").read_text() == ""
    with pytest.raises(FileNotFoundError):
        cgroupfs.make(tree, "lab-deadbeef.scope/instances/web", delegate=False)
    assert not (tree / "lab-deadbeef.scope").exists()


def test_a_group_right_below_a_scope_has_the_scopes_controllers(tree: Path) -> None:
    """As `lab noisy` makes one, to bound all instances of a session together."""
    cgroupfs.make(tree, f"{SCOPE}/instances", delegate=True)
    assert (tree / SCOPE / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (tree / "cgroup.subtree_control").read_text() == ""
    group(tree / SCOPE / "instances")
    cgroupfs.make(tree, f"{SCOPE}/instances/victim", delegate=True)
    assert (tree / SCOPE / "instances" / "cgroup.subtree_control").read_text() == "+cpu +memory"
    group(tree / "machine.slice")
    cgroupfs.make(tree, "machine.slice/of-others", delegate=True)
    assert (tree / "machine.slice" / "cgroup.subtree_control").read_text() == "", "a parent of others is theirs"


def test_a_scopes_own_group_is_systemds_to_remove(tree: Path) -> None:
    gone = tree / "lab-00000002.scope"
    (gone / "instances" / "a").mkdir(parents=True)
    Group("lab-00000002.scope/instances/a").remove(keep_parents=False)
    assert gone.is_dir()
    assert not (gone / "instances").exists()


def test_an_end_is_waited_for_and_what_stays_is_named(
    manager: Manager, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = tree / "lab-00000003.scope"
    leaving.mkdir()
    monkeypatch.setattr(systemd, "GRACE_SECONDS", 60.0)
    threading.Timer(0.05, leaving.rmdir).start()
    before = time.monotonic()
    Resource(kind=ResourceKind.SCOPE, name=leaving.name).remove()
    assert time.monotonic() - before < systemd.GRACE_SECONDS
    monkeypatch.setattr(systemd, "GRACE_SECONDS", 0.01)
    monkeypatch.setattr(systemd, "END_SECONDS", 0.05)
    leaving.mkdir()
    threading.Timer(0.4, leaving.rmdir).start()  # systemd is behind, and stops what it is asked to when it gets to it
    Resource(kind=ResourceKind.SCOPE, name=leaving.name).remove()
    assert manager.calls == [["StopUnit", "ss", leaving.name, "replace"]]
    monkeypatch.setattr(systemd, "BEHIND_SECONDS", 0.05)
    with pytest.raises(LabError, match=f"{SCOPE} is left; living processes in it: none"):
        Resource(kind=ResourceKind.SCOPE, name=SCOPE).remove()
    (tree / SCOPE / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(LabError, match="none, though its cgroup"):
        systemd.await_end(SCOPE)
    (tree / SCOPE / "launcher" / "cgroup.procs").write_text(f"{os.getpid()}\n")
    manager.calls.clear()
    with pytest.raises(LabError, match=f"{SCOPE} is left; living processes in it: {os.getpid()}"):
        systemd.await_end(SCOPE)
    assert manager.calls == [], "nothing that has processes is stopped"


@pytest.mark.parametrize("complaint", ["Unit lab-00000003.scope not loaded.", "Access denied"])
def test_of_a_scope_that_systemd_has_forgotten_the_groups_are_removed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, complaint: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Completed:
        raise CommandError("busctl failed with exit code 1", detail=f"Call failed: {complaint}")

    monkeypatch.setattr(command, "run", refuse)
    for name in ("END_SECONDS", "BEHIND_SECONDS"):
        monkeypatch.setattr(systemd, name, 0.05)
    forgotten = tree / "lab-00000003.scope"
    forgotten.mkdir()
    known = "not loaded" not in complaint
    with pytest.raises(CommandError) if known else nullcontext():
        systemd.await_end(forgotten.name)
    assert forgotten.exists() == known


def test_a_ledger_names_no_other_sessions_scope(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "runtime_root", lambda: tmp_path / "run")
    session = Session.open()
    session.record(Resource(kind=ResourceKind.SCOPE, name=SCOPE))
    session.record(Resource(kind=ResourceKind.CGROUP, name=f"{SCOPE}/instances"))
    with pytest.raises(LabError) as caught:
        session.close()
    assert caught.value.detail.count("of this session") == 2
    assert (tree / SCOPE).is_dir()


def test_libraries_do_not_find_the_bus_that_systemd_is_asked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(systemd.BUS, "unix:path=/a/bus")
    asked: list[str] = []

    def run(_words: object, *, environment: dict[str, str], **_: object) -> None:
        asked.append(environment[systemd.BUS])

    monkeypatch.setattr(command, "run", run)
    systemd.keep_off_the_bus()
    assert os.environ[systemd.BUS] == systemd.NO_BUS
    systemd.attach(SCOPE, "launcher", 1)
    with pytest.raises(OSError), socket.socket(socket.AF_UNIX) as client:  # whatever the kernel says
        client.connect(systemd.NO_BUS.removeprefix("unix:path="))
    assert asked == [systemd.THE_BUS]
