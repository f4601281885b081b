"""The guest kernel's command line: kernel-parameters.txt of its documentation, systemd(1), kernel-command-line(7)."""

from __future__ import annotations

from lab.hypervisor.kinds import Design, UserSpace

# earlyprintk makes even the kernel's 16-bit setup code talk: its first byte on the serial port is the first
# sign of a guest's life. A panic restarts the machine, and a machine that restarts is ended.
WORDS = ("earlyprintk=ttyS0", "console=ttyS0", "loglevel=4", "panic=-1", "reboot=t")

# systemd's progress lines would cost an exit to QEMU per byte; what fails is still shown, with its reason.
SYSTEMD_WORDS = (
    "systemd.show_status=error",
    "systemd.journald.forward_to_console=1",
    "systemd.journald.max_level_console=warning",
)


def command_line(design: Design, *, tsc_khz: int | None = None) -> str:
    """What the kernel and, in a Debian, systemd are told. ``tsc_khz`` is for an emulated guest, see tsc.py."""
    words = WORDS + (SYSTEMD_WORDS if design.user_space is UserSpace.DEBIAN else ())
    if tsc_khz:
        words += (f"tsc_early_khz={tsc_khz}",)
    return " ".join(words)
