"""What students get, and the teacher's key to it.

A hand-out is a folder of runs, and ``seal.json``: the SHA-256 of the key. Whoever is shown the key afterwards can see
that it was not changed meanwhile; from the seal alone nothing can be learnt, since the key holds 256 random bits.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from lab.classroom.flaw.plants import FAULTS, Records
from lab.errors import ResultsError, UsageError
from lab.host.identity import private
from lab.results.store import PROGRESS, RUN, SAMPLES

SEAL, KEY = "seal.json", "key.json"
HALF = 0.5
"""Of a case's point is for the fault's name, the other half for the evidence."""
HEADS = ("student", "case", "flaw", "evidence")
LARGEST_ANSWERS = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One answer: ``points`` of 1, and what is to be said of it."""

    student: str
    case: str
    points: float
    says: str


def make(folder: Path, source: Path, kinds: Sequence[str], seed: int) -> Path:
    """Write a run for each of ``kinds`` into ``folder``/handout, in an order drawn from ``seed``, and the key beside
    it; returns the key's file.

    Raises UsageError for a kind that is none, a run that lacks what a fault is planted into, a folder that is there.
    """
    for kind in kinds:
        if kind not in FAULTS:
            raise UsageError(f"there is no fault {kind}", hint=f"one of: {', '.join(FAULTS)}")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is there already", hint="name a new folder")
    run, rows = _records(source)
    random = Random(seed)
    drawn = random.sample(list(kinds), len(kinds))
    cases = {}
    for place, kind in enumerate(drawn, 1):
        records = Records(run=copy.deepcopy(run), rows=copy.deepcopy(rows), random=random)
        evidence = FAULTS[kind].plant(records)
        cases[f"case-{place:02}"] = (records, {"flaw": kind, "evidence": sorted(evidence)})
    handout = folder / "handout"
    handout.mkdir(parents=True)
    for name, (records, _) in cases.items():
        _write(handout / name, records)
    key = {
        "nonce": secrets.token_hex(32),
        "made_from": run["name"],
        "seed": seed,
        "cases": {name: {**told, "sha256": _digest(handout / name)} for name, (_, told) in cases.items()},
    }
    text = json.dumps(key, indent=2) + "\n"
    private.write_text(folder / KEY, text)
    seal = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "of": "the teacher's key.json"}
    (handout / SEAL).write_text(json.dumps(seal, indent=2) + "\n")
    return folder / KEY


def _records(source: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        run = json.loads((source / RUN).read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (source / SAMPLES).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ResultsError(f"{source} can't be read: {error}", hint="lab results ls") from error
    if run.get("settings", {}).get("kind"):
        raise UsageError(f"{source} is no comparison", hint="a run of lab compare, or sample")
    return run, rows


def _write(folder: Path, records: Records) -> None:
    """A run's folder that says of itself that it is an exercise."""
    folder.mkdir()
    run = records.run | {"name": folder.name, "title": f"Exercise: {records.run['title']}"}
    run["settings"] = {**run["settings"], "exercise": "one fault is planted in this run; it is no measurement"}
    (folder / RUN).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    lines, events, done = [], [], {}
    for number, row in enumerate(records.rows, 1):
        lines.append(json.dumps(row, separators=(",", ":")))
        if row["arm"]:
            done[row["block"], row["arm"]] = number
    for (block, arm), number in sorted(done.items(), key=lambda each: each[1]):
        events.append(json.dumps({"event": "completed", "block": block, "arm": arm, "lines": number}))
    (folder / SAMPLES).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / PROGRESS).write_text("\n".join(events) + "\n", encoding="utf-8")


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for name in (RUN, SAMPLES):
        found.update((folder / name).read_bytes())
    return found.hexdigest()


def open_key(file: Path, handout: Path | None) -> dict[str, Any]:
    """The key's cases; where the hand-out is named, only if its seal and its runs are those of this key.

    Raises UsageError when it is no key, or another one's.
    """
    try:
        text = file.read_text(encoding="utf-8")
        cases: dict[str, Any] = json.loads(text)["cases"]
        if handout is not None:
            seal = json.loads((handout / SEAL).read_text(encoding="utf-8"))["sha256"]
            if seal != hashlib.sha256(text.encode()).hexdigest():
                raise UsageError(
                    f"{file} is not the key that {handout} was sealed with", hint="name its own key.json"
                )
            for name, told in cases.items():
                if _digest(handout / name) != told["sha256"]:
                    raise UsageError(f"{handout / name} was changed", hint="hand out what lab class flaw make wrote")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is no key, or its hand-out is not whole: {error}", hint="DIR/key.json") from error
    return cases


def check(answers: Path, cases: dict[str, Any]) -> list[Checked]:
    """Every line of a CSV with the head student, case, flaw, evidence, by the key's ``cases``. A case that a student
    answers twice counts once, by its first line.

    Raises UsageError when it is no such CSV.
    """
    try:
        with answers.open("rb") as opened:
            data = opened.read(LARGEST_ANSWERS + 1)
        if len(data) > LARGEST_ANSWERS:
            raise UsageError(f"{answers} is larger than a class's answers", hint="4 MiB at most")
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{answers} can't be read: {error}", hint=f"CSV with the head {','.join(HEADS)}") from error
    if not rows or not set(HEADS) <= set(rows[0]):
        raise UsageError(f"{answers} lacks its head", hint=f"the first line is {','.join(HEADS)}")
    seen: set[tuple[str, str]] = set()
    found = []
    for row in rows:
        student, case, flaw, evidence = (str(row[head] or "").strip() for head in HEADS)
        again = (student, case) in seen
        seen.add((student, case))
        if again or case not in cases:
            says = "answered before" if again else "there is no such case"
            found.append(Checked(student=student, case=case, points=0.0, says=says))
        else:
            found.append(_judged(student, case, flaw, set(evidence.replace(",", " ").split()), cases[case]))
    return found


def _judged(student: str, case: str, flaw: str, given: set[str], key: dict[str, Any]) -> Checked:
    """The evidence counts where the fault is right: what it shares with the key's, over all that either names."""
    wanted = set(key["evidence"])
    if flaw != key["flaw"]:
        return Checked(student=student, case=case, points=0.0, says=f"the fault is another one than {flaw or 'none'}")
    share = len(given & wanted) / len(given | wanted)
    says = "right" if share == 1 else f"the fault is right; of its evidence {len(given & wanted)} of {len(wanted)}"
    says += f", and {len(given - wanted)} that is none" if given - wanted else ""
    return Checked(student=student, case=case, points=round(HALF + HALF * share, 2), says=says)
