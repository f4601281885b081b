"""From an image's configuration to the exact process to execute: numeric ids, absolute directory, defaults."""

from __future__ import annotations

import posixpath
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import UsageError
from lab.images.store import Image
from lab.images.tree import Tree
from lab.model import ImageConfig, Process

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
    account = find_account(tree, config.user if user is None else user)
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
    if row is None and name.isdigit():
        row = next((row for row in rows if row[2] == name), None)
    if row is None and not name.isdigit():
        raise UsageError(f"the image has no user {name!r}", hint="use a number, or create the user with RUN")
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
    if group.isdigit():
        return int(group)
    raise UsageError(f"the image has no group {group!r}", hint="use a number, or create the group with RUN")


def _table(tree: Tree, path: str, columns: int) -> list[list[str]]:
    """The well-formed lines of passwd(5) or group(5): enough columns, numbers where numbers belong."""
    text = (tree.read(path) or b"").decode("utf-8", "replace")
    rows = [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
    numeric = (2, 3) if columns == 7 else (2,)
    return [row for row in rows if len(row) >= columns and all(row[i].isdigit() for i in numeric)]
