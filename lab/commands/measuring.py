"""What the commands that measure have in common: of which application, on which backends, into which folder."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.completion import complete_backends, complete_scenario
from lab.commands.interrupt import what_there_is
from lab.commands.options.brought import DISK, Brought
from lab.commands.options.limits import as_far_as_given, require_given
from lab.commands.output import say
from lab.errors import BackendUnavailable, UsageError
from lab.host.units import parse_words
from lab.model import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.backends.site import Site
    from lab.experiment.plan import PlannedArm
    from lab.experiment.setup import Setup
    from lab.experiment.watch import Watch
    from lab.model import Scenario
    from lab.results.record import Run
    from lab.results.store import RunFolder

RESULTS = Path("results")
LEAST_FLOOR = 1 << 30
MOST_AT_ONCE = 1000
USUAL = "process, container, microvm, vm"
"""The backends that are no references: those that are measured where none is named. A test compares it with the
registry, which would have to be imported to print a command's help."""

Target = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO|DIR", help="A scenario's name, or any folder.", autocompletion=complete_scenario
    ),
]
On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="A,B,…",
        help=f"Backends, and oci:PATH for OCI runtimes. Default: those usable of {USUAL}.",
        autocompletion=complete_backends,
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Seed of the random orders. Default: a new one, stored in the run.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the run's folder is made.")]


KeepFree = Annotated[
    str, typer.Option("--keep-free", metavar="SIZE", help="What stays free. Default: 1/8, 1G at least.")
]


def floor_bytes(keep_free: str) -> int:
    """The bytes of the host's memory that stay free: an eighth and 1 GiB at least, unless ``keep_free`` says it."""
    from lab.host.survey import facts
    from lab.host.units import parse_bytes

    return parse_bytes(keep_free) if keep_free else max(LEAST_FLOOR, int(facts.memory()["total_bytes"]) // 8)


def copies_at_once(option: str, text: str, least: int) -> tuple[int, ...]:
    """The numbers of copies in ``text``, as they stand there. Raises UsageError for one below ``least``."""
    words = parse_words(text)
    if not all(word.isascii() and word.isdigit() and least <= int(word) <= MOST_AT_ONCE for word in words):
        raise UsageError(
            f"{option} {text}: not numbers of copies from {least} to {MOST_AT_ONCE}",
            hint=f"write for example {option} {least},8",
        )
    return tuple(int(word) for word in words)


def drawn(seed: int | None) -> int:
    """The seed that was given, or a new one."""
    import secrets

    return secrets.randbelow(2**31) if seed is None else seed


def choose_backends(on: str, *, references: bool = False) -> list[str]:
    """The backends asked for, or all that are usable, ``references`` or not; says which ones are not usable, and why.

    What one needs is fetched where it is asked for by name, and else it counts as not usable.
    """
    from lab.backends.registry import available, checks_of

    known = {backend.name for backend in available()}
    for name in parse_words(on):
        if name not in known and name.startswith(DISK):
            raise UsageError(f"{name}: disks are run and compared, and nothing else", hint=f"lab compare --on {name}")
    asked = parse_words(Brought.admitted(on).on)
    classes = {backend.name: backend for backend in available()}
    for name in asked:
        if name not in classes:
            raise UsageError(f"no backend is called {name}", hint=f"backends: {', '.join(classes)}")
    usable = []
    for name in asked or [name for name, kind in classes.items() if references or not kind.reference]:
        missing = [check for check in checks_of(classes[name]) if not check.ok]
        if not missing and (asked or not classes[name].unfetched()):
            classes[name].fetch(say)
            usable.append(name)
        elif not missing:
            say(f"lab: without {name}: {classes[name].unfetched()} is not here; --on {name} fetches it")
        elif asked:
            raise BackendUnavailable(
                f"{name} can't run here: {missing[0].name}: {missing[0].found}", hint=missing[0].remedy
            )
        else:
            say(f"lab: without {name}: {missing[0].name}: {missing[0].found} ({missing[0].remedy})")
    if not usable:
        raise BackendUnavailable("no backend can run here", hint="lab doctor")
    return sorted(set(usable), key=lambda name: (classes[name].order, name))


def limit(limits: Limits, memory: str, cpus: str, pids: int | None = None) -> Limits:
    """``limits`` with what the command line says instead. Raises UsageError for what is no size or number, and
    LimitError for what an ordinary user can't set.
    """
    from lab.host.units import parse_bytes, parse_cpus

    given = Limits(
        memory_bytes=parse_bytes(memory) if memory else None, cpus=parse_cpus(cpus) if cpus else None, pids=pids
    )
    require_given(given)
    asked = {name: value for name, value in asdict(given).items() if value is not None}
    return as_far_as_given(replace(limits, **asked))


def set_up(
    site: Site,
    scenario: Scenario,
    limits: Limits,
    metrics: list[str],
    idle_seconds: float,
    *,
    backends: Sequence[str] = (),
    loaded: bool = False,
) -> Setup:
    """Build the image, and settle what the scenario leaves open by its EXPOSE, HEALTHCHECK and CMD, or by looking at
    one copy on one of ``backends``; without any of these nothing is open. ``loaded`` says whether to offer a load.
    Limits that an ordinary user can't set are left out.
    """
    from lab.backends.owndisk import NO_PROCESS
    from lab.commands.building.images import build_scenario
    from lab.commands.options.application import settled
    from lab.commands.telling import Audience
    from lab.experiment.scenarios.looking import Settled
    from lab.experiment.scenarios.scenario import NOWHERE
    from lab.experiment.setup import Setup
    from lab.images.process import resolve
    from lab.metrics.registry import metrics as all_metrics
    from lab.model import DoneReadiness

    limits = as_far_as_given(limits)
    if Audience.told is not None:
        Audience.told.tell("doing", what="building the image")
    own = next((image for name in backends if (image := site.backend(name).own_image) is not None), None)
    if scenario.directory == NOWHERE and own is not None:
        image, process = own, NO_PROCESS
    else:
        image = build_scenario(site, scenario)
        process = resolve(image, site.store.lower_directories(image), environment=dict(scenario.environment))
    nothing_open = Settled(scenario=scenario)
    looked_at = [name for name in backends if not site.backend(name).opaque]
    known = settled(site, scenario, image, process, limits, looked_at, loaded=loaded) if backends else nothing_open
    ends = isinstance(
        known.scenario.readiness, DoneReadiness
    )  # its headline is that of a job, whatever was asked for
    wanted = {*metrics, "job"} if ends else {*metrics} - {"job"}
    return Setup(
        scenario=known.scenario,
        image=image,
        process=process,
        limits=limits,
        metrics=tuple(metric() for metric in all_metrics() if metric.name in wanted),
        isolation="isolation" in metrics,
        idle_seconds=idle_seconds,
        found=known.found,
        linger_seconds=known.linger_seconds,
    )


def one_each(backends: Sequence[str]) -> tuple[PlannedArm, ...]:
    """An arm per backend, and no A/A pair: for what is counted, not compared."""
    from lab.experiment.plan import PlannedArm

    return tuple(PlannedArm(label=name, backend=name) for name in backends)


@contextmanager
def measuring(out: Path, run: Run) -> Iterator[tuple[RunFolder, Watch]]:
    """A new folder below ``out`` for ``run``, and what is seen while it fills. After Ctrl-C, how to look at it."""
    from lab.commands.progress import watching
    from lab.results.store import RunFolder

    with RunFolder.create(out, run) as folder, watching(folder.run) as watch, what_there_is(folder):
        yield folder, watch
