"""A made-up run with factors, for tests of the analysis and the reports alone. Nothing in it was measured.

Two backends; memory and cpus are factors of both, firmware of the machine alone. What the factors do is exact:
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from synthetic import BACKENDS, DIGEST, MANIFEST, MIB, write_run

from lab.experiment.factors import Factor, Scope
from lab.experiment.plan import PlannedArm, arms
from lab.results.record import Arm, Run, Sample, Status
from lab.results.store import RunFolder

BOTH = {"container": ("64M", "256M"), "microvm": ("64M", "256M")}
FACTORS = (
    Factor(name="memory", scope=Scope.LIMIT, levels=("64M", "256M"), tells="what memory does", of=BOTH),
    Factor(
        name="cpus", scope=Scope.LIMIT, levels=("0.5", "1"), tells="what CPUs do",
        of={"container": ("0.5", "1"), "microvm": ("0.5", "1")},
    ),
    Factor(
        name="firmware", scope=Scope.KNOB, levels=("direct", "seabios", "ovmf"), tells="what firmware costs",
        of={"microvm": ("direct", "seabios", "ovmf")},
    ),
)  # fmt: skip
BOOT = {"container": 0.05, "microvm": 1.2}
PSS = {"container": 12 * MIB, "microvm": 70 * MIB}
CPUS_ON_BOOT = {"container": 0.6, "microvm": 1.0}
OVMF_ON_BOOT, OVMF_WITH_A_CPU = 3.0, 2.0
MEMORY_ON_PSS = {"container": 1.0, "microvm": 1.3}


def boot_seconds(arm: PlannedArm) -> float:
    """What a boot of ``arm`` takes but for the noise."""
    seconds = BOOT[arm.backend]
    if arm.factors["cpus"] == "1":
        seconds *= CPUS_ON_BOOT[arm.backend]
    if arm.factors.get("firmware") == "ovmf":
        seconds *= OVMF_WITH_A_CPU if arm.factors["cpus"] == "1" else OVMF_ON_BOOT
    return seconds


def write_factorial(root: Path, *, blocks: int = 8, seed: int = 7, noise: float = 0.03) -> RunFolder:
    """A finished run folder under ``root``; in block 2 one of the machines failed."""
    planned = arms(("container", "microvm"), FACTORS)
    plain = write_run(root / "plain", blocks=1)
    folder = RunFolder.create(root, _run(plain.run, planned, blocks))
    with folder:
        for block in range(1, blocks + 1):
            order = list(planned)
            random.Random(f"{seed}/{block}").shuffle(order)
            for position, arm in enumerate(order):
                folder.append(*_observe(arm, block, position, random.Random(f"{seed}/{block}/{arm.label}"), noise))
                folder.complete(block, arm.label)
        folder.finish("blocks done")
    return folder


def _observe(arm: PlannedArm, block: int, position: int, chance: random.Random, noise: float) -> Iterator[Sample]:
    failed = (arm.label, block) == ("microvm[firmware=seabios]", 2)
    memory = PSS[arm.backend] * (MEMORY_ON_PSS[arm.backend] if arm.factors["memory"] == "256M" else 1.0)
    shared = 1 + 0.1 * (block % 3)  # what a block does to all of its instances
    boot = boot_seconds(arm)
    for quantity, state, value, unit in (
        ("boot.isolated", "", boot * 0.3, "seconds"), ("boot.responded", "", boot * 0.7, "seconds"),
        ("boot.total", "", boot, "seconds"), ("memory.pss", "idle", memory, "bytes"),
        ("teardown.total", "", 0.1, "seconds"),
    ):  # fmt: skip
        if failed and quantity != "boot.total":
            continue
        yield Sample(
            metric=quantity.partition(".")[0], quantity=quantity, unit=unit, state=state,
            value=None if failed else value * shared * chance.lognormvariate(0, noise),
            status=Status.FAILED if failed else Status.OK, backend=arm.backend, arm=arm.label, block=block,
            position=position, instance=f"b{block}-{arm.instance}", image=DIGEST,
            accelerator=BACKENDS[arm.backend].accelerator, kernel="6.1.0",
        )  # fmt: skip


def _run(plain: Run, planned: tuple[PlannedArm, ...], blocks: int) -> Run:
    described = {arm.label: arm for arm in plain.arms}
    made = tuple(_arm(described[arm.backend], arm) for arm in planned)
    seen: Mapping[str, object] = {"manifest_digest": MANIFEST, "limits": {"as": "cgroup limits"}}
    return replace(
        plain, name="factorial", arms=made, blocks_planned=blocks, metrics=("boot", "memory"),
        settings={**plain.settings, "factors": [asdict(factor) for factor in FACTORS]},
        parity={arm.label: seen for arm in planned if not arm.is_twin},
    )  # fmt: skip


def _arm(described: Arm, arm: PlannedArm) -> Arm:
    title = described.title + (", again (A/A)" if arm.is_twin else "")
    return replace(described, label=arm.label, title=title, factors=dict(arm.factors))
