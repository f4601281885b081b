"""``lab isolation surface``: how much of the host's kernel each backend's instances can reach, and do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.measuring import RESULTS, On, Out, Seed, Target, choose_backends, drawn, one_each, set_up, tell
from lab.cli.privilege import require_root
from lab.cli.ready import Port, Ready, asked
from lab.cli.shape import JsonTo
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.results.store import RunFolder


def surface(
    target: Target,
    on: On = "",
    blocks: Annotated[
        int, typer.Option("--blocks", min=1, max=1000, metavar="N", help="How often each is started and traced.")
    ] = 3,
    seed: Seed = None,
    functions: Annotated[
        bool,
        typer.Option("--functions/--no-functions", help="Trace the host kernel's functions, if it permits that."),
    ] = True,
    calls: Annotated[bool, typer.Option("--calls", help="Print a line per system call, too.")] = False,
    port: Port = None,
    ready: Ready = "",
    out: Out = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Count the attack surface: what of the host's kernel can be reached, and what is.

    Which system calls get through, found by making them harmlessly and by evaluating the filter. Which ones an
    instance makes of the host while it starts, idles and serves; the kernel's functions, too, where the host lets
    them be traced. docs/attack-surface.md explains how to read it, and how not to.
    """
    require_root()
    from lab.backends.site import Site

    with Site.open() as site:
        import sys

        from lab.cli.watching import watching
        from lab.experiment.exposure import KIND, Exposure
        from lab.experiment.plan import Plan
        from lab.experiment.provenance import describe
        from lab.experiment.scenario import load
        from lab.results.store import RunFolder

        chosen = choose_backends(on)
        scenario = asked(load(target), port, ready)
        setup = set_up(site, scenario, scenario.limits, [], 0.0, backends=chosen, loaded=True)
        seed = drawn(seed)
        plan = Plan(arms=one_each(chosen), seed=seed, blocks=blocks, budget_seconds=0.0)
        folder = RunFolder.create(out, describe(site, setup, plan, ("lab", *sys.argv[1:]), kind=KIND))
        with folder, watching(folder.run) as watch:
            Exposure(site, setup, folder, watch, seed=seed, rounds=blocks, functions=functions).run(chosen)
    show(folder, calls=calls, as_json=as_json)


def show(folder: RunFolder, *, calls: bool, as_json: str) -> None:
    """Write the run's report, and say the essence of it, or all."""
    from lab.analysis.loaded import load
    from lab.analysis.surface import Exposed
    from lab.reports.surface import write
    from lab.reports.surfaceterminal import terminal

    loaded = load(folder.path)
    written = write(loaded)

    def essence() -> None:
        terminal(loaded, each_call=calls)
        print(f"\nreport: {written[-1]}")

    tell(folder, as_json, essence)
    if all(reach.failure for reach in Exposed(loaded).reaches):
        raise LabError("no instance came up on any backend", hint=f"see the logs in {folder.path}/logs")
