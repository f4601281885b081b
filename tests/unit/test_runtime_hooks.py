"""A hook and whoever waits for it: nothing of a hook outlives what told that process to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from lab.runtime import hooks

SLOW: hooks.Hook = {"path": "/bin/sleep", "args": ["sleep", "1000"], "env": None, "timeout": None}


class ToldToEndError(Exception):
    """What the handler of lab-oci does."""


@pytest.fixture
def told_to_end() -> Iterator[None]:
    def tell(number: int, frame: object) -> None:
        raise ToldToEndError

    before = signal.signal(signal.SIGTERM, tell)
    yield
    signal.signal(signal.SIGTERM, before)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_signal_as_soon_as_a_hook_is_born_ends_it_too(told_to_end: None) -> None:
    """There is nobody yet who waits for it. Ctrl-C while a container is made is as quick, by chance."""
    born: list[int] = []

    def spawn(hook: hooks.Hook, given: int, heard: int) -> int:
        born.append(hooks._spawn(hook, given, heard))
        signal.raise_signal(signal.SIGTERM)  # to this thread, as of a process with one
        return born[0]

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(ToldToEndError):
        hooks.run("createRuntime", [SLOW], {}, spawn)
    assert gone(born[0])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_hook_that_has_no_group_of_its_own_yet_is_ended(told_to_end: None) -> None:
    born: list[int] = []

    def spawn(hook: hooks.Hook, given: int, heard: int) -> int:
        born.append(os.posix_spawn(hook["path"], hook["args"], {}))
        signal.raise_signal(signal.SIGTERM)  # to this thread, as of a process with one
        return born[0]

    with pytest.raises(ToldToEndError):
        hooks.run("startContainer", [SLOW], {}, spawn)
    assert gone(born[0])


def test_a_hook_that_can_not_be_executed_leaves_signals_as_they_were() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(OSError, match="createRuntime hook /absent"):
        hooks.run("createRuntime", [{"path": "/absent"}], {})
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    hooks.run("createRuntime", [{"path": "/bin/true"}], {})
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
