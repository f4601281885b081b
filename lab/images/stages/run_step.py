"""RUN: a command in a container over the layers so far; what it changed is the layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from lab.errors import DockerfileError, ImageError, UsageError
from lab.host.command import tail
from lab.images.dockerfile.graph import is_proxy
from lab.images.dockerfile.instructions import Document, Run
from lab.images.layers import epoch
from lab.images.process import resolve_words
from lab.images.progress import Output
from lab.images.runner import BindMount
from lab.images.stages.copy_rules import Upper
from lab.images.stages.mounts import Mounts, Prepared
from lab.images.stages.state import StageState
from lab.images.transfer import trust
from lab.images.transfer.trouble import AGAIN
from lab.images.transfer.trouble import find as find_trouble
from lab.images.tree import Tree
from lab.model import Process

OUTPUT_TAIL_BYTES = 16 << 10
SCRIPTS = "/dev/pipes"  # where BuildKit puts a here-document that is a program


class StepFailed(ImageError):
    """A RUN ended with another code than 0; ``detail`` is the tail of its output, or the one line that says why. A
    certificate or proxy that long output followed, as pip's within another build's, stands before its tail.
    """

    def __init__(self, instruction: Run, code: int, output: bytes, file: str = "Dockerfile") -> None:
        last = tail(output)
        detail = last
        if trouble := find_trouble(last):
            detail = trouble.line
        elif trouble := find_trouble(output.decode("utf-8", "replace"), lasting=True):
            detail = f"{trouble.line}\n…\n{last}"
        why = f", {trouble.what}" if trouble else ""
        hint = trouble.hint if trouble else "mend the command and build again"
        super().__init__(
            f"{file}:{instruction.line}: RUN failed with exit code {code}{why}: {instruction.text}",
            hint=hint if trouble and trouble.hint != AGAIN else f"{hint}: the steps before it are cached",
            detail=detail,
        )
        self.instruction = instruction
        self.code = code
        self.output = output

    def at(self, file: str) -> StepFailed:
        """The same error with the file's real name."""
        return StepFailed(self.instruction, self.code, self.output, file)


def run_step(build: StageState, instruction: Run) -> bool:
    """Add the layer of a RUN; whether it came from the cache.

    Raises StepFailed when the command fails.
    """
    lower = build.lower()
    argv = instruction.command.argv(build.shell)
    try:
        process = resolve_words(build.config, Tree(lower), argv, {**build.arguments, **build.config.environment})
    except UsageError as error:
        raise DockerfileError(error.message, line=instruction.line, hint=error.hint) from error
    mounts = Mounts(
        instruction, lambda word: build.expand(word, instruction), build.config.working_directory, build.place
    )

    def fill(directory: Path) -> None:
        Upper(directory / "upper", lower)
        (directory / "work").mkdir()
        collected = bytearray()

        def output(data: bytes) -> None:
            collected.extend(data)
            del collected[:-OUTPUT_TAIL_BYTES]
            build.job.progress(Output(data=data, stage=build.title))

        with ExitStack() as stack:
            prepared = mounts.prepare(build.job.store, build.job.options.offer, directory, stack)
            certificates, lent = trust.for_a_step(directory)
            script = _script(instruction.script, directory)
            build.job.check()
            code = build.job.runner.run(
                _with_surroundings(build, process, prepared, certificates),
                lower_directories=lower,
                upper_directory=directory / "upper",
                work_directory=directory / "work",
                output=output,
                mounts=(*prepared.mounts, *script, *lent),
                network=instruction.network != "none",
            )
        build.job.check()
        if code != 0:
            raise StepFailed(instruction, code, bytes(collected))

    parts = (asdict(process), mounts.key(), instruction.network, instruction.script and instruction.script.content)
    return build.layer("run", parts, instruction, fill)


def _script(document: Document | None, directory: Path) -> tuple[BindMount, ...]:
    if document is None:
        return ()
    folder = directory / "pipes"
    folder.mkdir(mode=0o755)
    file = folder / document.name
    file.write_text(document.content, encoding="utf-8")
    file.chmod(0o755)
    return (BindMount(target=SCRIPTS, source=folder),)


def _with_surroundings(
    build: StageState, process: Process, prepared: Prepared, certificates: Mapping[str, str]
) -> Process:
    """What a step may see but an image and its cache key must not depend on: proxies and their certificates, secrets,
    compilers' time.
    """
    proxies = {name: value for name, value in os.environ.items() if is_proxy(name)}
    found = {
        "SOURCE_DATE_EPOCH": str(int(epoch().timestamp())),
        **proxies,
        **certificates,
        **build.undeclared_proxies(),
    }
    return replace(process, environment={**found, **process.environment, **prepared.environment})
