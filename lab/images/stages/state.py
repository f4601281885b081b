"""A stage so far, as its instructions see it: configuration, layers, history, variables, and where files are from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab.errors import DockerfileError, UsageError
from lab.images.dockerfile.expand import expand
from lab.images.dockerfile.graph import is_proxy
from lab.images.dockerfile.instructions import Instruction, Stage
from lab.images.layers import Layer
from lab.images.ociconfig import Step
from lab.images.process import find_account, find_group
from lab.images.stages import cache
from lab.images.stages.copy_sources import CopySource
from lab.images.stages.job import Job
from lab.images.store import Base
from lab.images.tree import Tree
from lab.model import ImageConfig

DEFAULT_SHELL = ("/bin/sh", "-c")


class StageState:
    """One stage in the making. `lab.images.stages.stage` changes it, an instruction at a time."""

    def __init__(self, job: Job, stage: Stage) -> None:
        self.job = job
        self.stage = stage
        self.config = ImageConfig()
        self.layers: tuple[Layer, ...] = ()
        self.history: tuple[Step, ...] = ()
        self.base: Base | None = None
        self.arguments: dict[str, str] = {}
        self.has_command = False
        self.title = stage.title if job.titled else ""

    @property
    def shell(self) -> tuple[str, ...]:
        """The SHELL in force."""
        return self.config.shell or DEFAULT_SHELL

    def variables(self) -> dict[str, str]:
        """What a ``$`` sees: ENV wins over ARG."""
        return {**self.arguments, **self.config.environment}

    def expand(self, word: str, instruction: Instruction) -> str:
        return expand(word, self.variables(), escape=self.job.parsed.escape, line=instruction.line)

    def pairs(self, pairs: Sequence[tuple[str, str]], instruction: Instruction) -> dict[str, str]:
        """Names and values, all replaced with what held before the instruction."""
        return {self.expand(name, instruction): self.expand(value, instruction) for name, value in pairs}

    def undeclared_proxies(self) -> Mapping[str, str]:
        """The predefined proxy ARGs that were given and are not declared: a step sees them, its key does not."""
        given = self.job.build_args.items()
        return {name: value for name, value in given if is_proxy(name) and name not in self.arguments}

    def lower(self) -> tuple[Path, ...]:
        """The layers so far, the top one first."""
        return self.job.directories(self.layers)

    def owner(self, text: str, instruction: Instruction) -> tuple[int, int]:
        """``USER[:GROUP]`` by name or number, as this stage's files know them; a lone number is also the group."""
        user, _, group = text.partition(":")
        tree = Tree(self.lower())
        try:
            account = find_account(tree, user)
            gid = find_group(tree, group) if group else int(user) if user.isdigit() else account.gid
        except UsageError as error:
            raise DockerfileError(error.message, line=instruction.line, hint=error.hint) from error
        return account.uid, gid

    def place(self, name: str, line: int) -> CopySource:
        """Where files come from: the context for "", a stage, or an image. Raises DockerfileError."""
        if not name:
            if self.job.context is None:
                raise DockerfileError("a recipe has no context to take files from", line=line)
            return self.job.context
        wanted = self.job.stages.source(name, line)
        stage = self.job.stages.find(wanted, self.stage, line)
        if stage is not None:
            layers = self.job.request(stage).result().layers
            return CopySource(Tree(self.job.directories(layers)), f"the stage {stage.title}", owned=True)
        image = self.job.base(wanted)
        return CopySource(Tree(self.job.directories(image.layers)), f"the image {image.name}", owned=True)

    def layer(
        self,
        kind: str,
        parts: Sequence[object],
        instruction: Instruction,
        fill: Callable[[Path], None],
        *,
        independent: bool = False,
    ) -> bool:
        """Add a layer from the cache, or let ``fill`` make ``upper`` in a scratch directory.

        An ``independent`` one does not depend on what is below it.
        """
        name = cache.key(() if independent else self.layers, kind, parts)
        made = self.job.cache.layer(name, fill)
        self.layers = (*self.layers, made.layer)
        self.history += (Step(created_by=instruction.text, empty_layer=False, cache_key=name),)
        return made.cached
