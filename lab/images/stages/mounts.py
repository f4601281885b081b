"""``RUN --mount``: what each type brings into a step, and what of it the step's cache key has to know.

bind     files of the context, a stage or an image; writes to it are lost
cache    a folder of the store that lives from build to build
tmpfs    an empty file system in memory
secret   a file or variable that no layer and no key ever holds; a private copy exists while the step runs
ssh      the socket of an agent
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import DockerfileError, UsageError
from lab.host.units import parse_bytes
from lab.images.dockerfile.instructions import Run
from lab.images.runner import BindMount, LayersMount, StepMount, TmpfsMount
from lab.images.stages import copy_rules, copy_sources
from lab.images.stages.copy_rules import Owner, Upper
from lab.images.stages.copy_sources import CopySource, Wanted
from lab.images.store import Store

OVERLAY_DATA_BYTES = 3900  # mount(2) takes a page
SECRETS = "/run/secrets"
AGENTS = "/run/buildkit/ssh_agent.{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a build has for mounts: secrets by id, agents' sockets by id."""

    secrets: Mapping[str, bytes] = field(default_factory=dict)
    agents: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A step's mounts and the variables that come with them; neither is kept in an image."""

    mounts: tuple[StepMount, ...]
    environment: Mapping[str, str]


FindSource = Callable[[str, int], CopySource]
"""From a ``from`` ("" is the context) and a line to where the files are. Raises DockerfileError."""


class Mounts:
    """The mounts of one RUN, their words expanded."""

    def __init__(self, instruction: Run, expand: Callable[[str], str], directory: str, find: FindSource) -> None:
        self._line = instruction.line
        self._find = find
        self._all = [{key: expand(value) for key, value in one.options.items()} for one in instruction.mounts]
        for options in self._all:
            if target := options.get("target"):
                options["target"] = posixpath.normpath(posixpath.join("/", directory, target))
                if options["target"] == "/":
                    raise DockerfileError("RUN --mount: the target is /", line=self._line, hint="target=/path")

    def key(self) -> list[object]:
        """What a cache key has to know: the words, and the content of what is bound."""
        found: list[object] = []
        for options in self._all:
            content = ""
            if options["type"] == "bind":
                place, path = self._place(options)
                content = copy_sources.digest(place.select(path, Wanted(line=self._line)), owned=place.owned)
            found.append([dict(sorted(options.items())), content])
        return found

    def prepare(self, store: Store, offer: Offer, directory: Path, stack: ExitStack) -> Prepared:
        """Make what the mounts need in ``directory``; what must be let go afterwards goes onto ``stack``.

        Raises DockerfileError for a required secret or agent that is not offered.
        """
        mounts: list[StepMount] = []
        environment: dict[str, str] = {}
        for number, options in enumerate(self._all):
            own = directory / f"mount-{number}"
            own.mkdir()
            match options["type"]:
                case "bind":
                    mounts.append(self._bind(options, store, own))
                case "cache":
                    mounts.append(self._cache(options, store, stack))
                case "tmpfs":
                    mounts.append(TmpfsMount(target=options["target"], size_bytes=self._size(options)))
                case "secret":
                    mounts.extend(self._secret(options, offer, own, environment))
                case _:
                    mounts.extend(self._agent(options, offer, number, environment))
        return Prepared(mounts=tuple(mounts), environment=environment)

    def _place(self, options: Mapping[str, str]) -> tuple[CopySource, str]:
        return self._find(options.get("from", ""), self._line), options.get("source", "") or "."

    def _bind(self, options: Mapping[str, str], store: Store, own: Path) -> StepMount:
        place, path = self._place(options)
        writable = options.get("rw", "false") == "true" or options.get("ro") == "false"
        entry = place.resolve(path, self._line)
        target = options["target"]
        if place.owned and entry.is_directory:
            empty = own / "empty"
            empty.mkdir()
            lower = (*(Path(os.fsdecode(one)) for one in place.tree.stack(entry.path)), empty)
            if _fits(lower):
                upper, work = (own / "upper", own / "work") if writable else (None, None)
                for made in filter(None, (upper, work)):
                    made.mkdir()
                return LayersMount(target=target, lower=lower, upper=upper, work=work)
        copy = self._copied(place, path, own / "copy")
        return BindMount(target=target, source=copy, read_only=not writable)

    def _copied(self, place: CopySource, path: str, target: Path) -> Path:
        """A copy that belongs to root and lacks what is ignored; the file itself for a file."""
        (selection,) = place.select(path, Wanted(line=self._line))
        upper = Upper(target, ())
        copy_rules.copy(selection, upper, "/" if selection.is_directory else "/file", _owner(place))
        if selection.is_directory:
            for piece in selection.pieces:
                if not piece.target:
                    target.chmod(piece.status.st_mode & 0o7777)
        return target if selection.is_directory else target / "file"

    def _cache(self, options: Mapping[str, str], store: Store, stack: ExitStack) -> StepMount:
        name = options.get("id") or options["target"]
        top = store.home / "mounts" / hashlib.sha256(name.encode()).hexdigest()[:32]
        top.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = _locked_folder(top, options.get("sharing", "shared"), stack)
        if not folder.exists():
            self._fill_cache(options, store, folder)
        read_only = options.get("ro", "false") == "true" or options.get("rw") == "false"
        return BindMount(target=options["target"], source=folder, read_only=read_only)

    def _fill_cache(self, options: Mapping[str, str], store: Store, folder: Path) -> None:
        with store.scratch("mount") as scratch:
            fresh = scratch / "fresh"
            if options.get("from") or options.get("source"):
                self._copied(*self._place(options), fresh)
            else:
                fresh.mkdir()
                fresh.chmod(self._number(options, "mode", 0o755, 8))
                os.chown(fresh, self._number(options, "uid", 0), self._number(options, "gid", 0))
            try:
                fresh.rename(folder)
            except OSError:  # another build was faster
                if not folder.is_dir():
                    raise

    def _secret(
        self, options: Mapping[str, str], offer: Offer, own: Path, environment: dict[str, str]
    ) -> Sequence[StepMount]:
        target, variable = options.get("target", ""), options.get("env", "")
        name = options.get("id") or posixpath.basename(target)
        content = offer.secrets.get(name)
        if content is None:
            if options.get("required") == "true":
                raise DockerfileError(
                    f"the secret {name!r} is required", line=self._line, hint=f"--secret id={name},src=FILE"
                )
            return ()
        if variable:
            environment[variable] = content.decode("utf-8", "surrogateescape")
            if not target:
                return ()
        file = own / "secret"
        file.touch(mode=0o600)
        file.write_bytes(content)
        os.chown(file, self._number(options, "uid", 0), self._number(options, "gid", 0))
        file.chmod(self._number(options, "mode", 0o400, 8))
        return (BindMount(target=target or f"{SECRETS}/{name}", source=file),)

    def _agent(
        self, options: Mapping[str, str], offer: Offer, number: int, environment: dict[str, str]
    ) -> Sequence[StepMount]:
        name = options.get("id") or "default"
        socket = offer.agents.get(name)
        if socket is None:
            if options.get("required") == "true":
                raise DockerfileError(f"the SSH agent {name!r} is required", line=self._line, hint="--ssh default")
            return ()
        target = options.get("target") or AGENTS.format(number=number)
        environment["SSH_AUTH_SOCK"] = target
        return (BindMount(target=target, source=socket, read_only=False),)

    def _size(self, options: Mapping[str, str]) -> int | None:
        try:
            return parse_bytes(options["size"]) if options.get("size") else None
        except UsageError as error:
            raise DockerfileError(f"RUN --mount: size: {error.message}", line=self._line, hint="size=64M") from error

    def _number(self, options: Mapping[str, str], name: str, default: int, base: int = 10) -> int:
        try:
            return int(options[name], base) if name in options else default
        except ValueError:
            raise DockerfileError(
                f"RUN --mount: {name}={options[name]} is no number", line=self._line, hint=f"{name}=0"
            ) from None


def _owner(place: CopySource) -> Owner:
    return Owner(who=None if place.owned else (0, 0))


def _fits(lower: Sequence[Path]) -> bool:
    """Whether overlayfs takes these directories as options: no character that separates them, within a page."""
    text = ":".join(map(str, lower))
    return text.count(":") == len(lower) - 1 and not {",", "\\"} & set(text) and len(text) < OVERLAY_DATA_BYTES


def _locked_folder(top: Path, sharing: str, stack: ExitStack) -> Path:
    """The folder of a cache: everybody's, or one nobody else uses now (private), or wait for it (locked)."""
    number = 0
    while True:
        folder = top / str(number)
        if sharing == "shared":
            return folder
        lock = os.open(top / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if sharing == "private" else 0))
        except BlockingIOError:
            os.close(lock)
            number += 1
            continue
        stack.callback(os.close, lock)
        return folder
