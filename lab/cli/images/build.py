"""``lab build``: an image from a Dockerfile."""

from __future__ import annotations

import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.building.images import options, parse_arguments
from lab.commands.building.view import Failures, Live, Steps
from lab.commands.output import Manner
from lab.commands.privilege import become_root

if TYPE_CHECKING:
    from lab.images.store import Image


class Look(StrEnum):
    """How a build is shown."""

    AUTO = "auto"
    PLAIN = "plain"
    RICH = "rich"


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
    stage: Annotated[
        str, typer.Option("--target", metavar="STAGE", help="Stop at this stage. Default: the last.")
    ] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step again.")] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Ask the registry for bases that the store has.")] = False,
    cache_from: Annotated[
        list[str] | None, typer.Option("--cache-from", metavar="IMAGE", help="Take steps from this image's history.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="id=ID,src=FILE", help="For RUN --mount=type=secret; or env=VARIABLE."),
    ] = None,
    ssh: Annotated[
        list[str] | None,
        typer.Option("--ssh", metavar="default[=SOCKET]", help="An agent for RUN --mount=type=ssh."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="K=V", help="A label on the image; repeat for more.")
    ] = None,
    progress: Annotated[Look, typer.Option("--progress", help="Lines for a log, or a live view.")] = Look.AUTO,
    iidfile: Annotated[
        Path | None, typer.Option("--iidfile", metavar="FILE", help="Write the image's digest into a file.")
    ] = None,
) -> None:
    """Build an image from a Dockerfile and keep it in lab's store."""
    become_root()  # before anything starts a thread: the parser of Dockerfiles does when it is imported
    from lab.commands.building.session_steps import SessionSteps
    from lab.images import build as images
    from lab.images.reference import from_folder
    from lab.images.store import Store

    context, dockerfile = _where(target, file)
    arguments = parse_arguments(build_arg or [], os.environ)
    if stamp := arguments.get("SOURCE_DATE_EPOCH"):
        os.environ["SOURCE_DATE_EPOCH"] = stamp  # as BuildKit has it: the time of all that is made
    started = time.monotonic()
    with SessionSteps() as steps, _view(progress) as view:
        image = images.build(
            context,
            dockerfile=dockerfile,
            tag=tag or from_folder(context.resolve().name),
            build_args=arguments,
            store=Store.open(),
            runner=steps,
            progress=view,
            options=options(stage, no_cache, pull, secret or [], ssh or [], label or [], cache_from or []),
        )
    if iidfile is not None:
        iidfile.write_text(image.digest)
    _conclude(image, time.monotonic() - started)


def _view(look: Look) -> Steps | Live | Failures:
    if Manner.quiet:
        return Failures()
    if look is Look.RICH or (look is Look.AUTO and sys.stdout.isatty()):
        return Live()
    return Steps()


def _where(target: str, file: str) -> tuple[Path, Path]:
    """The context and the Dockerfile, which ``-f`` names from here or from the context."""
    if not Path(target).is_dir():
        from lab.experiment.scenarios.scenario import locate

        context = locate(target)
    else:
        context = Path(target)
    if not file:
        return context, context / "Dockerfile"
    return context, Path(file) if Path(file).exists() else context / file


def _conclude(image: Image, seconds: float) -> None:
    from lab.host.units import format_bytes

    base = f", on {image.base.name} ({image.base.origin})" if image.base else ""
    print(f"{image.name}  {image.digest}")
    print(f"{format_bytes(image.size_bytes)} in {len(image.layers)} layers{base}, {seconds:.1f} s")
