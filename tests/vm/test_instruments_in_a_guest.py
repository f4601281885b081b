"""A guest's own instruments beside lab's: what systemd-analyze and free say in a virtual machine with a Debian.

Rows of the table in docs/instruments.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import contract
import pytest
from known import Parts, known_image

from lab.backends.site import Site
from lab.host import facts
from lab.hypervisor.machine import Machine
from lab.instance import Instance
from lab.metrics.memory import guest_view
from lab.model import Phase

MIB = 1 << 20
UNITS = {"min": 60.0, "s": 1.0, "ms": 1e-3}


def test_a_guests_start_beside_systemd_analyze_and_its_memory_beside_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines: list[Machine] = []
    start = Machine.start.__func__  # type: ignore[attr-defined]

    def kept(kind: type[Machine], *words: object, **more: object) -> Machine:
        machines.append(start(kind, *words, **more))
        return machines[-1]

    monkeypatch.setattr(Machine, "start", classmethod(kept))
    with Site.open() as site:
        image = known_image(site.store)
        site.backend("vm").prepare(image)
        with site.backend("vm").launch(
            contract.request(site, image, "analysed", *Parts().words(), logs=tmp_path)
        ) as vm:
            vm.wait_executed()
            contract.until_listening(site, vm)
            start_up_agrees(machines[0], vm)
            memory_agrees(machines[0], vm)


def start_up_agrees(machine: Machine, vm: Instance) -> None:
    """systemd-analyze counts from the guest kernel's first look at its clock until the system is up, by the guest's
    clock; lab from the kernel's first byte on the console, by the host's. The application is a service like others,
    so the system is up about when it executes; the bound is a quarter.
    """
    wait = "systemctl is-system-running --wait >/dev/null; systemd-analyze time"
    said = machine.execute(["/bin/bash", "-c", wait], in_image=False, timeout_seconds=60).stdout.decode()
    total = re.search(r"= ((?:[\d.]+(?:min|ms|s) ?)+)", said)
    assert total is not None, said
    theirs = sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)(min|ms|s)", total[1]))
    stamps = vm.timeline.stamps()
    ours = stamps[Phase.EXECUTED] - stamps[Phase.KERNEL]
    assert ours == pytest.approx(theirs, rel=0.25, abs=0.5)


def memory_agrees(machine: Machine, vm: Instance) -> None:
    said = machine.execute(["/bin/busybox", "free", "-k"]).stdout.decode().splitlines()[1].split()
    total, available = int(said[1]) << 10, int(said[6]) << 10
    seen = guest_view(facts.parse_meminfo(vm.execute(["cat", "/proc/meminfo"]).stdout.decode()))
    assert total == seen["total"]
    assert total - available == pytest.approx(seen["used"], abs=4 * MIB)
