"""``lab noisy``: what one instance can do to another beside it, with limits and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.measuring import (
    RESULTS,
    On,
    Out,
    Seed,
    Target,
    choose_backends,
    drawn,
    limit,
    measuring,
    one_each,
    set_up,
)
from lab.commands.options.application import Port, Ready, asked
from lab.commands.options.limits import require_groups
from lab.commands.output import JsonTo
from lab.commands.privilege import become_root
from lab.errors import UsageError
from lab.host.units import parse_words
from lab.studies.noisy import STUDY

if TYPE_CHECKING:
    from lab.studies.noisy.measure import Confined, Neighbour

FIRST = "cpu,memory,forks,disk,cache"
MOST_SECONDS = 60


def noisy(
    target: Target,
    on: On = "",
    kinds: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="A,B,…",
            help="Of cpu, memory, forks, disk, cache, inodes, full, files, watches, send, receive; or all.",
        ),
    ] = FIRST,
    blocks: Annotated[int, typer.Option("--blocks", min=1, max=1000, metavar="N", help="How often each.")] = 3,
    seconds: Annotated[
        int, typer.Option("--seconds", min=1, max=MOST_SECONDS, metavar="N", help="Load on the victim, each time.")
    ] = 3,
    limits: Annotated[
        str, typer.Option("--limits", metavar="both|with|without", help="In which conditions.")
    ] = "both",
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="The memory limit, where limits are.")] = "",
    cpus: Annotated[str, typer.Option("--cpus", metavar="N", help="The CPU limit, where limits are.")] = "",
    seed: Seed = None,
    port: Port = None,
    ready: Ready = "",
    out: Out = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Disturb an instance by a bad neighbour.

    One runs beside it on the same backend, without limits and with the scenario's, while the instance is under load.
    Measures how much slower the victim answers, whether it survives, and which limit its neighbour ran into.
    The whole of it is bounded, so that the host stays usable; how well it does is measured, too.
    """
    become_root(*parse_words(on))
    require_groups("a bad neighbour is kept from harming this host by limits around it")
    wanted, confined = _kinds(kinds), _confined(limits)
    from lab.backends.site import Site

    with Site.open() as site:
        import sys
        from dataclasses import asdict

        from lab.experiment.plan import Plan
        from lab.experiment.provenance import describe
        from lab.experiment.scenarios.scenario import load
        from lab.studies.noisy.measure import Bound, Noisy, Wishes, fill

        chosen, seed = choose_backends(on), drawn(seed)
        scenario = asked(load(target), port, ready)
        setup = set_up(site, scenario, limit(scenario.limits, memory, cpus), [], 0.0, backends=chosen, loaded=True)
        if setup.scenario.load is None:
            raise UsageError(f"{scenario.name} has no load for a victim", hint="a [load] table in its scenario.toml")
        plan = Plan(arms=one_each(chosen), seed=seed, blocks=blocks, budget_seconds=0.0)
        Bound.of_this_host(fill(setup.limits))  # refused before a folder is made
        wishes = Wishes(kinds=wanted, seconds=seconds, blocks=blocks, seed=seed, confined=confined)
        told = {"kind": STUDY.kind, "seconds": seconds}
        engines = [name for name in chosen if (stack := site.backend(name).stack) and stack.is_engine]
        with measuring(out, describe(site, setup, plan, ("lab", *sys.argv[1:]), **told)) as (folder, watch):
            measured = Noisy(site, setup, wishes, folder, watch, engines)
            folder.update(
                settings={
                    **folder.run.settings,
                    "bound": asdict(measured.bound.limits),
                    "limits": asdict(measured.limits),
                    "engines": engines,
                }
            )
            measured.run(chosen)
    from lab.studies.noisy.report import REPORT

    REPORT.conclude(folder, as_json)


def _kinds(text: str) -> tuple[Neighbour, ...]:
    from lab.studies.noisy.measure import Neighbour

    words = parse_words(text)
    if words == ["all"]:
        return tuple(Neighbour)
    unknown = [word for word in words if word not in tuple(Neighbour)]
    if unknown or not words:
        raise UsageError(f"--kind {text}: no kind of neighbour", hint=f"all, or some of {','.join(Neighbour)}")
    return tuple(Neighbour(word) for word in dict.fromkeys(words))


def _confined(word: str) -> tuple[Confined, ...]:
    from lab.studies.noisy.measure import Confined

    known = {"both": tuple(Confined), "with": (Confined.BY_LIMITS,), "without": (Confined.NOT,)}
    if word not in known:
        raise UsageError(f"--limits {word}: no such condition", hint=f"one of {', '.join(known)}")
    return known[word]
