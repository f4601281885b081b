"""``lab sweep``: one plan measured on many hosts."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from lab.commands.output import JsonTo, write_json
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.commands.sweeping.ledger import Sweep
    from lab.commands.sweeping.plan import Host, Plan
    from lab.commands.sweeping.worker import Keys


class _Planned(TyperGroup):
    """What is no verb is a plan: ``lab sweep PLAN`` is ``lab sweep run PLAN``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_Planned, no_args_is_help=True, add_completion=False, rich_markup_mode=None)

SWEEP = typer.Argument(metavar="SWEEP", help="A sweep's folder, its name below results/sweeps, or latest.")
SCHEDULER = typer.Option("--scheduler", metavar="ADDRESS", help="A scheduler of dask.distributed's: tls://HOST:PORT.")
TLS_CA = typer.Option("--tls-ca", metavar="FILE", help="With --scheduler: who signed its certificate (PEM).")
TLS_CERT = typer.Option("--tls-cert", metavar="FILE", help="With --scheduler: the certificate to show.")
TLS_KEY = typer.Option("--tls-key", metavar="FILE", help="With --scheduler: the certificate's key.")


@app.callback()
def sweep() -> None:
    """Measure a plan's scenarios on many hosts, and gather the runs."""


@app.command("run")
def run(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A TOML file: what to measure, how often.")] = "",
    hosts: Annotated[
        str, typer.Option("--hosts", metavar="FILE", help="A TOML file: the hosts, and how ssh reaches them.")
    ] = "",
    local: Annotated[bool, typer.Option("--local", help="This host alone, in the same way.")] = False,
    scheduler: Annotated[str, SCHEDULER] = "",
    tls_ca: Annotated[str, TLS_CA] = "",
    tls_cert: Annotated[str, TLS_CERT] = "",
    tls_key: Annotated[str, TLS_KEY] = "",
    resume: Annotated[
        str, typer.Option("--resume", metavar="SWEEP", help="Go on with one, whatever has ended it.")
    ] = "",
) -> None:
    """Measure a plan's scenarios on many hosts, and gather the runs.

    Each host measures one task at a time, when it is quiet; its runs come back as they end. Exit code 1 when a task
    was refused, failed or is left. docs/sweeping.md shows a plan, and how hosts are set up.
    """
    if bool(plan) == bool(resume):
        raise UsageError("lab sweep wants a plan or --resume SWEEP", hint="lab sweep PLAN.toml --local")
    if sum(map(bool, (hosts, local, scheduler))) != (0 if resume and not (hosts or scheduler) else 1):
        raise UsageError("one of --hosts, --local and --scheduler says where", hint="lab sweep PLAN.toml --local")
    keys = _keys(scheduler, tls_ca, tls_cert, tls_key)
    from lab.commands.sweeping import ledger
    from lab.commands.sweeping.driver import begin

    if resume:
        found = ledger.Sweep.open(ledger.find(resume))
        if hosts:
            found.hosts = _again(found, hosts)
        _require_ways(found, scheduler)
    else:
        from lab.commands.sweeping.plan import read_plan

        wanted = read_plan(Path(plan))
        if local:
            _require_rights(wanted)
        found = _begun(wanted, _hosts(hosts, scheduler, keys))
    print(found.path, flush=True)
    begin(found, scheduler, keys)
    if left := ledger.unfinished(found):
        raise left
    print(f"lab sweep: all {len(found.tasks)} tasks are done; across hosts: lab hosts {found.path}", file=sys.stderr)
    if len(found.hosts) > 1:
        _across(found)


@app.command("status")
def status(folder: Annotated[str, SWEEP] = "latest", as_json: JsonTo = "") -> None:
    """Show what became of each task: pending, waiting, measuring, done, failed or refused, and why."""
    from lab.commands.sweeping import ledger

    found = ledger.Sweep.open(ledger.find(folder))
    standings = found.standings()
    if as_json:
        told = [
            {"task": each.id, "host": each.host, "scenario": each.scenario, "number": each.number,
             "state": standings[each.id].state, "why": standings[each.id].why, "at": standings[each.id].at}
            for each in found.tasks
        ]  # fmt: skip
        write_json({"folder": str(found.path), "at_work": found.is_held(), "tasks": told}, as_json)
        return
    rows = [("TASK", "HOST", "SCENARIO", "STATE", "SINCE (UTC)", "WHY")]
    for each in found.tasks:
        now = standings[each.id]
        rows.append((each.id, each.host, each.scenario, now.state, now.at[:19].replace("T", " "), now.why))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    counts = Counter(each.state for each in standings.values())
    summary = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    print(f"\n{summary}; {'a lab sweep is at it' if found.is_held() else 'nobody is at it'}")


@app.command("worker")
def worker(
    name: Annotated[str, typer.Option("--name", metavar="HOST", help="With --scheduler: this host's name.")] = "",
    scheduler: Annotated[str, SCHEDULER] = "",
    tls_ca: Annotated[str, TLS_CA] = "",
    tls_cert: Annotated[str, TLS_CERT] = "",
    tls_key: Annotated[str, TLS_KEY] = "",
    command: Annotated[
        str,
        typer.Option("--command", metavar="WORDS", help="With --scheduler: what measures. Default: lab's own."),
    ] = "",
) -> None:
    """Be a host's worker: lab sweep starts it, or with --scheduler a service does.

    It asks one command of this host, which measures; it is an ordinary user's.
    """
    import shlex
    from dataclasses import replace

    from lab.commands.polite import LAB
    from lab.commands.sweeping.wire import NAME
    from lab.commands.sweeping.worker import Orders, parse, work

    keys = _keys(scheduler, tls_ca, tls_cert, tls_key)
    if keys is None:
        work(parse(sys.stdin.buffer.readline()), leased=True)
        return
    if not NAME.fullmatch(name):
        raise UsageError("--name says what to call this host", hint="lower case letters, digits and hyphens")
    orders = Orders(name=name, scheduler=scheduler, keys=keys, command=(*LAB, "sweep", "host"))
    work(replace(orders, command=tuple(shlex.split(command))) if command else orders, leased=False)


@app.command("host")
def host(
    scenarios: Annotated[
        list[Path] | None, typer.Option("--scenarios", metavar="DIR", help="Applications of this host's own; repeat.")
    ] = None,
) -> None:
    """Answer one request of a worker's: the one command that has the rights to measure.

    It takes names of scenarios and some options of lab compare; no paths, no programs, no build arguments.
    """
    from lab.commands.sweeping.host import serve

    serve(scenarios or [])


def _across(sweep: Sweep) -> None:
    """The report across hosts, as ``lab hosts`` writes it. What it can't say is a remark: the runs are there."""
    from lab.commands.output import say
    from lab.errors import LabError
    from lab.reports.hosts import show, write

    try:
        written = write(
            [sweep.path / "runs"], sweep.path / "hosts", names=sweep.names(),
            command=("lab", "hosts", str(sweep.path)), skipped=lambda error: say(f"lab: {error.message}"),
        )  # fmt: skip
        show(written)
    except LabError as error:
        say(f"lab hosts {sweep.path}: {error}")


def _require_rights(plan: Plan) -> None:
    """Raise LabError where this user can't measure the plan's backends here."""
    from lab.backends.registry import find
    from lab.commands.privilege import require_root
    from lab.host.units import parse_words

    names = [name for word in plan.options if word.startswith("--on=") for name in parse_words(word[5:])]
    if not names or not all(find(name).rootless for name in names):
        require_root()


def _begun(plan: Plan, hosts: tuple[Host, ...]) -> Sweep:
    from lab.commands.sweeping.host import lab_digest, scenario_folder
    from lab.commands.sweeping.ledger import Sweep
    from lab.commands.watching.causes import tree_digest

    files = {name: tree_digest(scenario_folder(name, [Path(plan.folder)])) for name in plan.scenarios}
    return Sweep.create(plan, hosts, lab_digest(), files)


def _hosts(file: str, scheduler: str, keys: Keys | None) -> tuple[Host, ...]:
    from lab.commands.sweeping.plan import LOCAL, Host, read_hosts

    if file:
        return read_hosts(Path(file))
    if scheduler and keys is not None:
        from lab.commands.sweeping.joined import hosts_of

        return hosts_of(scheduler, keys)
    return (Host(name=LOCAL),)


def _require_ways(sweep: Sweep, scheduler: str) -> None:
    """Raise UsageError where the hosts were somebody's workers, and nothing says now how they are reached."""
    from lab.commands.sweeping.plan import LOCAL

    if not scheduler and (lost := [each.name for each in sweep.hosts if not each.ssh and each.name != LOCAL]):
        raise UsageError(
            f"{', '.join(lost)} had joined a scheduler", hint="--scheduler tls://HOST:PORT with --tls-ca, …"
        )


def _again(sweep: Sweep, file: str) -> tuple[Host, ...]:
    """The same hosts, which may be reached otherwise by now. Raises UsageError where one is missing."""
    from lab.commands.sweeping.plan import read_hosts

    now = {each.name: each for each in read_hosts(Path(file))}
    if missing := [each.name for each in sweep.hosts if each.name not in now]:
        raise UsageError(f"{file} lacks {', '.join(missing)}, which the sweep has", hint="a sweep keeps its hosts")
    return tuple(now[each.name] for each in sweep.hosts)


def _keys(scheduler: str, authority: str, certificate: str, key: str) -> Keys | None:
    """The keys for a scheduler of somebody else's; None without one. Raises UsageError for one without TLS."""
    files = {"--tls-ca": authority, "--tls-cert": certificate, "--tls-key": key}
    if not scheduler:
        if given := [name for name, file in files.items() if file]:
            raise UsageError(f"{given[0]} is for --scheduler", hint="lab sweep makes keys of its own")
        return None
    if not scheduler.startswith("tls://"):
        raise UsageError(
            f"{scheduler}: without TLS everybody who reaches a scheduler executes code on its workers",
            hint="--scheduler tls://HOST:PORT with --tls-ca, --tls-cert, --tls-key",
        )
    if missing := [name for name, file in files.items() if not file]:
        raise UsageError(f"--scheduler wants {missing[0]} FILE", hint="both sides show a certificate")
    from lab.commands.sweeping.worker import Keys

    try:
        texts = [Path(file).read_text(encoding="ascii") for file in files.values()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"a certificate can't be read: {error}", hint="PEM files") from error
    return Keys(authority=texts[0], certificate=texts[1], key=texts[2])
