"""What an experiment varies besides the backend: reading it, the arms that come of it, what each arm then is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import pytest

from lab.errors import BackendUnavailable, UsageError
from lab.experiment import factors as subject
from lab.experiment.factors import Factor, Scope, impossible, known, parse, recorded, remarks
from lab.experiment.hostfactors.base import HostFactor
from lab.experiment.plan import LONGEST_SLUG, Plan, arms
from lab.experiment.setup import Setup, Treatment, least_seconds, treat
from lab.instance import NO_KNOBS, Backend, Knob
from lab.metrics.registry import metrics
from lab.model import Check, Kernel, Limits, Load, Process, Scenario

MIB = 1024**2


class Thin(Backend):
    name = "thin"
    kernel = Kernel.HOST


class Thick(Backend):
    name = "thick"
    kernel = Kernel.OWN
    knobs = (
        Knob(name="firmware", levels=("direct", "seabios", "ovmf"), tells="what firmware costs"),
        Knob(name="console", levels=("off", "on"), tells="what a console costs"),
    )


class Picky(Thick):
    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        if (knobs.get("firmware"), knobs.get("console")) == ("ovmf", "on"):
            raise UsageError("they don't go together")
        return super().settle(knobs)


class Slim(Backend):
    name = "slim"
    kernel = Kernel.OWN
    knobs = (Knob(name="firmware", levels=("direct", "seabios"), tells="what firmware costs"),)


class Old(Slim):
    """A host's where one of the levels can't be had."""

    name = "old"

    @classmethod
    def lacking(cls) -> dict[tuple[str, str], str]:
        return {("firmware", "seabios"): "it is not installed"}


KINDS = (Thin, Slim, Thick)


class Weather(HostFactor):
    """A host factor that touches no thin backend."""

    name: ClassVar[str] = "weather"
    levels: ClassVar[tuple[str, ...]] = ("fair", "foul")
    tells: ClassVar[str] = "what the weather costs"

    @classmethod
    def check(cls) -> list[Check]:
        return [Check(name="barometer", ok=False, found="it is missing", remedy="buy one")]

    @classmethod
    def applies_to(cls, backend: type[Backend]) -> bool:
        return backend is not Thin

    def at(self, *_: object) -> None:  # type: ignore[override]
        raise NotImplementedError


@pytest.fixture(autouse=True)
def weather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "host_factors", lambda: (Weather,))


class FakeImage:
    digest = "sha256:" + "d" * 64


IMAGE = FakeImage()


def base() -> Treatment:
    process = Process(argv=("/app",), environment={"A": "1"})
    return Treatment(image=IMAGE, process=process, limits=Limits(pids=9))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says", "remedy"),
    [
        ("memory", "can't be read", "--factors lists"),
        ("=1,2", "can't be read", "--factors lists"),
        ("memory=128M", "has one level", "--memory 128M sets it for all"),
        ("memory=128M,0.125G", "names 128M twice", "once"),
        ("memory=128M,much", "is not a size", "256M"),
        ("pids=0,4", "not a number of processes", "64"),
        ("cpus=1,-1", "not a number of CPUs", "0.5"),
        (
            "colour=red,blue",
            "no factor of thin, slim is called colour",
            "memory, cpus, pids, firmware, weather, arg.NAME",
        ),
        ("console=on,off", "nothing to thin, slim: it is a factor of thick", "--on thick"),
        ("firmware=direct,uefi", "has no level uefi", "direct, seabios"),
        ("env.A=a;b,c", "can't be a level", "letters"),
        ("weather=fair,foul", "can't be varied here: barometer", "buy one"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_its_remedy(text: str, says: str, remedy: str) -> None:
    with pytest.raises((UsageError, BackendUnavailable), match=says) as caught:
        parse([text], KINDS[:2], KINDS[2:])
    assert remedy in caught.value.hint


def test_a_factor_is_given_once() -> None:
    with pytest.raises(UsageError, match="given twice"):
        parse(["cpus=1,2", "cpus=3,4"], KINDS)


def test_a_factor_touches_the_backends_that_have_it_with_the_levels_they_have() -> None:
    firmware, memory = parse(["firmware=ovmf,direct", "memory=64M, 128M"], KINDS)
    assert firmware.of == {"slim": ("direct",), "thick": ("ovmf", "direct")}
    assert memory.of == dict.fromkeys(("thin", "slim", "thick"), ("64M", "128M"))
    assert remarks([firmware], KINDS) == [
        "firmware is nothing to thin, whose arms it does not multiply",
        "slim has no firmware=ovmf",
    ]


def test_levels_that_are_the_same_to_a_machine_are_told() -> None:
    said = remarks(parse(["cpus=0.5,1"], KINDS), KINDS)
    assert said == [f"cpus=0.5,1 is 1, 1 vCPUs to {name}: no difference there" for name in ("slim", "thick")]


def test_what_there_is_can_be_listed() -> None:
    there = {one.name: one for one in known(KINDS)}
    assert list(there) == ["memory", "cpus", "pids", "firmware", "console", "weather", "arg.NAME", "env.NAME"]
    assert there["firmware"].levels == ("direct", "seabios", "ovmf")
    assert set(there["console"].of) == {"thick"}
    assert set(there["weather"].of) == {"slim", "thick"}
    assert all(one.tells and (one.levels or one.example) for one in there.values())


def test_knobs_of_one_name_are_each_told_of_whose_they_are() -> None:
    class Sandbox(Thick):
        name = "sandbox"
        knobs = (Knob(name="firmware", levels=("none", "some"), tells="what a sandbox's own costs"),)

    there = {one.name: one.tells for one in known([Slim, Thick, Sandbox])}
    assert there["firmware"] == "slim, thick: what firmware costs; sandbox: what a sandbox's own costs"
    assert there["console"] == "what a console costs"


def test_every_level_meets_every_other_and_a_backend_without_the_factor_stays_alone() -> None:
    factors = parse(["firmware=direct,seabios,ovmf", "console=off,on"], KINDS)
    planned = arms(("thin", "slim", "thick"), factors)
    assert Counter(arm.backend for arm in planned if not arm.is_twin) == {"thin": 1, "slim": 2, "thick": 6}
    assert len({tuple(arm.factors.items()) for arm in planned if arm.backend == "thick"}) == 6
    assert [arm.label for arm in planned if arm.backend == "slim"] == ["slim", "slim[firmware=seabios]"]
    assert "thick[firmware=ovmf,console=on]" in [arm.label for arm in planned]
    assert [arm.label for arm in planned if arm.is_reference] == ["thin", "slim", "thick"]
    assert planned[-1].label == "thin#aa"


def test_what_does_not_go_together_is_left_out() -> None:
    factors = parse(["firmware=direct,seabios,ovmf", "console=off,on", "cpus=1,2"], KINDS)
    planned = arms(("thick",), factors, lambda arm: not impossible(Picky, arm.factors, factors, Limits()))
    firmware = Counter((arm.factors["firmware"], arm.factors["console"]) for arm in planned if not arm.is_twin)
    assert firmware == {
        ("direct", "off"): 2, ("direct", "on"): 2, ("seabios", "off"): 2, ("seabios", "on"): 2, ("ovmf", "off"): 2,
    }  # fmt: skip


def test_the_pair_repeats_a_reference_arm() -> None:
    planned = arms(("process", "container"), parse(["cpus=2,1"], KINDS[:1]))
    assert planned == arms(("process", "container"), ())  # thin's factor is nothing to these
    factor = Factor(name="cpus", scope=Scope.LIMIT, levels=("2", "1"), tells="", of={"process": ("2", "1")})
    twin = next(arm for arm in arms(("process", "container"), (factor,)) if arm.is_twin)
    assert (twin.label, twin.factors) == ("process#aa", {"cpus": "2"})


def test_names_of_instances_are_short_and_fit_for_files_and_hosts() -> None:
    few = parse(["memory=64M,128M", "cpus=0.5,1"], KINDS)
    many = parse(["memory=64M,128M", "env.MESSAGE=a/long/way,another/long/way"], KINDS)
    for factors in (few, many):
        names = [arm.instance for arm in arms(("thin", "thick"), factors)]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[A-Za-z0-9.-]+", name) and len(name) <= LONGEST_SLUG for name in names)
    assert "thick-128M-0.5" in [arm.instance for arm in arms(("thin", "thick"), few)]
    assert "thick-4" in [arm.instance for arm in arms(("thin", "thick"), many)]


def test_what_this_host_lacks_is_left_out_and_said() -> None:
    """Unless nothing varies without it."""
    there = {one.name: one for one in known([Old, Thick])}["firmware"]
    assert there.of == {"old": ("direct",), "thick": ("direct", "seabios", "ovmf")}
    assert there.lacking == {("old", "seabios"): "it is not installed"}
    (factor,) = parse(["firmware=direct,seabios"], [Old, Thick])
    assert factor.of == {"old": ("direct",), "thick": ("direct", "seabios")}
    assert remarks([factor], [Old, Thick]) == ["old has no firmware=seabios: it is not installed"]
    with pytest.raises(BackendUnavailable, match="firmware=seabios of old can't be had here: it is not installed"):
        parse(["firmware=direct,seabios"], [Thin, Old])


def test_levels_come_to_limits_knobs_variables_and_the_host() -> None:
    of = {"thick": ("x",)}
    factors = [
        Factor(name=name, scope=scope, levels=("x",), tells="", of=of)
        for name, scope in (
            ("memory", Scope.LIMIT), ("cpus", Scope.LIMIT), ("pids", Scope.LIMIT), ("firmware", Scope.KNOB),
            ("env.B", Scope.ENVIRONMENT), ("arg.V", Scope.ARGUMENT), ("weather", Scope.HOST), ("unset", Scope.KNOB),
        )
    ]  # fmt: skip
    levels = {"memory": "64M", "cpus": "0.5", "firmware": "ovmf", "env.B": "2", "arg.V": "3", "weather": "foul"}
    treated = treat(base(), levels, factors)
    assert treated.limits == Limits(memory_bytes=64 * MIB, cpus=0.5, pids=9)
    assert treated.process.environment == {"A": "1", "B": "2"}
    assert (treated.knobs, treated.host) == ({"firmware": "ovmf"}, {"weather": "foul"})
    assert treat(base(), {"pids": "4"}, factors).limits.pids == 4
    assert treat(base(), {}, factors) == base()


def test_factors_come_back_out_of_a_run() -> None:
    factors = parse(["firmware=direct,ovmf", "cpus=1,2"], KINDS)
    assert recorded({"factors": [asdict(factor) for factor in factors]}) == factors
    assert recorded({}) == ()


def test_what_the_blocks_take_at_the_least_is_idling_and_load() -> None:
    def seconds(*names: str, load: Load | None) -> float:
        scenario = Scenario(name="s", title="", directory=Path(), dockerfile=Path(), load=load)
        chosen = tuple(metric() for metric in metrics() if metric.name in names)
        setup = Setup(
            scenario=scenario, image=base().image, process=base().process, limits=Limits(), metrics=chosen,
            isolation=False, idle_seconds=10.0,
        )  # fmt: skip
        return least_seconds(setup, arms(("process", "container")), 3)

    assert seconds("boot", load=Load()) == 0
    assert seconds("boot", "memory", load=None) == 90, "two backends, and the twin of one"
    assert seconds("load", load=Load(duration_seconds=2.0)) == 18


def test_a_plan_knows_its_factors() -> None:
    factors = parse(["cpus=1,2"], KINDS)
    plan = Plan(arms=arms(("thin",), factors), seed=1, blocks=2, budget_seconds=1.0, factors=factors)
    assert Counter(plan.order(1)) == Counter(plan.arms)
