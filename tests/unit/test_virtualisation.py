"""What a host's kernel runs on, told by systemd-detect-virt or by the kernel's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host.survey import virtualisation
from lab.host.survey.virtualisation import Ground

CLOCKS = "sys/devices/system/clocksource/clocksource0/available_clocksource"
PROCESSOR = "proc/cpuinfo"
MAKER = "sys/class/dmi/id/sys_vendor"
TREE = "proc/device-tree/compatible"


@pytest.mark.parametrize(
    ("files", "ground", "by"),
    [
        ({PROCESSOR: "flags : fpu svm"}, Ground.HARDWARE, "none"),
        ({}, Ground.HARDWARE, "none"),
        ({PROCESSOR: "flags : fpu hypervisor", CLOCKS: "kvm-clock tsc", MAKER: "QEMU"}, Ground.VIRTUAL, "kvm"),
        ({PROCESSOR: "flags : fpu hypervisor", CLOCKS: "tsc hpet", MAKER: "QEMU"}, Ground.EMULATED, "qemu"),
        ({PROCESSOR: "model name : QEMU TCG CPU version 2.5+", CLOCKS: "tsc"}, Ground.EMULATED, "qemu"),
        ({PROCESSOR: "CPU implementer : 0x41", TREE: "linux,dummy-virt\0"}, Ground.EMULATED, "qemu"),
        ({PROCESSOR: "CPU implementer : 0x41", TREE: "raspberrypi,4-model-b\0"}, Ground.HARDWARE, "none"),
        ({PROCESSOR: "flags : fpu hypervisor", MAKER: "VMware, Inc."}, Ground.VIRTUAL, "vmware"),
        ({PROCESSOR: "flags : fpu hypervisor", CLOCKS: "tsc"}, Ground.VIRTUAL, "vm-other"),
    ],
)
def test_without_systemd_it_is_concluded(tmp_path: Path, files: dict[str, str], ground: Ground, by: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found = virtualisation.of(virtualisation.concluded(tmp_path))
    assert (found.ground, found.by) == (ground, by)


@pytest.mark.parametrize(
    ("word", "ground"),
    [("none", Ground.HARDWARE), ("kvm", Ground.VIRTUAL), ("qemu", Ground.EMULATED), ("microsoft", Ground.VIRTUAL)],
)
def test_what_systemd_says_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, ground: Ground
) -> None:
    program = tmp_path / "systemd-detect-virt"
    program.write_text(f'#!/bin/sh\ntest "$*" = --vm && echo {word}\ntest {word} != none\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert virtualisation.platform.__wrapped__().ground is ground
    assert virtualisation.platform.__wrapped__().title
