"""An emulated processor may sort wrongly: no figure is made of that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lab
from lab.analysis.data import require_sound_sorting
from lab.errors import LabError

SAMPLE = Path(__file__).parents[2] / "results/sample"


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    require_sound_sorting.cache_clear()
    yield
    require_sound_sorting.cache_clear()


def test_this_processor_sorts() -> None:
    require_sound_sorting()


@pytest.mark.parametrize("wrong", ["int64", "float64"])
def test_a_run_is_not_read_where_numpy_sorts_wrongly(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.argsort
    monkeypatch.setattr(
        np, "argsort", lambda v, *a, **k: np.arange(len(v)) if v.dtype == wrong else sound(v, *a, **k)
    )
    with pytest.raises(LabError, match="sorts wrongly") as told:
        lab.load(SAMPLE)
    assert "NPY_DISABLE_CPU_FEATURES" in told.value.hint
