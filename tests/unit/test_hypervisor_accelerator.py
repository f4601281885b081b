"""The verdict about KVM, how it is remembered, and the program that stands in for QEMU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.errors import BackendUnavailable, UsageError
from lab.host.identity import privilege
from lab.host.survey.virtualisation import Ground
from lab.hypervisor import accelerator
from lab.hypervisor.accelerator import Verdict, choose_accelerator
from lab.hypervisor.channels.ports import INIT_LINE
from lab.hypervisor.emulator import JAIL_VARIABLE, install_emulator
from lab.hypervisor.tsc import read_together, tsc_khz
from lab.model import Accelerator


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """A /dev/kvm that opens, and a proof that counts how often it was asked for and says KVM works."""
    asked: list[int] = []

    def prove(_guest: object, _home: Path, _seccomp: bytes) -> Verdict:
        asked.append(1)
        found = Verdict(accelerator=Accelerator.KVM, reason="it booted", boot_id=accelerator._boot_id())
        return replace(found, kernel=os.uname().release)

    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.delenv("LAB_ACCELERATOR", raising=False)
    monkeypatch.setattr(accelerator, "DEVICE", device)
    monkeypatch.setattr(accelerator, "prepare_guest", lambda _home: None)
    monkeypatch.setattr(accelerator, "prove", prove)
    return asked


def test_a_proof_holds_for_this_boot_of_this_kernel(proofs: list[int], tmp_path: Path) -> None:
    assert choose_accelerator(tmp_path, b"").accelerator is Accelerator.KVM
    assert choose_accelerator(tmp_path, b"").reason == "it booted"
    assert len(proofs) == 1
    kept = tmp_path / "cache/kvm.json"
    kept.write_text(kept.read_text().replace(accelerator._boot_id(), "another boot"))
    choose_accelerator(tmp_path, b"")
    assert len(proofs) == 2
    kept.write_text("{broken")
    choose_accelerator(tmp_path, b"")
    assert len(proofs) == 3


def test_of_a_long_console_whole_lines_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def boot(_guest: object, _home: Path, _seccomp: bytes, _seconds: float, console: bytearray) -> tuple[str, bool]:
        console += said
        return "", True

    monkeypatch.setattr(accelerator, "_boot", boot)
    guest = SimpleNamespace()
    lines = [f"{number:04d} at planted-host\n" for number in range(1000)]
    said = "".join(lines).encode()
    kept = accelerator.prove(guest, tmp_path, b"").console  # type: ignore[arg-type]
    assert 4000 < len(kept) <= 4096
    assert kept.splitlines(keepends=True) == lines[-len(kept.splitlines()) :]
    said = b"a few words\nand more"
    assert accelerator.prove(guest, tmp_path, b"").console == said.decode()  # type: ignore[arg-type]


def test_a_doubt_holds_for_ten_minutes_and_can_be_asked_again(
    proofs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubt = Verdict(accelerator=Accelerator.TCG, reason="too slow", boot_id=accelerator._boot_id())
    doubt = replace(doubt, kernel=os.uname().release, until=accelerator._now() + accelerator.DOUBT_SECONDS)
    accelerator._remember(tmp_path / "cache/kvm.json", doubt)
    assert choose_accelerator(tmp_path, b"") == doubt
    later = accelerator._now() + accelerator.DOUBT_SECONDS + 1
    with monkeypatch.context() as patch:
        patch.setattr(accelerator, "_now", lambda: later)
        assert choose_accelerator(tmp_path, b"").accelerator is Accelerator.KVM
    assert len(proofs) == 1
    choose_accelerator(tmp_path, b"", again=True)
    assert len(proofs) == 2


BOOTS = f"import os; os.write(c.fileno(), b'{INIT_LINE.decode()}'); import time; time.sleep(600)"


@pytest.mark.parametrize(
    ("script", "boots", "lasts"),
    [
        (f"{{connect}}; {BOOTS}", True, True),
        ("{connect}; import time; time.sleep(600)", False, False),
        ("import time; time.sleep(600)", False, False),
        ("{connect}; import sys; sys.exit('kvm_buf_set_msrs: Assertion failed')", False, True),
        ("import sys; sys.exit('failed to initialize kvm: Invalid argument')", False, True),
        ("import sys; sys.exit('ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy')", False, False),
    ],
)
def test_success_and_refusal_last_until_the_next_boot_and_a_time_out_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, boots: bool, lasts: bool
) -> None:
    qemu = tmp_path / "qemu-system-x86_64"
    connect = "import socket, sys; c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[-1].partition(':')[2])"
    qemu.write_text(f"#!{sys.executable} -IS\n{script.format(connect=connect)}\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    seconds = 1.0 if "sleep" in script and not boots else 120.0  # who says something is given the time for it
    monkeypatch.setattr(accelerator, "DEADLINE_SECONDS", dict.fromkeys(Ground, seconds))
    monkeypatch.setattr(privilege, "_is_root", lambda: False)  # a jail would hold no Python
    guest: Any = SimpleNamespace(kernel=tmp_path / "vmlinuz", initramfs=tmp_path / "initramfs")
    verdict = accelerator.prove(guest, tmp_path, b"")
    assert (verdict.accelerator is Accelerator.KVM) is boots
    assert (verdict.until is None) is lasts
    assert ("lab doctor --prove" in verdict.reason) is not lasts


def test_without_a_device_nothing_is_booted(proofs: list[int], tmp_path: Path) -> None:
    accelerator.DEVICE.unlink()
    verdict = choose_accelerator(tmp_path, b"")
    assert verdict.accelerator is Accelerator.TCG
    assert "does not exist" in verdict.reason
    assert not proofs


def test_the_environment_decides(proofs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_ACCELERATOR", "tcg")
    assert choose_accelerator(tmp_path, b"").accelerator is Accelerator.TCG
    monkeypatch.setenv("LAB_ACCELERATOR", "hvf")
    with pytest.raises(UsageError, match="hvf"):
        choose_accelerator(tmp_path, b"")
    assert not proofs


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that libvirt takes for QEMU, of a QEMU that only says what it was told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    qemu = folder / "qemu-system-x86_64"
    qemu.write_text('#!/bin/sh\necho "$$ $*"\n')
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv(JAIL_VARIABLE, raising=False)
    return install_emulator(tmp_path)


def test_libvirt_may_ask_the_emulator_what_it_can_do(emulator: Path) -> None:
    words = ["-S", "-machine", "none,accel=tcg", "-daemonize"]
    with subprocess.Popen([emulator, *words], stdout=subprocess.PIPE, text=True) as asked:
        assert asked.communicate()[0] == f"{asked.pid} {' '.join(words)}\n"


@pytest.mark.parametrize("words", [[], ["-machine", "q35"], ["-machine"], ["none", "-machine", "microvm"]])
def test_no_machine_runs_outside_a_jail(emulator: Path, words: list[str]) -> None:
    done = subprocess.run([emulator, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert JAIL_VARIABLE in done.stderr


def test_orders_that_somebody_else_may_have_written_are_refused(
    emulator: Path, tmp_path: Path, missing: Callable[[str], None]
) -> None:
    if os.geteuid() != 0:
        missing("root")
    orders = tmp_path / "orders"
    orders.write_text("limit 4 0\n")
    orders.chmod(0o644)
    environment = {JAIL_VARIABLE: str(orders)}

    def said() -> str:
        return subprocess.run([emulator], env=environment, capture_output=True, text=True, check=False).stderr

    assert "no root" in said(), "the positive control: these are read, and lack the line that makes one"
    orders.chmod(0o664)
    assert "not root's alone" in said()
    orders.chmod(0o644)
    os.chown(orders, 1000, 0)
    assert "not root's alone" in said()


def test_another_qemu_gets_another_emulator(emulator: Path, tmp_path: Path) -> None:
    """libvirt would otherwise take what it has learnt about the former for true of the new one, and asks long enough
    not to be made to without reason.
    """
    written = emulator.stat().st_mtime_ns
    assert install_emulator(tmp_path) == emulator
    assert emulator.stat().st_mtime_ns == written
    os.utime(tmp_path / "bin" / "qemu-system-x86_64", (1, 1))
    assert install_emulator(tmp_path) != emulator


def test_without_qemu_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="apt-get install"):
        install_emulator(tmp_path)


def test_the_counters_speed_is_plausible() -> None:
    khz = tsc_khz()
    assert khz is None or 500_000 < khz < 10_000_000


def test_the_counter_is_read_together_with_the_clock_though_the_host_is_busy() -> None:
    began, readings = time.monotonic_ns(), iter(range(1000))

    def interrupted() -> int:
        reading = next(readings)
        time.sleep(0.004 if reading % 2 else 0)
        count = time.monotonic_ns() - began  # a counter of a billion a second
        time.sleep(0 if reading % 2 or reading == 6 else 0.004)
        return count

    moment, count = read_together(interrupted)
    assert abs(moment - began - count) < 1_000_000, "of the one reading that nothing came between"
