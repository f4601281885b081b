"""The battery and the metrics in an instance with a kernel of its own: one boot answers for both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import contract
from tiny import GREETING, tiny_image

from lab.backends.site import Site
from lab.isolation.battery import ask_all
from lab.metrics.base import Subject
from lab.metrics.ready.readiness import wait_ready
from lab.metrics.registry import usual_metrics
from lab.model import Accelerator, HttpReadiness, Load, Scenario
from lab.results.record import Status

# Told on any host: what works in the guest needs no control, and these refusals have one everywhere.
CERTAIN = {"boot-id", "host-processes", "kill-host-process", "namespaces", "mount", "load-module", "kernel-log"}
CERTAIN |= {"uptime", "page-cache", "kernel-addresses", "user-ids", "shared-memory", "root-of-a-host-process"}
CERTAIN |= {"open-by-handle", "unload-module", "kexec", "io-ports", "mount-namespace", "hypervisor-bit", "interfaces"}
CERTAIN |= {"host-loopback", "packet-capture", "monotonic-clock", "inotify-instances", "file-table", "disk-space"}
CERTAIN |= {"set-clock", "core-pattern", "capabilities", "system-call-filter", "memory-limit", "pids-limit"}

SCENARIO = Scenario(
    name="tiny",
    title="Tiny",
    directory=Path(),
    dockerfile=Path(),
    port=contract.PORT,
    readiness=HttpReadiness(body=GREETING),
    load=Load(connections=1, duration_seconds=1.0),
)


def test_a_microvm_is_measured_and_asked(tmp_path: Path, missing: Callable[[str], None]) -> None:
    with Site.open() as site:
        backend = site.backend("microvm")
        for check in backend.check():
            if not check.ok:
                missing(f"{check.name} ({check.found})")
        image = tiny_image(site.store)
        backend.prepare(image)
        subject = Subject.before_launch(scenario=SCENARIO, network=site.network, idle_seconds=0.5)
        with backend.launch(contract.request(site, image, "guest", logs=tmp_path)) as instance:
            subject.launched(instance)
            wait_ready(subject)
            hooks = ("ready", "idle", "loaded")
            seen = [o for hook in hooks for metric in usual_metrics() for o in getattr(metric(), hook)(subject)]
            answers = {o.quantity.removeprefix("isolation."): o for o in ask_all(instance, backend)}
            assert instance.wait(0) is None, "the application did not survive the questions"

    assert {o.quantity: o.text for o in seen if o.status is not Status.OK} == {}
    assert subject.has_own_kernel
    quantities = {o.quantity for o in seen}
    assert quantities >= {"boot.kernel", "boot.total", "memory.guest.used", "cpu.compute", "load.latency.p99"}

    told = {name: o for name, o in answers.items() if o.status is Status.OK}
    assert set(told) >= CERTAIN, {name: answers[name].detail["evidence"] for name in CERTAIN - set(told)}
    assert {n: (o.text, o.detail["evidence"]) for n, o in told.items() if not o.detail["as_expected"]} == {}
    # nothing reaches the host, save that under KVM the guest's instructions are the host's processor's
    shown = {"processor-model"} if site.accelerator is Accelerator.KVM else set()
    assert {name for name, o in told.items() if o.detail["reach"] == "open"} <= shown
