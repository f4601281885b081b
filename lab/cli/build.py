"""``lab build``: an image from a Dockerfile."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.buildview import Failures, Live, Steps
from lab.cli.privilege import require_root
from lab.cli.shape import Manner
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.backends.site import Site
    from lab.images.build import Options
    from lab.images.store import Image
    from lab.model import Scenario

SECRET_KEYS = ("id", "src", "source", "env", "type")


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
    from lab.cli.sessionsteps import SessionSteps
    from lab.images import build as images
    from lab.images.reference import from_folder
    from lab.images.store import Store

    context, dockerfile = _where(target, file)
    arguments = parse_arguments(build_arg or [], os.environ)
    if stamp := arguments.get("SOURCE_DATE_EPOCH"):
        os.environ["SOURCE_DATE_EPOCH"] = stamp  # as BuildKit has it: the time of all that is made
    require_root()
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
            options=_options(stage, no_cache, pull, secret or [], ssh or [], label or [], cache_from or []),
        )
    if iidfile is not None:
        iidfile.write_text(image.digest)
    _conclude(image, time.monotonic() - started)


def build_scenario(
    site: Site, scenario: Scenario, arguments: Mapping[str, str] | None = None, tag: str = ""
) -> Image:
    """The scenario's image, built or out of the cache; with build arguments one that ``tag`` tells from the others.

    What it does goes to standard error, and only from the first step that takes its time: ``lab run`` of an image
    that is there prints nothing but the application's output. Raises DockerfileError or ImageError.
    """
    from lab.cli.steps import ContainerSteps
    from lab.images.build import build as build_image
    from lab.images.reference import from_folder

    return build_image(
        scenario.directory,
        dockerfile=scenario.dockerfile,
        tag=from_folder(scenario.name) + (f":{tag}" if tag else ""),
        build_args={**scenario.build_arguments, **(arguments or {})},
        store=site.store,
        runner=ContainerSteps(site.launcher),
        progress=Failures() if Manner.quiet else Steps(sys.stderr, patient=True),
        options=_options("", False, False, scenario.build_secrets, (), (), ()),
    )


def _view(look: Look) -> Steps | Live | Failures:
    if Manner.quiet:
        return Failures()
    if look is Look.RICH or (look is Look.AUTO and sys.stdout.isatty()):
        return Live()
    return Steps()


def _where(target: str, file: str) -> tuple[Path, Path]:
    """The context and the Dockerfile, which ``-f`` names from here or from the context."""
    if not Path(target).is_dir():
        from lab.experiment.scenario import locate

        context = locate(target)
    else:
        context = Path(target)
    if not file:
        return context, context / "Dockerfile"
    return context, Path(file) if Path(file).exists() else context / file


def _options(
    target: str,
    no_cache: bool,
    pull: bool,
    secrets: Sequence[str],
    agents: Sequence[str],
    labels: Sequence[str],
    cache_from: Sequence[str],
) -> Options:
    from lab.images.build import Options
    from lab.images.stages.mounts import Offer

    offer = Offer(
        secrets=dict(parse_secret(text, os.environ) for text in secrets), agents=dict(_agent(text) for text in agents)
    )
    return Options(
        target=target,
        use_cache=not no_cache,
        pull=pull,
        offer=offer,
        labels=_labels(labels),
        cache_from=tuple(cache_from),
    )


def parse_arguments(pairs: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """``K=V``; a lone ``K`` takes its value from the environment, as Docker has it."""
    arguments = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or (not equals and key not in environment):
            raise UsageError(f"--build-arg {pair!r} has no value", hint="--build-arg NAME=VALUE")
        arguments[key] = value if equals else environment[key]
    return arguments


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    """``K=V``; a lone ``K`` is an empty label."""
    found = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not key:
            raise UsageError(f"--label {pair!r} has no name", hint="--label NAME=VALUE")
        found[key] = value
    return found


def parse_secret(text: str, environment: Mapping[str, str]) -> tuple[str, bytes]:
    """``id=ID,src=FILE`` or ``id=ID,env=VARIABLE``; without either, the variable or else the file called ID."""
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    name, variable, file = parts.get("id", ""), parts.get("env", ""), parts.get("src") or parts.get("source", "")
    if not name or set(parts) - set(SECRET_KEYS) or (variable and file):
        raise UsageError(f"--secret {text!r} is not understood", hint="--secret id=ID,src=FILE or id=ID,env=VARIABLE")
    if not variable and not file:
        variable = name if name in environment else ""
    if variable:
        if variable not in environment:
            raise UsageError(f"--secret {name}: there is no variable {variable}", hint=f"export {variable}=…")
        return name, os.fsencode(environment[variable])
    try:
        return name, Path(file or name).read_bytes()
    except OSError as error:
        raise UsageError(
            f"--secret {name}: {error.strerror}: {file or name}", hint="--secret id=ID,src=FILE"
        ) from error


def _agent(text: str) -> tuple[str, Path]:
    """``default``, which is the agent of $SSH_AUTH_SOCK, or ``ID=SOCKET``."""
    name, _, path = text.partition("=")
    socket = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not name or not socket or not Path(socket).is_socket():
        raise UsageError(
            f"--ssh {text}: {socket or 'SSH_AUTH_SOCK'} is no agent's socket", hint="eval $(ssh-agent); ssh-add"
        )
    return name, Path(socket).resolve()


def _conclude(image: Image, seconds: float) -> None:
    from lab.host.units import format_bytes

    base = f", on {image.base.name} ({image.base.origin})" if image.base else ""
    print(f"{image.name}  {image.digest}")
    print(f"{format_bytes(image.size_bytes)} in {len(image.layers)} layers{base}, {seconds:.1f} s")
