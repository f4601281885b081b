"""``lab build``: an image from a Dockerfile."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from lab.cli.privilege import require_root
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.backends.site import Site
    from lab.images.build import Event
    from lab.images.store import Image
    from lab.model import Scenario

WORTH_SAYING_SECONDS = 0.05
TEXT_CHARACTERS = 100


def build(
    target: Annotated[
        str, typer.Argument(metavar="DIR", help="The build context: a folder, or the name of a scenario.")
    ],
    tag: Annotated[str, typer.Option("--tag", "-t", metavar="NAME", help="Default: the folder's name.")] = "",
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="The Dockerfile. Default: DIR/Dockerfile.")
    ] = "",
    build_arg: Annotated[
        list[str] | None, typer.Option("--build-arg", metavar="K=V", help="A value for an ARG; repeat for more.")
    ] = None,
) -> None:
    """Build an image from a Dockerfile and keep it in lab's store."""
    from lab.backends.site import Site
    from lab.cli.steps import ContainerSteps
    from lab.images import build as images
    from lab.images.reference import from_folder

    context, dockerfile = _where(target, file)
    arguments = _arguments(build_arg or [], os.environ)
    name = tag or from_folder(context.resolve().name)
    require_root()
    started = time.monotonic()
    with Site.open() as site:
        image = images.build(
            context,
            dockerfile=dockerfile,
            tag=name,
            build_args=arguments,
            store=site.store,
            runner=ContainerSteps(site.launcher),
            progress=Steps(),
        )
    _conclude(image, time.monotonic() - started)


def build_scenario(site: Site, scenario: Scenario) -> Image:
    """The scenario's image, built or out of the cache.

    What it does goes to standard error, and only from the first step that takes its time: ``lab run`` of an image
    that is there prints nothing but the application's output. Raises DockerfileError or ImageError.
    """
    from lab.cli.steps import ContainerSteps
    from lab.images.build import build as build_image
    from lab.images.reference import from_folder

    return build_image(
        scenario.directory,
        dockerfile=scenario.dockerfile,
        tag=from_folder(scenario.name),
        build_args={},
        store=site.store,
        runner=ContainerSteps(site.launcher),
        progress=Steps(sys.stderr, patient=True),
    )


class Steps:
    """Prints a build as it goes: a line per step, what RUN says below it, how long it took.

    ``patient`` holds everything back until a step is worth waiting for: it says something, or takes its time.
    """

    def __init__(self, stream: TextIO = sys.stdout, *, patient: bool = False) -> None:
        self._stream = stream
        self._held: list[str] | None = [] if patient else None
        self._at_line_start = True

    def __call__(self, event: Event) -> None:
        from lab.images.build import Note, Output, StepFinished, StepStarted

        match event:
            case StepStarted(number=number, total=total, text=text):
                self._print(f"[{number}/{total}] {textwrap.shorten(text, TEXT_CHARACTERS, placeholder=' …')}")
            case StepFinished(cached=cached, seconds=seconds, note=note):
                slow = seconds >= WORTH_SAYING_SECONDS
                self._release(slow)
                words = [note, "CACHED" if cached else f"{seconds:.1f} s" if slow else ""]
                if said := "  ".join(word for word in words if word):
                    self._print(f"      {said}")
            case Note(text=text):
                self._release(True)
                self._print(f"      {text}")
            case Output(data=data):
                self._release(True)
                self._write(data.decode("utf-8", "replace"))

    def _release(self, now: bool) -> None:
        if now and self._held is not None:
            held, self._held = self._held, None
            self._write("".join(held))

    def _print(self, line: str) -> None:
        self._write(("" if self._at_line_start else "\n") + line + "\n")

    def _write(self, text: str) -> None:
        if not text:
            return
        self._at_line_start = text.endswith("\n")
        if self._held is not None:
            self._held.append(text)
            return
        self._stream.write(text)
        self._stream.flush()


def _where(target: str, file: str) -> tuple[Path, Path]:
    """The context and the Dockerfile, which ``-f`` names from here or from the context."""
    from lab.experiment.scenario import locate

    context = Path(target) if Path(target).is_dir() else locate(target)
    if not file:
        return context, context / "Dockerfile"
    return context, Path(file) if Path(file).exists() else context / file


def _arguments(pairs: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """``K=V``; a lone ``K`` takes its value from the environment, as Docker has it."""
    arguments = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or (not equals and key not in environment):
            raise UsageError(f"--build-arg {pair!r} has no value", hint="--build-arg NAME=VALUE")
        arguments[key] = value if equals else environment[key]
    return arguments


def _conclude(image: Image, seconds: float) -> None:
    from lab.host.units import format_bytes

    base = f", on {image.base.name} ({image.base.origin})" if image.base else ""
    print(f"{image.name}  {image.digest}")
    print(f"{format_bytes(image.size_bytes)} in {len(image.layers)} layers{base}, {seconds:.1f} s")
