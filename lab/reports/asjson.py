"""What a run's report says, for other programs: what ``--json`` of each command that measures prints.

`lab compare` gives what ``report.json`` holds. The studies begin with the same keys, and go on with their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.analysis.density import growths
from lab.analysis.ladder import costs, rows, stops
from lab.analysis.loaded import Loaded, load
from lab.analysis.noisy import disturbances, fallen, quiets
from lab.analysis.surface import Exposed
from lab.reports import density, ladder, noisy, surface
from lab.reports.exports import SCHEMA_VERSION, document, plain
from lab.reports.material import Material


def as_json(run_folder: Path) -> dict[str, Any]:
    """The run as one object. Raises ResultsError when the folder can't be read."""
    loaded = load(run_folder)
    tell = TOLD.get(str(loaded.run.settings.get("kind", "")))
    if tell is None:
        return {"folder": str(run_folder), "kind": "compare"} | document(Material.read(run_folder))
    run = loaded.run
    head = {
        "folder": str(run_folder),
        "kind": run.settings["kind"],
        "schema": SCHEMA_VERSION,
        "run": run.name,
        "scenario": run.scenario,
        "title": run.title,
        "started": run.started,
        "ended": run.ended,
        "ended_because": run.ended_because,
        "blocks": loaded.blocks,
        "seed": run.seed,
        "arms": [asdict(arm) for arm in loaded.all_arms],
    }
    tail = {
        "image": run.image,
        "host": run.host,
        "versions": run.versions,
        "limits": run.limits,
        "settings": run.settings,
    }
    found: dict[str, Any] = plain(head | tell(loaded) | tail)
    return found


def text(run_folder: Path) -> str:
    """The same as a file's text."""
    return json.dumps(as_json(run_folder), ensure_ascii=False, indent=1) + "\n"


def _density(loaded: Loaded) -> dict[str, Any]:
    bursts = loaded.frame[loaded.frame["quantity"] == "density.burst"]
    return {
        "stopped_by": loaded.run.settings.get("stopped_by", {}),
        "growth": [asdict(each) | {"claim": each.trend} for each in growths(loaded)],
        "bursts": [
            {"arm": row["arm"], "copies": row["block"], "seconds": row["value"], "failure": row["text"]}
            for row in bursts[["arm", "block", "value", "text"]].to_dict("records")
        ],
    }


def _noisy(loaded: Loaded) -> dict[str, Any]:
    return {
        "quiet": [asdict(each) for each in quiets(loaded)],
        "disturbances": [_judged(each, "judged") for each in disturbances(loaded)],
        "fallen": fallen(loaded),
    }


def _ladder(loaded: Loaded) -> dict[str, Any]:
    answered = rows(loaded)
    labels = [arm.label for arm in loaded.all_arms]
    return {
        "costs": [_judged(each, "judged") for each in costs(loaded).values()],
        "answers": [
            {"probe": row.probe, "group": row.group, "question": row.question, "stopped_by": row.stopped_by}
            | {"answers": {name: cell and asdict(cell) for name, cell in zip(labels, row.cells, strict=True)}}
            for row in answered
        ],
        "stops": stops(answered),
    }


def _surface(loaded: Loaded) -> dict[str, Any]:
    found = Exposed(loaded)
    return {
        "not_measurable": found.not_measurable,
        "backends": {
            reach.arm.label: {
                "outcomes": reach.outcomes,
                "calls": [asdict(call) for call in reach.calls],
                "not_measured": reach.failure,
                "in_force": reach.in_force and asdict(reach.in_force),
            }
            for reach in found.reaches
        },
        "host_calls": [asdict(work) | {"arm": work.arm.label} for work in found.works],
        "host_functions": [asdict(each) | {"arm": each.arm.label} for each in found.functions],
    }


def _judged(found: Any, name: str) -> dict[str, Any]:
    """A result with its judgement beside the numbers: ``verdict`` and ``claim``, null where nothing was judged."""
    told = asdict(found)
    judgement = told.pop(name)
    of = getattr(found, name)
    return told | {
        "verdict": of and of.verdict.value,
        "claim": of and of.claim,
        "judgement": judgement,
    }


TOLD: Mapping[str, Callable[[Loaded], dict[str, Any]]] = {
    density.KIND: _density,
    ladder.KIND: _ladder,
    noisy.KIND: _noisy,
    surface.KIND: _surface,
}
"""What each study says besides what every run says."""
