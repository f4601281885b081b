"""How much of a kernel each backend's instances can reach, and how much they did: what a surface run holds."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from statistics import median
from typing import Any

import pandas as pd

from lab.analysis.data import Observed
from lab.results.record import Arm, Status

CALLS, HOST_CALLS, EXITS, FUNCTIONS = "surface.calls", "surface.host_calls", "surface.exits", "surface.functions"
START, IDLE, LOADED = "start", "idle", "loaded"
STATES = (START, IDLE, LOADED)
SETUP, INSTANCE, LAB, KERNEL = "setup", "instance", "lab", "kernel"
PER = {START: "for one start", IDLE: "per idle second", LOADED: "per request"}
OUTCOMES = ("allowed", "by argument", "privileged", "refused", "killed", "absent", "not called")
"""In the order from open to closed: see `lab.studies.surface.reach.Outcome`."""
THROUGH = OUTCOMES[:3]
"""Those of a call that reaches the kernel's code for it, at least with some arguments."""
OTHER = "anything else"


def _read_subsystems() -> dict[str, str]:
    raw = tomllib.loads(files("lab.analysis").joinpath("subsystems.toml").read_text(encoding="utf-8"))
    return {name: title for title, names in raw.items() for name in names.split()}


SUBSYSTEMS = _read_subsystems()
"""What each system call is about, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What becomes of one system call inside: see `lab.studies.surface.reach.Call`. ``agrees`` None: not called."""

    number: int
    name: str
    outcome: str
    filter: str
    seen: str
    agrees: bool | None

    @property
    def subsystem(self) -> str:
        return SUBSYSTEMS.get(self.name, OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Calls of which the filter says one thing and another happens, and the likely reason."""

    said: str
    seen: str
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The filters of a process as the kernel gave them back: how many, how long, and what they answer by name.

    ``not_read`` says why it did not.
    """

    filters: int = 0
    instructions: int = 0
    answers: Mapping[str, str] = field(default_factory=dict)
    not_read: str = ""

    def __str__(self) -> str:
        if self.not_read:
            return self.not_read
        if not self.filters:
            return "no filter is in force"
        return f"{self.filters} in force, of {self.instructions:,} instructions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Every system call of one backend; none, and why, where that could not be found.

    An instance with a kernel of its own has two of them: its calls to that kernel, and to the host's the calls of
    the process that runs it, a machine's monitor or the kernel as a program. These are not made; they are what its
    filter in force says.
    """

    arm: Arm
    own_kernel: bool
    calls: tuple[Call, ...]
    failure: str = ""
    in_force: InForce | None = None

    @property
    def outcomes(self) -> Mapping[str, int]:
        """How many calls have each outcome, in the order of `OUTCOMES`."""
        counted = Counter(call.outcome for call in self.calls)
        return {outcome: counted[outcome] for outcome in OUTCOMES}

    @property
    def agreeing(self) -> tuple[int, int]:
        """Of how many both ways say the same, and of how many both say something."""
        both = [call.agrees for call in self.calls if call.agrees is not None]
        return sum(both), len(both)

    @property
    def disagreements(self) -> list[Disagreement]:
        """Where one way is wrong, or something else than the filter decides."""
        found: dict[tuple[str, str], list[str]] = {}
        for call in self.calls:
            if call.agrees is False:
                found.setdefault((call.filter, call.seen), []).append(call.name)
        return [
            Disagreement(said=said, seen=seen, names=tuple(names), reason=_reason(said, seen, names, self.in_force))
            for (said, seen), names in found.items()
        ]


def _reason(said: str, seen: str, names: Sequence[str], in_force: InForce | None) -> str:
    proven = in_force is not None and bool(in_force.answers) and all(in_force.answers[one] == seen for one in names)
    read_back = "the filter in force, read back from the kernel, says so itself: " if proven else ""
    if seen == "ENOSYS":
        return (
            f"{read_back}the runtime compiles the same profile with a libseccomp of its own, which does not know "
            "these newer calls and has them answered as if the kernel had none"
        )
    if proven:
        return f"{read_back}it is another one than the configuration's"
    if said in ("refused", "killed"):
        return "the filter that was evaluated is not, or not alone, the one in force"
    return "something else than the filter decides: a second filter, or a security module"


def _in_force(detail: Mapping[str, Any]) -> InForce | None:
    raw: dict[str, Any] = detail.get("in_force") or {}
    if not raw:
        return None
    return InForce(
        filters=raw.get("filters", 0), instructions=raw.get("instructions", 0), not_read=raw.get("not_read", ""),
        answers={name: answer for name, (_, answer, _) in raw.get("calls", {}).items()},
    )  # fmt: skip


def _monitor(arm: Arm, raw: Mapping[str, Any], held: InForce) -> Reach:
    """What the monitor of the machine ``arm``, or its kernel that is a program, may ask of the host's kernel."""
    who = "kernel" if arm.user_kernel else "monitor"
    calls = [
        Call(number=number, name=name, outcome=outcome, filter=outcome, seen="–", agrees=None)
        for name, (outcome, _, number) in raw.get("calls", {}).items()
    ]
    return Reach(
        arm=replace(arm, label=f"{arm.label}'s {who}", title=f"{who} of the {arm.title}"), own_kernel=False,
        calls=tuple(sorted(calls, key=lambda call: call.number)), failure=held.not_read, in_force=held,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The system calls that one side made of the host in one state, over all rounds.

    ``calls`` is the median number of each: for one start, per idle second, or per request, what idling takes
    subtracted. ``total`` is the median of their sum, ``low`` and ``high`` its extremes. ``exits`` of guests to KVM
    are counted the same way, None where the kernel has no event for them. ``lost`` counts what found no place in the
    trace, in all rounds: with any, the numbers are too low.
    """

    arm: Arm
    state: str
    side: str
    n: int
    total: float
    low: float
    high: float
    calls: Mapping[str, float]
    exits: float | None
    lost: int
    failures: tuple[str, ...] = ()

    @property
    def distinct(self) -> int:
        """How many different system calls."""
        return len(self.calls)

    @property
    def most(self) -> list[tuple[str, float]]:
        """The most frequent first."""
        return sorted(self.calls.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The functions of the host's kernel that one side entered in one state, in any round.

    Of those of the kernel's own threads and of interrupts, what the idle host does anyway is left out.
    """

    arm: Arm
    state: str
    side: str
    n: int
    names: tuple[str, ...]
    beyond: tuple[str, ...]  # that the baseline's instances don't enter in that state
    lost: int


class Exposed:
    """A loaded surface run and what it says, each part computed once."""

    def __init__(self, loaded: Observed) -> None:
        self.loaded = loaded
        self.settings: Mapping[str, Any] = loaded.run.settings
        frame = loaded.frame.copy()
        frame["side"] = frame["detail"].map(lambda detail: str(detail.get("side", "")))
        self._frame = frame

    @property
    def not_measurable(self) -> dict[str, str]:
        """What this host does not let anybody measure, and why."""
        reasons = {
            "system calls made of the host": "not_traced",
            "functions of the host's kernel": "no_functions",
            "exits to KVM": "no_exits",
        }
        return {what: why for what, key in reasons.items() if (why := str(self.settings.get(key) or ""))}

    @cached_property
    def reaches(self) -> list[Reach]:
        """Every backend's system calls, the thinnest boundary first."""
        rows = self._frame[self._frame["quantity"] == CALLS]
        found = []
        for arm in self.loaded.all_arms:
            for row in rows[rows["arm"] == arm.label].tail(1).to_dict(orient="records"):
                detail: dict[str, Any] = row["detail"]
                held, own = _in_force(detail), arm.has_own_kernel
                calls = tuple(Call(**each) for each in detail.get("calls", ()))
                failure = str(row["text"] or "")
                found.append(
                    Reach(arm=arm, own_kernel=own, calls=calls, failure=failure, in_force=None if own else held)
                )
                if own and held is not None:
                    found.append(_monitor(arm, detail["in_force"], held))
        return found

    @cached_property
    def works(self) -> list[Work]:
        """What each side did in each state, in the order of `STATES` within each backend."""
        return [
            work
            for arm in self.loaded.all_arms
            for state in STATES
            for side in (LAB, SETUP, INSTANCE)
            if (side == INSTANCE or state == START) and (work := self._work(arm, state, side)) is not None
        ]

    def work(self, arm: Arm, state: str, side: str = INSTANCE) -> Work | None:
        """One of them, None if it was not measured at all."""
        return next((each for each in self.works if (each.arm, each.state, each.side) == (arm, state, side)), None)

    def _rows(self, quantity: str, arm: Arm, state: str, side: str) -> pd.DataFrame:
        frame = self._frame
        keys = (("quantity", quantity), ("arm", arm.label), ("state", state), ("side", side))
        chosen = pd.Series(data=True, index=frame.index)
        for column, value in keys:
            chosen &= frame[column] == value
        return frame[chosen]

    def _work(self, arm: Arm, state: str, side: str) -> Work | None:
        rows = self._rows(HOST_CALLS, arm, state, side)
        if not len(rows):
            return None
        failures = tuple(dict.fromkeys(str(text) for text in rows[rows["status"] != Status.OK]["text"]))
        good = rows[rows["status"] == Status.OK]
        idle = dict(zip(*self._by_block(HOST_CALLS, arm, IDLE, side), strict=True)) if state == LOADED else {}
        rounds = [scaled(row["detail"], state, idle.get(row["block"], {})) for row in good.to_dict(orient="records")]
        totals = [sum(each.values()) for each in rounds]
        return Work(
            arm=arm,
            state=state,
            side=side,
            n=len(rounds),
            total=median(totals) if totals else float("nan"),
            low=min(totals, default=float("nan")),
            high=max(totals, default=float("nan")),
            calls=medians(rounds),
            exits=self._exits(arm, state) if side == INSTANCE else None,
            lost=sum(int(detail.get("lost", 0)) for detail in good["detail"]),
            failures=failures,
        )

    def _by_block(self, quantity: str, arm: Arm, state: str, side: str) -> tuple[list[int], list[dict[str, Any]]]:
        rows = self._rows(quantity, arm, state, side)
        rows = rows[rows["status"] == Status.OK]
        return [int(block) for block in rows["block"]], list(rows["detail"])

    def _exits(self, arm: Arm, state: str) -> float | None:
        if self.settings.get("no_exits"):
            return None
        rows = self._rows(EXITS, arm, state, INSTANCE)
        idle = self._rows(EXITS, arm, IDLE, INSTANCE)
        rates = {row["block"]: row["value"] / row["detail"]["seconds"] for row in idle.to_dict(orient="records")}
        found = []
        for row in rows.to_dict(orient="records"):
            calls = {"exits": row["value"]}
            rate = {"calls": {"exits": rates.get(row["block"], 0.0)}, "seconds": 1.0}
            found.append(scaled(row["detail"] | {"calls": calls}, state, rate).get("exits", 0.0))
        return median(found) if found else None

    @cached_property
    def functions(self) -> list[Reached]:
        """What was entered of the host's kernel; nothing where functions can't be traced, or not for all backends."""
        if self.settings.get("no_functions"):
            return []
        base = self.loaded.baseline
        anyway = self._frame[(self._frame["quantity"] == FUNCTIONS) & (self._frame["arm"] == "")]
        idle_host = frozenset(name for detail in anyway["detail"] for name in detail["functions"])
        sets: dict[tuple[str, str, str], frozenset[str]] = {}
        found = []
        for arm in sorted(self.loaded.all_arms, key=lambda each: each.label != base):
            for state in STATES:
                for side in (SETUP, INSTANCE, KERNEL):
                    rows = self._rows(FUNCTIONS, arm, state, side)
                    if not len(rows):
                        continue
                    names = frozenset(name for detail in rows["detail"] for name in detail["functions"])
                    names -= idle_host if side == KERNEL else frozenset()
                    sets[arm.label, state, side] = names
                    known = sets.get((base, state, side), frozenset())
                    found.append(
                        Reached(
                            arm=arm,
                            state=state,
                            side=side,
                            n=len(rows),
                            names=tuple(sorted(names)),
                            beyond=tuple(sorted(names - known)) if arm.label != base else (),
                            lost=sum(int(detail.get("lost", 0)) for detail in rows["detail"]),
                        )
                    )
        order = [arm.label for arm in self.loaded.all_arms]
        return sorted(found, key=lambda each: order.index(each.arm.label))


def scaled(detail: Mapping[str, Any], state: str, idle: Mapping[str, Any]) -> dict[str, float]:
    """One round's calls by name in the state's own measure: see `Work`. Those that come to nothing are left out.

    ``detail`` and ``idle`` are a sample's: ``calls`` in ``seconds``, ``requests`` answered meanwhile.
    """
    calls: Mapping[str, float] = detail["calls"]
    if state == START:
        return {name: float(count) for name, count in calls.items()}
    if state == IDLE:
        return {name: count / detail["seconds"] for name, count in calls.items()}
    rates = {name: count / idle["seconds"] for name, count in idle.get("calls", {}).items()}
    each = {
        name: (count - rates.get(name, 0.0) * detail["seconds"]) / max(detail["requests"], 1)
        for name, count in calls.items()
    }
    return {name: rate for name, rate in each.items() if rate > 0}


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each name over all rounds, of which those without it count as 0; what is 0 then is left out."""
    names: Iterable[str] = dict.fromkeys(name for each in rounds for name in each)
    found = {name: median(each.get(name, 0.0) for each in rounds) for name in names}
    return {name: value for name, value in found.items() if value > 0}
