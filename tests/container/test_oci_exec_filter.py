"""exec behind a container's system-call filter: the one that was compiled at create, or one compiled anew."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import oci
import pytest
from oci import Config, Runtime

REFUSED = 99
DAMAGED = ("", "{}", '{"seccomp": "", "seccomp_flags": 0}', '{"seccomp": 5, "seccomp_flags": 0}', "[]")


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with oci.opened("lab-oci") as opened:
        yield opened
        opened.close()


def refuse_mkdir(config: Config) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": REFUSED}
    config["linux"]["seccomp"]["syscalls"].insert(0, rule)
    for other in config["linux"]["seccomp"]["syscalls"][1:]:
        other["names"] = [name for name in other["names"] if name not in rule["names"]]


@pytest.fixture(scope="module")
def name(runtime: Runtime) -> str:
    return runtime.running(edit=refuse_mkdir)


@pytest.fixture
def kept(runtime: Runtime, name: str) -> Iterator[Path]:
    """The file, as `create` has written it, also for the next test."""
    file = runtime.root / name / "filter.json"
    before = file.read_bytes()
    yield file
    file.write_bytes(before)


def refused(runtime: Runtime, name: str) -> None:
    done = runtime("exec", name, "mkdir", "/tmp/made-by-exec")
    assert (done.code, os.strerror(REFUSED) in done.err) == (1, True), done.err
    assert runtime.ok("exec", name, "grep", "-c", "Seccomp:.2", "/proc/self/status") == "1\n"


def test_it_is_roots_alone(kept: Path) -> None:
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_the_kept_one_is_installed(runtime: Runtime, name: str, kept: Path) -> None:
    """Seen by giving it another's, which is what only root can do."""
    refused(runtime, name)
    other = runtime.running()
    kept.write_bytes((runtime.root / other / "filter.json").read_bytes())
    runtime.ok("exec", name, "mkdir", "/tmp/made-by-exec")
    runtime.ok("exec", name, "rmdir", "/tmp/made-by-exec")


@pytest.mark.parametrize("text", DAMAGED)
def test_one_that_is_damaged_or_empty_is_compiled_anew(runtime: Runtime, name: str, kept: Path, text: str) -> None:
    """Above all, none that lacks may mean that there is no filter."""
    kept.write_text(text)
    refused(runtime, name)


def test_one_that_is_not_there_is_compiled_anew(runtime: Runtime, name: str, kept: Path) -> None:
    kept.unlink()
    refused(runtime, name)


def test_a_program_that_was_cut_off_is_refused(runtime: Runtime, name: str, kept: Path) -> None:
    fields = json.loads(kept.read_text())
    fields["seccomp"] = fields["seccomp"][: len(fields["seccomp"]) // 8 * 4]
    kept.write_text(json.dumps(fields))
    assert "Invalid argument" in runtime("exec", name, "true").err
