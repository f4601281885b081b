"""One run that was handed in, as what is compared: where it was measured, ratios within it, isolation answers.

Plain data, as JSON holds it. Nothing of an absolute value is in it: two computers' seconds have no common measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from lab.analysis.data import TWIN, read_folder
from lab.analysis.loaded import Loaded
from lab.analysis.quantities import is_headline
from lab.analysis.readiness import called, until
from lab.classroom.collect.intake import Files, tidy
from lab.errors import ResultsError
from lab.host.survey.virtualisation import Ground
from lab.model import Accelerator
from lab.reports.material import stamp
from lab.results.record import Run
from lab.results.store import SAMPLES, RunFolder

MOST_ARMS, MOST_TIMES = 24, 20_000
FARTHEST = 1e6
"""A ratio beyond that was not measured by lab."""
UNKNOWN_GROUND = "unknown"
KINDS = {Accelerator.NATIVE: "native", Accelerator.KVM: "KVM", Accelerator.TCG: "emulated"}


def told(name: str, files: Files) -> dict[str, Any]:
    """What is compared of the run ``name``. Raises ResultsError when it is none, or can't stand beside others."""
    try:
        loaded = read_folder(RunFolder.held(name, files), Loaded)
        run = loaded.run
        _require_comparison(run)
        if len(run.arms) > MOST_ARMS:
            raise ResultsError(f"it has {len(run.arms)} arms", hint=f"{MOST_ARMS} at most")
        return {
            "run": tidy(run.name),
            "digest": sha256(files.get(SAMPLES, b"")).hexdigest(),
            "times": _times(loaded),
            "scenario": tidy(run.scenario),
            "until": str(until(run)),
            "blocks": loaded.blocks,
            "baseline": tidy(loaded.baseline),
            "host": tidy(str(run.host.get("identity", ""))),
            "ground": _ground(run),
            "facts": {key: tidy(_text(fact(run))) for key, fact in FACTS.items()},
            "ratios": _ratios(loaded),
            "answers": _answers(loaded),
        }
    except ResultsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        # whatever its author put where lab writes something else
        raise ResultsError(
            f"it is not as lab writes one: {tidy(f'{type(error).__name__}: {error}')}",
            hint="hand in the folder as it is",
        ) from error


def _require_comparison(run: Run) -> None:
    if kind := run.settings.get("kind"):
        raise ResultsError(f"it is a run of lab {tidy(str(kind))}, no comparison", hint="hand in one of lab compare")
    if run.settings.get("exercise"):
        raise ResultsError(
            "it is an exercise with a planted fault, no measurement", hint="hand in one of lab compare"
        )


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _part(*keys: str) -> Callable[[Run], object]:
    def part(run: Run) -> object:
        found: Any = run.host
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return part


def _machines(run: Run) -> str:
    """What executes its machines' instructions; "" where it has none."""
    used = dict.fromkeys(stamp(arm) for arm in run.arms if arm.accelerator is not Accelerator.NATIVE)
    return ", ".join(used)


FACTS: Mapping[str, Callable[[Run], object]] = {
    "host": _part("platform", "title"),
    "CPU": _part("cpu", "model"),
    "kernel": _part("kernel_release"),
    "system": _part("distribution"),
    "cgroups": _part("cgroups", "mode"),
    "machines": _machines,
    "limits": lambda run: ", ".join(f"{key} {value}" for key, value in run.limits.items() if value is not None),
    "image": lambda run: str(run.image.get("digest", ""))[-12:],
    "lab": lambda run: run.versions.get("lab"),
}
"""What can make one host's numbers unlike another's."""


def _ground(run: Run) -> str:
    found = str(_part("platform", "ground")(run))
    return found if found in list(Ground) else UNKNOWN_GROUND


def _ratios(loaded: Loaded) -> list[dict[str, Any]]:
    arms = {arm.label: arm for arm in loaded.references}
    table = loaded.ratios()
    found = []
    for row in table.to_dict("records"):
        arm = arms.get(str(row["arm"]))
        quantity, state = str(row["quantity"]), str(row["state"])
        if arm is None or arm.label.endswith(TWIN) or not is_headline(quantity, state) or math.isnan(row["ratio"]):
            continue
        if not 1 / FARTHEST < row["ratio"] < FARTHEST:
            raise ResultsError(
                f"{tidy(arm.label)} has a ratio of {row['ratio']:g}", hint="hand in the folder as it is"
            )
        known = called(quantity, loaded.run)
        found.append({
            "quantity": quantity, "state": state, "arm": tidy(arm.label, 24),
            "kind": KINDS[arm.accelerator] + (", nested" if arm.nested else ""), "order": arm.order,
            "label": known.label if known else "", "n": int(row["n"]), "units": float(row["units"]),
            "ratio": float(row["ratio"]), "low": _end(row["low"]), "high": _end(row["high"]),
            "verdict": str(row["verdict"]), "why": tidy(str(row["why"])),
        })  # fmt: skip
    return found


def _times(loaded: Loaded) -> list[float]:
    """How long starts and their phases took, each once, in seconds: no two runs have many of these in common."""
    frame = loaded.frame
    values = frame[frame["quantity"].str.startswith("boot.") & (frame["status"] == "ok")]["value"]
    return sorted({float(each) for each in values if math.isfinite(each) and each > 0})[:MOST_TIMES]


def _end(value: float) -> float | None:
    return float(value) if math.isfinite(value) and value > 0 else None


def _answers(loaded: Loaded) -> dict[str, dict[str, str]]:
    """What each probe found, by arm: whom it reaches."""
    found: dict[str, dict[str, str]] = {}
    for row in loaded.answers.to_dict("records"):
        probe = tidy(str(row["quantity"]).removeprefix("isolation."))
        reach = row["detail"].get("reach", "") if row["status"] == "ok" else ""
        if reach in ("open", "own", "closed"):
            found.setdefault(probe, {})[tidy(str(row["arm"]), 24)] = reach
    return found
