"""What the guest's Debian is made without."""

from __future__ import annotations

from pathlib import Path

from lab.hypervisor.guest.trim import GENERATORS, NOWHERE, UNITS, trim


def test_a_unit_is_off_whatever_debian_had_there(tmp_path: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "fstrim.timer").write_text("[Timer]\n")
    (tmp_path / "etc/fstab").write_text("/dev/sda1 / ext4\n")
    for _ in range(2):
        trim(tmp_path)
    masked = {path.name for path in units.iterdir() if path.is_symlink() and str(path.readlink()) == NOWHERE}
    assert masked == {name for names in UNITS.values() for name in names}
    assert {path.name for path in (tmp_path / "etc/systemd/system-generators").iterdir()} == set(GENERATORS)
    assert not (tmp_path / "etc/fstab").exists()


def test_a_unit_has_one_reason() -> None:
    names = [name for units in UNITS.values() for name in units]
    assert len(names) == len(set(names))


def test_what_protects_and_what_logs_stays() -> None:
    off = {name for names in UNITS.values() for name in names}
    needed = ("journald", "udevd", "udev-trigger", "networkd", "journald-audit")
    assert not off & {f"systemd-{name}.{kind}" for name in needed for kind in ("service", "socket")}
