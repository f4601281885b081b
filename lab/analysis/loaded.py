"""The object that ``lab.load`` returns: a run's observations, and the tables, intervals and findings made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lab.analysis.compare import ratios
from lab.analysis.data import TWIN, Observed, read
from lab.analysis.factors.effects import effects
from lab.analysis.findings import Finding, findings
from lab.analysis.summary import summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Observed):
    """A run, its observations (``frame``: see `lab.analysis.data.Observed`), and the tables made of them."""

    def summary(self) -> pd.DataFrame:
        """Absolute values: see `lab.analysis.summary.summary`."""
        return summary(self.frame)

    def ratios(self, baseline: str = "") -> pd.DataFrame:
        """Each backend against ``baseline`` (the run's own unless named): see `lab.analysis.compare.ratios`.

        Of a run with factors the reference arms; what the factors do is in `effects`.
        """
        twins = {arm.label for arm in self.all_arms if arm.label.endswith(TWIN)}
        alike = {*(arm.label for arm in self.references), *twins, baseline}
        chosen = self.frame[self.frame["arm"].isin(alike)]
        return ratios(chosen, baseline or self.baseline, twin_alike=self.twin_alike, wanted=self.wanted)

    def effects(self) -> pd.DataFrame:
        """What each factor does to each backend, and which interact: see `lab.analysis.factors.effects.effects`."""
        return effects(self)

    def findings(self) -> tuple[Finding, ...]:
        """What to mind before believing it: see `lab.analysis.findings.findings`."""
        return findings(self, self.ratios())


def load(path: Path | str) -> Loaded:
    """Read a run folder: one row per observation, each with its unit.

    Raises ResultsError when it is none, is too new, or holds no observation, LabError where numpy can't be trusted.
    """
    return read(path, Loaded)
