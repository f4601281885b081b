"""``lab compare``: one application behind every boundary, measured, and a report."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from lab.commands.completion import complete_backends, complete_factor, complete_scenario
from lab.commands.measuring import RESULTS, USUAL, Out, choose_backends, limit, set_up
from lab.commands.options.application import BuildArgument, Port, Ready, Secret, asked
from lab.commands.options.brought import Brought, Docker, hosted, require_same_programs
from lab.commands.options.conditions import CONDITION_HOLDS, FailIf, check, read, require
from lab.commands.options.disks import Backing, DiskFormat
from lab.commands.options.placing import AUTO, Placing, again, reserved
from lab.commands.output import JsonTo
from lab.commands.privilege import become_root
from lab.errors import LabError, LaunchError, ResultsError, UsageError
from lab.experiment.hostfactors.registry import host_levels
from lab.host.units import parse_words
from lab.studies.compare.factors import plan_arms, remark, require_budget, require_single, show, with_factors
from lab.studies.compare.factors import read as read_factors

if TYPE_CHECKING:
    from lab.analysis.questions.conditions import Condition
    from lab.backends.site import Site
    from lab.experiment.plan import Plan
    from lab.experiment.setup import Setup
    from lab.model import Limits, Scenario
    from lab.results.store import RunFolder

ARGUMENT = "arg."  # how a factor that varies a build argument is called
DEFAULT_BUDGET = "5m"
DEFAULT_IDLE = "10s"


def compare(
    target: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO|DIR",
            help="A scenario's name, or any folder with a Dockerfile.",
            autocompletion=complete_scenario,
        ),
    ] = "",
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="A,B,…",
            help="Backends to compare, oci:PATH for an OCI runtime and vm:DISK for a bootable disk of yours. "
            f"Default: those usable here of {USUAL}.",
            autocompletion=complete_backends,
        ),
    ] = "",
    docker: Docker = "",
    blocks: Annotated[
        int | None, typer.Option("--blocks", min=1, help="Blocks to run. Default: as many as the budget allows.")
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time to spend, at least three blocks: 5m, 90s, 1h.")
    ] = DEFAULT_BUDGET,
    sessions: Annotated[
        int,
        typer.Option(
            "--sessions",
            min=1,
            help="Sessions, each with a process, caches, warm-ups and orders of its own. --blocks are of each; "
            "the budget is shared.",
        ),
    ] = 1,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="SHARE",
            help="Stop before the budget ends when no interval of a median boot is wider than this share of it: 5%.",
        ),
    ] = "",
    detect: Annotated[
        str,
        typer.Option(
            "--detect",
            metavar="SHARE",
            help="Plan, from a pilot of six blocks, as many as find a difference of that share: 10%.",
        ),
    ] = "",
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the random orders. Default: a new one, stored in the run.")
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="A,B,…",
            help="boot, memory, cpu, load, work, isolation, openloop, crossings, debt. Default: without the last 3.",
        ),
    ] = "",
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="Memory limit of every instance, like 256M.")
    ] = "",
    cpus: Annotated[str, typer.Option("--cpus", metavar="N", help="CPU limit of every instance, like 0.5.")] = "",
    pids: Annotated[
        int | None, typer.Option("--pids", min=1, metavar="N", help="Limit of processes of every instance.")
    ] = None,
    port: Port = None,
    ready: Ready = "",
    build_arg: BuildArgument = None,
    secret: Secret = None,
    disk_format: DiskFormat = "",
    backing: Backing = None,
    caches: Annotated[
        str,
        typer.Option(
            "--caches",
            metavar="warm|cold",
            help="Whether the host has in memory what an instance reads; verified before each. Default: warm.",
        ),
    ] = "",
    factor: Annotated[
        list[str] | None,
        typer.Option(
            "--factor",
            metavar="NAME=A,B,…",
            help="Vary this too: every level meets every level of the others; repeat for more. See --factors.",
            autocompletion=complete_factor,
        ),
    ] = None,
    factors: Annotated[
        bool, typer.Option("--factors", help="List what --factor can vary of these backends, and leave.")
    ] = False,
    placement: Placing = AUTO,
    idle: Annotated[
        str, typer.Option("--idle", metavar="TIME", help="How long every instance is watched while idle.")
    ] = DEFAULT_IDLE,
    exclude_noisy: Annotated[
        float | None,
        typer.Option(
            "--exclude-noisy",
            metavar="FACTOR",
            help="Leave blocks out in which a fixed native computation takes FACTOR times its median, like 1.25.",
        ),
    ] = None,
    out: Out = RESULTS,
    as_json: JsonTo = "",
    fail_if: FailIf = None,
    resume: Annotated[
        str,
        typer.Option(
            "--resume", metavar="RUN", help="Go on with a run that a crash or Ctrl-C ended. Its budget starts anew."
        ),
    ] = "",
    shown: Annotated[
        bool,
        typer.Option(
            "--open",
            help="Show the report in a browser after the first block; it grows. Browser and figures share this host.",
        ),
    ] = False,
) -> None:
    """Measure one application behind every boundary."""
    brought = Brought.admitted(hosted(on, docker), disk_format, backing or [])
    if factors:
        show(brought.on)
        raise typer.Exit
    if target and brought.alone:
        raise UsageError(
            f"{target} runs on none of these: they are disks", hint=f"leave {target} out, or: --on vm,{on}"
        )
    if bool(target or brought.alone) == bool(resume):
        raise UsageError("lab compare wants a scenario or --resume RUN", hint="lab compare web-app")
    become_root(*parse_words(brought.on))
    from lab.backends.site import Site
    from lab.experiment.scenarios.scenario import load
    from lab.results.record import Ending

    conditions = read(fail_if or [])
    with Site.open() as site:  # starts the launcher while this process is still small
        if resume:
            folder = _resume(site, resume, out, conditions, shown, as_json)
        else:
            application = brought.application() if brought.alone else load(target)
            scenario = brought.patient(asked(application, port, ready, build_arg or [], secret or []))
            chosen = choose_backends(brought.on), _metrics(metrics)
            until = _until(blocks, budget, sessions, exclude_noisy) | _aim(
                {"precision": precision, "detect": detect}, blocks, sessions, chosen[1]
            )
            varied = read_factors(factor or [], chosen[0])
            given = {f"{ARGUMENT}{name}": value for name, value in scenario.build_arguments.items()}
            require_single(
                varied, {"memory": memory, "cpus": cpus, "pids": str(pids or ""), "caches": caches, **given}
            )
            remark(varied, chosen[0])
            host = host_levels({"caches": caches}, {each.name for each in varied})
            until |= {"factors": varied}
            limits = limit(scenario.limits, memory, cpus, pids)
            folder = _start(
                site, scenario, limits, *chosen, until, seed, host, idle, out, conditions, shown, as_json, brought,
                placement,
            )  # fmt: skip
    if folder.run.ended_because not in list(Ending):
        _next_session(folder, fail_if or [], as_json)
    from lab.studies.compare.report import REPORT

    REPORT.conclude(folder, as_json)
    if check(conditions, folder.path):
        raise typer.Exit(CONDITION_HOLDS)


def _start(
    site: Site,
    scenario: Scenario,
    limits: Limits,
    backends: list[str],
    metrics: list[str],
    until: dict[str, Any],
    seed: int | None,
    host: dict[str, str],
    idle: str,
    out: Path,
    conditions: list[Condition],
    shown: bool,
    as_json: str,
    brought: Brought,
    placement: str,
) -> RunFolder:
    import secrets

    from lab.experiment.plan import Plan
    from lab.experiment.provenance import describe
    from lab.host.units import parse_seconds
    from lab.results.store import RunFolder
    from lab.studies.compare.measure.disks import require_from_outside, treated

    plan = Plan(
        arms=plan_arms(backends, until["factors"], limits),
        seed=secrets.randbelow(2**31) if seed is None else seed,
        **until,
    )
    require(conditions, plan.arms, metrics, scenario)
    require_from_outside(scenario, brought.disks, settled=brought.alone)
    brought.identify()
    brought.tell_space(site.scratch)
    placed = reserved(site, placement, limits, plan.factors)
    loaded = bool({"cpu", "memory", "load", "openloop"} & set(metrics))
    setup = set_up(site, scenario, limits, metrics, parse_seconds(idle), backends=backends, loaded=loaded)
    setup = replace(setup, host=host, placement=placed)
    require_budget(setup, plan, plan.budget_seconds)
    require_from_outside(setup.scenario, brought.disks)
    _require_answers(setup)
    setup = treated(site, with_factors(site, setup, plan), plan)
    folder = RunFolder.create(out, describe(site, setup, plan, ("lab", *sys.argv[1:]), **brought.recorded))
    return _run(site, setup, plan, folder, shown, as_json)


def _resume(site: Site, word: str, out: Path, conditions: list[Condition], shown: bool, as_json: str) -> RunFolder:
    """Go on with the same plan, or refuse when the application or the host is another one."""
    from lab.experiment.factors import recorded
    from lab.experiment.plan import Plan
    from lab.experiment.provenance import recalled
    from lab.experiment.scenarios.scenario import load
    from lab.host.survey import facts
    from lab.model import Limits
    from lab.results.record import SCHEMA, Ending, processors
    from lab.results.store import RunFolder, locate
    from lab.studies.compare.measure.disks import treated

    folder = RunFolder.open(locate(word, out))
    run = folder.run
    if run.ended_because in list(Ending):
        raise ResultsError(f"{run.name} is complete ({run.ended_because})", hint=f"lab report {folder.path}")
    here = facts.provenance()
    machines = processors(here), processors(run.host)
    if here.get("identity") != run.host.get("identity") or (all(machines) and machines[0] != machines[1]):
        raise ResultsError(f"{run.name} was measured on another host", hint="start a new run here")
    if bool(run.host.get("rootless")) != bool(here.get("rootless")):
        raise ResultsError(f"{run.name} was root's, and this is not, or the other way round", hint="start a new run")
    if run.schema != SCHEMA:
        raise ResultsError(
            f"{run.name} was begun by an earlier lab, which treated the A/A twin otherwise", hint="start a new run"
        )
    brought = Brought.again(run.settings)
    require_same_programs(run.arms)
    brought.identify()
    brought.tell_space(site.scratch)
    where = str(run.settings.get("directory") or run.scenario)
    scenario = recalled(brought.application() if brought.alone else load(where), run.settings)
    idle_seconds = float(run.settings["idle_seconds"])
    placed = again(site, run.settings)
    own = [kind.name for kind in brought.disks] if brought.alone else []
    setup = set_up(site, scenario, Limits(**run.limits), list(run.metrics), idle_seconds, backends=own)
    linger = float(run.settings.get("linger_seconds", setup.linger_seconds))
    setup = replace(setup, host=run.settings.get("host", {}), linger_seconds=linger, placement=placed)
    backends = list(dict.fromkeys(arm.backend for arm in run.arms))
    sessions = int(run.settings.get("sessions", 1))
    factors = recorded(run.settings)
    plan = Plan(
        arms=plan_arms(backends, factors, Limits(**run.limits)),
        seed=run.seed,
        sessions=sessions,
        blocks=None if run.blocks_planned is None else run.blocks_planned // sessions,
        budget_seconds=(run.budget_seconds or 0.0) / sessions,
        precision=run.settings.get("precision"),
        detect=run.settings.get("detect"),
        exclude_noisy=run.settings.get("exclude_noisy"),
        factors=factors,
    )
    if {arm.label for arm in plan.arms} != {arm.label for arm in run.arms}:
        raise ResultsError(f"{run.name} was planned by an earlier lab, of other arms", hint="start a new run")
    require(conditions, plan.arms, list(run.metrics), scenario)
    setup = treated(site, with_factors(site, setup, plan), plan)
    known = {*run.images} or {run.image["digest"]}
    if {image.digest for image in setup.images} != known:
        images = [kind.own_image for kind in brought.disks]
        changed = [image.name for image in images if image is not None and image.digest not in known]
        what = " and ".join(changed) or f"what {run.scenario} builds"
        raise ResultsError(f"{what} has changed since {run.name} measured it", hint="start a new run")
    folder.abandon_incomplete()
    return _run(site, setup, plan, folder, shown, as_json)


def _run(site: Site, setup: Setup, plan: Plan, folder: RunFolder, shown: bool, as_json: str) -> RunFolder:
    from lab.commands.progress import watching
    from lab.commands.telling import heard_after_blocks
    from lab.experiment.placing import placed
    from lab.studies.compare.live import Growing, open_page
    from lab.studies.compare.measure.experiment import Experiment

    try:
        with (
            folder,
            watching(folder.run) as watch,
            Growing(folder.path, watch, open_page if shown else None) as growing,
            placed(site, setup.placement),
        ):
            after = heard_after_blocks(growing, folder.path)
            Experiment(site, setup, plan, folder, watch, _width_of(folder), _needed_of(folder), after).run()
    except LabError as error:
        if isinstance(error, LaunchError):
            error.exit_code = 1  # the application's own is told; that of this command says that it failed
        if next(folder.samples(), None) is not None:  # what failed is a result, and the report says how
            from lab.studies.compare.report import REPORT

            REPORT.conclude(folder, as_json)
        raise
    except KeyboardInterrupt:
        print(f"\nlab: interrupted; go on with: lab compare --resume {folder.path}", file=sys.stderr)
        raise
    return folder


def _next_session(folder: RunFolder, fail_if: list[str], as_json: str) -> NoReturn:
    """Become a new process that goes on with the run: nothing that this one has warmed or grown is left in it."""
    words = ["compare", "--resume", str(folder.path), *(word for each in fail_if for word in ("--fail-if", each))]
    words += [f"--json={as_json}"] if as_json else []
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "lab.cli.main", *words])


def _until(blocks: int | None, budget: str, sessions: int, exclude_noisy: float | None) -> dict[str, Any]:
    """What of a Plan says how long it takes and what to leave out."""
    from lab.host.units import parse_seconds

    if exclude_noisy is not None and not 1 < exclude_noisy < math.inf:
        raise UsageError(f"--exclude-noisy {exclude_noisy:g} is not a factor above 1", hint="write for example 1.25")
    return {
        "sessions": sessions,
        "blocks": blocks,
        "exclude_noisy": exclude_noisy,
        "budget_seconds": parse_seconds(budget) / sessions,
    }


def _aim(aims: dict[str, str], blocks: int | None, sessions: int, metrics: list[str]) -> dict[str, Any]:
    """What of a Plan ends it before the budget does: ``precision`` or ``detect``, as they were typed."""
    from lab.host.units import parse_share

    asked = [f"--{name}" for name, share in aims.items() if share]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} each decide how many blocks there are", hint="leave one away")
    alone = "leave one away"
    for option in asked:
        if blocks is not None:
            raise UsageError(f"{option} decides how many blocks there are, and so does --blocks", hint=alone)
        if "boot" not in metrics:
            raise UsageError(f"{option} watches boots", hint="add boot to --metrics")
        if sessions > 1:
            raise UsageError(f"{option} can't end a run of several --sessions", hint=alone)
    return {name: parse_share(share) if share else None for name, share in aims.items()}


def _width_of(folder: RunFolder) -> Callable[[int], float]:
    """How wide the widest interval of a median boot is, as a share of it, after so many blocks."""

    def width(done: int) -> float:
        from lab.analysis.loaded import load
        from lab.analysis.precision import widths

        return max(widths(load(folder.path).frame, done).values(), default=math.inf)

    return width


def _needed_of(folder: RunFolder) -> Callable[[], float]:
    """How many blocks find what the run is to detect, from what it has measured until now."""

    def needed() -> float:
        from lab.analysis.loaded import load
        from lab.analysis.precision import blocks_needed

        return blocks_needed(load(folder.path).ratios(), float(folder.run.settings["detect"]))

    return needed


def _require_answers(setup: Setup) -> None:
    """Refuse a metric that asks for answers of an application that is not known to give any. Raises UsageError."""
    from lab.model import HttpReadiness, TalkReadiness

    wanting = [metric.name for metric in setup.metrics if metric.wants_answers]
    if wanting and not isinstance(setup.scenario.readiness, HttpReadiness | TalkReadiness):
        raise UsageError(
            f"{' and '.join(wanting)} asks for answers, and {setup.scenario.name} is waited for otherwise",
            hint=f"--ready http:/path, or leave {' and '.join(wanting)} out of --metrics",
        )


def _metrics(words: str) -> list[str]:
    from lab.metrics.registry import metrics as all_metrics
    from lab.metrics.registry import usual_metrics

    usual = [*(metric.name for metric in usual_metrics() if metric.name != "job"), "isolation"]  # job is of its own
    known = [*usual, *(metric.name for metric in all_metrics() if metric.on_request)]
    asked = parse_words(words)
    for name in asked:
        if name not in known:
            raise UsageError(f"no metric is called {name}", hint=f"metrics: {', '.join(known)}")
    return asked or usual
