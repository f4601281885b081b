"""Files that are the owner's alone: environments with passwords in them, what applications print, and locks.

A lock is one of them because flock(2) asks for no more than a descriptor: whoever may read the file may hold
everybody else up for ever. Modes are given when a file is made, never afterwards; what an older lab left open is
closed as soon as it is found. Standard library only.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from lab.errors import LabError
from lab.host.identity import privilege

FILE, FOLDER = 0o600, 0o700
OTHERS = 0o077


def write_text(path: Path, text: str) -> None:
    """As Path.write_text, into a new file or over an old one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE)
    with os.fdopen(descriptor, "w") as file:
        tighten(descriptor)
        file.write(text)


def append_to(path: Path) -> int:
    """A descriptor that writes to the end of ``path``, made if need be; the caller's to close."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE)
    tighten(descriptor)
    return descriptor


def take_back(path: Path) -> None:
    """Make a file ours and nobody's program again, which somebody has had open for writing.

    Whoever writes to a file through a descriptor may do with it by ``/proc/self/fd`` what its owner may, where both
    are the host's root: give it away, or a set-user-id bit and capabilities (chmod(2), capabilities(7)). A path that
    is gone, or no file any more, is left alone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchown(descriptor, privilege.user_id(), -1)
            os.fchmod(descriptor, FILE)
            with suppress(OSError):
                os.removexattr(descriptor, "security.capability")
    finally:
        os.close(descriptor)


def lock_file(path: Path) -> int:
    """A descriptor for flock(2), of a file that is made if need be; the caller's to close."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE)
    tighten(descriptor)
    return descriptor


def is_locked(descriptor: int) -> bool:
    """Whether somebody else holds a lock on an open file or folder (flock(2)). Closes ``descriptor``."""
    import fcntl  # where results are only read, there may be none: Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def tighten(where: int | Path) -> None:
    """Take others' rights away from an open file, or one by its path, if it is ours to do so."""
    with suppress(PermissionError, FileNotFoundError):
        mode = stat.S_IMODE((os.fstat(where) if isinstance(where, int) else where.stat()).st_mode)
        if not mode & OTHERS:
            return
        if isinstance(where, int):
            os.fchmod(where, mode & ~OTHERS)
        else:
            where.chmod(mode & ~OTHERS)


def tighten_folder(folder: Path) -> None:
    """The folder, and the files in it: at once if it was open to others, else nothing is to be done."""
    try:
        if not folder.stat().st_mode & OTHERS:
            return
        tighten(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    tighten(Path(entry.path))
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return  # another user's, or just removed


def make_folder(folder: Path) -> None:
    """``folder`` and those above it, as far as they are missing. Raises OSError."""
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(mode=FOLDER, exist_ok=True)


def require_own(folder: Path) -> None:
    """Raise LabError if ``folder``, in a place where everybody may make one, is there and is not ours alone."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != privilege.user_id():
        raise LabError(f"{folder} belongs to somebody else", hint="set XDG_RUNTIME_DIR to a folder of your own")
    if found.st_mode & OTHERS:
        folder.chmod(FOLDER)
