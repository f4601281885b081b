"""All results as a site in a folder: read what is new, find what changed, write what is different, remove what is
gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from lab.analysis.history.changes import change_points
from lab.analysis.history.facts import About, about, plain
from lab.analysis.history.lines import AROUND, Event, events_of, find_changes, lines_of
from lab.analysis.history.points import Point, points
from lab.analysis.inference.statistics import Floats
from lab.analysis.loaded import load
from lab.analysis.many import folders
from lab.analysis.questions.difference import difference
from lab.commands.output import say
from lab.commands.publishing.folder import FEED, INDEX, OWN, owned, put, remove_others
from lab.commands.publishing.memory import Memory, fingerprint, opened
from lab.errors import LabError, ResultsError
from lab.reports.site import page, words
from lab.reports.site.content import (
    Site,
    data_files,
    described_hosts,
    event_file,
    referenced,
    report_file,
)
from lab.reports.site.feed import Seen, feed
from lab.results.record import Run
from lab.results.store import RunFolder

SAID_EVERY = 1_000
"""Runs between two remarks on how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """``reports``: of so many of the newest runs the whole report is part of the site, besides those at either side
    of a change. ``everything``: every quantity has a line, not only those that are judged.
    """

    title: str
    url: str = ""
    reports: int = 100
    everything: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a publishing did."""

    index: Path
    runs: int
    read: int
    unreadable: int
    lines: int
    changes: int
    new_changes: int
    reports_written: int


def publish(target: Path, results: Path, wanted: Wanted, render: Callable[[Path], str]) -> Published:
    """Write or renew the site in ``target`` of all runs in ``results``; ``render`` gives the page of a run's report.

    Raises ResultsError when there is no run, or the folder can't be written; what stood there still stands then.
    """
    paths = folders(results)
    if not paths:
        raise ResultsError(f"there is no run in {results} yet", hint="lab compare web-app")
    now = time.time()
    with owned(target), opened(target / OWN / "memory.sqlite") as memory:
        known, read, unreadable = _read(paths, memory, wanted.everything)
        if not known:
            raise ResultsError(f"no run in {results} can be read: {unreadable[0]}", hint="lab results ls")
        order = sorted(known, key=lambda path: (known[path][0].started, path.name))
        runs, observed = [known[path][0] for path in order], [known[path][1] for path in order]
        lines = lines_of(runs, observed)
        level = find_changes(lines, lambda values, level: _places(memory, values, level))
        site = Site(
            title=plain(wanted.title), runs=runs, observed=observed, lines=lines, events=events_of(runs, lines),
            level=level, unreadable=unreadable, hosts=described_hosts(runs),
        )  # fmt: skip
        seen, new = _seen(site, memory, now)
        site, reports = _reports(target, site, order, wanted.reports, memory, render)
        _put_changes(target, site, order, memory)
        files, about_data = data_files(site)
        for name, text in files.items():
            if not (target / name).exists():
                put(target, name, text.encode())
        identity, began = memory.identity(now)
        url = f"{wanted.url.rstrip('/')}/" if wanted.url else ""
        put(target, FEED, feed(site, identity, seen, began, url))
        put(target, INDEX, page.index(site, about_data, now).encode())
        kept = set(referenced(site, files))
        remove_others(target, kept)
        memory.forget_all_but({path.name for path in paths}, kept)
    return Published(
        index=target / INDEX, runs=len(runs), read=read, unreadable=len(unreadable), lines=len(lines),
        changes=len(site.events), new_changes=new, reports_written=reports,
    )  # fmt: skip


def _read(
    paths: Sequence[Path], memory: Memory, everything: bool
) -> tuple[dict[Path, tuple[About, list[Point]]], int, list[str]]:
    """What each run says, out of the memory or its folder; how many were read; what is wrong with the others."""
    known: dict[Path, tuple[About, list[Point]]] = {}
    new: dict[Path, Run] = {}
    abouts: dict[Path, About] = {}
    prints: dict[Path, str] = {}
    unreadable: list[str] = []
    for path in paths:
        prints[path] = fingerprint(path, everything)
        if recalled := memory.recall(path.name, prints[path]):
            known[path] = recalled
            continue
        try:
            folder = RunFolder.open(path)
            abouts[path] = about(folder)
            new[path] = folder.run
        except LabError as error:
            unreadable.append(_wrong(error, path.parent))
    comparisons = {path: run for path, run in new.items() if not abouts[path].kind}
    told = 0

    def progress(done: int) -> None:
        nonlocal told
        if done // SAID_EVERY > told:
            told = done // SAID_EVERY
            say(f"lab: {done:,} of {len(comparisons):,} runs read")

    found: dict[Path, list[Point]] = {path: [] for path in new if path not in comparisons}
    broken: list[LabError] = []
    found |= points(comparisons, everything=everything, skipped=broken.append, progress=progress)
    unreadable += list(dict.fromkeys(_wrong(error, paths[0].parent) for error in broken))
    for path in new:
        of_run = found.get(path, [])  # what holds no observation is listed all the same
        known[path] = abouts[path], of_run
        memory.keep(path.name, prints[path], abouts[path], of_run)
    memory.save()
    return known, len(new), unreadable


def _wrong(error: LabError, results: Path) -> str:
    """What is wrong with a run, without where the results lie: the site may be public."""
    return error.message.replace(f"{results}/", "")


def _places(memory: Memory, values: Floats, level: float) -> tuple[int, ...]:
    digest = sha256(values.tobytes()).hexdigest()
    key, at = digest[:16], f"{digest} {level!r}"
    found = memory.places(key, at)
    if found is None:
        found = change_points(values, level)
        memory.keep_places(key, at, found)
    return found


def _seen(site: Site, memory: Memory, now: float) -> tuple[dict[str, Seen], int]:
    """How the feed knows each event, and how many are new. One that is found a run earlier or later than before, as
    more nights tell more, is still the same one.
    """
    before = dict(memory.events())
    found: dict[str, tuple[str, str, float, Seen, str]] = {}
    new = 0
    for event in site.events:
        started = site.runs[event.after].started
        said = sha256(
            "\n".join(sorted(f"{line.id} {each.direction}" for line, each in event.changes)).encode()
        ).hexdigest()
        known = before.get(event.id) or _moved(site, event, before, found)
        if known is None:
            seen = Seen(id=uuid4(), first=now, updated=now)
            new += 1
        else:
            seen = known[3] if known[4] == said else replace(known[3], updated=now)
        found[event.id] = event.scenario, event.host, started, seen, said
    memory.keep_events(found)
    memory.save()
    return {key: seen for key, (_, _, _, seen, _) in found.items()}, new


def _moved(
    site: Site,
    event: Event,
    before: Mapping[str, tuple[str, str, float, Seen, str]],
    found: Mapping[str, tuple[str, str, float, Seen, str]],
) -> tuple[str, str, float, Seen, str] | None:
    """The event that this one was, when it lay up to twice `AROUND` runs away and is at no place of its own now."""
    same = [run.started for run in site.runs if (run.scenario, run.host) == (event.scenario, event.host)]
    here = same.index(site.runs[event.after].started)
    near = same[max(0, here - 2 * AROUND)], same[min(len(same) - 1, here + 2 * AROUND)]
    taken = {seen.id for _, _, _, seen, _ in found.values()} | {
        before[each.id][3].id for each in site.events if each.id in before
    }
    for each in before.values():
        if each[:2] == (event.scenario, event.host) and near[0] <= each[2] <= near[1] and each[3].id not in taken:
            return each
    return None


def _reports(
    target: Path, site: Site, order: Sequence[Path], newest: int, memory: Memory, render: Callable[[Path], str]
) -> tuple[Site, int]:
    """The site with the reports it has, and how many were written: of the newest runs, and at either side of a
    change.
    """
    asked = set(range(max(0, len(order) - newest), len(order))) if newest else set()
    asked |= {index for event in site.events for index in (event.before, event.after)} if newest else set()
    there, written, began = set(), 0, time.monotonic()
    for done, index in enumerate(sorted(asked, reverse=True)):
        run, path = site.runs[index], order[index]
        file, mark = report_file(run.name), fingerprint(path, everything=False)
        if not ((target / file).exists() and memory.noted(file) == mark):
            try:
                put(target, file, render(path).encode("utf-8", "replace"))
            except LabError:
                continue  # it holds no observation, or is a broken one: it is listed, without a report
            memory.note(file, mark)
            memory.save()
            written += 1
            if time.monotonic() - began > 10:
                say(f"lab: {done + 1} of {len(asked)} reports")
                began = time.monotonic()
        there.add(run.name)
    return replace(site, reports=frozenset(there)), written


def _put_changes(target: Path, site: Site, order: Sequence[Path], memory: Memory) -> None:
    """Write the pages of changes that say something new."""
    for event in site.events:
        before, after = order[event.before], order[event.after]
        file = event_file(event)
        told = [f"{words.told(line, change)} {line.dependent}" for line, change in event.changes]
        told += [words.coincidences_told(event), *(fingerprint(path, everything=False) for path in (before, after))]
        told += [str(site.runs[each].name in site.reports) for each in (event.before, event.after)]
        mark = sha256("\n".join(told).encode("utf-8", "replace")).hexdigest()
        if (target / file).exists() and memory.noted(file) == mark:
            continue
        try:
            compared = difference(load(before), load(after))
            text = page.change(site, event, compared)
        except LabError as error:
            text = page.change(site, event, _wrong(error, before.parent))
        put(target, file, text.encode("utf-8", "replace"))
        memory.note(file, mark)
