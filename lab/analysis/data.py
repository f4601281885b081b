"""A run folder as one tidy table: a row per observation, failures included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.analysis.inference.estimate import FEWEST
from lab.analysis.noise import HOST, noisy_blocks
from lab.errors import LabError, ResultsError
from lab.results.record import Arm, Run, Sample, Status
from lab.results.store import RunFolder

TWIN = "#aa"
"""How the second label of an A/A pair ends."""


Which = TypeVar("Which", bound="Observed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A run and its observations; `lab.analysis.loaded.Loaded` adds what is computed from them.

    ``frame`` has a column ``excluded`` (True in blocks that a rule declared beforehand leaves out: see
    `lab.analysis.noise.noisy_blocks`) and one per field of Sample (``value`` float with NaN where there was none,
    ``block`` and ``position`` int, ``warmup`` bool, ``detail`` dict) in the order they were recorded.
    """

    path: Path
    run: Run
    frame: pd.DataFrame

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm but the A/A twin, from the thinnest boundary to the thickest."""
        return tuple(arm for arm in self.all_arms if not arm.label.endswith(TWIN))

    @property
    def all_arms(self) -> tuple[Arm, ...]:
        """Every arm, a backend's in the order of the levels, the A/A twin right after the arm it repeats."""
        places = {arm.label: place for place, arm in enumerate(self.run.arms)}

        def place(arm: Arm) -> tuple[int, str, int, str]:
            repeated = arm.label.removesuffix(TWIN)
            return arm.order, arm.backend if arm.factors else arm.label, places.get(repeated, 0), arm.label

        return tuple(sorted(self.run.arms, key=place))

    @property
    def references(self) -> tuple[Arm, ...]:
        """An arm per backend: of a run with factors that at the first level of each, else all arms but the twin."""
        return tuple(arm for arm in self.arms if arm.is_reference)

    @property
    def baseline(self) -> str:
        """The arm all others are compared with: the bare process, else the thinnest boundary."""
        labels = [arm.label for arm in self.references]
        return "process" if "process" in labels else labels[0]

    def image_of(self, arm: Arm) -> Mapping[str, Any]:
        """What is recorded of the image that ``arm`` ran."""
        return self.run.images.get(arm.image, self.run.image)

    @property
    def blocks(self) -> int:
        """How many blocks were begun, warm-ups and excluded ones left out."""
        return int(self.measured["block"].nunique())

    @property
    def excluded(self) -> tuple[int, ...]:
        """The blocks that the rule in run.json leaves out, in order."""
        return tuple(sorted({int(block) for block in self.frame.loc[self.frame["excluded"], "block"]}))

    @property
    def measured(self) -> pd.DataFrame:
        """The observations that count: numbers of instances, without the declared warm-ups and exclusions."""
        return counted(self.frame)

    @property
    def twin_alike(self) -> bool:
        """Whether the A/A twin was treated like what it repeats; that of schema 1 did not idle."""
        return not self.run.settings.get("twin")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The figures of the scenario's own work that more of is better."""
        work = self.run.settings.get("work")
        figures = work.get("figures", []) if isinstance(work, dict) else []
        return tuple(f"work.{each['name']}" for each in figures if each.get("more_is_better"))

    @property
    def answers(self) -> pd.DataFrame:
        """The isolation probes' answers. A warm-up's count too: a boundary does not warm up."""
        return self.every_answer[self.every_answer["arm"] != ""]

    @property
    def broken_out(self) -> pd.DataFrame:
        """What an escaped process would reach on this host: `lab.isolation.breakout`, of no arm."""
        return self.every_answer[self.every_answer["arm"] == ""]

    @property
    def every_answer(self) -> pd.DataFrame:
        """Both."""
        return self.frame[self.frame["unit"] == "answer"]


def read(path: Path | str, kind: type[Which]) -> Which:
    """A run folder, as ``kind``: one row per observation, each with its unit.

    Raises ResultsError when it is none, is too new, or holds no observation, LabError where numpy can't be trusted.
    """
    return read_folder(RunFolder.open(Path(path)), kind)


def read_folder(folder: RunFolder, kind: type[Which]) -> Which:
    """The same of a run that is open, or in memory."""
    require_sound_sorting()
    path, rows = folder.path, list(map(_FIELDS, folder.samples()))
    if not rows:
        is_study = "kind" in folder.run.settings  # only a comparison can be resumed
        hint = "what its command said tells why" if is_study else f"lab compare --resume {path.name}"
        raise ResultsError(f"{path} holds no observation", hint=hint)
    if not folder.run.arms:
        raise ResultsError(f"{path} names no arm", hint="lab compare writes run.json; name another run folder")
    frame = _frame(rows)
    factor = folder.run.settings.get("exclude_noisy")
    noisy = noisy_blocks(frame, float(factor)) if factor else ()
    frame["excluded"] = frame["block"].isin(noisy) & ~frame["warmup"] & (frame["metric"] != HOST)
    return kind(path=path, run=folder.run, frame=frame)


@cache
def require_sound_sorting() -> None:
    """Raise LabError where numpy sorts wrongly. It sorts by AVX2's gather instructions where the processor has them,
    and QEMU 7.2 emulates those wrongly (seen in Debian 12's, TCG): medians, ranks and p values would be wrong.
    """
    shuffled = np.arange(256) * 37 % 256
    for kind in (np.int64, np.float64):
        values = shuffled.astype(kind)
        if not np.array_equal(values[np.argsort(values)], np.arange(256)):
            raise LabError(
                "numpy sorts wrongly on this processor, whose AVX2 an emulator may get wrong (QEMU 7.2 does)",
                hint="NPY_DISABLE_CPU_FEATURES=X86_V3 lab …; AVX2 instead of X86_V3 for a numpy before 2.4",
            )


def counted(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that statistics of the arms are made of: numbers; no warm-ups, no exclusions, nothing of no arm."""
    rows = ~frame["warmup"] & (frame["unit"] != "answer") & (frame["arm"] != "")
    return frame[rows & ~frame["excluded"] if "excluded" in frame else rows]


_NAMES = [each.name for each in fields(Sample)]
_FIELDS = attrgetter(*_NAMES)


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=_NAMES)
    frame["value"] = pd.to_numeric(frame["value"], errors="coerce").astype("float64")
    frame["status"] = frame["status"].map(str)
    frame["accelerator"] = frame["accelerator"].map(str)
    # a failure never counts as a fast success, whatever value came with it
    frame.loc[frame["status"] != Status.OK, "value"] = float("nan")
    return frame


def sessions_of(frame: pd.DataFrame, blocks: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The session of each of ``blocks``, sorted; None for one or two: these don't tell how sessions vary."""
    if "session" not in frame or frame["session"].nunique() < FEWEST:
        return None
    of = frame.groupby("block")["session"].first().sort_index()
    return of[of.index.isin(blocks)].to_numpy(dtype=np.int64)


def detail(row: Mapping[str, Any], key: str) -> str:
    """A text out of a sample's detail, empty when it is not there."""
    return str(row.get(key, "") or "")
