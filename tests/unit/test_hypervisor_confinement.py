"""Which QEMU counts as confined, as far as groups go; what is looked at on a living one is in tests/vm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.host.identity import ownspace
from lab.host.identity.lone import user_of
from lab.hypervisor.jail.confinement import Confinement

PID = 4711
ROOT = Path(__file__).parents[2]
OWN, NUMBERLESS = 0, 65_534
"""Groups in an ordinary user's namespace: the user's own is root's there, others have no number."""


def qemu_with(*groups: int) -> Confinement:
    own = (user_of(PID),) * 4
    return Confinement(users=own, groups=own, supplementary=groups, capabilities=0, no_new_privs=True, filters=2)


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's lab, in its namespace."""
    monkeypatch.setattr(ownspace, "here", lambda: True)
    monkeypatch.setattr(ownspace, "table", lambda: [(0, 1000, 1), (1, 100_000, 65_536)])


@pytest.mark.parametrize(
    ("kept", "has", "holds"),
    [
        ((OWN, NUMBERLESS), (OWN, NUMBERLESS), True),  # after a login, for /dev/kvm's sake
        ((NUMBERLESS,), (NUMBERLESS,), True),
        ((OWN, NUMBERLESS), (), True),
        ((), (), True),
        ((), (NUMBERLESS,), False),
        ((NUMBERLESS,), (OWN, NUMBERLESS), False),
        ((OWN, NUMBERLESS), (7,), False),
    ],
)
@pytest.mark.usefixtures("entered")
def test_it_may_have_the_groups_that_lab_itself_has_kept(
    monkeypatch: pytest.MonkeyPatch, kept: tuple[int, ...], has: tuple[int, ...], holds: bool
) -> None:
    monkeypatch.setattr(os, "getgroups", lambda: [*kept])
    assert qemu_with(*has).holds_for(PID) is holds


def test_root_s_has_none_whatever_root_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownspace, "here", lambda: False)
    monkeypatch.setattr(os, "getgroups", lambda: [0, 27])
    assert qemu_with().holds_for(PID)
    assert not qemu_with(0).holds_for(PID)


def test_a_filter_that_confines_nothing_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownspace, "here", lambda: False)
    assert not qemu_with().holds_for(PID, inherited=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="leaving groups is root's")
def test_a_thread_that_keeps_groups_has_children_that_keep_them() -> None:
    """And nobody else does."""
    script = (
        "import subprocess, threading\n"
        "from lab.hypervisor.domains.launch import keep_groups\n"
        "show = lambda: print(subprocess.check_output(['setpriv', '--groups', '7', 'id', '-G'], text=True).split())\n"
        "thread = threading.Thread(target=lambda: (keep_groups(), show()))\n"
        "thread.start(); thread.join(); show()"
    )
    words = ["setpriv", "--groups", "5,6", sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.splitlines() == ["['0', '5', '6']", "['0', '7']"], done.stderr
