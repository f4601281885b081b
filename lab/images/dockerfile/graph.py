"""The stages of a Dockerfile: what their names mean, which are needed, and which need which. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lab.errors import DockerfileError, UsageError
from lab.images.dockerfile.expand import expand
from lab.images.dockerfile.instructions import Copy, Dockerfile, From, Instruction, Run, Stage
from lab.images.ociconfig import architecture

PROXIES = frozenset({"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"})


def is_proxy(name: str) -> bool:
    """Whether an ARG is predefined as a step's surroundings: never in the image, nor in a cache key."""
    return name.lower() in PROXIES and name in (name.lower(), name.upper())


def platform_arguments(target: str = "") -> dict[str, str]:
    """The ARGs BuildKit predefines for FROM, and for stages that declare them; ``target`` is ``--target``."""
    here = {"PLATFORM": f"linux/{architecture()}", "OS": "linux", "ARCH": architecture(), "VARIANT": ""}
    found = {f"{side}{name}": value for side in ("TARGET", "BUILD") for name, value in here.items()}
    return {**found, "TARGETSTAGE": target or "default"}


def global_arguments(parsed: Dockerfile, build_args: Mapping[str, str], target: str = "") -> dict[str, str]:
    """The values of the ARGs before the first FROM, after the predefined ones. Raises DockerfileError."""
    values = platform_arguments(target)
    for argument in parsed.global_arguments:
        for name, default in argument.pairs:
            if name in build_args:
                values[name] = build_args[name]
            elif default is not None:
                values[name] = expand(default, values, escape=parsed.escape, line=argument.line)
    return values


class Stages:
    """The stages, found by name or number."""

    def __init__(self, parsed: Dockerfile, arguments: Mapping[str, str]) -> None:
        self.all = parsed.stages
        self._arguments = arguments
        self._escape = parsed.escape

    def base(self, source: From) -> str:
        """What FROM names, variables replaced. Raises DockerfileError for nothing, or another platform."""
        name = expand(source.image, self._arguments, escape=self._escape, line=source.line)
        if not name:
            raise DockerfileError("FROM names no image", line=source.line, hint="give its ARG a default")
        platform = expand(source.platform, self._arguments, escape=self._escape, line=source.line)
        here = f"linux/{architecture()}"
        if source.platform and platform not in (here, architecture()):
            raise DockerfileError(
                f"FROM --platform={platform} is not supported", line=source.line, hint=f"this machine runs {here}"
            )
        return name

    def find(self, name: str, before: Stage, line: int) -> Stage | None:
        """The stage that ``name`` means for what stands in the stage ``before``; None when it means an image.

        Raises DockerfileError for a stage that comes no earlier.
        """
        if name.isdigit():
            if int(name) < before.number:
                return self.all[int(name)]
            raise DockerfileError(
                f"there is no stage {name} before this one",
                line=line,
                hint="stages count from 0, or name it: FROM … AS",
            )
        earlier = [one for one in self.all[: before.number] if one.base.name == name.lower()]
        if earlier:
            return earlier[-1]
        if any(one.base.name == name.lower() for one in self.all[before.number :]):
            raise DockerfileError(f"the stage {name} does not come before this one", line=line, hint="move it up")
        return None

    def source(self, written: str, line: int) -> str:
        """What a ``--from`` names: an ARG before the first FROM may be in it."""
        return expand(written, self._arguments, escape=self._escape, line=line)

    def target(self, word: str) -> Stage:
        """The stage that ``--target`` means; the last one for "". Raises UsageError."""
        if not word:
            return self.all[-1]
        for stage in reversed(self.all):
            if word.lower() == stage.base.name or word == str(stage.number):
                return stage
        names = ", ".join(one.base.name for one in self.all if one.base.name)
        raise UsageError(f"--target {word}: there is no such stage", hint=f"stages: {names or 'none has a name'}")

    def needed(self, target: Stage) -> list[Stage]:
        """``target`` and all stages it needs, in the order they are written. Raises DockerfileError."""
        found: dict[int, Stage] = {}
        pending = [target]
        while pending:
            stage = pending.pop()
            if stage.number not in found:
                found[stage.number] = stage
                pending.extend(self._needs(stage))
        return [found[number] for number in sorted(found)]

    def _needs(self, stage: Stage) -> Iterator[Stage]:
        base = self.base(stage.base)
        if not base.isdigit() and (parent := self.find(base, stage, stage.base.line)):
            yield parent
        for instruction in stage.instructions:
            for name in sources(instruction):
                other = self.find(self.source(name, instruction.line), stage, instruction.line)
                if other is not None:
                    yield other


def sources(instruction: Instruction) -> list[str]:
    """The stages or images that an instruction takes files from, as written."""
    match instruction:
        case Copy(stage=stage) if stage:
            return [stage]
        case Run(mounts=mounts):
            return [mount.options["from"] for mount in mounts if mount.options.get("from")]
        case _:
            return []
