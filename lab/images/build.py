"""THE STORY OF A BUILD: base → one instruction after the other → configuration → image.

Instructions that change files make a layer; the others change the configuration. A layer is cached under a key of
the layers below it (by content), the instruction with its variables replaced, and the bytes it copies: never times.
RUN needs a container runtime, which is above this package: the caller hands in a `StepRunner`.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from lab.errors import DockerfileError, ImageError, UsageError
from lab.host import privilege
from lab.host.command import tail
from lab.images import copying, ignore
from lab.images.bases import resolve_base
from lab.images.copying import Context, Owner, Upper
from lab.images.dockerfile import (
    Arg,
    Cmd,
    Copy,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
    Instruction,
    Label,
    Run,
    User,
    Workdir,
    parse,
    read,
)  # fmt: skip
from lab.images.expand import expand, expand_words
from lab.images.layers import epoch
from lab.images.process import DEFAULT_PATH, find_account, find_group, resolve_words
from lab.images.progress import Event, Note, Output, Progress, StepFinished, StepStarted, silent
from lab.images.reference import normalise
from lab.images.store import Base, Image, Layer, Origin, Store
from lab.images.tree import Tree
from lab.model import ImageConfig, Process

__all__ = ["Event", "Note", "Output", "Progress", "StepFinished", "StepRunner", "StepStarted", "build", "silent"]

OUTPUT_TAIL_BYTES = 16 << 10
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


class StepRunner(Protocol):
    """What RUN needs of a container runtime."""

    def run(
        self,
        process: Process,
        *,
        lower_directories: Sequence[Path],
        upper_directory: Path,
        work_directory: Path,
        output: Callable[[bytes], None],
    ) -> int:
        """Run ``process`` to its end in an overlay of the directories, on the host's network; its exit code.

        Its standard output and error go to ``output`` as they come, its standard input is empty. The overlay is
        mounted with ``redirect_dir=off,metacopy=off``: a layer has to be complete in itself.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """The parts of a cache key, for `_Builder.cached`."""

    kind: str
    parts: tuple[object, ...]


def build(
    context: Path,
    *,
    dockerfile: Path,
    tag: str,
    build_args: Mapping[str, str],
    store: Store,
    runner: StepRunner,
    progress: Progress = silent,
) -> Image:
    """Build ``dockerfile`` with the files of ``context`` and call the result ``tag``.

    Raises DockerfileError for what the user wrote, ImageError for a base that can't be had or a RUN that fails;
    its ``detail`` is then the output's tail. Nothing but cached layers stays of a build that fails.
    """
    normalise(tag)
    if not context.is_dir():
        raise UsageError(f"there is no directory {context}", hint="lab build DIR, with a Dockerfile in it")
    privilege.require(privilege.Need.OWNERS, "building an image, whose files have owners,", "build …")
    parsed = read(dockerfile)
    visible = Context(context, ignore.read(context, dockerfile))
    builder = _Builder(visible, parsed, build_args, store, runner, progress)
    try:
        with store.writing():  # nobody may collect a layer before the image is there that needs it
            return builder.build(tag)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise ImageError(
                f"no space left under {store.home}", hint="free some, or set LAB_HOME to a larger disk"
            ) from error
        raise


class _Builder:
    """The state of one build: the configuration and the layers so far, and the variables in scope."""

    def __init__(
        self,
        context: Context | None,
        parsed: Dockerfile,
        build_args: Mapping[str, str],
        store: Store,
        runner: StepRunner,
        progress: Progress,
    ) -> None:
        self.context = context
        self.parsed = parsed
        self.build_args = build_args
        self.store = store
        self.runner = runner
        self.progress = progress
        self.config = ImageConfig(environment={"PATH": DEFAULT_PATH})
        self.layers: tuple[Layer, ...] = ()
        self.arguments: dict[str, str] = {}
        self.global_arguments: dict[str, str] = {}
        self.has_command = False

    def build(self, tag: str, *, origin: Origin = Origin.BUILT) -> Image:
        """Run every instruction and store the image."""
        base = self.start()
        for number, instruction in enumerate(self.parsed.instructions, 2):
            self.announce(number, instruction)
            started = time.monotonic()
            cached = self.perform(instruction)
            self.progress(StepFinished(number=number, cached=cached, seconds=time.monotonic() - started))
        self.report_unused_arguments()
        return self.store.add_image(tag, config=self.config, layers=self.layers, origin=origin, base=base)

    def announce(self, number: int, instruction: Instruction) -> None:
        total = 1 + len(self.parsed.instructions)
        self.progress(StepStarted(number=number, total=total, line=instruction.line, text=instruction.text))

    def start(self) -> Base | None:
        """FROM: the base's layers and configuration."""
        for argument in self.parsed.global_arguments:
            self.global_arguments[argument.name] = self.argument_value(argument, self.global_arguments) or ""
        source = self.parsed.base
        name = expand(source.image, self.global_arguments, escape=self.parsed.escape, line=source.line)
        if not name:
            raise DockerfileError("FROM names no image", line=source.line, hint="give its ARG a default")
        self.announce(1, source)
        started = time.monotonic()
        base = None
        note = "an empty root"
        if name != "scratch":
            image = resolve_base(name, store=self.store, progress=self.progress, build_recipe=self.build_recipe)
            self.config, self.layers = image.config, image.layers
            base = Base(name=image.name, digest=image.digest, origin=image.origin)
            note = f"{image.name} ({image.origin}) {image.digest[:19]}"
        self.progress(StepFinished(number=1, cached=False, seconds=time.monotonic() - started, note=note))
        return base

    def build_recipe(self, text: str, tag: str) -> Image:
        """Build one of lab's own recipes that is itself a Dockerfile, without a context."""
        inner = _Builder(None, parse(text), {}, self.store, self.runner, self.progress)
        return inner.build(tag, origin=Origin.RECIPE)

    def perform(self, instruction: Instruction) -> bool:
        """One instruction; whether its layer came from the cache."""
        match instruction:
            case Run():
                return self.run(instruction)
            case Copy():
                return self.copy(instruction)
            case Workdir():
                return self.change_directory(instruction)
            case _:
                self.configure(instruction)
                return False

    # -- instructions that change the configuration alone ------------------------------------------------------

    def configure(self, instruction: Instruction) -> None:
        match instruction:
            case Env(pairs=pairs):
                added = {self.expand(name, instruction): self.expand(value, instruction) for name, value in pairs}
                self.config = replace(self.config, environment={**self.config.environment, **added})
            case Label(pairs=pairs):
                added = {self.expand(name, instruction): self.expand(value, instruction) for name, value in pairs}
                self.config = replace(self.config, labels={**self.config.labels, **added})
            case Arg():
                value = self.argument_value(instruction, self.variables())
                if value is None:
                    value = self.global_arguments.get(instruction.name)
                if value is not None:
                    self.arguments[instruction.name] = value
            case User(user=user):
                self.config = replace(self.config, user=self.expand(user, instruction))
            case Expose():
                ports = {*self.config.exposed_ports, *self.ports(instruction)}
                self.config = replace(self.config, exposed_ports=tuple(sorted(ports)))
            case Cmd(argv=argv):
                self.has_command = True
                self.config = replace(self.config, command=argv)
            case Entrypoint(argv=argv):
                # a base's CMD was meant for the base's ENTRYPOINT (Dockerfile reference, ENTRYPOINT)
                command = self.config.command if self.has_command else ()
                self.config = replace(self.config, entrypoint=argv, command=command)

    def variables(self) -> dict[str, str]:
        """What a ``$`` sees: ENV wins over ARG."""
        return {**self.arguments, **self.config.environment}

    def expand(self, word: str, instruction: Instruction) -> str:
        return expand(word, self.variables(), escape=self.parsed.escape, line=instruction.line)

    def argument_value(self, argument: Arg, variables: Mapping[str, str]) -> str | None:
        if argument.name in self.build_args:
            return self.build_args[argument.name]
        if argument.default is None:
            return None
        return expand(argument.default, variables, escape=self.parsed.escape, line=argument.line)

    def ports(self, instruction: Expose) -> list[int]:
        ports: list[int] = []
        for word in instruction.ports:
            for text in expand_words(word, self.variables(), escape=self.parsed.escape, line=instruction.line):
                numbers, _, protocol = text.partition("/")
                first, _, last = numbers.partition("-")
                if protocol not in ("", "tcp") or not first.isdigit() or not (last or first).isdigit():
                    raise DockerfileError(
                        f"EXPOSE {text} is not supported", line=instruction.line, hint="EXPOSE 8080"
                    )
                if not 0 < int(first) <= int(last or first) < 65536:
                    raise DockerfileError(f"EXPOSE {text} is no port", line=instruction.line, hint="1 to 65535")
                ports.extend(range(int(first), int(last or first) + 1))
        return ports

    def report_unused_arguments(self) -> None:
        declared = {
            one.name for one in (*self.parsed.global_arguments, *self.parsed.instructions) if isinstance(one, Arg)
        }
        for name in sorted(set(self.build_args) - declared):
            self.progress(Note(text=f"--build-arg {name} is not used: the Dockerfile has no ARG {name}"))

    # -- instructions that make a layer ------------------------------------------------------------------------

    def run(self, instruction: Run) -> bool:
        """RUN: the command in a container over the layers so far; what it changed is the layer."""
        lower = self.store.directories(self.layers)
        extra = {**self.arguments, **self.config.environment}
        try:
            process = resolve_words(self.config, Tree(lower), instruction.argv, extra)
        except UsageError as error:
            raise DockerfileError(error.message, line=instruction.line, hint=error.hint) from error

        def fill(directory: Path) -> None:
            Upper(directory / "upper", lower)
            (directory / "work").mkdir()
            collected = bytearray()

            def output(data: bytes) -> None:
                collected.extend(data)
                del collected[:-OUTPUT_TAIL_BYTES]
                self.progress(Output(data=data))

            code = self.runner.run(
                _with_surroundings(process),
                lower_directories=lower,
                upper_directory=directory / "upper",
                work_directory=directory / "work",
                output=output,
            )
            if code != 0:
                raise ImageError(
                    f"line {instruction.line}: RUN failed with exit code {code}: {instruction.text}",
                    hint="mend the command and build again: the steps before it are cached",
                    detail=tail(bytes(collected)),
                )

        return self.layer(_Key(kind="run", parts=(asdict(process),)), fill)

    def copy(self, instruction: Copy) -> bool:
        """COPY and ADD."""
        name = "ADD" if instruction.extract else "COPY"
        if self.context is None:
            raise DockerfileError(f"{name} in a recipe, which has no context", line=instruction.line)
        context = self.context
        words = [self.expand(word, instruction) for word in (*instruction.sources, instruction.destination)]
        sources = [source for word in words[:-1] for source in context.select(word, line=instruction.line)]
        written = words[-1]
        if len(sources) > 1 and not written.endswith("/"):
            raise DockerfileError(
                f"{name} of several files needs a directory as its destination",
                line=instruction.line,
                hint=f"{written}/",
            )
        destination = posixpath.join("/", self.config.working_directory, written)
        if written.endswith(("/.", "/..")) or written in (".", ".."):
            destination += "/"
        owner = self.owner(instruction)

        def fill(directory: Path) -> None:
            upper = Upper(directory / "upper", self.store.directories(self.layers))
            try:
                for source in sources:
                    if instruction.extract and copying.is_archive(source):
                        copying.add_archive(source, upper, destination, owner, directory)
                    else:
                        copying.copy_source(context, source, upper, destination, owner)
            except (IsADirectoryError, NotADirectoryError) as error:
                raise DockerfileError(
                    f"{name} can't replace {error} by something of another kind", line=instruction.line,
                    hint="choose another destination",
                ) from error  # fmt: skip

        content = copying.digest(context, sources)
        return self.layer(_Key(kind=name, parts=(destination, asdict(owner), content)), fill)

    def owner(self, instruction: Copy) -> Owner:
        """``--chown`` and ``--chmod``; a number without a group is also the group, as Docker has it."""
        mode_text = self.expand(instruction.chmod, instruction)
        mode = None
        if mode_text:
            if not mode_text or set(mode_text) - set("01234567") or len(mode_text) > 4:
                raise DockerfileError(f"--chmod={mode_text} is not octal", line=instruction.line, hint="--chmod=755")
            mode = int(mode_text, 8)
        text = self.expand(instruction.chown, instruction)
        if not text:
            return Owner(mode=mode)
        tree = Tree(self.store.directories(self.layers))
        user, _, group = text.partition(":")
        try:
            account = find_account(tree, user)
            gid = find_group(tree, group) if group else int(user) if user.isdigit() else account.gid
        except UsageError as error:
            raise DockerfileError(error.message, line=instruction.line, hint=error.hint) from error
        return Owner(uid=account.uid, gid=gid, mode=mode, given=True)

    def change_directory(self, instruction: Workdir) -> bool:
        """WORKDIR: made if need be, owned by root."""
        path = posixpath.normpath(
            posixpath.join("/", self.config.working_directory, self.expand(instruction.path, instruction))
        )
        self.config = replace(self.config, working_directory=path)
        if Tree(self.store.directories(self.layers)).resolve(os.fsencode(path))[1] is not None:
            return False

        def fill(directory: Path) -> None:
            Upper(directory / "upper", self.store.directories(self.layers)).make_directory(path, Owner())

        return self.layer(_Key(kind="workdir", parts=(path,)), fill)

    def layer(self, key: _Key, fill: Callable[[Path], None]) -> bool:
        """Add the layer of ``key`` from the cache, or let ``fill`` make ``upper`` in a scratch directory."""
        below = [layer.diff_id for layer in self.layers]
        name = hashlib.sha256(
            json.dumps([below, epoch().isoformat(), key.kind, key.parts], sort_keys=True).encode()
        ).hexdigest()
        found = self.store.cached_layer(name)
        cached = found is not None
        if found is None:
            with self.store.scratch("step") as directory:
                started = time.time()
                fill(directory)
                found = self.store.add_layer(directory / "upper", fresh_since=float(int(started)))
            self.store.cache_layer(name, found, seconds=time.time() - started)
        self.layers = (*self.layers, found)
        return cached


def _with_surroundings(process: Process) -> Process:
    """What a step may see but an image and its cache key must not depend on: proxies, and the time for compilers."""
    found = {name: os.environ[name] for name in (*PROXIES, *map(str.upper, PROXIES)) if name in os.environ}
    stamp = {"SOURCE_DATE_EPOCH": str(int(epoch().timestamp()))}
    return replace(process, environment={**stamp, **found, **process.environment})
