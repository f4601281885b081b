"""Samples and runs as JSON: one place where their text form is written and read.

Unknown keys are ignored when reading, so that a later lab may add some within one schema version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Any

from lab.errors import ResultsError
from lab.model import Accelerator
from lab.results.record import SCHEMA, Arm, Run, Sample, Status
from lab.results.upgrade import upgraded

GARBLED = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading somebody's JSON as this or that may end with: Infinity for a number, a text for an object, a list in a
list in a list.
"""


def encode_sample(sample: Sample) -> str:
    """One line of JSON without its newline. Raises ResultsError for a value that is no finite number."""
    try:
        return json.dumps(asdict(sample), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ResultsError(
            f"the sample {sample.quantity} of {sample.instance} can't be written: {error}",
            hint="a missing value is None; detail holds plain JSON values",
        ) from error


def decode_sample(line: str | bytes) -> Sample:
    """The inverse of encode_sample. Raises one of `GARBLED` when the line is no sample."""
    raw = json.loads(line)
    if not isinstance(raw, dict):
        raise TypeError("not an object")
    kept = {key: value for key, value in raw.items() if key in _names(Sample)}
    kept["status"] = Status(kept.get("status", Status.OK))
    kept["accelerator"] = Accelerator(kept.get("accelerator", Accelerator.NATIVE))
    return Sample(**kept)


def encode_run(run: Run) -> str:
    """run.json, indented for people."""
    return json.dumps(asdict(run), ensure_ascii=False, indent=2, default=str) + "\n"


def decode_run(text: str, where: str) -> Run:
    """The inverse of encode_run. Raises ResultsError, naming ``where``."""
    try:
        raw = json.loads(text)
        schema = int(raw["schema"])
    except GARBLED as error:
        raise ResultsError(f"{where} is not a run's provenance: {error!r}", hint="name another run folder") from error
    if schema > SCHEMA:
        raise ResultsError(
            f"{where} was written by a newer lab (schema {schema}, this one reads up to {SCHEMA})",
            hint="update lab: git pull",
        )
    try:
        kept = {key: value for key, value in upgraded(raw).items() if key in _names(Run)}
        for key in ("command_line", "metrics"):
            kept[key] = tuple(kept[key])
        kept["arms"] = tuple(_decode_arm(arm) for arm in raw["arms"])
        return Run(**kept)
    except GARBLED as error:
        raise ResultsError(f"{where} lacks or garbles a field: {error}", hint="name another run folder") from error


def _decode_arm(raw: Mapping[str, Any]) -> Arm:
    kept = {key: value for key, value in raw.items() if key in _names(Arm)}
    kept["accelerator"] = Accelerator(kept["accelerator"])
    kept["differences"] = tuple(kept.get("differences", ()))
    return Arm(**kept)


@cache
def _names(kind: type) -> frozenset[str]:
    return frozenset(each.name for each in fields(kind))
