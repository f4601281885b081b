"""``lab starts``: what the usual start takes, what the slowest of a hundred takes, and what many at once take."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lab.commands.application import Port, Ready, asked
from lab.commands.measuring import RESULTS, On, Out, Seed, Target, choose_backends, drawn, measuring, one_each, set_up
from lab.commands.output import JsonTo
from lab.commands.privilege import require_root
from lab.errors import UsageError
from lab.host.units import parse_words
from lab.studies.starts import STUDY

LEAST_FLOOR = 1 << 30
MOST_AT_ONCE = 1000


def starts(
    target: Target,
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, max=100_000, metavar="N", help="Starts on each backend.")
    ] = 100,
    on: On = "",
    at_once: Annotated[
        str, typer.Option("--at-once", metavar="K,…", help="Also start K copies at once, for each K. Default: 2,4,8.")
    ] = "2,4,8",
    every: Annotated[
        str,
        typer.Option(
            "--every", metavar="TIME", help="Also start one copy each TIME, whether those before are ready or not."
        ),
    ] = "",
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time for each backend's starts one by one.")
    ] = "5m",
    keep_free: Annotated[
        str, typer.Option("--keep-free", metavar="SIZE", help="Memory that stays free. Default: 1/8, 1G at least.")
    ] = "",
    seed: Seed = None,
    port: Port = None,
    ready: Ready = "",
    out: Out = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Start many copies, and show the slow ones.

    Starts a copy on each backend in turn, N times, in an order that changes. Measures each start until the copy is
    ready, a command run inside, an answer of the copy that runs already, and the stop.
    Then several copies at once. Shows the median, and what the slowest of 20 and of 100 take.
    """
    from lab.host.units import parse_bytes, parse_seconds

    require_root()
    crowds = _crowds(at_once)
    seconds = parse_seconds(budget)
    gap = parse_seconds(every) if every else 0.0
    floor = parse_bytes(keep_free) if keep_free else 0
    from lab.backends.site import Site

    with Site.open() as site:
        from lab.experiment.plan import Plan
        from lab.experiment.provenance import describe
        from lab.experiment.scenario import load
        from lab.host.survey import facts
        from lab.studies.starts.measure import Asked, Starts

        chosen = choose_backends(on)
        scenario = asked(load(target), port, ready)
        setup = set_up(site, scenario, scenario.limits, [], 0.0, backends=chosen)
        wanted = Asked(
            starts=number,
            crowds=crowds,
            gap_seconds=gap,
            seconds=seconds,
            floor_bytes=floor or max(LEAST_FLOOR, int(facts.memory()["total_bytes"]) // 8),
        )
        plan = Plan(arms=one_each(chosen), seed=drawn(seed), blocks=None, budget_seconds=seconds)
        told = {"kind": STUDY.kind, "starts": number, "floor_bytes": wanted.floor_bytes, "every_seconds": gap}
        with measuring(out, describe(site, setup, plan, ("lab", *sys.argv[1:]), **told)) as (folder, watch):
            Starts(site, setup, wanted, folder, watch).run(chosen, plan.seed)
    from lab.studies.starts.report import REPORT

    REPORT.conclude(folder, as_json)


def _crowds(text: str) -> tuple[int, ...]:
    words = parse_words(text)
    if not all(word.isascii() and word.isdigit() and 1 < int(word) <= MOST_AT_ONCE for word in words):
        raise UsageError(
            f"--at-once {text}: not numbers of copies from 2 to {MOST_AT_ONCE}",
            hint="write for example --at-once 2,4,8",
        )
    return tuple(sorted({int(word) for word in words}))
