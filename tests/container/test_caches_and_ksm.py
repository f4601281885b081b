"""What of the host an experiment varies, for real: cold starts fetch from the disk, KSM ends with its owner."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from comparing import check_run, compare, make_scenario, only_run
from host_state import wait_until

from lab.analysis.checks.caches import in_words, remarks, starts
from lab.host import ksm

pytestmark = pytest.mark.usefixtures("same_host")

SETTINGS = ("run", "pages_to_scan", "sleep_millisecs")

OWNER_THAT_DIES = """
import sys
from pathlib import Path
from tiny import tiny_image
import contract
from lab.backends.site import Site
from lab.host import ksm
from dataclasses import replace

with Site.open() as site, ksm.on(site.session):
    image = tiny_image(site.store)
    backend = site.backend("container")
    for name, mergeable in (("shy", False), ("open", True)):
        logs = Path(sys.argv[1]) / name
        wanted = replace(contract.request(site, image, name, "sleep", "600", logs=logs), mergeable=mergeable)
        instance = backend.launch(wanted)
        instance.wait_executed()
        print(*sorted(instance.cgroup.processes()), flush=True)
    sys.stdin.read()
"""


def test_cold_starts_fetch_from_the_disk_and_warm_ones_do_not(tmp_path: Path) -> None:
    scenario = make_scenario(tmp_path / "page")
    words = ("--factor", "caches=warm,cold", "--on", "container", "--metrics", "boot", "--blocks", "1")
    done = compare(scenario, *words, "--out", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    arms = {"container", "container[caches=cold]", "container#aa"}
    loaded = check_run(only_run(tmp_path / "results"), arms, 1)
    found = starts(loaded.frame)
    warm, cold = found[found["level"] == "warm"], found[found["level"] == "cold"]
    assert sorted(cold["arm"]) == sorted(arm for arm in arms if arm.endswith("cold]"))
    assert len(warm) == 2
    assert (warm["share"] == 1).all()
    assert (cold["resident_bytes"] == 0).all()
    assert (warm["fetched_bytes"] < 1 << 18).all(), "by the other instrument; a block of the file system's own may be"
    assert (cold["fetched_bytes"] > 1 << 20).all(), "busybox and lab's helper alone are more"
    assert list(remarks(loaded.frame)) == []
    report = (only_run(tmp_path / "results") / "report.md").read_text()
    assert in_words(loaded.frame) in report


def test_ksm_ends_with_a_killed_lab_and_meets_who_asked_for_it(
    tmp_path: Path, missing: Callable[[str], None]
) -> None:
    if ksm.state() is None or not ksm.can_be_asked_for():
        missing("KSM with PR_SET_MEMORY_MERGE (Linux 6.4)")
    before = settings()
    if before["run"] != "0":
        pytest.skip("somebody uses KSM on this host")
    words = [sys.executable, "-c", OWNER_THAT_DIES, str(tmp_path)]
    owner = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    try:
        assert owner.stdout
        shy, asked = ([int(pid) for pid in owner.stdout.readline().split()] for _ in range(2))
        assert settings()["run"] == "1"
        offers = [[ksm.of_process(pid).offered for pid in pids] for pids in (shy, asked)]
        if None not in offers[0]:  # a kernel that tells
            assert offers == [[False] * len(shy), [True] * len(asked)], "kept over execve(2), and by children"
    finally:
        owner.kill()
        owner.communicate()
    assert wait_until(lambda: settings() == before), settings()


def settings() -> dict[str, str]:
    return {name: (ksm.FOLDER / name).read_text().strip() for name in SETTINGS}
