"""Crossings on the bare host beside lmbench, perf bench, fio and iperf3: the rows of docs/instruments.md about them.

Other programs of a busy host only ever make a call later. So the least is held against the least: lab's least batch
against the least of several short runs of the other tool, or against the best that it says itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from known import until_quiet

from lab.inside import build

LMBENCH = next(iter(sorted(Path("/usr/lib/lmbench").glob("bin/*/lat_syscall"))), Path("lat_syscall")).parent
ONE = ("taskset", "-c", "0")
PORT = "5999"

pytestmark = [pytest.mark.alone, pytest.mark.nightly]


def ours(*names: str, at: str = "least") -> dict[str, float]:
    """Nanoseconds by lab's helper on the bare host, on one processor."""
    said = json.loads(said_by([*ONE, str(build.program()), "crossings", *names]))["crossings"]
    return {name: float(said[name][at]) for name in names}


def said_by(words: Sequence[str], **environment: str) -> str:
    """Both streams of another tool: lmbench answers on the second one."""
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=250, check=False,
        env=os.environ | environment,
    )  # fmt: skip
    return done.stdout


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def assert_near(one: float, other: float, *, times: float, and_ns: float = 0.0) -> None:
    """Neither is more than ``times`` the other, and so many nanoseconds."""
    assert one <= times * other + and_ns
    assert other <= times * one + and_ns


def by_lmbench(words: str, pattern: str) -> float:
    """The median of 11 short repetitions, in nanoseconds; the least of three such."""
    program, *rest = words.split()
    found = []
    for _ in range(3):
        said = said_by([*ONE, str(LMBENCH / program), "-N", "11", *rest], ENOUGH="1000", TIMING_O="0", LOOP_O="0")
        found += [1e3 * float(each) for each in re.findall(pattern, said, re.MULTILINE)]
    assert found, f"{words}: {said}"
    return min(found)


def test_calls_beside_lmbench() -> None:
    if not (LMBENCH / "lat_syscall").exists():
        pytest.skip("lmbench is not installed; it is in Debian's non-free")

    def both(_: int) -> None:
        least = ours("getpid", "read", "stat", "open")
        for name, words in (
            ("getpid", "lat_syscall null"), ("read", "lat_syscall read"), ("stat", "lat_syscall stat /etc/passwd"),
            ("open", "lat_syscall open /etc/passwd"),
        ):  # fmt: skip
            assert_near(least[name], by_lmbench(words, r"^Simple .+: ([\d.]+) microseconds"), times=1.5)

    until_quiet(both)


def test_switches_beside_lmbench() -> None:
    """lat_ctx says microseconds beside the number of processes, 2."""
    if not (LMBENCH / "lat_ctx").exists():
        pytest.skip("lmbench is not installed; it is in Debian's non-free")

    def both(_: int) -> None:
        quarter = ours("switch", at="quarter")["switch"]  # the least may be a pair of which one half was interrupted
        assert_near(quarter, by_lmbench("lat_ctx -s 0 2", r"^2 ([\d.]+)"), times=2.5)

    until_quiet(both)


def by_perf(*words: str) -> float:
    """The least of twelve runs of some milliseconds, in nanoseconds an operation."""
    need("perf")
    said = [said_by([*ONE, "perf", "bench", *words]) for _ in range(12)]
    found = [1e3 * float(each) for text in said for each in re.findall(r"([\d.]+) usecs/op", text)]
    if not found:
        pytest.skip(f"perf bench can't work here: {said[-1].strip()}")
    return min(found)


def test_getpid_beside_perf_bench() -> None:
    def both(_: int) -> None:
        assert_near(ours("getpid")["getpid"], by_perf("syscall", "basic", "-l", "10000"), times=1.5)

    until_quiet(both)


def test_pipe_beside_perf_bench() -> None:
    def both(_: int) -> None:
        assert_near(ours("pipe")["pipe"], by_perf("sched", "pipe", "-l", "5000"), times=2.0)

    until_quiet(both)


def by_fio(folder: str, *words: str) -> float:
    """The median completion latency, in nanoseconds: of one read or write that fio times by itself."""
    file = Path(folder) / "lab-beside-fio"
    file.write_bytes(b"")
    with file.open("ab", buffering=0) as opened:
        for _ in range(2048):  # block by block, as lab's helper does it: else fio makes it, and forgets it
            opened.write(b"\1" * 4096)
    common = ["--name=x", f"--filename={file}", "--size=8m", "--bs=4k", "--ioengine=psync", "--time_based"]
    try:
        said = said_by([*ONE, "fio", *common, "--thread", "--runtime=1", "--output-format=json", *words])
    finally:
        file.unlink(missing_ok=True)
    job = json.loads(said[said.index("{") :])["jobs"][0]
    kind = "read" if job["read"]["total_ios"] else "write"
    return float(job[kind]["clat_ns"]["percentile"]["50.000000"])


@pytest.mark.parametrize(("folder", "system"), [("/dev/shm", "tmpfs"), ("/var/tmp", "root")])
def test_blocks_beside_fio(folder: str, system: str) -> None:
    """fio times each by itself, with two looks at a clock and its own bookkeeping: below a microsecond more."""

    def both(_: int) -> None:
        median = ours(f"{system}.read", f"{system}.write", at="median")
        for name in ("read", "write"):
            theirs = by_fio(folder, f"--rw=rand{name}", "--invalidate=0")
            assert_near(median[f"{system}.{name}"], theirs, times=1.5, and_ns=1000)

    until_quiet(both)


def test_disk_beside_fio() -> None:
    def both(_: int) -> None:
        theirs = by_fio("/var/tmp", "--rw=randread", "--direct=1")
        assert_near(ours("root.direct", at="median")["root.direct"], theirs, times=2.0)

    until_quiet(both)


def test_stream_beside_iperf3() -> None:
    """The best tenth of a second of iperf3, whose two sides share the processor as lab's do."""

    def both(_: int) -> None:
        words = [*ONE, "iperf3", "-s", "-1", "-p", PORT, "--forceflush"]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            while "listening" not in (line := server.stdout.readline()):
                assert line, "iperf3 ended"
            said = said_by([*ONE, "iperf3", "-c", "127.0.0.1", "-p", PORT, "-t", "2", "-i", "0.1", "-J"])
        finally:
            server.kill()
            server.communicate()
        rates = [each["sum"]["bits_per_second"] for each in json.loads(said)["intervals"]]
        assert_near(ours("tcp_stream")["tcp_stream"], 8e9 * (1 << 20) / max(rates), times=3.0)

    until_quiet(both)
