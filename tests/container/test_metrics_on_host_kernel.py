"""Every metric over the whole life of real instances on the host's kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import contract
import pytest
from tiny import GREETING, tiny_image

from lab.backends.site import Site
from lab.metrics.base import Subject
from lab.metrics.clients.wrk import PERCENTILES
from lab.metrics.ready.readiness import wait_ready
from lab.metrics.registry import usual_metrics
from lab.model import HttpReadiness, Load, Phase, Scenario
from lab.results.observation import Observation
from lab.results.record import Status

SCENARIO = Scenario(
    name="tiny",
    title="Tiny",
    directory=Path(),
    dockerfile=Path(),
    port=contract.PORT,
    readiness=HttpReadiness(body=GREETING),
    load=Load(connections=2, duration_seconds=1.0),
    ready_timeout_seconds=30,
)

FINE_SECONDS = 0.005
STARTS = 30


@pytest.mark.parametrize("name", ["process", "container"])
def test_a_whole_life(site: Site, name: str, tmp_path: Path, missing: Callable[[str], None]) -> None:
    backend, image = site.backend(name), tiny_image(site.store)
    for check in backend.check():
        if not check.ok:
            missing(f"{check.name} ({check.found})")
    backend.prepare(image)
    chosen = [metric() for metric in usual_metrics()]
    subject = Subject.before_launch(scenario=SCENARIO, network=site.network, idle_seconds=0.5)
    seen: list[Observation] = []
    with backend.launch(contract.request(site, image, f"measured-{name}", logs=tmp_path)) as instance:
        subject.launched(instance)
        wait_ready(subject)
        for hook in ("ready", "idle", "loaded"):
            seen += [observation for metric in chosen for observation in getattr(metric, hook)(subject)]
    seen += [observation for metric in chosen for observation in metric.ended(subject)]

    failed = {o.quantity: (o.text, o.detail) for o in seen if o.status is not Status.OK}
    assert failed == {}
    by_name = {(o.quantity, o.state): o for o in seen}
    wanted = {"boot.isolated", "boot.init", "boot.executed", "boot.listening", "boot.responded", "boot.total"}
    wanted |= {"teardown.total", "cpu.boot", "cpu.idle", "cpu.per_1000_requests", "cpu.compute"}
    wanted |= {"memory.pss", "memory.cgroup.usage", "load.requests_per_second"}
    wanted |= {f"load.latency.{percentile}" for percentile in PERCENTILES}
    assert {quantity for quantity, _ in by_name} >= wanted
    assert not subject.has_own_kernel
    boot = [o for o in seen if o.quantity.startswith("boot.") and o.unit == "seconds"]
    segments = [o.value or 0 for o in boot if o.quantity != "boot.total"]
    assert sum(segments) == pytest.approx(by_name["boot.total", ""].value)
    assert 0 < (by_name["memory.pss", "idle"].value or 0) < 64 << 20
    assert (by_name["memory.cgroup.usage", "after-load"].value or 0) > 0
    assert (by_name["cpu.idle", "idle"].value or 0) < 0.5

    resolutions = [instance.timeline.resolution_seconds(Phase.LISTENING)]
    while min(resolutions) > FINE_SECONDS and len(resolutions) < STARTS:
        subject = Subject.before_launch(scenario=SCENARIO, network=site.network, idle_seconds=0.0)
        wanted = contract.request(site, image, f"measured-{name}-{len(resolutions)}", logs=tmp_path)
        with backend.launch(wanted) as again:
            subject.launched(again)
            wait_ready(subject)
        resolutions.append(again.timeline.resolution_seconds(Phase.LISTENING))
    assert 0 < min(resolutions) <= FINE_SECONDS, "a busy host may keep lab from its next look, and not each time"
