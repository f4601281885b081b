"""What a saved machine leaves, and what those that go on from it are told."""

from __future__ import annotations

import time
from ipaddress import IPv4Interface
from pathlib import Path

from lab.hypervisor.guest.handover import Handover
from lab.hypervisor.kinds import MICROVM
from lab.hypervisor.snapshot import keep, wake_order
from lab.model import Process


def test_layers_and_logs_are_taken_over(tmp_path: Path) -> None:
    machine, logs, saved = (tmp_path / name for name in ("machine", "logs", "saved"))
    for folder in (machine, logs, saved):
        folder.mkdir()
    for name in ("lab-scratch.qcow2", "initramfs"):
        (machine / name).write_bytes(bytes(8192))
    (logs / "stdout.log").write_text("ready\n")
    (logs / "stderr.log").write_text("")
    (saved / "state").write_bytes(bytes(16384))
    snapshot = keep(machine, logs, saved)
    assert list(machine.iterdir()) == []
    assert {path.name for path in saved.iterdir()} == {
        "state", "initramfs", "lab-scratch.qcow2", "stdout.log", "stderr.log",
    }  # fmt: skip
    assert snapshot.parts == {name: saved / name for name in ("lab-scratch.qcow2", "initramfs")}
    assert [path.read_text() for path in snapshot.logs] == ["ready\n", ""]
    assert snapshot.size_bytes >= 32768


def test_each_is_told_its_own_identity_and_no_two_the_same_seed() -> None:
    who = Handover(
        design=MICROVM, hostname="web-2", process=Process(argv=("true",)),
        address=IPv4Interface("198.18.0.7/15"), mac="02:00:c6:12:00:07",
    )  # fmt: skip
    first, second = wake_order(who).split(), wake_order(who).split()
    assert first[:4] == ["wake", "198.18.0.7/15", "02:00:c6:12:00:07", "web-2"]
    assert abs(int(first[4]) - time.time_ns()) < 60 * 10**9
    assert len(first) == 6
    assert len(bytes.fromhex(first[5])) == 64
    assert first[5] != second[5]


def test_one_without_a_network_keeps_its_place_in_the_order() -> None:
    alone = Handover(design=MICROVM, hostname="job", process=Process(argv=("true",)))
    assert wake_order(alone).split()[:4] == ["wake", "-", "-", "job"]
