"""``lab isolation surface``: which system calls get through to the kernel, on each backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.privilege import require_root
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.backends.site import Site
    from lab.experiment.setup import Setup
    from lab.experiment.surface import Call
    from lab.experiment.tracing import Driven
    from lab.instance import Backend, Instance

OLDER = "the same profile, compiled by its own libseccomp, which may not know the newest calls"


def surface(
    target: Annotated[str, typer.Argument(metavar="SCENARIO|DIR", help="A scenario's name, or any folder.")],
    on: Annotated[str, typer.Option("--on", metavar="A,B,…", help="Backends. Default: every usable one.")] = "",
    calls: Annotated[bool, typer.Option("--calls", help="A line per system call, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Count the system calls that get through, found in two ways.

    By making them inside, and by evaluating the filter. No call does anything: the arguments are wrong. Those that
    can't be made harmless are named, not made.
    """
    require_root()
    from lab.backends.site import Site

    with Site.open() as site:
        from lab.cli.compare import _choose, _setup
        from lab.experiment.scenario import load
        from lab.experiment.surface import compare, observe, observe_host
        from lab.experiment.tracing import drive, function_tracing
        from lab.model import Kernel
        from lab.runtime.profile import default_profile

        chosen = [site.backend(name) for name in _choose(on)]
        scenario = load(target)
        setup = _setup(site, scenario, scenario.limits, [], 0.0)
        bare = observe_host()
        found: dict[str, list[Call]] = {}
        driven: dict[str, Driven | str] = {}
        for backend in chosen:
            backend.prepare(setup.image)
            with _instance(site, backend, setup) as instance:
                try:
                    driven[backend.name] = drive(instance, site.network, setup.scenario)
                except LabError as error:
                    driven[backend.name] = error.message
                on_host, seen = backend.kernel is Kernel.HOST, observe(instance)
                profile = default_profile() if on_host and backend.confines else None
                found[backend.name] = compare(profile, seen, bare if on_host else seen)
        functions = function_tracing()
    titles = {each.name: each.title for each in chosen}
    own = {each.name for each in chosen if each.kernel is Kernel.OWN}
    if as_json:
        print(json.dumps(_as_json(found, functions, driven), indent=1))
        return
    _print(found, titles, own, functions, calls)
    _print_driven(driven)


@contextmanager
def _instance(site: Site, backend: Backend, setup: Setup) -> Iterator[Instance]:
    import tempfile
    from pathlib import Path

    from lab.instance import LaunchRequest
    from lab.metrics.base import Subject
    from lab.metrics.readiness import wait_ready

    with tempfile.TemporaryDirectory(dir=site.scratch) as logs:
        request = LaunchRequest(
            name=f"surface-{backend.name}", image=setup.image, process=setup.process, limits=setup.limits,
            log_directory=Path(logs),
        )  # fmt: skip
        subject = Subject.before_launch(scenario=setup.scenario, network=site.network, idle_seconds=0.0)
        with backend.launch(request) as instance:
            subject.launched(instance)
            wait_ready(subject)
            yield instance


def _as_json(found: dict[str, list[Call]], functions: str, driven: dict[str, Driven | str]) -> dict[str, Any]:
    return {
        "backends": {
            name: [
                {
                    "number": call.number, "name": call.name, "outcome": str(call.outcome),
                    "filter": str(call.filtered), "seen": call.told, "agrees": call.agrees,
                }
                for call in calls
            ]
            for name, calls in found.items()
        },
        "host_kernel_functions": functions,
        "host_events": {
            name: {"not measured": each} if isinstance(each, str) else asdict(each) for name, each in driven.items()
        },
    }  # fmt: skip


def _print(
    found: dict[str, list[Call]], titles: dict[str, str], own: set[str], functions: str, each_call: bool
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lab.experiment.surface import SKIPPED, Outcome, count, disagreements

    console = Console(highlight=False, width=None if Console().is_terminal else 100)
    grid = Table(box=box.SIMPLE_HEAD, title="System calls: what becomes of them", title_justify="left")
    grid.add_column("backend", no_wrap=True)
    for outcome in Outcome:
        grid.add_column(str(outcome), justify="right")
    grid.add_column("agree", justify="right")
    for name, calls in found.items():
        counts, compared = count(calls), [call for call in calls if call.agrees is not None]
        agreeing = sum(1 for call in compared if call.agrees)
        kernel = "[dim]its own kernel's[/dim]" if name in own else "[dim]the host's[/dim]"
        grid.add_row(
            f"{titles[name]}\n{kernel}", *(str(counts.get(outcome, 0) or "·") for outcome in Outcome),
            f"{agreeing} of {len(compared)}",
        )  # fmt: skip
    console.print(grid)
    for name, calls in found.items():
        for (said, seen), names in disagreements(calls).items():
            what = f"{name}: the filter should say {said}, but inside it is {seen}: {', '.join(names)}"
            console.print(Text(f"! {what}", style="yellow"))
            if titles[name] != "container (lab)":
                console.print(Text(f"  {OLDER}", style="dim"))
    if each_call:
        console.print(_calls(found))
    console.print(Text(f"Not called, for they can't be made harmless: {', '.join(SKIPPED)}.", style="dim"))
    console.print(Text(f"Host-kernel functions reached: {functions}", style="dim"))


def _print_driven(driven: dict[str, Driven | str]) -> None:
    """What the instances' processes asked of the host's kernel, counted by tracepoints: in place of its functions."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from lab.experiment.tracing import EVENTS

    console = Console(highlight=False, width=None if Console().is_terminal else 100)
    title = "Counted in their place, by perf: what each asks of the host, a machine's emulator included"
    grid = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    grid.add_column("backend", no_wrap=True)
    for what in EVENTS.values():
        grid.add_column(f"{what}\nper idle second", justify="right")
        grid.add_column(f"{what}\nper request", justify="right")
    for name, each in driven.items():
        if isinstance(each, str):
            console.print(f"[dim]{name}: not measurable here: {each}[/dim]")
            continue
        rates = [(each.idle_per_second.get(event), each.per_request.get(event)) for event in EVENTS]
        grid.add_row(name, *("–" if rate is None else f"{rate:,.3g}" for pair in rates for rate in pair))
    console.print(grid)
    console.print("[dim]Steady state only: start-up is over before there is a process to count in.[/dim]")


def _calls(found: dict[str, list[Call]]) -> Any:
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD)
    grid.add_column("number", justify="right")
    grid.add_column("system call", no_wrap=True)
    for name in found:
        grid.add_column(name, no_wrap=True)
    for row in zip(*found.values(), strict=True):
        grid.add_row(str(row[0].number), row[0].name, *(f"{call.outcome} ({call.told})" for call in row))
    return grid
