"""The knobs of backends: what may be set, what may not, and what a level comes to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from lab.backends.container import ContainerBackend
from lab.backends.microvm import MicroVm
from lab.backends.process import Process
from lab.backends.registry import available
from lab.backends.support.guests.knobs import designed
from lab.backends.support.guests.machine import MachineBackend
from lab.backends.userns import UserNamespace
from lab.backends.vm import VirtualMachine
from lab.cli.instances.request import parse_knobs
from lab.errors import BackendUnavailable, LimitError, UsageError
from lab.host.survey import criu
from lab.hypervisor.boot import kernel_sign
from lab.hypervisor.guest import grub, loader
from lab.hypervisor.kinds import MICROVM, PC, Firmware, MachineType
from lab.hypervisor.parts import least_memory_bytes
from lab.instance import Backend
from lab.model import Limits

ROOT = Path(__file__).parents[2]
MACHINES = (MicroVm, VirtualMachine)


@pytest.mark.parametrize("backend", available(), ids=lambda backend: backend.name)
def test_nobody_who_sets_nothing_notices(backend: type[Backend]) -> None:
    levels = backend.settle()
    assert levels == {knob.name: knob.levels[0] for knob in backend.knobs}
    assert backend.settle(levels) == levels
    if issubclass(backend, MachineBackend):
        assert designed(backend.design, levels) == backend.design


@pytest.mark.parametrize("backend", MACHINES)
def test_every_level_makes_another_machine(backend: type[MachineBackend], monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    knobs = [knob for knob in backend.knobs if not knob.application_only]  # those start the same machine otherwise
    designs = {
        designed(backend.design, backend.settle({knob.name: level})) for knob in knobs for level in knob.levels
    }
    assert len(designs) == 1 + sum(len(knob.levels) - 1 for knob in knobs)


def test_limits_in_which_no_machine_comes_up_are_known_beforehand() -> None:
    tight = Limits(memory_bytes=192 << 20)
    ContainerBackend.check_limits(Limits(memory_bytes=1 << 20))
    MicroVm.check_limits(tight)
    VirtualMachine.check_limits(tight)
    with pytest.raises(LimitError, match="no vm with 192 MiB") as caught:
        VirtualMachine.check_limits(tight, {"firmware": "ovmf"})
    assert caught.value.hint == "--memory 256M or more"


@pytest.mark.parametrize("backend", MACHINES)
def test_how_the_application_comes_to_run_changes_no_file(backend: type[MachineBackend]) -> None:
    assert backend.carrying({"start": "restore", "disk": "erofs"}) == {"disk": "erofs"}


def test_the_two_backends_meet_in_the_middle() -> None:
    """On the same machine what is left between them is the user space."""
    on_q35 = designed(MICROVM, {"machine": "q35"})
    assert (on_q35.machine, on_q35.user_space) == (PC.machine, MICROVM.user_space)
    assert designed(PC, {"machine": "microvm"}).machine is MachineType.MICROVM


@pytest.mark.parametrize(
    ("backend", "knobs", "message", "hint"),
    [
        (ContainerBackend, {"firmware": "ovmf"}, "backend container has no knob firmware", "knobs: start"),
        (Process, {"start": "restore"}, "backend process has no knob start", "it has none"),
        (MicroVm, {"tuned": "no"}, "backend microvm has no knob tuned", "knobs: machine, console, disk, start"),
        (VirtualMachine, {"disk": "zfs"}, "disk of backend vm has no level zfs", "levels: ext4, erofs"),
        (
            VirtualMachine,
            {"firmware": "ovmf", "machine": "microvm"},
            "firmware=ovmf and machine=microvm don't go together: its firmware can read no disk",
            "machine=q35, or firmware=direct",
        ),
    ],
)
def test_what_can_not_be_is_said(backend: type[Backend], knobs: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        backend.settle(knobs)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_what_is_not_installed_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch)
    VirtualMachine.settle({"firmware": "ovmf", "disk": "erofs"})
    monkeypatch.setattr(loader, "OVMF", tmp_path / "nothing.fd")
    with pytest.raises(BackendUnavailable, match="firmware=ovmf can't be had here") as no_firmware:
        VirtualMachine.settle({"firmware": "ovmf"})
    assert no_firmware.value.hint == "apt-get install ovmf grub-efi-amd64-bin grub-common mtools"
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(BackendUnavailable, match=r"mkfs\.erofs is not installed") as no_program:
        MicroVm.settle({"disk": "erofs"})
    assert no_program.value.hint == "apt-get install erofs-utils"
    VirtualMachine.settle({"firmware": "seabios", "tuned": "no"})


def test_a_container_is_restored_where_criu_can(monkeypatch: pytest.MonkeyPatch) -> None:
    for why, lacking in (("", {}), ("criu is not installed", {("start", "restore"): "criu is not installed"})):
        monkeypatch.setattr(criu, "obstacle", lambda why=why: why)
        assert ContainerBackend.lacking() == lacking
        assert UserNamespace.lacking() == {}, "which has not got that knob"
    with pytest.raises(
        BackendUnavailable, match="start=restore of container can't be had here: criu is not installed"
    ):
        ContainerBackend.settle({"start": "restore"})
    assert ContainerBackend.settle() == {"start": "boot"}


def test_differences_are_those_of_the_level() -> None:
    trimmed = [said for said in VirtualMachine.parity.at(VirtualMachine.settle()) if "trimmed" in said]
    assert len(trimmed) == 1
    untuned = VirtualMachine.parity.at(VirtualMachine.settle({"tuned": "no", "console": "verbose"}))
    assert not [said for said in untuned if "trimmed" in said]
    assert len(untuned) == len(VirtualMachine.parity.differences) + 1


def test_the_sign_of_a_kernel_is_its_own_or_its_loaders() -> None:
    """UEFI writes to the serial port before any kernel does, so its first byte tells nothing."""
    assert kernel_sign(PC) == b""
    assert kernel_sign(designed(MICROVM, {"console": "off"})) is None
    for firmware in (Firmware.SEABIOS, Firmware.OVMF):
        sign = kernel_sign(designed(PC, {"firmware": firmware, "console": "off"}))
        assert sign == loader.KERNEL_LINE, "it does not depend on what the kernel says"


def test_uefi_wants_more_memory_than_a_debian() -> None:
    least = [least_memory_bytes(designed(PC, {"firmware": firmware})) >> 20 for firmware in Firmware]
    assert least == [192, 192, 256]
    assert least_memory_bytes(designed(MICROVM, {"machine": "q35"})) == 96 << 20


def test_knobs_of_the_command_line() -> None:
    assert parse_knobs(["machine=q35", "console=off"]) == {"machine": "q35", "console": "off"}
    for words in (["machine"], ["=q35"], ["machine="], ["machine=q35", "machine=microvm"]):
        with pytest.raises(UsageError):
            parse_knobs(words)


def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this host had every firmware and program."""
    monkeypatch.setattr(grub.Platform, "missing", property(lambda self: False))
    monkeypatch.setattr(loader, "OVMF", Path(__file__))
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")


def test_the_page_about_factors_names_every_knob_of_every_backend() -> None:
    """And all levels, where it names any."""
    page = (ROOT / "docs" / "factors.md").read_text(encoding="utf-8")
    table = page.split("| factor | of | what it tells |\n")[1].split("\n\n")[0]
    rows = [[re.findall(r"`([^`]+)`", cell) for cell in line.split(" | ")] for line in table.splitlines()[1:]]
    for kind in available():
        for knob in kind.knobs:
            of_it = [named for named, of, *_ in rows if kind.name in of and knob.name in map(name_of, named)]
            assert of_it, f"docs/factors.md lacks {knob.name} of {kind.name}"
            levels = {level for named in of_it for each in named for level in each.rpartition("=")[2].split(",")}
            if not knob.is_open and any("=" in each for named in of_it for each in named):
                assert set(knob.levels) <= levels, f"docs/factors.md, {knob.name} of {kind.name}"


def name_of(word: str) -> str:
    """The factor in ``name=level,level``."""
    return word.partition("=")[0]
