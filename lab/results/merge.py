"""Several runs of the same thing as one run of several sessions.

Joined is only what can be: the same application, file for file, on the same host, under the same plan. Nothing is
computed here and no observation is changed, but for the numbers of its block and session.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.errors import ResultsError
from lab.results.record import Ending, Run, Sample, processors
from lab.results.store import RunFolder


def _factors(run: Run) -> Any:
    return run.settings.get("factors", [])


ALIKE: tuple[tuple[str, Callable[[Run], Any]], ...] = (
    ("the scenario", lambda run: run.scenario),
    ("the host", lambda run: run.host.get("identity")),
    ("the host's processors", lambda run: processors(run.host)),
    ("whose lab it was, root's or an ordinary user's", lambda run: bool(run.host.get("rootless"))),
    ("the host's kernel", lambda run: run.host.get("kernel_release")),
    ("the readiness", lambda run: (run.settings.get("readiness"), run.settings.get("port"))),
    ("the image", lambda run: run.image.get("digest")),
    ("the images", lambda run: sorted(run.images)),
    ("the factors", lambda run: [f"{each['name']}={','.join(each['levels'])}" for each in _factors(run)]),
    ("how the host was set", lambda run: dict(run.host_levels)),
    ("the limits", lambda run: {name: value for name, value in run.limits.items() if value is not None}),
    ("the metrics", lambda run: sorted(run.metrics)),
    ("the backends", lambda run: sorted(arm.label for arm in run.arms)),
    ("the accelerators", lambda run: sorted((arm.label, arm.accelerator.value) for arm in run.arms)),
    ("the idle time", lambda run: run.settings.get("idle_seconds")),
    ("the load", lambda run: run.settings.get("load")),
    ("the work", lambda run: run.settings.get("work")),
    ("the rule of exclusion", lambda run: run.settings.get("exclude_noisy")),
    ("the schema", lambda run: run.schema),
    ("the version of lab", lambda run: (run.versions.get("lab"), run.versions.get("git"))),
)
"""What must be equal, and how it is called when it is not."""

BY_HOST = (
    "the host",
    "the host's processors",
    "the host's kernel",
    "the metrics",
    "the backends",
    "the accelerators",
)
"""What may differ where runs of different hosts are looked at together: within each host it is the same for all."""


def alike_across_hosts(run: Run) -> dict[str, Any]:
    """What must be equal for runs of different hosts to measure the same thing, by name."""
    return {name: what(run) for name, what in ALIKE if name not in BY_HOST}


def merge(folders: Sequence[RunFolder], out: Path) -> RunFolder:
    """A new run below ``out`` with the sessions of ``folders``, in the order given; they stay as they are.

    Raises ResultsError when there are fewer than two, when one is not complete, or two are not of the same thing.
    """
    if len(folders) < 2 or len({folder.path.resolve() for folder in folders}) < len(folders):
        raise ResultsError("merging takes two different runs or more", hint="lab results ls")
    first = folders[0].run
    for folder in folders:
        _require_alike(first, folder.run)
    samples = [list(folder.samples()) for folder in folders]
    sessions = [max((sample.session for sample in each), default=1) for each in samples]
    planned = [folder.run.blocks_planned for folder in folders]
    budgets = [folder.run.budget_seconds for folder in folders]
    merged = RunFolder.create(
        out,
        replace(
            first,
            name="",
            blocks_planned=None if None in planned else sum(number or 0 for number in planned),
            budget_seconds=None if None in budgets else sum(seconds or 0.0 for seconds in budgets),
            settings={
                **first.settings,
                "sessions": sum(sessions),
                "precision": None,
                "detect": None,
                "merged": [
                    {"run": each.run.name, "seed": each.run.seed, "ended_because": each.run.ended_because}
                    for each in folders
                ],
            },
        ),
    )
    with merged:
        block = session = 0
        for folder, each, count in zip(folders, samples, sessions, strict=True):
            merged.append(*_renumbered(each, block, session))
            done = sorted((number, arm) for number, arm in folder.completed() if number > 0)
            for number, arm in done:
                merged.complete(block + number, arm)
            _copy_logs(folder, merged, session)
            block, session = block + max((number for number, _ in done), default=0), session + count
        merged.finish(Ending.BLOCKS if None not in planned else Ending.BUDGET)
    return merged


def _require_alike(first: Run, other: Run) -> None:
    if other.ended_because not in list(Ending):
        raise ResultsError(
            f"{other.name} is not complete: {other.ended_because or 'it has not ended'}",
            hint=f"lab compare --resume {other.name}",
        )
    for name, what in ALIKE:
        if what(first) != what(other):
            raise ResultsError(
                f"{first.name} and {other.name} can't be one run: they differ in {name} "
                f"({what(first)}, {what(other)})",
                hint=f"lab diff {first.name} {other.name}",
            )


def _renumbered(samples: Sequence[Sample], blocks: int, sessions: int) -> Iterator[Sample]:
    """After ``blocks`` blocks and ``sessions`` sessions of earlier runs."""
    for sample in samples:
        session = sample.session + sessions
        yield replace(
            sample,
            session=session,
            block=1 - session if sample.warmup else sample.block + blocks,
            instance=_instance(sample.instance, sessions),
        )


def _instance(name: str, sessions: int) -> str:
    """Unique in the merged run; the first run's names stay."""
    return f"s{sessions + 1}-{name}" if name and sessions else name


def _copy_logs(folder: RunFolder, merged: RunFolder, sessions: int) -> None:
    for logs in sorted((folder.path / "logs").glob("*")):
        if logs.is_dir():
            target = merged.path / "logs" / _instance(logs.name, sessions)
            shutil.copytree(logs, target, symlinks=True)
