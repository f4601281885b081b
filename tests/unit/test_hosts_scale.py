"""200 hosts with 50 runs each, ten million samples: what it costs to look at them together, and how that grows.

``pytest -m nightly -s tests/unit/test_hosts_scale.py`` says the numbers of docs/scale.md. Time is reported, not
asserted: it is the host's. That memory does not grow with the samples is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from claims import SERIES, tell
from fleet import Fleet, described, write_columns

from lab.results.codec import encode_run
from lab.results.store import PARQUET, RUN

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(7_200)]

RUNS_OF_A_HOST, FILES_OF_A_HOST = 50, 5
HEADLINE = ("boot.total", "memory.pss", "load.requests_per_second")
QUANTITIES = (*HEADLINE, *(name for name, state in SERIES if not state and name not in HEADLINE))[:25]
SAMPLES_PER_RUN = 10 * 4 * len(QUANTITIES)
SIZES = (2, 20, 200)
MOST_MEMORY = 2 << 30

LOOK = """
import json, resource, sys, time
from pathlib import Path
began, used = time.perf_counter(), time.process_time()
from lab.analysis.hosts.merged import merged
from lab.reports.hosts import write
root, out = Path(sys.argv[1]), Path(sys.argv[2])
found = write([root], out).merged
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({
    "seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used,
    "peak_bytes": peak, "runs": sum(len(group.sources) for group in found.groups),
    "hosts": int(found.pooled["hosts"].max()), "comparisons": len(found.pooled),
}))
"""


def write_many(root: Path, hosts: int, scratch: Path) -> None:
    """So many hosts' runs. Those of a host share a few files of samples by hard link, which `samples.parquet` of a
    finished run may: nobody appends to it.
    """
    generator = np.random.default_rng(hosts)
    fleet = Fleet(
        hosts=hosts, arms=("container", "microvm", "vm"), quantities=QUANTITIES, special={1: {"clocksource": "hpet"}}
    )
    for number in range(hosts):
        true = np.log(fleet.ratio) + 0.1 * generator.normal(size=(3, len(QUANTITIES)))
        run, files = described(fleet, number), []
        for place in range(FILES_OF_A_HOST):
            files.append(scratch / f"{number}-{place}.parquet")
            own = true + 0.02 * generator.normal(size=true.shape)
            write_columns(files[-1], fleet, generator, own, float(1 + number % 9))
        for repeated in range(RUNS_OF_A_HOST):
            folder = root / f"host-{number:03}" / f"run-{repeated:03}"
            folder.mkdir(parents=True)
            (folder / PARQUET).hardlink_to(files[repeated % FILES_OF_A_HOST])
            (folder / RUN).write_text(encode_run(replace(run, name=folder.name, seed=repeated)))


def test_ten_million_samples_of_two_hundred_hosts(tmp_path: Path) -> None:
    peaks = {}
    for hosts in SIZES:
        root, scratch = tmp_path / "runs", tmp_path / "scratch"
        scratch.mkdir()
        write_many(root, hosts, scratch)
        done = subprocess.run(
            [sys.executable, "-c", LOOK, root, tmp_path / "out"], capture_output=True, text=True, check=True
        )
        said = json.loads(done.stdout)
        assert said["runs"] == hosts * RUNS_OF_A_HOST
        assert said["hosts"] == hosts
        samples = said["runs"] * SAMPLES_PER_RUN
        tell(
            f"{said['runs']:,} runs, {hosts} hosts, {samples:,} samples, {said['comparisons']} comparisons: "
            f"{said['seconds']:.1f} s, of processor time {said['cpu_seconds']:.1f} s, "
            f"{said['peak_bytes'] / 2**20:.0f} MiB"
        )
        peaks[hosts] = said["peak_bytes"]
        for folder in (root, scratch, tmp_path / "out"):
            shutil.rmtree(folder)
    assert peaks[200] < MOST_MEMORY
    assert peaks[200] < 3 * peaks[20], "ten times the samples need nowhere near ten times the memory"
