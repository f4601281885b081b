"""The guest kernel's command line: kernel-parameters.txt of its documentation, systemd(1), kernel-command-line(7)."""

from __future__ import annotations

from lab.hypervisor.kinds import Console, Design, UserSpace

# earlyprintk makes even the kernel's 16-bit setup code talk: its first byte on the serial port is the first
# sign of a guest's life. It prints whatever the kernel logs before it has read loglevel.
EARLY = "earlyprintk=ttyS0"
SILENT = "quiet"  # the set-up code writes by way of the BIOS, and a microvm's writes that to its serial port
LOG_LEVELS = {Console.ON: 4, Console.OFF: 0, Console.VERBOSE: 7}  # what is less important is not written: syslog(2)

# systemd's progress lines would cost an exit to QEMU per byte; what fails is still shown, with its reason.
SYSTEMD_WORDS = (
    "systemd.show_status=error",
    "systemd.journald.forward_to_console=1",
    "systemd.journald.max_level_console=warning",
)


def command_line(design: Design, *, tsc_khz: int | None = None) -> str:
    """What the kernel and, in a Debian, systemd are told. ``tsc_khz`` is for an emulated guest, see tsc.py.

    Init's own lines go to the serial port at every level: the host times them, and shows what failed. A panic, which
    is written there at every level too, restarts the machine, and a machine that restarts is ended.
    """
    early = SILENT if design.console is Console.OFF else EARLY
    words: tuple[str, ...] = (
        early,
        "console=ttyS0",
        f"loglevel={LOG_LEVELS[design.console]}",
        "panic=-1",
        "reboot=t",
    )
    words += SYSTEMD_WORDS if design.user_space is UserSpace.DEBIAN else ()
    # Whether the timer interrupts within so many loops a busy emulator can't promise; the kernel panics when it does
    # not (check_timer() in arch/x86/kernel/apic/io_apic.c). Under KVM it does not ask either (kvm_guest_init()).
    # And the counter is the host's own: see tsc.py.
    words += (f"tsc_early_khz={tsc_khz}", "tsc=reliable", "no_timer_check") if tsc_khz else ()
    return " ".join(words)
