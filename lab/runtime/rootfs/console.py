"""A terminal for a container: a pseudoterminal of its own devpts, whose other side the caller gets.

Opened inside, so that neither its number nor its name is the host's (runtime-spec, config.md "process.terminal";
config-linux.md "/dev/console"). An image may have put anything in place of /dev/ptmx: nothing of it is trusted but
what the kernel says of the descriptor, and the terminal's side is not opened by a name (pts(4), ioctl_tty(2)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from lab.runtime.rootfs import mounttrees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.channel import Channel
    from lab.runtime.plan import ProcessPlan
    from lab.runtime.rootfs.rootpath import Root

PTMX = os.makedev(5, 2)
TIOCSCTTY, TIOCSWINSZ, TIOCSPTLCK, TIOCGPTPEER = 0x540E, 0x5414, 0x40045431, 0x5441  # asm-generic/ioctls.h


def open_inside(root: Root, process: ProcessPlan, channel: Channel) -> int:
    """Make one below ``root`` and send its master as CONSOLE. The terminal itself, owned by the process's user."""
    master = root.open("/dev/ptmx", follow=True, flags=os.O_RDWR | os.O_NOCTTY)
    try:
        if os.fstat(master).st_rdev != PTMX:
            raise OSError(errno.ENODEV, "not a pseudoterminal multiplexer", "/dev/ptmx")
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        terminal = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if process.console_size:
            fcntl.ioctl(master, TIOCSWINSZ, struct.pack("HHHH", *process.console_size, 0, 0))
        os.fchown(terminal, process.uid, -1)
        channel.send("CONSOLE", descriptors=[master])
    finally:
        os.close(master)
    return terminal


def bind_to_dev_console(root: Root, terminal: int) -> None:
    """/dev/console is the same terminal."""
    root.attach(mounttrees.copy_of(terminal), root.ensure("/dev/console", directory=False))


def control() -> None:
    """Make standard input the controlling terminal of a session of its own."""
    os.setsid()
    fcntl.ioctl(0, TIOCSCTTY, 0)
