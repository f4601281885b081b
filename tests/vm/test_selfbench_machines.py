"""The microvm half of ``lab bench self`` for real: the same guest, by lab and by hand."""

from __future__ import annotations

import pytest

from lab.backends.site import Site
from lab.experiment.selfbench.containers import Results
from lab.experiment.selfbench.machines import measure_machines
from lab.experiment.watch import Silent


@pytest.mark.nightly
def test_a_microvm_is_measured_beside_the_same_qemu_by_hand() -> None:
    results = Results(rounds=1, seed=1)
    with Site.open() as site:
        measure_machines(site, results, 1, Silent())
        scratch = site.scratch
    assert not scratch.exists()
    assert set(results.series) == {"microvm", "qemu"}
    assert all(len(series.seconds) == 1 and series.seconds[0] > 0.05 for series in results.series.values())
