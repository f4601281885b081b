"""What the judge says of a comparison besides its verdict: why not, what the run could have shown, in which words."""

from __future__ import annotations

import gc
import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats import multitest
from statsmodels.stats.multitest import multipletests

from lab.analysis.inference import estimate
from lab.analysis.inference.judge import (
    ALPHA,
    DETECTED,
    EXPLORATORY,
    HEADLINE,
    JUDGED,
    TWIN,
    VAST,
    Judgement,
    Verdict,
    adjusted,
    in_percent,
    judge,
    judgement,
)


def rows(*p_values: float, **columns: object) -> pd.DataFrame:
    """A table as the estimator has it, with these p; of nothing it is proven that it is the same."""
    count = len(p_values)
    table = {"ratio": 1.1, "low": 1.0, "high": 1.2, "same": 1.0, "units": 5.0, "scatter": 0.1, "bar": ""}
    return pd.DataFrame({"p": list(p_values), **{name: [value] * count for name, value in table.items()}}).assign(
        **columns
    )


def judged(*p_values: float, family: str = HEADLINE, **columns: object) -> pd.DataFrame:
    return judge(rows(*p_values, **columns), pd.Series([family] * len(p_values)))


def of(**changed: object) -> Judgement:
    whole = judgement(judged(0.3).iloc[0].to_dict())
    return Judgement(**{**{name: getattr(whole, name) for name in JUDGED}, **changed})  # type: ignore[arg-type]


# -- families --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "found"), [(HEADLINE, [0.03, 0.04, 0.04]), (EXPLORATORY, [0.03, 0.03, 0.03])])
def test_each_family_has_its_correction(family: str, found: list[float]) -> None:
    """By Holm: 3 · 0.01, 2 · 0.02, 0.03 at least as the one before. By the false discovery rate: all 3 · p / rank."""
    table = judged(0.01, 0.02, 0.03, family=family)
    assert table["adjusted"].tolist() == pytest.approx(found)
    assert table["family"].tolist() == [family] * 3


def test_a_twin_is_judged_like_what_is_explored() -> None:
    assert judged(0.01, 0.02, 0.03, family=TWIN)["adjusted"].tolist() == pytest.approx([0.03] * 3)


def test_nothing_is_known_of_a_family_without_any_p() -> None:
    assert np.isnan(adjusted(np.full(2, math.nan), is_headline=True)).all()
    assert judged(math.nan)["verdict"].tolist() == [Verdict.OPEN]
    assert {"claim", *JUDGED} <= set(judged().columns), "of no comparison at all"


def test_what_is_the_same_is_corrected_too() -> None:
    same = [0.02, 0.9, 0.9]
    assert judged(0.9, 0.9, 0.9, same=same)["verdict"].tolist() == [Verdict.OPEN] * 3
    assert judged(0.9, same=[0.02])["verdict"].tolist() == [Verdict.SAME]


def test_at_five_percent_a_difference_is_claimed() -> None:
    assert judged(ALPHA)["claim"].tolist() == [True]
    assert judged(ALPHA * 1.001)["claim"].tolist() == [False]
    assert judged(0.9, same=[ALPHA])["verdict"].tolist() == [Verdict.SAME]
    assert judged(ALPHA, same=[ALPHA])["verdict"].tolist() == [Verdict.DIFFERENT], "a small difference is one"


@pytest.mark.parametrize(
    ("p", "same", "bars", "verdict", "why"),
    [
        (0.001, 0.9, ("dead", "dead too"), Verdict.OPEN, "dead"),
        (0.001, 0.9, ("", "dead"), Verdict.DIFFERENT, ""),
        (0.9, 0.001, ("", "dead"), Verdict.OPEN, "dead"),
        (0.9, 0.001, ("coarse", ""), Verdict.SAME, "any difference is smaller than 5 %"),
        (0.9, 0.9, ("", "dead"), Verdict.OPEN, "the interval holds 1"),  # what would not be the same anyway
        (0.9, 0.9, ("coarse", "dead"), Verdict.OPEN, "coarse"),
    ],
)
def test_what_stands_against_a_difference_and_against_the_same(
    p: float, same: float, bars: tuple[str, str], verdict: Verdict, why: str
) -> None:
    (row,) = judged(p, same=[same], bar=[bars[0]], bar_same=[bars[1]]).to_dict("records")
    assert (row["verdict"], row["why"]) == (verdict, why)


def test_one_bar_stands_against_both() -> None:
    assert judged(0.001, bar=["dead"])["verdict"].tolist() == [Verdict.OPEN]
    assert judged(0.9, same=[0.001], bar=["dead"])["why"].tolist() == ["dead"]


def test_rows_keep_their_order_whatever_their_index() -> None:
    table = rows(0.9, 0.001).set_index(pd.Index([7, 3]))
    families = pd.Series([EXPLORATORY, HEADLINE], index=[7, 3])
    found = judge(table, families)
    assert found["claim"].tolist() == [False, True]
    assert set(found) == {*table, *JUDGED, "claim"}


def test_what_is_there_is_kept_from_the_collector_of_garbage_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def corrected(*words: object, **named: object) -> object:
        kept.append(gc.get_freeze_count())
        return multipletests(*words, **named)

    monkeypatch.setattr(multitest, "multipletests", corrected)
    judged(0.5)
    assert min(kept) > 0
    assert gc.get_freeze_count() == 0


# -- power -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "p_values", "level"),
    [
        (HEADLINE, [0.5], ALPHA),
        (HEADLINE, [0.5, 0.5, 0.5, 0.5], ALPHA / 4),
        (HEADLINE, [0.5, 0.5, math.nan], ALPHA / 2),
        (EXPLORATORY, [0.5, 0.5, 0.5, 0.5], ALPHA / 4),
        (EXPLORATORY, [0.001, 0.5, 0.5, 0.5], 2 * ALPHA / 4),
        (EXPLORATORY, [0.001, 0.001], ALPHA),
        (EXPLORATORY, [0.9, 0.025], ALPHA),  # which is 0.05, corrected
        (EXPLORATORY, [math.nan], ALPHA),
    ],
)
def test_power_is_that_of_one_more_claim(family: str, p_values: list[float], level: float) -> None:
    table = judged(*p_values, family=family)
    units, scatter = np.array([5.0]), np.array([0.1])
    assert table["shows"][0] == pytest.approx(estimate.shown(units, scatter, level)[0])
    assert table["needs"][0] == estimate.needed(scatter, level, 1.1)[0]
    assert DETECTED == 1.1, "which is what the page says: 10 %"


def test_power_is_told_where_the_scatter_is_known() -> None:
    told = of(shows=1.125, needs=14.0, per="sessions").power
    assert "12 %" in told
    assert "14 sessions" in told
    assert "alone" in of(shows=VAST + 1.0).power
    assert f"{VAST} ×" in of(shows=VAST + 1.0).power
    assert "alone" not in of(shows=float(VAST)).power
    assert of(shows=math.nan).power == of(shows=math.inf).power == ""


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1.004, "0.4 %"), (1.12, "12 %"), (1.99, "99 %"), (2.0, "2 ×"), (2.54, "2.5 ×"), (99.0, "99 ×"),
     (VAST * 1.0, "1e+02 ×"), (VAST + 0.5, f"more than {VAST} ×")],
)  # fmt: skip
def test_from_a_doubling_on_it_is_a_multiple(ratio: float, words: str) -> None:
    assert in_percent(ratio) == words


# -- why not, and words ----------------------------------------------------------------------------------------


def test_a_difference_needs_no_excuse_and_what_is_barred_has_the_reason() -> None:
    assert judged(0.001)["why"].tolist() == [""]
    assert judged(0.001, bar="it died")["why"].tolist() == ["it died"]
    assert judged(0.001, bar="it died")["claim"].tolist() == [False]
    assert judged(0.9, same=0.001, bar="it died")["verdict"].tolist() == [Verdict.OPEN]


@pytest.mark.parametrize(("family", "name"), [(HEADLINE, "Holm"), (EXPLORATORY, "Benjamini"), (TWIN, "Benjamini")])
def test_one_of_many_is_told_with_its_correction(family: str, name: str) -> None:
    why = judged(0.04, 0.9, family=family)["why"][0]
    assert name in why
    assert "0.08" in why


def test_each_reason_is_told_of_its_own_case() -> None:
    """The words that tell them apart; `few` are two blocks, or a p that could not be had."""
    words = {
        "positive": judged(0.9, ratio=math.nan, units=2.0),
        "2 shared blocks": judged(0.04, 0.9, units=2.0),
        "5 shared blocks": judged(math.nan),
        "5 %": judged(0.9, same=0.001),
        "holds 1": judged(0.9),
    }
    for word, table in words.items():
        assert [key for key in words if key in table["why"][0]] == [word]
    assert "3 shared" not in judged(0.9, units=float(estimate.FEWEST))["why"][0]
    assert "sessions" in judge(rows(0.9, units=2.0), pd.Series([HEADLINE]), per="sessions")["why"][0]
    assert "corrected" in judged(ALPHA, 0.9)["why"][0]


def test_what_is_explored_is_marked_where_it_is_proven() -> None:
    assert "exploratory" in of(verdict=Verdict.SAME, family=EXPLORATORY).words
    assert "exploratory" not in of(verdict=Verdict.OPEN, family=EXPLORATORY).words
    assert "exploratory" not in of(verdict=Verdict.SAME, family=HEADLINE).words


def test_three_answers_have_words_of_their_own() -> None:
    words = {verdict.words for verdict in Verdict}
    assert len(words) == 3
    assert all(words)
    assert [verdict for verdict in Verdict if "5 %" in verdict.words] == [Verdict.SAME]
    assert [of(verdict=verdict).claim for verdict in Verdict] == [True, False, False]
    assert [of(verdict=verdict).is_proven for verdict in Verdict] == [True, True, False]
