"""``lab bench self`` for real, in a few rounds: what it measures, and that it leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from host_state import groups_named

from lab.backends.engine import dockerd
from lab.backends.site import Site
from lab.experiment.selfbench.containers import EDGE, Results, measure_containers
from lab.experiment.selfbench.docker import measure_docker
from lab.experiment.watch import Silent


@pytest.mark.nightly
def test_containers_are_measured_beside_their_references() -> None:
    results = Results(rounds=3, seed=1)
    with Site.open() as site:
        measure_containers(site, results, Silent())
        session, scratch = site.session.id, site.scratch
    # runc makes groups in every hierarchy, those that lab does not use included
    assert groups_named(f"/lab/{session}") == []
    assert not scratch.exists()
    series = results.series
    assert {"container", "container exec", "unshare", "nothing", "first ten", "last ten"} <= set(series)
    assert ("runc" in series) == (shutil.which("runc") is not None)
    assert all(len(series[name].seconds) == 3 for name in ("container", "container exec", "unshare"))
    assert len(series["last ten"].seconds) == EDGE
    assert all(
        executed < whole
        for executed, whole in zip(series["container exec"].seconds, series["container"].seconds, strict=True)
    )
    assert len(series["container plain"].seconds) == len(series["lab-oci"].seconds) == 3
    assert set(results.parents) == {"lab-oci", "runc", "crun"} - set(results.absent)
    assert all(0 < parent.pss_bytes <= parent.rss_bytes for parent in results.parents.values())
    assert median(series["nothing"].seconds) < median(series["container"].seconds)


def test_docker_is_measured_with_both_runtimes(missing: Callable[[str], None]) -> None:
    if dockerd.lacking():
        missing(f"{dockerd.lacking()}, which is Debian's docker.io")
    results = Results(rounds=2, seed=1)
    with Site.open() as site:
        measure_docker(site, results, Silent())
        session, scratch = site.session.id, site.scratch
        assert not (scratch / "docker").exists()
    assert groups_named(session) == []
    assert {name: len(one.seconds) for name, one in results.series.items()} == {"docker lab-oci": 2, "docker runc": 2}
    assert str(scratch) not in Path("/proc/self/mountinfo").read_text()
