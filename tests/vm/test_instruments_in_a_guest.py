"""A guest's own instruments beside lab's: what systemd-analyze and free say in a virtual machine with a Debian.

Rows of the table in docs/instruments.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import contract
import pytest
from known import Parts, known_image, until_quiet

from lab.backends.site import Site
from lab.host.survey import facts
from lab.hypervisor.machine import Machine
from lab.instance import Instance
from lab.metrics.memory import guest_view
from lab.model import Phase

MIB = 1 << 20
AROUND = ("/proc/1/root/bin/busybox", "chroot", "/proc/1/root")  # behind it, a command of the guest's own
UNITS = {"min": 60.0, "s": 1.0, "ms": 1e-3}


@pytest.mark.nightly
@pytest.mark.alone
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

        def agree(attempt: int) -> None:
            name = f"analysed-{attempt}"
            wanted = contract.request(site, image, name, *Parts().words(), logs=tmp_path / name)
            with site.backend("vm").launch(wanted) as vm:
                vm.wait_executed()
                contract.until_listening(site, vm)
                start_up_agrees(machines[-1], vm)
                memory_agrees(machines[-1], vm)

        until_quiet(agree)  # where lab is late to hear the console's first byte, the kernel seems to take less time


def start_up_agrees(machine: Machine, vm: Instance) -> None:
    """systemd-analyze counts from the guest kernel's first look at its clock until the system is up, by the guest's
    clock; lab from the kernel's first byte on the console, by the host's.

    The kernel's part ends for both when the first process of user space begins. The application is a service like
    others, so the system is up about when it executes. systemd starts that service before lab's stamp: between them
    lie a shell and a chroot.
    """
    wait = "systemctl is-system-running --wait >/dev/null; systemd-analyze time"
    said = machine.execute([*AROUND, "/bin/bash", "-c", wait], timeout_seconds=250).stdout.decode()
    show = ["systemctl", "show", "--value", "-p", "ExecMainStartTimestampMonotonic", "lab-application.service"]
    started = int(machine.execute([*AROUND, *show], timeout_seconds=250).stdout) / 1e6
    stamps = vm.timeline.stamps()
    kernel, executed = (stamps[phase] - stamps[Phase.KERNEL] for phase in (Phase.INIT, Phase.EXECUTED))
    assert kernel == pytest.approx(seconds_of(r"{}\(kernel\)", said), rel=0.1, abs=1.0)
    assert executed == pytest.approx(seconds_of("= {}", said), rel=0.25, abs=0.5)
    assert kernel < started < executed + 0.5


def seconds_of(pattern: str, said: str) -> float:
    """What stands for {} in what systemd-analyze said: ``1min 2.345s`` is 62.345."""
    found = re.search(pattern.format(r"((?:[\d.]+(?:min|ms|s) ?)+)"), said)
    assert found is not None, said
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)(min|ms|s)", found[1]))


def memory_agrees(machine: Machine, vm: Instance) -> None:
    said = machine.execute(["/bin/busybox", "free", "-k"]).stdout.decode().splitlines()[1].split()
    total, available = int(said[1]) << 10, int(said[6]) << 10
    seen = guest_view(facts.parse_meminfo(vm.execute(["cat", "/proc/meminfo"]).stdout.decode()))
    assert total == seen["total"]
    assert total - available == pytest.approx(seen["used"], abs=4 * MIB)
