"""What is said of a build on the command line, and a scenario's image, built or out of the cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.commands.building.view import Failures, Steps
from lab.commands.output import Manner
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.backends.site import Site
    from lab.images.build import Options
    from lab.images.store import Image, Store
    from lab.model import Scenario
    from lab.runtime.launcher.launcher import Launcher

SECRET_KEYS = ("id", "src", "source", "env", "type")


def build_scenario(
    site: Site, scenario: Scenario, arguments: Mapping[str, str] | None = None, tag: str = ""
) -> Image:
    """The scenario's image, built or out of the cache; with build arguments one that ``tag`` tells from the others.

    What it does goes to standard error, and only from the first step that takes its time: ``lab run`` of an image
    that is there prints nothing but the application's output. Raises DockerfileError or ImageError.
    """
    return build_with(site.store, site.launcher, scenario, arguments, tag)


def build_with(
    store: Store, launcher: Launcher, scenario: Scenario, arguments: Mapping[str, str] | None = None, tag: str = ""
) -> Image:
    """As `build_scenario`, into the store that is named."""
    from lab.commands.building.container_steps import ContainerSteps
    from lab.images.build import build as build_image
    from lab.images.reference import from_folder

    return build_image(
        scenario.directory,
        dockerfile=scenario.dockerfile,
        tag=from_folder(scenario.name) + (f":{tag}" if tag else ""),
        build_args={**scenario.build_arguments, **(arguments or {})},
        store=store,
        runner=ContainerSteps(launcher),
        progress=Failures() if Manner.quiet else Steps(sys.stderr, patient=True),
        options=options("", False, False, scenario.build_secrets, (), (), ()),
    )


def options(
    target: str,
    no_cache: bool,
    pull: bool,
    secrets: Sequence[str],
    agents: Sequence[str],
    labels: Sequence[str],
    cache_from: Sequence[str],
) -> Options:
    """What a build is told, from words of the command line. Raises UsageError."""
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
