"""What ``lab run`` is asked for, the image that is meant, and what holds for it wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.commands.options.limits import as_far_as_given
from lab.commands.output import say
from lab.errors import BackendUnavailable
from lab.host.identity import privilege
from lab.model import Limits

if TYPE_CHECKING:
    from lab.images.store import Image, Store
    from lab.instance import Backend
    from lab.model import Process, PublishedPort, Readiness, Scenario, TerminalSize, Volume

GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One copy of ``what``; its words are understood, and nothing is looked up yet.

    ``limits`` has what was asked for, None where the scenario's hold. ``name`` is "" for any. ``waited`` is what to
    wait for, and on which port. ``form`` and ``backing`` are of a disk. In the background there is neither
    ``interactive``, ``size`` nor ``waited``, in the foreground neither ``remove`` nor ``wait``.
    """

    what: str
    backend: str
    command: Sequence[str] = ()
    ports: tuple[PublishedPort, ...] = ()
    volumes: tuple[Volume, ...] = ()
    environment: Mapping[str, str]
    limits: Limits
    knobs: Mapping[str, str]
    name: str = ""
    remove: bool = False
    wait: bool = False
    interactive: bool = False
    size: TerminalSize | None = None
    waited: tuple[Readiness, int | None] | None = None
    is_disk: bool = False
    form: str = ""
    backing: Sequence[Path] = ()


def require_usable(backend: Backend | type[Backend]) -> None:
    """Raise BackendUnavailable, before anything is built, when this host can't run it. What it fetches is fetched."""
    for check in backend.check():
        if not check.ok:
            raise BackendUnavailable(f"{backend.name} can't run here: {check.name}: {check.found}", hint=check.remedy)
    backend.fetch(say)


def prepared(wanted: Wanted, store: Store, build: Callable[[Scenario], Image]) -> tuple[Image, Process, Limits]:
    """The image, which ``build`` makes of a scenario, with the process and limits that are asked for in it.

    Raises ImageError or ScenarioError for what is neither an image nor a scenario.
    """
    from lab.backends.support.launched import DEFAULT_TERM
    from lab.images.process import resolve

    image, given, limits = _find(store, wanted.what, build)
    environment = {**({"TERM": DEFAULT_TERM} if wanted.size else {}), **given, **wanted.environment}
    process = resolve(image, store.lower_directories(image), argv=wanted.command, environment=environment)
    if process.uid:
        privilege.require(privilege.Need.OWNERS, f"{image.name}, which runs as user {process.uid},", "run …")
    asked = {name: value for name, value in asdict(wanted.limits).items() if value is not None}
    others = as_far_as_given(replace(limits, **dict.fromkeys(asked)))
    return image, process, replace(others, **asked)


def _find(store: Store, what: str, build: Callable[[Scenario], Image]) -> tuple[Image, Mapping[str, str], Limits]:
    """The image, with the environment and limits of its scenario if it is one, which is built first."""
    from lab.errors import ImageError, ScenarioError
    from lab.experiment.scenarios import scenario as scenarios

    try:
        scenarios.locate(what)
    except ScenarioError as no_scenario:
        try:
            return store.find(what), {}, Limits()
        except ImageError:
            if Path(what).is_dir():
                raise no_scenario from None
            raise ImageError(
                f"no image, scenario or folder is called {what}",
                hint=f"scenarios: {', '.join(scenarios.names())}; images: lab image ls; or: lab build DIR -t {what}",
            ) from None
    scenario = scenarios.load(what)
    return build(scenario), scenario.environment, scenario.limits
