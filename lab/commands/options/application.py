"""What a command that measures may be told of the application: its port, when it is ready, how it is built."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.backends.site import Site
    from lab.experiment.scenarios.looking import Settled
    from lab.images.store import Image
    from lab.model import Limits, Process, Readiness, Scenario

Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, metavar="N", help="The TCP port to ask. Default: EXPOSE, or found."),
]
Ready = Annotated[
    str,
    typer.Option(
        "--ready",
        metavar="HOW",
        help="When it counts as ready: http:/path, tcp, log:REGEX, started; done for a batch job. Default: found.",
    ),
]
BuildArgument = Annotated[
    list[str] | None, typer.Option("--build-arg", metavar="K=V", help="A value for an ARG; repeat for more.")
]
Secret = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="id=ID,src=FILE", help="For RUN --mount=type=secret; or env=VARIABLE."),
]


def asked(
    scenario: Scenario,
    port: int | None,
    ready: str,
    build_arguments: Sequence[str] = (),
    secrets: Sequence[str] = (),
) -> Scenario:
    """``scenario`` with what the command line says of it. Raises UsageError for what is not understood."""
    import os

    from lab.commands.building.images import parse_arguments, parse_secret

    for text in secrets:
        parse_secret(text, os.environ)  # refused before anything is built
    return replace(
        scenario,
        port=port or scenario.port,
        readiness=parse_ready(ready) if ready else scenario.readiness,
        build_arguments={**scenario.build_arguments, **parse_arguments(build_arguments, os.environ)},
        build_secrets=(*scenario.build_secrets, *secrets),
    )


def parse_ready(word: str) -> Readiness:
    """``http:/path``, ``tcp``, ``log:REGEX``, ``started`` or ``done``. Raises UsageError."""
    from lab.model import DoneReadiness, HttpReadiness, LogReadiness, StartedReadiness, TcpReadiness

    kind, _, rest = word.partition(":")
    match kind, rest:
        case "http", path if path.startswith("/") and not re.search(r"[\s\x00-\x20\x7f]", path):
            return HttpReadiness(path=path)
        case "tcp", "":
            return TcpReadiness()
        case "started", "":
            return StartedReadiness()
        case "done", "":
            return DoneReadiness()
        case "log", pattern if pattern:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UsageError(
                    f"--ready {word}: no regular expression: {error}", hint="log:'listening on'"
                ) from None
            return LogReadiness(pattern=pattern)
    raise UsageError(f"--ready {word} is not understood", hint="http:/path, tcp, log:REGEX, started or done")


def settled(
    site: Site,
    scenario: Scenario,
    image: Image,
    process: Process,
    limits: Limits,
    backends: Sequence[str],
    *,
    loaded: bool,
) -> Settled:
    """Nothing of readiness, port and load is open any more: see `lab.experiment.scenarios.looking`."""
    from lab.experiment.scenarios import looking
    from lab.instance import LaunchRequest
    from lab.model import HttpReadiness

    if not backends or not looking.is_needed(scenario, image.config, loaded=loaded):
        return looking.settle(scenario, image.config, loaded=loaded)
    ports = image.config.exposed_ports if scenario.port is None else (scenario.port,)
    path = scenario.readiness.path if isinstance(scenario.readiness, HttpReadiness) else "/"
    looks = []
    for backend in looking.order(site.backend(name) for name in backends):
        print(f"lab: looking what {scenario.name} does, one copy on {backend.name}", file=sys.stderr, flush=True)
        logs = site.scratch / "logs" / f"look-{backend.name}"
        logs.mkdir(parents=True, exist_ok=True)
        request = LaunchRequest(
            name=f"look-{backend.name}", image=image, process=process, limits=limits, log_directory=logs
        )
        looks.append(looking.look(backend, request, site.network, ports=ports, path=path))
        if not looks[-1].has_failed:
            break
    return looking.settle(scenario, image.config, looks, loaded=loaded)
