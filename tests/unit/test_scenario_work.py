"""A scenario's own work: its table, what counts as right, and the figures that its output holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_instance import LOOPBACK, LocalInstance

from lab.backends.registry import available
from lab.errors import LabError, ScenarioError
from lab.experiment.scenarios import scenario
from lab.experiment.scenarios.work import parse
from lab.metrics.base import Subject
from lab.metrics.clients.jobs import Done
from lab.metrics.work import OwnWork, complaint, observe
from lab.model import Completed, DoneReadiness, Figure, Place, Scenario, Take, TalkReadiness, Work
from lab.results.record import Status

TOML = Path("scenario.toml")
FIGURE = {"name": "rate", "pattern": r"rate ([0-9.]+)", "unit": "1"}


def done(stdout: str = "", stderr: str = "", code: int = 0) -> Done:
    return Done(completed=Completed(exit_code=code, stdout=stdout.encode(), stderr=stderr.encode()), seconds=1.5)


def test_every_key_is_read() -> None:
    found = parse(
        {
            "beside": "client 'two words' {address}:{port}",
            "expect": "all right",
            "timeout_seconds": 5,
            "figures": [
                {**FIGURE, "label": "Rate", "definition": "d", "scale": 2, "better": "more"},
                FIGURE | {"name": "b"},
            ],
        },
        TOML,
    )
    assert found.argv == ("client", "two words", "{address}:{port}")
    assert (found.place, found.expect, found.timeout_seconds) == (Place.BESIDE, "all right", 5.0)
    first, second = found.figures
    assert first == Figure(
        name="rate", pattern=FIGURE["pattern"], unit="1", label="Rate", definition="d", scale=2.0, more_is_better=True
    )
    assert (second.label, second.scale, second.more_is_better) == ("b", 1.0, False)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "inside, beside"),
        ({"inside": "a", "beside": "b"}, "inside, beside"),
        ({"inside": ""}, "empty"),
        ({"inside": "'"}, "quotation"),
        ({"inside": "x {who}"}, "who"),
        ({"inside": "x {0}"}, "work.inside"),
        ({"inside": "x", "expect": "("}, "regular expression"),
        ({"inside": "x", "timeout_seconds": 0}, "above 0"),
        ({"inside": "x", "figures": ["a"]}, "no table"),
        ({"inside": "x", "figures": [{"name": "a"}]}, "pattern is missing"),
        ({"inside": "x", "figures": [FIGURE | {"pattern": "none"}]}, "has 0 groups"),
        ({"inside": "x", "figures": [FIGURE | {"pattern": "(a)(b)"}]}, "has 2 groups"),
        ({"inside": "x", "figures": [FIGURE | {"name": "Rate"}]}, "can't be a name"),
        ({"inside": "x", "figures": [FIGURE | {"name": "seconds"}]}, "can't be a name"),
        ({"inside": "x", "figures": [FIGURE | {"better": "bigger"}]}, "better"),
        ({"inside": "x", "figures": [FIGURE | {"scale": True}]}, "scale"),
        ({"inside": "x", "figures": [FIGURE | {"colour": "red"}]}, "colour"),
        ({"inside": "x", "figures": [FIGURE | {"take": "best"}]}, "take"),
        ({"inside": "x", "figures": [FIGURE, FIGURE]}, "one name"),
    ],
)
def test_what_is_wrong_is_said(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError, match=says) as caught:
        parse(table, TOML)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_wrong_output_is_no_success() -> None:
    work = Work(argv=("job",), place=Place.INSIDE, expect="^fine$")
    assert complaint(work, done("fine\n")) == ""
    assert complaint(work, done(stderr="x\nfine")) == ""
    assert "does not match" in complaint(work, done("finer"))
    assert "exit code 3: no disk" in complaint(work, done("fine", "no disk", 3))


@given(st.floats(min_value=0, max_value=1e12, allow_subnormal=False), st.sampled_from([1.0, 0.001, 1024.0]))
def test_the_last_number_counts_in_its_unit(value: float, scale: float) -> None:
    figure = Figure(name="rate", pattern=r"rate ([0-9.e+-]+)", unit="1", label="r", scale=scale)
    seen = observe(figure, f"rate 7\nrate {value!r}\n", "")
    assert seen.value == pytest.approx(value * scale)
    assert (seen.quantity, seen.status) == ("work.rate", Status.OK)


@pytest.mark.parametrize("text", ["", "rate x", "rate 1.2.3"])
def test_a_number_that_is_not_there_is_a_failure(text: str) -> None:
    seen = observe(Figure(name="rate", pattern=r"rate ([0-9.]+)", unit="1", label="r"), text, "")
    assert (seen.value, seen.status) == (None, Status.FAILED)
    assert "no number" in seen.text


@given(st.lists(st.floats(min_value=0, max_value=1e9), min_size=20, max_size=200))
def test_of_many_numbers_the_median_or_the_95th_percentile_is_taken_and_each_is_kept(values: list[float]) -> None:
    text = "".join(f"call: {value!r} ms\n" for value in values)
    figures = {
        take: Figure(
            name="call", pattern=r"^call: ([0-9.e+-]+) ms", unit="seconds", label="c", take=take, scale=0.001
        )
        for take in Take
    }
    seen = {take: observe(figure, text, "") for take, figure in figures.items()}
    scaled = sorted(value * 0.001 for value in values)
    assert seen[Take.MEDIAN].value == pytest.approx((scaled[(len(values) - 1) // 2] + scaled[len(values) // 2]) / 2)
    p95 = seen[Take.P95].value
    assert p95 in scaled
    assert sum(value <= p95 for value in scaled) >= 0.95 * len(values)
    assert sum(value < p95 for value in scaled) < 0.95 * len(values)
    assert seen[Take.LAST].value == values[-1] * 0.001
    assert seen[Take.P95].detail["values"] == [value * 0.001 for value in values]
    assert {each.status for each in seen.values()} == {Status.OK}


def test_of_few_numbers_no_95th_percentile_is_taken() -> None:
    figure = Figure(name="call", pattern=r"call ([0-9.]+)", unit="1", label="c", take=Take.P95)
    assert observe(figure, "call 1\n" * 20, "").status is Status.OK
    seen = observe(figure, "call 1\n" * 19, "")
    assert seen.status is Status.FAILED
    assert "too few" in seen.text


def a_scenario(work: Work | None) -> Scenario:
    return Scenario(name="s", title="S", directory=Path(), dockerfile=Path(), port=81, work=work)


def test_work_inside_and_beside_are_done_once(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def beside(argv: Sequence[str], timeout_seconds: float) -> Done:
        asked.append(argv)
        return done(f"rate {timeout_seconds}")

    figures = (Figure(name="rate", pattern=r"rate ([0-9.]+)", unit="1", label="r"),)
    for place in Place:
        argv = ("echo", "rate", "9.0") if place is Place.INSIDE else ("client", "{address}:{port}")
        wanted = a_scenario(Work(argv=argv, place=place, timeout_seconds=9.0, figures=figures))
        with LocalInstance(["sleep", "10"], tmp_path) as instance:
            subject = Subject.before_launch(scenario=wanted, network=LOOPBACK, idle_seconds=0.0, beside=beside)
            subject.launched(instance)
            seen = {each.quantity: each for each in [*OwnWork().loaded(subject), *OwnWork().loaded(subject)]}
        assert list(seen) == ["work.seconds", "work.cpu", "work.rate"]
        assert seen["work.rate"].value == 9.0
        assert all(each.status is Status.OK for each in seen.values())
    assert asked == [["client", f"{instance.address}:81"]]


def test_without_work_there_is_nothing_to_see(tmp_path: Path) -> None:
    with LocalInstance(["sleep", "10"], tmp_path) as instance:
        subject = Subject.before_launch(scenario=a_scenario(None), network=LOOPBACK, idle_seconds=0.0)
        subject.launched(instance)
        assert list(OwnWork().loaded(subject)) == []


def test_a_client_needs_somebody_to_run_it(tmp_path: Path) -> None:
    wanted = a_scenario(Work(argv=("client",), place=Place.BESIDE))
    with LocalInstance(["sleep", "10"], tmp_path) as instance:
        subject = Subject.before_launch(scenario=wanted, network=LOOPBACK, idle_seconds=0.0)
        subject.launched(instance)
        with pytest.raises(LabError, match="nobody"):
            subject.work()


@pytest.mark.parametrize("name", scenario.names())
def test_every_scenario_that_ships_is_whole(name: str) -> None:
    found = scenario.load(name)
    assert found.title != name
    assert found.limits.memory_bytes
    for backend in available():
        backend.check_limits(found.limits)
    page = (found.directory / "README.md").read_text()
    assert f"lab compare {name}" in page
    assert "## What it teaches" in page
    assert "## What you may not conclude" in page
    ends = isinstance(found.readiness, DoneReadiness)
    assert found.load is not None or found.work is not None or ends or name == "idle"
    for figure in found.work.figures if found.work else ():
        assert figure.name in page, figure.name


def test_a_protocols_own_ping_is_a_readiness(tmp_path: Path) -> None:
    tmp_path.joinpath("Dockerfile").write_text("FROM scratch\n")
    tmp_path.joinpath("scenario.toml").write_text('[readiness]\nsend = "PING\\r\\n"\nexpect = "+PONG"\n')
    assert scenario.load(str(tmp_path)).readiness == TalkReadiness(send="PING\r\n", expect="+PONG")
    tmp_path.joinpath("scenario.toml").write_text('[readiness]\nsend = "PING"\n')
    with pytest.raises(ScenarioError, match="without expect"):
        scenario.load(str(tmp_path))
