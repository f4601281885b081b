"""A plan carried out: look, wait for a quiet moment and for others who measure, run lab compare, say what changed.

Each measurement is a process of its own, as if it had been typed, so that the hundredth begins like the first.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lab.analysis.loaded import load
from lab.analysis.questions.difference import difference
from lab.commands.options.conditions import CONDITION_HOLDS
from lab.commands.output import say
from lab.commands.polite import apart, becomes_quiet, one_at_a_time
from lab.commands.watching.causes import causes, reasons
from lab.commands.watching.plan import Plan
from lab.commands.watching.state import State
from lab.errors import CommandError, LabError, ResultsError
from lab.host.units import format_seconds
from lab.reports.words import verdict

PAUSE_SECONDS = 60.0
"""Between two looks at what changes."""
PATIENCE_SECONDS = 3600.0
"""How long a check waits for a quiet host."""
AGAIN_SECONDS = 3600.0
"""How long what failed is left alone, unless something changes meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run, and what has become different since the one before it; of the first one nothing is known to have."""

    run: Path
    changes: frozenset[verdict.Change] = frozenset()


def watch(plan: Plan) -> None:
    """Check for ever. What fails is said, and tried again when something changes, or an hour later."""
    failed: Mapping[str, str] | None = None  # what was found when it failed
    again = 0.0
    while True:
        found: Mapping[str, str] = {}
        try:
            found = causes(plan)
            if found != failed or time.monotonic() >= again:
                check(plan, found)
                failed = None
        except LabError as error:
            if found != failed or time.monotonic() >= again:
                say(f"lab: {plan.name}: {error}; tried again in {format_seconds(AGAIN_SECONDS)}")
                failed, again = found, time.monotonic() + AGAIN_SECONDS
        time.sleep(PAUSE_SECONDS)


def check(plan: Plan, found: Mapping[str, str], *, patience_seconds: float = PATIENCE_SECONDS) -> Measured | None:
    """Measure if it is time to, by what was ``found``, once nobody else watches and the host is quiet; None where it
    was not, or is not.

    Raises LabError where that failed; the next check finds it due again.
    """
    with one_at_a_time():
        state, now = State.of(plan), datetime.now().astimezone()
        if not (why := reasons(plan, state.seen, state.began, found, now)):
            return None
        for each in why:
            say(f"lab: {plan.name}: {each}")
        if not becomes_quiet(plan.busy, patience_seconds):
            say(f"lab: {plan.name}: others kept the host busy for {format_seconds(patience_seconds)}; not measured")
            return None
        run = _compare(plan)
        before = plan.results / state.runs[-1] if state.runs else None
        state.seen, state.began = found, now
        state.runs.append(run.name)
        state.write()
        changes = _tell(plan, before, run, why, now)
        if plan.keep_bytes is not None:
            for dropped in state.drop(plan.keep_bytes):
                say(f"lab: {plan.name}: {dropped}")
            state.write()
        return Measured(run=run, changes=changes)


def _compare(plan: Plan) -> Path:
    """The folder of the run that ``lab compare`` made. Raises CommandError when it failed."""
    words = ["compare", plan.scenario, *plan.options, "--out", str(plan.results), "--json"]
    code, told = apart(words, plan.folder)
    if code not in (0, CONDITION_HOLDS):
        raise CommandError(f"lab compare {plan.scenario} ended with {code}", hint="what it said is above")
    try:
        return plan.results / Path(json.loads(told)["folder"]).name
    except (ValueError, KeyError) as error:
        raise CommandError(f"lab compare {plan.scenario} did not tell its run", hint="lab results ls") from error


def _tell(plan: Plan, before: Path | None, run: Path, why: list[str], now: datetime) -> frozenset[verdict.Change]:
    """Print what the run says beside the one before, and add it to the plan's diary."""
    lines = [f"## {now:%Y-%m-%d %H:%M}, {run.name}", "", *(f"- why: {each}" for each in why), ""]
    changes: frozenset[verdict.Change] = frozenset()
    try:
        if before is None:
            lines.append("The first run: there is none to compare it with.")
        else:
            found = difference(load(before), load(run), across_hosts=False)
            lines.append(verdict.markdown(found).rstrip())
            changes = frozenset(each.change for each in verdict.changes(found))
    except LabError as error:
        lines.append(f"Not compared with {before.name if before else 'another'}: {error}.")
    text = "\n".join([*lines, "", ""])
    print(text, end="", flush=True)
    diary = plan.results / f"watch-{plan.name}.md"
    try:
        descriptor = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ResultsError(f"{diary} can't be written: {error.strerror}", hint="df -h shows free space") from error
    return changes
