"""``lab starts``: what the usual start takes, what the slowest of a hundred takes, and what many at once take."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lab.commands.measuring import (
    MOST_AT_ONCE,
    RESULTS,
    KeepFree,
    On,
    Out,
    Seed,
    Target,
    choose_backends,
    copies_at_once,
    drawn,
    floor_bytes,
    measuring,
    one_each,
    set_up,
)
from lab.commands.options.application import Port, Ready, asked
from lab.commands.options.brought import Brought, Docker, hosted
from lab.commands.output import JsonTo
from lab.commands.privilege import become_root
from lab.host.units import parse_words
from lab.studies.starts import STUDY

FULL = "full"
DOUBLING = tuple(2**power for power in range(1, MOST_AT_ONCE.bit_length()))


def starts(
    target: Target,
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, max=100_000, metavar="N", help="Starts on each backend.")
    ] = 100,
    on: On = "",
    docker: Docker = "",
    at_once: Annotated[
        str,
        typer.Option(
            "--at-once",
            metavar="K,…",
            help="Also start K copies at once, for each K; full doubles K until the host's memory would not do.",
        ),
    ] = "2,4,8",
    every: Annotated[
        str,
        typer.Option(
            "--every", metavar="TIME", help="Also start one copy each TIME, whether those before are ready or not."
        ),
    ] = "",
    fork: Annotated[
        str, typer.Option("--fork", metavar="K,…", help="Also restore K copies at once from a saved one, for each K.")
    ] = "",
    settle: Annotated[
        str,
        typer.Option("--settle", metavar="TIME", help="How long those stand before their memory is looked at again."),
    ] = "1m",
    stock: Annotated[
        int,
        typer.Option(
            "--stock",
            min=0,
            max=1000,
            metavar="K",
            help="Also hand N copies out of K that stand ready: one each --every, or when all of K do.",
        ),
    ] = 0,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time for each backend's starts one by one.")
    ] = "5m",
    keep_free: KeepFree = "",
    seed: Seed = None,
    port: Port = None,
    ready: Ready = "",
    out: Out = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Start many copies, and show the slow ones.

    Starts a copy on each backend in turn, N times, in an order that changes. Measures each start until the copy is
    ready, a command run inside, an answer of the copy that runs already, and the stop.
    Then several copies at once, and if wished several restored at once from one, and some out of a stock.
    Shows the median, and what the slowest of 20 and of 100 take.
    """
    from lab.host.units import parse_seconds

    if docker:
        on = Brought.admitted(hosted(on, docker)).on
    become_root(*parse_words(on))
    crowds = DOUBLING if at_once == FULL else tuple(sorted(set(copies_at_once("--at-once", at_once, 2))))
    forks = tuple(sorted(set(copies_at_once("--fork", fork, 1))))
    seconds = parse_seconds(budget)
    gap = parse_seconds(every) if every else 0.0
    settled = parse_seconds(settle) if forks else 0.0
    floor = floor_bytes(keep_free)
    from lab.backends.site import Site

    with Site.open() as site:
        from lab.experiment.plan import Plan
        from lab.experiment.provenance import describe
        from lab.experiment.scenarios.scenario import load
        from lab.studies.starts.measure import Asked, Starts

        chosen = choose_backends(on)
        scenario = asked(load(target), port, ready)
        setup = set_up(site, scenario, scenario.limits, [], 0.0, backends=chosen)
        wanted = Asked(
            starts=number,
            crowds=crowds,
            forks=forks,
            settle_seconds=settled,
            stock=stock,
            gap_seconds=gap,
            seconds=seconds,
            floor_bytes=floor,
        )
        plan = Plan(arms=one_each(chosen), seed=drawn(seed), blocks=None, budget_seconds=seconds)
        told = {
            "kind": STUDY.kind,
            "starts": number,
            "floor_bytes": wanted.floor_bytes,
            "every_seconds": gap,
            "settle_seconds": settled,
            "stock": stock,
        }
        with measuring(out, describe(site, setup, plan, ("lab", *sys.argv[1:]), **told)) as (folder, watch):
            Starts(site, setup, wanted, folder, watch).run(chosen, plan.seed)
    from lab.studies.starts.report import REPORT

    REPORT.conclude(folder, as_json)
