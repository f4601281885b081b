"""Parsers meet broken input: a few hundred changed seeds here, a million guided by coverage at night.

A crash that either finds becomes a line of `FOUND`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hostile import Entry
from targets import TARGETS, Target

INPUTS = 400
NIGHTLY_RUNS = 1_000_000
INTERESTING = (
    b"",
    b"\0",
    b"\xff",
    b"-1",
    b"1e999",
    b"9" * 30,
    b'"',
    b"\\",
    b"{",
    b"[",
    b"null",
    b"\n",
    b"/../",
    b"\\ud800",
)

FOUND: list[tuple[str, bytes]] = [
    ("records", b'{"name": "w", "id": "0", "backend": "b", "image": "i", "digest": "d", "process": 1}'),
    ("Dockerfiles", "FROM a\nHEALTHCHECK --interval=5s à\n".encode()),
    ("layers", Entry(name=b"x", kind=b"x", data=b"0 path=a\n").raw()),  # never came to an end
]
"""Inputs that once crashed a target."""


def changed(data: bytes, chance: random.Random) -> bytes:
    """``data`` with up to four cuts, copies, flips and insertions."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, other = chance.randrange(len(found) + 1), chance.randrange(len(found) + 1)
        low, high = sorted((at, min(other, at + 64)))
        match chance.randrange(5):
            case 0:
                del found[low:high]
            case 1:
                found[at:at] = found[low:high]
            case 2 if found:
                found[min(at, len(found) - 1)] ^= 1 << chance.randrange(8)
            case 3:
                found[low:high] = chance.choice(INTERESTING)
            case _:
                found[at:at] = chance.choice(INTERESTING)
    return bytes(found)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_seeds(name: str) -> None:
    target, chance = TARGETS[name], random.Random(name)
    if name == "layers unpacked" and os.geteuid() != 0:
        pytest.skip("files are given to other users")
    seeds = target.seeds()
    for seed in seeds:
        target.function(seed)
    for _ in range(INPUTS):
        data = changed(chance.choice(seeds), chance)
        try:
            target.carry_out(data)
        except Exception as error:
            raise AssertionError(f"{data!r}") from error


@pytest.mark.parametrize(("name", "data"), FOUND, ids=[name for name, _ in FOUND])
def test_what_once_crashed(name: str, data: bytes) -> None:
    TARGETS[name].carry_out(data)


def test_a_crash_is_noticed() -> None:
    """The control."""
    target = Target(function=lambda data: data.decode(), allowed=(KeyError,), seeds=list)
    with pytest.raises(UnicodeDecodeError):
        target.carry_out(b"\xff")


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not there for this Python and machine")
@pytest.mark.parametrize("name", TARGETS)
def test_a_million_inputs(name: str, tmp_path: Path) -> None:
    words = [sys.executable, Path(__file__).with_name("guided.py"), name, str(NIGHTLY_RUNS), "1", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    crashes = [f"{path.name}: {path.read_bytes()!r}" for path in tmp_path.glob("*-*") if path.is_file()]
    assert done.returncode == 0, f"{crashes}\n{done.stderr[-3000:]}"
