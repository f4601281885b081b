"""What metrics read, and what they make of it, from text alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.host.survey.facts import parse_meminfo
from lab.metrics.base import Metric
from lab.metrics.boot import BOOT_PHASES, segments
from lab.metrics.clients import wrk
from lab.metrics.memory import ProcessMemory, guest_view, read_process, read_processes, writable_bytes
from lab.metrics.registry import metrics
from lab.model import Phase

# wrk

COUNTS = st.integers(0, 2**40)
SAID = st.fixed_dictionaries(
    dict.fromkeys(("requests", "bytes", *wrk.ERRORS, *wrk.PERCENTILES, "max"), COUNTS)
    | {"duration": st.integers(1, 2**40)}
)


@given(SAID, st.text(alphabet="abc \n", max_size=40))
def test_what_wrk_said_comes_back(said: dict[str, int], noise: str) -> None:
    result = wrk.parse(f"{noise}\n{json.dumps(said)}\n".encode())
    assert result.requests == said["requests"]
    assert result.failed == sum(said[name] for name in wrk.ERRORS)
    assert result.latency_seconds["p99"] == pytest.approx(said["p99"] / 1e6)
    assert result.requests_per_second == pytest.approx(said["requests"] / said["duration"] * 1e6)


@given(st.binary(max_size=200))
def test_anything_else_is_an_error_of_ours(output: bytes) -> None:
    with pytest.raises(LabError, match="wrk"):
        wrk.parse(output)


def test_no_time_is_no_measurement() -> None:
    said = dict.fromkeys(("requests", "bytes", "duration", *wrk.ERRORS, *wrk.PERCENTILES, "max"), 0)
    with pytest.raises(LabError, match="no time"):
        wrk.parse(json.dumps(said).encode())


# Memory

ROLLUP = """\
55d0c8a4c000-7ffd5e5f2000 ---p 00000000 00:00 0                          [rollup]
Rss:                3912 kB
Pss:                 530 kB
Pss_Anon:            360 kB
Shared_Clean:       3000 kB
Shared_Dirty:        500 kB
Private_Clean:        12 kB
Private_Dirty:       400 kB
AnonHugePages:      2048 kB
Swap:                  4 kB
"""
MAPS = """\
55d0c8a4c000-55d0c8a4e000 r--p 00000000 fd:00 1                          /usr/bin/cat
55d0c8a55000-55d0c8a56000 rw-p 00009000 fd:00 1                          /usr/bin/cat
7f0000000000-7f0000010000 rw-s 00000000 00:01 5                          /memfd:a name (deleted)
7ffd5e5d1000-7ffd5e5f2000 rw-p 00000000 00:00 0                          [stack]
"""


def test_one_process(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/smaps_rollup").write_text(ROLLUP)
    (tmp_path / "7/maps").write_text(MAPS)
    seen = read_process(7, tmp_path)
    assert seen == ProcessMemory(
        pss=530 * 1024, rss=3912 * 1024, mapped=0x1000 + 0x10000 + 0x21000, huge=2 << 20, swap=4096,
        shared=3500 * 1024, private=412 * 1024,
    )  # fmt: skip
    assert seen.shared + seen.private == seen.rss
    assert (seen + seen).pss == 2 * seen.pss
    assert (seen + seen).private == 2 * seen.private
    assert read_process(8, tmp_path) == ProcessMemory()


def test_this_very_process_has_memory() -> None:
    seen = read_process(os.getpid())
    assert 0 < seen.pss <= seen.rss
    assert seen.mapped > 1 << 20


TWO_BESIDE = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None)
libc.clone.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
stack = ctypes.create_string_buffer(1 << 16)
top = (ctypes.addressof(stack) + len(stack)) & ~15
CLONE_VM = 0x100
shares = libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, CLONE_VM | signal.SIGCHLD, None)
if not (copies := os.fork()):
    signal.pause()
print(shares, copies, flush=True)
sys.stdin.read()
for child in (shares, copies):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_of_processes_with_one_address_space_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """clone(2) with CLONE_VM makes another process without memory of its own, fork(2) one that has some."""
    argv = [sys.executable, "-c", TWO_BESIDE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shares, copies = map(int, process.stdout.readline().split())
        alone = read_process(process.pid)
        assert alone.mapped == read_process(copies).mapped > 0
        for pids, count in {
            (process.pid, shares): 1,
            (shares, process.pid): 1,
            (process.pid, shares, copies): 2,
        }.items():
            together = read_processes(pids)
            assert together.mapped == count * alone.mapped
            assert together.rss == pytest.approx(count * alone.rss, rel=0.4)  # a fork has touched less
        monkeypatch.setattr("lab.metrics.memory.system_call", refuse)
        assert read_processes([process.pid, shares]).mapped == 2 * alone.mapped, "if nobody tells, each counts"
        assert process.communicate("", timeout=30) == ("", None)
    assert process.returncode == 0


def refuse(name: str, *arguments: object) -> int:
    raise OSError(1, name)


SPAN = st.tuples(st.integers(0, 2**46), st.integers(1, 2**20), st.sampled_from(["rw-p", "r--p", "r-xp", "rw-s"]))


@given(st.lists(SPAN, max_size=20))
def test_only_writable_mappings_count(spans: list[tuple[int, int, str]]) -> None:
    text = "".join(f"{start:x}-{start + size:x} {mode} 00000000 00:00 0\n" for start, size, mode in spans)
    assert writable_bytes(text) == sum(size for _, size, mode in spans if "w" in mode)


def test_a_guest_counts_as_used_what_it_could_not_give_away() -> None:
    text = "MemTotal: 100 kB\nMemFree: 20 kB\nMemAvailable: 60 kB\nBuffers: 5 kB\nCached: 30 kB\n"
    assert guest_view(parse_meminfo(text)) == {"total": 102400, "used": 40 * 1024, "cache": 35 * 1024}


# Boot

STAMPS = st.dictionaries(st.sampled_from(BOOT_PHASES), st.floats(0, 100), min_size=1)


@given(STAMPS, st.dictionaries(st.sampled_from(BOOT_PHASES), st.floats(0, 0.1)))
def test_segments_add_up_to_the_total(stamps: dict[Phase, float], resolutions: dict[Phase, float]) -> None:
    stamps[Phase.REQUESTED] = 0.0
    stamps[Phase.RESPONDED] = max(stamps.values())
    seen = {observation.quantity: observation for observation in segments(stamps, resolutions)}
    total = seen.pop("boot.total")
    assert sum(observation.value or 0 for observation in seen.values()) == pytest.approx(total.value)
    assert all((observation.value or 0) >= 0 for observation in seen.values())
    assert set(seen) == {f"boot.{phase}" for phase in stamps if phase is not Phase.REQUESTED}


def test_an_absent_phase_is_skipped_and_an_overtaken_one_says_so() -> None:
    stamps = {
        Phase.REQUESTED: 1.0,
        Phase.ISOLATED: 2.0,
        Phase.EXECUTED: 4.0,
        Phase.LISTENING: 3.5,
        Phase.RESPONDED: 5.0,
    }
    seen = {o.quantity: o for o in segments(stamps, {Phase.LISTENING: 0.002, Phase.RESPONDED: 0.001})}
    assert "boot.kernel" not in seen
    assert seen["boot.executed"].value == 2.0
    assert seen["boot.listening"].value == 0.0
    assert seen["boot.listening"].detail == {"overtaken_by_seconds": 0.5}
    assert seen["boot.responded"].resolution == 0.002  # both of its ends were polled
    assert seen["boot.total"].value == 4.0


def test_no_answer_no_total() -> None:
    assert [o.quantity for o in segments({Phase.REQUESTED: 0.0, Phase.ISOLATED: 1.0}, {})] == ["boot.isolated"]


# The set of metrics


def test_metrics_are_found_in_the_order_of_their_hooks() -> None:
    wanted = ["boot", "job", "cpu", "memory", "debt", "load", "openloop", "work", "crossings"]
    assert [metric.name for metric in metrics()] == wanted


@pytest.mark.parametrize("metric", metrics(), ids=lambda metric: metric.name)
def test_every_metric_says_what_it_leaves_out(metric: type[Metric]) -> None:
    assert "Left out:" in (metric.__doc__ or "")


def test_phases_are_in_their_order() -> None:
    everything = list(Phase)
    assert all(everything.index(a) < everything.index(b) for a, b in pairwise(BOOT_PHASES))
