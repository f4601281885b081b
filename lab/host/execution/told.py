"""What lab's helper tells of the program that it executes inside: a number in decimal (inside/init.c)."""

from __future__ import annotations

from lab.errors import LaunchError

MOST = 4095  # no errno is larger (MAX_ERRNO, include/linux/err.h)


def errno_told(text: bytes | str) -> int:
    """The errno of execve(2), 0 where the program was executed. Raises LaunchError for anything else.

    What tells it is inside, where others may get hold of its end: it may be anything.
    """
    digits = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > len(str(MOST)) or int(digits) > MOST:
        raise LaunchError(f"what came out of the instance is no errno: {digits[:30]!r}", exit_code=126)
    return int(digits)
