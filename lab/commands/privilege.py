"""What a command can't do without root, said before it begins; and how an ordinary user's gets what it needs."""

from __future__ import annotations

import shlex
import sys

from lab.commands.output import say
from lab.errors import LabError
from lab.host.identity.privilege import Need, granted, require


def require_root() -> None:
    """Raise LabError with the line to type unless this process may do what lab does."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    require(Need.CONTAIN, f"lab {command}", shlex.join(sys.argv[1:]))


def become_root(*backends: str) -> None:
    """Go on as root of a user namespace of lab's own, where this is an ordinary user's command about ``backends``
    that work in one. To be called while this process has one thread.

    Raises LabError with the line to type where one of them needs the host's root, or the kernel does not allow it.
    """
    if granted(Need.CONTAIN):
        return
    from lab.backends.registry import find

    if not all(find(name).rootless for name in backends):
        require_root()
    from lab.host import entering
    from lab.host.session.strays import end_strays

    end_strays()  # which only somebody outside of their namespace may do
    if told := entering.remark(entering.enter()):
        say(f"lab: {told}")


def become_root_if_possible() -> None:
    """The same for a command that does without where user namespaces are forbidden, or a folder is somebody
    else's: an ordinary user's files then are all its own.
    """
    try:
        become_root()
    except LabError:
        return
