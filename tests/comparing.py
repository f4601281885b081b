"""``lab compare`` on a small application of busybox alone, for tests: no download, quick to verify file by file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import preloaded
from tiny import fill

from lab.analysis import Loaded, load
from lab.results.store import RunFolder

LAB = [sys.executable, "-m", "lab.cli.main"]

DOCKERFILE = """\
FROM scratch
COPY root/ /
ENV PATH=/bin
EXPOSE 8000
CMD ["httpd", "-f", "-p", "8000", "-h", "/srv"]
"""

SCENARIO = """\
title = "A page from busybox"
[readiness]
http = "/index.html"
body = "hello"
timeout_seconds = 120
[limits]
memory = "256M"
cpus = 1.0
pids = 64
[load]
path = "/index.html"
connections = 2
duration_seconds = 0.5
"""


def make_scenario(folder: Path) -> Path:
    """A folder to compare: Dockerfile, scenario.toml and the root's files."""
    fill(folder / "root")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "scenario.toml").write_text(SCENARIO)
    return folder


def compare(
    *words: str | Path, timeout_seconds: float = 500, pictures: bool = True
) -> subprocess.CompletedProcess[str]:
    """The command as a user types it. Without ``pictures`` the files of the report's are empty."""
    argv = [*LAB, "compare", *map(str, words)]
    return preloaded.run(
        argv, capture_output=True, text=True, timeout=timeout_seconds, check=False, pictures=pictures
    )


def only_run(results: Path) -> Path:
    """The one run folder below ``results``."""
    (folder,) = results.iterdir()
    return folder


def check_run(folder: Path, arms: set[str], blocks: int) -> Loaded:
    """What must hold of every finished run: all arms in all blocks, equal files inside, a report."""
    run = RunFolder.open(folder).run
    assert run.ended_because == "blocks done"
    digests = {seen["manifest_digest"] for seen in run.parity.values()}
    assert digests == {run.image["manifest_digest"]}
    assert set(run.parity) == {label for label in arms if not label.endswith("#aa")}
    for name in ("report.html", "report.md", "samples.parquet"):
        assert (folder / name).stat().st_size > 1000, name
    loaded = load(folder)
    boots = loaded.frame[(loaded.frame["quantity"] == "boot.total") & ~loaded.frame["warmup"]]
    assert sorted(zip(boots["block"], boots["arm"], strict=True)) == sorted(
        (block, arm) for block in range(1, blocks + 1) for arm in arms
    )
    assert set(boots["status"].astype(str)) == {"ok"}, boots["text"].tolist()
    return loaded
