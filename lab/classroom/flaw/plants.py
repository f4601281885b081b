"""The faults, each planted into the records of a real run, and what in these gives it away.

A plant changes the rows of samples.jsonl and run.json as if somebody had measured badly or told it badly. It returns
the evidence: words like ``arm=vm``, ``block=3``, ``quantity=memory.pss`` that name where the fault can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from lab.errors import UsageError

Row = dict[str, Any]
T = TypeVar("T")
TWIN = "#aa"


@dataclass(slots=True)
class Records:
    """What a run consists of, to be changed."""

    run: dict[str, Any]
    rows: list[Row]
    random: Random

    @property
    def arms(self) -> list[str]:
        """All but the twin."""
        return [arm["label"] for arm in self.run["arms"] if not arm["label"].endswith(TWIN)]

    @property
    def blocks(self) -> list[int]:
        """Those that count."""
        return sorted({row["block"] for row in self.counted()})

    def counted(self, arm: str = "", *quantities: str) -> list[Row]:
        """Rows of no warm-up, with a value; of one arm, of these quantities."""
        return [
            row
            for row in self.rows
            if not row["warmup"] and row["arm"] and row["value"] is not None
            and (not arm or row["arm"] == arm)
            and (not quantities or row["quantity"] in quantities)
        ]  # fmt: skip

    def some_arm(self, *, own_kernel: bool | None = None) -> str:
        """One but the baseline, drawn. Raises UsageError where there is none."""
        fitting: list[str] = [
            arm["label"]
            for arm in self.run["arms"]
            if arm["label"] in self.arms[1:] and own_kernel in (None, arm["accelerator"] != "native")
        ]
        return self.random.choice(needed(fitting, "a second backend of that kind"))

    def some_blocks(self, number: int) -> list[int]:
        """Blocks, drawn. Raises UsageError where there are too few to leave as many."""
        if len(self.blocks) < 2 * number:
            raise UsageError("this run has too few blocks for that fault", hint="a run of lab compare with 6 blocks")
        return sorted(self.random.sample(self.blocks, number))

    def scale(self, rows: Iterable[Row], factor: float) -> None:
        """Multiply values."""
        for row in needed(list(rows), "what the fault is planted into"):
            row["value"] *= factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind: its name, what it is in a sentence, and what the evidence has to name."""

    name: str
    sentence: str
    names: str
    plant: Callable[[Records], list[str]] = field(repr=False)


def needed(found: list[T], what: str) -> list[T]:
    """``found``. Raises UsageError when it is empty."""
    if not found:
        raise UsageError(
            f"this run has not {what}", hint="a run of lab compare of several backends, with its A/A pair"
        )
    return found


def not_interleaved(records: Records) -> list[str]:
    """All repetitions of an arm in a row: what drifts on the host meanwhile looks like a difference."""
    order = [*records.arms, *(arm["label"] for arm in records.run["arms"] if arm["label"].endswith(TWIN))]
    records.random.shuffle(order)
    counted = [row for row in records.rows if row["block"] > 0 and row["arm"]]
    runs: dict[tuple[int, int], list[Row]] = {}
    for row in counted:
        runs.setdefault((order.index(row["arm"]), row["block"]), []).append(row)
    now = min(row["at"] for row in counted)
    for (place, _), rows in sorted(runs.items()):
        start, end = (limit(row["at"] for row in rows) for limit in (min, max))
        for row in rows:
            row["at"], row["position"] = now + row["at"] - start, place
        now += end - start + 1.0
    records.rows.sort(key=lambda row: row["at"])
    return [f"arm={order[0]}"]


def cold_against_warm(records: Records) -> list[str]:
    """One arm's files were not in memory: it is charged for reading them from the disk."""
    arm = records.some_arm(own_kernel=False)
    resident = needed(records.counted(arm, "caches.resident"), "caches.resident")
    size = {row["instance"]: row["value"] for row in resident}
    for row in records.counted(arm, "boot.read"):
        row["value"] = 0.35 * size[row["instance"]]
    records.scale(records.counted(arm, "boot.total", "boot.listening"), records.random.uniform(4.0, 7.0))
    for row in resident:
        row["value"] = 0.0
    return [f"arm={arm}", "quantity=caches.resident"]


def emulation_called_kvm(records: Records) -> list[str]:
    """A machine that was emulated is said to have run on the processor."""
    emulated = [arm for arm in records.run["arms"] if arm["accelerator"] == "tcg"]
    arm = records.random.choice(needed(emulated, "an emulated machine"))
    arm["accelerator"] = "kvm"
    arm["differences"] = [each for each in arm["differences"] if "TCG" not in each]
    for row in records.rows:
        if row["arm"] == arm["label"]:
            row["accelerator"] = "kvm"
    return [f"arm={arm['label']}", "quantity=cpu.compute"]


def twin_differs(records: Records) -> list[str]:
    """The same thing measured twice is not the same: the experiment has a defect."""
    twins = [arm["label"] for arm in records.run["arms"] if arm["label"].endswith(TWIN)]
    twin = needed(twins, "an A/A pair")[0]
    boots = [row for row in records.counted(twin) if row["quantity"].startswith("boot.") and row["unit"] == "seconds"]
    records.scale(boots, records.random.uniform(1.5, 1.9))
    return [f"arm={twin}", "quantity=boot.total"]


def survivors_only(records: Records) -> list[str]:
    """Some of an arm's instances are nowhere: who did not make it is not told."""
    arm, lost = records.some_arm(), records.some_blocks(len(records.blocks) // 2)
    records.rows = [row for row in records.rows if row["arm"] != arm or row["block"] not in lost]
    return [f"arm={arm}", *(f"block={block}" for block in lost)]


def wrong_unit(records: Records) -> list[str]:
    """A quantity of one arm is in KiB and says bytes."""
    arm, quantity = records.some_arm(), records.random.choice(["memory.pss", "memory.cgroup.usage"])
    records.scale(records.counted(arm, quantity), 1 / 1024)
    return [f"arm={arm}", f"quantity={quantity}"]


def cherry_picked_blocks(records: Records) -> list[str]:
    """Blocks that were measured are left out, of all arms, and no rule said so beforehand."""
    dropped = records.some_blocks(len(records.blocks) // 2)
    records.rows = [row for row in records.rows if row["block"] not in dropped]
    return [f"block={block}" for block in dropped]


def limit_did_not_hold(records: Records) -> list[str]:
    """More memory than the limit allows."""
    arm = records.some_arm(own_kernel=False)
    rows = needed(records.counted(arm, "memory.cgroup.usage"), "the cgroup's usage")
    limit = float(records.run["limits"].get("memory_bytes") or 0)
    if not limit:
        raise UsageError("this run had no limit of memory", hint="a run of lab compare web-app")
    for row in rows:
        if row["state"] != "idle":
            row["value"] = limit * records.random.uniform(1.2, 1.4)
    return [f"arm={arm}", "quantity=memory.cgroup.usage"]


def copied_block(records: Records) -> list[str]:
    """A block's numbers are another's: fewer observations than it looks."""
    source, copy = records.some_blocks(2)
    values = {
        (row["arm"], row["quantity"], row["state"]): row["value"]
        for row in records.counted()
        if row["block"] == source
    }
    for row in records.counted():
        if row["block"] == copy:
            row["value"] = values.get((row["arm"], row["quantity"], row["state"]), row["value"])
    return [f"block={source}", f"block={copy}"]


def other_application(records: Records) -> list[str]:
    """One arm ran other files than the rest."""
    arm = records.some_arm()
    other = f"{records.random.getrandbits(256):064x}"
    parity = records.run["parity"]
    if arm not in parity:
        raise UsageError("this run did not compare the files inside", hint="a run of lab compare")
    parity[arm]["manifest_digest"] = other
    records.scale(records.counted(arm, "load.requests_per_second"), 1.3)
    return [f"arm={arm}"]


def warm_up_counted(records: Records) -> list[str]:
    """What was declared a warm-up stands among the observations."""
    last = records.blocks[-1] + 1
    warm = needed(
        [row for row in records.rows if row["warmup"] and row["arm"] and row["unit"] != "answer"], "a warm-up"
    )
    for row in warm:
        row["warmup"], row["block"] = False, last
    records.run["blocks_planned"] = last
    return [f"block={last}"]


def unequal_limits(records: Records) -> list[str]:
    """One arm had more processors than the others."""
    arm = records.some_arm()
    parity = records.run["parity"]
    if "limits" not in parity.get(arm, {}):
        raise UsageError("this run did not record the limits that held", hint="a run of lab compare")
    parity[arm]["limits"]["cpus"] = 4.0
    records.scale(records.counted(arm, "load.requests_per_second"), 1.8)
    return [f"arm={arm}"]


def coarse_polling(records: Records) -> list[str]:
    """An arm was looked at so seldom that its values are those of the clock's hand."""
    arm, step = records.some_arm(own_kernel=False), 0.25
    for row in needed(records.counted(arm, "boot.total"), "boot.total"):
        row["value"], row["resolution"] = step * (1 + row["value"] // step), step
    return [f"arm={arm}", "quantity=boot.total"]


def _fault(plant: Callable[[Records], list[str]], names: str) -> Fault:
    sentence = (plant.__doc__ or "").strip()
    return Fault(name=plant.__name__.replace("_", "-"), sentence=sentence, names=names, plant=plant)


FAULTS = {
    fault.name: fault
    for fault in (
        _fault(not_interleaved, "the arm that was measured first"),
        _fault(cold_against_warm, "the arm, and the quantity that tells it"),
        _fault(emulation_called_kvm, "the arm, and the quantity that contradicts it"),
        _fault(twin_differs, "the arm, and the quantity of the whole start"),
        _fault(survivors_only, "the arm, and every block that it lacks"),
        _fault(wrong_unit, "the arm, and the quantity"),
        _fault(cherry_picked_blocks, "every block that is missing"),
        _fault(limit_did_not_hold, "the arm, and the quantity"),
        _fault(copied_block, "both blocks"),
        _fault(other_application, "the arm"),
        _fault(warm_up_counted, "the block"),
        _fault(unequal_limits, "the arm"),
        _fault(coarse_polling, "the arm, and the quantity"),
    )
}
