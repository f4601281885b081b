"""From an image's configuration to the exact process to execute: numeric ids, absolute directory, defaults."""

from __future__ import annotations

import posixpath
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import UsageError
from lab.host.identity.ownspace import MOST_ID
from lab.images.store import Image
from lab.images.tree import Tree
from lab.model import ImageConfig, Process

MOST_BYTES = 4 << 20
"""Of /etc/passwd, and of /etc/group: they are the image's, and lab is in no limited group."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user as the image's own /etc/passwd and /etc/group have it."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    home: str


def resolve(
    image: Image,
    lower_directories: Sequence[Path],
    *,
    argv: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    working_directory: str | None = None,
    entrypoint: Sequence[str] | None = None,
) -> Process:
    """What ``docker run`` would execute: ``argv`` replaces CMD and follows ENTRYPOINT.

    Raises UsageError when the image says nothing to run, or its user does not exist in it.
    """
    start = image.config.entrypoint if entrypoint is None else tuple(entrypoint)
    words = (*start, *(tuple(argv) or (image.config.command if entrypoint is None else ())))
    if not words:
        raise UsageError(f"{image.name} names no command", hint=f"lab run {image.name} -- COMMAND, or a CMD in it")
    return resolve_words(
        image.config,
        Tree(lower_directories),
        words,
        environment or {},
        user=user,
        working_directory=working_directory,
    )


def resolve_words(
    config: ImageConfig,
    tree: Tree,
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    user: str | None = None,
    working_directory: str | None = None,
) -> Process:
    """As `resolve`, for exactly ``argv``."""
    wanted = config.user if user is None else user
    variables = {**config.environment, **environment}
    others = (config.working_directory, working_directory or "", wanted)
    if any("\0" in word for word in (*argv, *variables, *variables.values(), *others)):
        raise UsageError("a NUL byte is in a word, a variable, a user or a folder", hint="execve(2) takes none")
    account = find_account(tree, wanted)
    merged = {"PATH": DEFAULT_PATH, "HOME": account.home, **config.environment, **environment}
    directory = posixpath.join("/", config.working_directory, working_directory or "")
    return Process(
        argv=tuple(argv),
        environment=merged,
        working_directory=posixpath.normpath(directory),
        uid=account.uid,
        gid=account.gid,
        additional_gids=account.additional_gids,
    )


def stop_signal_of(image: Image) -> int:
    """STOPSIGNAL as a number (OCI image-spec, config.md: a name, or a number); SIGTERM for what is neither."""
    word = image.config.stop_signal
    if word.isdigit() and int(word) in set(signal.Signals):
        return int(word)
    name = word if word.startswith("SIG") else f"SIG{word}"
    return signal.Signals.__members__.get(name, signal.SIGTERM)


def find_account(tree: Tree, user: str) -> Account:
    """``USER`` or ``USER:GROUP``, by name or number (Dockerfile reference, USER); "" is root.

    A number needs no entry; its group is then 0. With an explicit group there are no additional ones.
    """
    name, _, group = user.partition(":")
    name = name or "0"
    rows = _table(tree, "/etc/passwd", 7)
    row = next((row for row in rows if row[0] == name), None)
    if row is None and _is_id(name):
        row = next((row for row in rows if row[2] == name), None)
    if row is None and not _is_id(name):
        raise UsageError(
            f"the image has no user {name!r}", hint=f"a number up to {MOST_ID}, or create the user with RUN"
        )
    uid, gid, home = (int(row[2]), int(row[3]), row[5] or "/") if row else (int(name), 0, "/")
    if group:
        return Account(uid=uid, gid=find_group(tree, group), additional_gids=(), home=home)
    login = row[0] if row else ""
    more = [int(entry[2]) for entry in _table(tree, "/etc/group", 4) if login and login in entry[3].split(",")]
    return Account(uid=uid, gid=gid, additional_gids=tuple(sorted(set(more))), home=home)


def find_group(tree: Tree, group: str) -> int:
    """A group's number. Raises UsageError when the image has no group of that name."""
    for entry in _table(tree, "/etc/group", 4):
        if entry[0] == group:
            return int(entry[2])
    if _is_id(group):
        return int(group)
    raise UsageError(
        f"the image has no group {group!r}", hint=f"a number up to {MOST_ID}, or create the group with RUN"
    )


def _is_id(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 10 and int(word) <= MOST_ID


def _table(tree: Tree, path: str, columns: int) -> list[list[str]]:
    """The well-formed lines of passwd(5) or group(5): enough columns, numbers where numbers belong.

    Raises UsageError for a file that is no such table by its size.
    """
    content = tree.read(path, MOST_BYTES + 1) or b""
    if len(content) > MOST_BYTES:
        raise UsageError(f"{path} of the image is larger than {MOST_BYTES >> 20} MiB", hint="another image")
    text = content.decode("utf-8", "replace")
    rows = [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
    numeric = (2, 3) if columns == 7 else (2,)
    return [row for row in rows if len(row) >= columns and all(_is_id(row[i]) for i in numeric)]
