"""The memory that a saved machine leaves to others: whoever has it can change it until it is sealed, then nobody."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.hypervisor import memory as module
from lab.hypervisor.memory import SEALS, SavedMemory

SIZE = 1 << 20


def is_sealed(memory: SavedMemory) -> bool:
    """Whether nobody can change it any more, as the kernel says."""
    with Path(memory.path).open("rb") as file:
        return fcntl.fcntl(file, fcntl.F_GET_SEALS) == SEALS


def test_sealed_it_can_be_mapped_privately_and_not_changed() -> None:
    memory = SavedMemory(SIZE)
    with Path(memory.path).open("r+b", buffering=0) as file:
        file.write(b"saved")
    assert not is_sealed(memory)
    assert 0 < memory.held_bytes < SIZE, "what was never written takes nothing"
    memory.seal()
    assert is_sealed(memory)
    with Path(memory.path).open("r+b", buffering=0) as file, pytest.raises(PermissionError):
        file.write(b"x")
    with Path(memory.path).open("r+b", buffering=0) as file, pytest.raises(PermissionError):
        file.truncate(SIZE // 2)
    with Path(memory.path).open("r+b", buffering=0) as file:
        with pytest.raises(PermissionError):
            mmap.mmap(file.fileno(), SIZE)
        with mmap.mmap(file.fileno(), SIZE, flags=mmap.MAP_PRIVATE) as own:
            own[:5] = b"other"
            assert file.read(5) == b"saved"


def test_it_is_not_sealed_while_somebody_could_still_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEAL_SECONDS", 0.05)
    memory = SavedMemory(SIZE)
    with Path(memory.path).open("r+b") as file, mmap.mmap(file.fileno(), SIZE), pytest.raises(LabError, match="seal"):
        memory.seal()
    memory.seal()


def test_it_ends_with_whoever_has_it() -> None:
    memory = SavedMemory(SIZE)
    number = int(memory.path.rpartition("/")[2])
    os.fstat(number)
    del memory
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
