"""THE STORY OF A STAGE: FROM → the base's triggers → one instruction after the other.

Instructions that change files make a layer (RUN in run_step.py, COPY and ADD in copy_step.py, WORKDIR here).
The others change the configuration alone.
"""

from __future__ import annotations

import os
import posixpath
import signal
import time
from dataclasses import replace
from pathlib import Path

from lab.errors import DockerfileError
from lab.images.dockerfile.expand import expand_words
from lab.images.dockerfile.instructions import (
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)  # fmt: skip
from lab.images.dockerfile.parse import parse_trigger
from lab.images.ociconfig import Step
from lab.images.process import DEFAULT_PATH
from lab.images.progress import StepFinished, StepStarted
from lab.images.stages import cache
from lab.images.stages.copy_rules import Upper
from lab.images.stages.copy_step import copy_step
from lab.images.stages.job import Built, Job
from lab.images.stages.run_step import run_step
from lab.images.stages.state import StageState
from lab.images.store import Base
from lab.images.tree import Tree
from lab.model import ImageConfig

PROTOCOLS = ("tcp", "udp", "sctp")


def build_stage(job: Job, stage: Stage) -> Built:
    """Build one stage. Raises what a `lab.images.build.build` raises, and Stopped."""
    return StageBuild(job, stage).run()


class StageBuild(StageState):
    """What each instruction does to a stage."""

    def run(self) -> Built:
        """FROM, then every instruction."""
        began = time.monotonic()
        self.announce(1, self.stage.base)
        note = self.start()
        self.conclude(1, cached=False, began=began, note=note)
        instructions = [*self.triggers(), *self.stage.instructions]
        for number, instruction in enumerate(instructions, 2):
            self.job.check()
            self.announce(number, instruction, 1 + len(instructions))
            began = time.monotonic()
            cached = self.perform(instruction)
            self.conclude(number, cached=cached, began=began)
        return Built(config=self.config, layers=self.layers, history=self.history, base=self.base)

    def announce(self, number: int, instruction: Instruction, total: int = 0) -> None:
        total = total or 1 + len(self.stage.instructions)
        self.job.progress(
            StepStarted(number=number, total=total, line=instruction.line, text=instruction.text, stage=self.title)
        )

    def conclude(self, number: int, *, cached: bool, began: float, note: str = "") -> None:
        taken = time.monotonic() - began
        self.job.progress(StepFinished(number=number, cached=cached, seconds=taken, note=note, stage=self.title))

    def start(self) -> str:
        """FROM: another stage's result, an image, or nothing at all; what is worth knowing of it."""
        source = self.stage.base
        name = self.job.stages.base(source)
        parent = None if name.isdigit() else self.job.stages.find(name, self.stage, source.line)
        if parent is not None:
            built = self.job.request(parent).result()
            self.config, self.layers, self.history, self.base = built.config, built.layers, built.history, built.base
            return f"the stage {parent.title}"
        if name == "scratch":
            self.config = ImageConfig(environment={"PATH": DEFAULT_PATH})
            return "an empty root"
        image = self.job.base(name)
        self.config, self.layers = image.config, image.layers
        if "PATH" not in self.config.environment:
            self.config = replace(self.config, environment={"PATH": DEFAULT_PATH, **self.config.environment})
        self.history = cache.history(self.job.store, image)
        self.base = Base(name=image.name, digest=image.digest, origin=image.origin)
        return f"{image.name} ({image.origin}) {image.digest[:19]}"

    def triggers(self) -> list[Instruction]:
        """The base's ONBUILD instructions, which are not handed on."""
        found = [parse_trigger(text, self.stage.base.line) for text in self.config.on_build]
        self.config = replace(self.config, on_build=())
        return [replace(one, line=self.stage.base.line) for one in found]

    def perform(self, instruction: Instruction) -> bool:
        """One instruction; whether its layer came from the cache."""
        match instruction:
            case Run():
                return run_step(self, instruction)
            case Copy():
                return copy_step(self, instruction)
            case Workdir():
                return self.change_directory(instruction)
            case _:
                self.configure(instruction)
                self.history += (Step(created_by=instruction.text, empty_layer=True),)
                return False

    # -- instructions that change the configuration alone ------------------------------------------------------

    def configure(self, instruction: Instruction) -> None:
        config = self.config
        match instruction:
            case Env(pairs=pairs):
                self.config = replace(config, environment={**config.environment, **self.pairs(pairs, instruction)})
            case Label(pairs=pairs):
                self.config = replace(config, labels={**config.labels, **self.pairs(pairs, instruction)})
            case Arg():
                self.declare(instruction)
            case User(user=user):
                self.config = replace(config, user=self.expand(user, instruction))
            case Expose():
                self.expose(instruction)
            case Volume(paths=paths):
                added = (self.expand(path, instruction) for path in paths)
                self.config = replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *added))))
            case StopSignal(signal=word):
                self.config = replace(config, stop_signal=self.signal(self.expand(word, instruction), instruction))
            case Shell(argv=argv):
                self.config = replace(config, shell=argv)
            case HealthCheck(check=check):
                self.config = replace(config, health=check)
            case OnBuild(trigger=trigger):
                self.config = replace(config, on_build=(*config.on_build, trigger))
            case Cmd(command=command):
                self.has_command = True
                self.config = replace(config, command=command.argv(self.shell))
            case Entrypoint(command=command):
                # a base's CMD was meant for the base's ENTRYPOINT (Dockerfile reference, ENTRYPOINT)
                kept = config.command if self.has_command else ()
                self.config = replace(config, entrypoint=command.argv(self.shell), command=kept)
            case Maintainer(name=name):
                self.config = replace(config, author=name)

    def declare(self, instruction: Arg) -> None:
        """ARG: ``--build-arg``, else its default, else what the same ARG before FROM came to."""
        for name, default in instruction.pairs:
            value = self.job.build_args.get(name)
            if value is None and default is not None:
                value = self.expand(default, instruction)
            if value is None:
                value = self.job.arguments.get(name)
            if value is not None:
                self.arguments[name] = value

    def expose(self, instruction: Expose) -> None:
        tcp, other = list(self.config.exposed_ports), list(self.config.other_ports)
        for word in instruction.ports:
            for text in expand_words(word, self.variables(), escape=self.job.parsed.escape, line=instruction.line):
                numbers, _, protocol = text.partition("/")
                protocol = protocol.lower() or "tcp"
                first, _, last = numbers.partition("-")
                if protocol not in PROTOCOLS or not first.isdigit() or not (last or first).isdigit():
                    raise DockerfileError(
                        f"EXPOSE {text} is no port", line=instruction.line, hint="EXPOSE 8080 or EXPOSE 53/udp"
                    )
                if not 0 < int(first) <= int(last or first) < 65536:
                    raise DockerfileError(f"EXPOSE {text} is no port", line=instruction.line, hint="1 to 65535")
                for port in range(int(first), int(last or first) + 1):
                    if protocol == "tcp":
                        tcp.append(port)
                    else:
                        other.append(f"{port}/{protocol}")
        self.config = replace(
            self.config, exposed_ports=tuple(sorted(set(tcp))), other_ports=tuple(dict.fromkeys(other))
        )

    def signal(self, word: str, instruction: Instruction) -> str:
        name = word.upper() if word.upper().startswith("SIG") else f"SIG{word.upper()}"
        known = name.partition("+")[0].partition("-")[0] in signal.Signals.__members__
        if not known and not (word.isdigit() and 0 < int(word) <= signal.NSIG):
            raise DockerfileError(f"STOPSIGNAL {word} is no signal", line=instruction.line, hint="like SIGTERM or 15")
        return word

    # -- instructions that make a layer ------------------------------------------------------------------------

    def change_directory(self, instruction: Workdir) -> bool:
        """WORKDIR: made if need be, with all that is missing above it, and owned by the USER in force."""
        written = self.expand(instruction.path, instruction)
        path = posixpath.normpath(posixpath.join("/", self.config.working_directory, written))
        path = "/" + path.lstrip("/")
        self.config = replace(self.config, working_directory=path)
        if Tree(self.lower()).resolve(os.fsencode(path))[1] is not None:
            self.history += (Step(created_by=instruction.text, empty_layer=True),)
            return False
        who = self.owner(self.config.user, instruction) if self.config.user else (0, 0)

        def fill(directory: Path) -> None:
            try:
                Upper(directory / "upper", self.lower()).make_directory(path, who)
            except NotADirectoryError as error:
                raise DockerfileError(
                    f"WORKDIR {path}: {error} is not a directory", line=instruction.line, hint="choose another"
                ) from error

        return self.layer("workdir", (path, who), instruction, fill)
