"""Runs of the studies beside `lab compare`, made up as `synthetic` makes up a comparison."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthetic import write_run

from lab.model import Accelerator
from lab.results.record import Arm, Sample, Status
from lab.results.store import RunFolder
from lab.runtime.seccomp.bpf import Action
from lab.studies.ladder.measure import START as LADDER_START
from lab.studies.ladder.rungs import RUNGS
from lab.studies.surface.analyse import IDLE, INSTANCE, KERNEL, LOADED, SETUP, START
from lab.studies.surface.measure import described
from lab.studies.surface.reach import Call, Outcome

MIB = 1 << 20

KIB = 1024.0
CLIMBED = ("chroot", "pid", "user", "vm")
ANSWERS = {  # what each rung of CLIMBED answers
    "boot-id": ("host", "host", "host", "own"),
    "host-processes": ("yes", "no", "no", "no"),
    "reopened": ("no", "yes", "no", "no"),
    "shut": ("no", "no", "no", "no"),
    "leak": ("yes", "yes", "yes", "yes"),
    "odd": ("inconclusive",) * 4,
    "only-above": ("inconclusive", "inconclusive", "inconclusive", "own"),
    "moved": ("yes", "no", "no", "own"),
    "late": ("inconclusive", "yes", "inconclusive", "no"),
}
REACH = {"host": "open", "yes": "open", "no": "closed", "own": "own", "inconclusive": "unknown"}


def empty_run(root: Path) -> RunFolder:
    """A comparison's folder without an observation in it."""
    folder = write_run(root, blocks=1)
    (folder.path / "samples.jsonl").write_text("")
    (folder.path / "progress.jsonl").unlink(missing_ok=True)
    return RunFolder.open(folder.path)


def ladder_run(root: Path, *, rounds: int = 8) -> RunFolder:
    """Starts of 5, 8, 8 and 900 ms with little scatter; the third round's machine did not come up."""
    folder = empty_run(root)
    titles = {rung.name: rung for rung in RUNGS}
    arms = tuple(
        Arm(
            label=name, backend=titles[name].backend, title=titles[name].title, mechanism=titles[name].adds,
            order=place, accelerator=Accelerator.TCG if name == "vm" else Accelerator.NATIVE, kernel="",
        )
        for place, name in enumerate(CLIMBED)
    )  # fmt: skip
    described = [{"name": name, "manual": titles[name].manual, "changes": ["linux.x"]} for name in CLIMBED]
    folder.update(arms=arms, settings={"kind": "ladder", "rungs": described, "idle_seconds": 0.2})
    chance = random.Random(1)
    for probe, answers in ANSWERS.items():
        for arm, answer in zip(arms, answers, strict=True):
            folder.append(ladder_answer(arm, probe, answer))
    for block in range(1, rounds + 1):
        drift = chance.uniform(0, 0.002)
        for arm, seconds, kernel in zip(arms, (0.005, 0.008, 0.008, 0.9), (100, 120, 120, 90_000), strict=True):
            if (block, arm.label) == (3, "vm"):
                folder.append(ladder_sample(arm, block, LADDER_START, None, "seconds"))
                continue
            jitter = chance.uniform(-1e-4, 1e-4)
            folder.append(
                ladder_sample(arm, block, LADDER_START, seconds + drift + jitter, "seconds"),
                ladder_sample(arm, block, "memory.cgroup.anon", 50 * KIB, "bytes"),
                ladder_sample(arm, block, "memory.cgroup.kernel", kernel * KIB, "bytes"),
                ladder_sample(arm, block, "memory.cgroup.usage", chance.uniform(1, 9) * 1e6, "bytes"),
            )
    folder.close()
    return folder


def ladder_sample(arm: Arm, block: int, quantity: str, value: float | None, unit: str) -> Sample:
    return Sample(
        metric=quantity.partition(".")[0], quantity=quantity, value=value, unit=unit, backend=arm.backend,
        arm=arm.label, block=block, position=0, instance=f"b{block}-{arm.label}", accelerator=arm.accelerator,
        status=Status.OK if value is not None else Status.FAILED, text="" if value is not None else "it broke",
    )  # fmt: skip


def ladder_answer(arm: Arm, probe: str, answer: str) -> Sample:
    detail = {"group": "g", "question": f"What of {probe}?", "evidence": "seen", "reach": REACH[answer]}
    sample = ladder_sample(arm, 0, f"isolation.{probe}", 0.0, "answer")
    status = Status.FAILED if answer == "inconclusive" else Status.OK
    return replace(sample, value=None, status=status, text=answer, detail=detail, warmup=True)


def density_run(root: Path) -> RunFolder:
    folder = empty_run(root)
    settings = {"kind": "density", "floor_bytes": 1 << 30, "stopped_by": {"container": "the floor of free memory"}}
    folder.update(settings=settings)
    for copies in range(1, 13):
        for quantity, value, unit in (
            ("density.charged", 5e6 * copies, "bytes"),
            ("density.available_change", 4e6 * copies, "bytes"),
            ("density.start", 0.05, "seconds"),
        ):
            folder.append(density_sample(quantity, value, unit, copies))
    folder.append(density_sample("density.burst", 0.2, "seconds", 4))
    folder.append(density_sample("density.burst", None, "seconds", 8, text="copy 3 did not answer"))
    folder.close()
    return folder


def density_sample(quantity: str, value: float | None, unit: str, copies: int, text: str = "") -> Sample:
    return Sample(
        metric="density", quantity=quantity, value=value, unit=unit, backend="container", arm="container",
        block=copies, position=0, instance=f"container-{copies}", text=text,
        status=Status.OK if value is not None else Status.FAILED,
    )  # fmt: skip


def starts_run(root: Path) -> RunFolder:
    """400 starts of the container around 50 ms, 8 of them failed; 40 of the vm; four at once, one of them failed."""
    folder = empty_run(root)
    folder.update(
        settings={
            "kind": "starts",
            "starts": 400,
            "floor_bytes": 1 << 30,
            "every_seconds": 0.5,
            "stock": 2,
            "settle_seconds": 60,
        }
    )
    chance = random.Random(1)
    for backend, seconds, times in (("container", 0.05, 400), ("vm", 2.0, 40)):
        for block in range(1, times + 1):
            fails = backend == "container" and block % 50 == 0
            value = None if fails else seconds * chance.lognormvariate(0, 0.1)
            folder.append(starts_sample("starts.start", value, block, backend))
            if not fails:
                for quantity in ("starts.command", "starts.answer", "starts.pause", "starts.resume", "starts.stop"):
                    folder.append(starts_sample(quantity, chance.uniform(0.001, 0.002), block, backend))
    for place in range(4):
        folder.append(starts_sample("starts.at_once", 0.1 + place / 100 if place else None, 4, "container"))
        folder.append(starts_sample("starts.staggered", 0.1 + place / 100, 4, "container"))
        folder.append(starts_sample("starts.forked", 0.5, 4, "vm"))
        for name, mib in (("pss", 100 + place), ("shared", 20), ("private", 90 + place)):
            folder.append(starts_sample(f"starts.forked.{name}", mib * 2.0**20, 4, "vm"))
        folder.append(starts_sample("starts.mapped", 0.25, 4, "vm"))
        for name, mib in (
            ("pss", 40), ("shared", 60), ("private", 30), ("saved", 120), ("pss.later", 50), ("shared.later", 70),
            ("private.later", 45), ("saved.later", 121),
        ):  # fmt: skip
            folder.append(starts_sample(f"starts.mapped.{name}", mib * 2.0**20, 4, "vm"))
    for number in range(1, 31):
        detail = {"stood_ready": number % 10 > 0}
        folder.append(replace(starts_sample("starts.handed_out", 0.004, number, "vm"), detail=detail))
    folder.update(settings={**folder.run.settings, "not_forked": {"container": "it has no CRIU"}})
    folder.close()
    return folder


def starts_sample(quantity: str, value: float | None, block: int, backend: str) -> Sample:
    return Sample(
        metric="starts", quantity=quantity, value=value, unit="seconds", backend=backend, arm=backend, block=block,
        position=0, instance=f"{backend}-{block}", status=Status.OK if value is not None else Status.FAILED,
        text="" if value is not None else "it broke",
    )  # fmt: skip


def noisy_run(root: Path) -> RunFolder:
    folder = empty_run(root)
    folder.update(settings={"kind": "noisy", "bound": {"memory_bytes": MIB}})
    free: Mapping[str, Sequence[float | None]] = {
        "quiet": [1000.0, 1100.0, 900.0],
        "cpu": [500.0, 540.0, 460.0],
        "memory": [None, None, None],
    }
    held = {"quiet": [1000.0, 1100.0, 900.0], "cpu": [990.0, 1120.0, 880.0], "memory": [950.0, 1010.0, 870.0]}
    with folder:
        folder.append(*one_place("without limits", free, memory={"oom": 1, "bound memory": 9}))
        folder.append(
            *one_place("with limits", held, cpu={"cpu": 30, "bound cpu": 2}, memory={"memory": 40, "oom": 3})
        )
        folder.finish("done")
    return folder


def noisy_sample(block: int, kind: str, limits: str, quantity: str, value: float | None, **detail: object) -> Sample:
    return Sample(
        metric="noisy",
        quantity=quantity,
        value=value,
        unit="1",
        backend="container",
        arm="container",
        block=block,
        position=0,
        instance="container-victim-1",
        status=Status.OK if value is not None else Status.FAILED,
        detail={"kind": kind, "limits": limits, **detail},
    )


def one_place(limits: str, rates: Mapping[str, Sequence[float | None]], **hits: Mapping[str, int]) -> list[Sample]:
    """Every block's rate for each kind, and what the aggressor ran into."""
    made = []
    for kind, values in rates.items():
        for block, rate in enumerate(values, 1):
            made += [
                noisy_sample(block, kind, limits, "noisy.rate", rate, hits=hits.get(kind, {})),
                noisy_sample(block, kind, limits, "noisy.latency.p99", None if rate is None else 10 / rate),
                noisy_sample(block, kind, limits, "noisy.survived", float(rate is not None)),
                noisy_sample(block, kind, limits, "noisy.host_delay", 0.001 * block),
            ]
    return made


def surface_run(root: Path) -> RunFolder:
    arms = tuple(
        Arm(
            label=name, backend=name, title=name, mechanism="…", order=order, accelerator=accelerator,
            kernel="6.1", differences=(),
        )
        for order, (name, accelerator) in enumerate(
            (("process", Accelerator.NATIVE), ("container", Accelerator.NATIVE), ("vm", Accelerator.TCG))
        )
    )  # fmt: skip
    folder = empty_run(root)
    folder.update(
        arms=arms, settings={"kind": "surface", "not_traced": "", "no_functions": "", "no_exits": "no such event"}
    )
    with folder:
        folder.append(reachable("process", "host"), reachable("container", "host"), reachable("vm", "own"))
        for block in (1, 2, 3):
            for arm in ("process", "container"):
                folder.append(
                    calls(arm, block, START, SETUP, {"mount": 10 * block, "clone": 1}),
                    calls(arm, block, START, INSTANCE, {"read": 100}),
                    calls(arm, block, IDLE, INSTANCE, {"poll": 4}),
                    calls(arm, block, LOADED, INSTANCE, {"poll": 6, "read": 20 + block}, requests=10, seconds=3.0),
                )
        folder.append(
            surface_sample("vm", 1, "surface.host_calls", LOADED, None, side=INSTANCE),
            functions("", IDLE, KERNEL, "tick", "rcu_core"),
            functions("process", LOADED, INSTANCE, "vfs_read", "tcp_sendmsg"),
            functions("process", LOADED, KERNEL, "tick", "net_rx_action"),
            functions("container", LOADED, INSTANCE, "vfs_read", "tcp_sendmsg", "seccomp_run_filters"),
            functions("container", LOADED, KERNEL, "rcu_core"),
        )
        folder.finish("done")
    return folder


def surface_sample(arm: str, block: int, quantity: str, state: str, value: float | None, **detail: Any) -> Sample:
    return Sample(
        metric="surface", quantity=quantity, value=value, unit="1", backend=arm, arm=arm, block=block, position=0,
        instance=f"{arm}-{block}", state=state, warmup=block < 1, detail=detail,
        status=Status.OK if value is not None else Status.FAILED,
        text="" if value is not None else "3 of 9 requests were not answered correctly",
    )  # fmt: skip


def calls(arm: str, block: int, state: str, side: str, made: dict[str, int], **about: Any) -> Sample:
    about = {"seconds": 2.0, "requests": 0, "lost": 0, **about}
    return surface_sample(
        arm, block, "surface.host_calls", state, float(sum(made.values())), side=side, calls=made, **about
    )


def functions(arm: str, state: str, side: str, *names: str) -> Sample:
    about = {"seconds": 2.0, "requests": 0, "lost": 0}
    return surface_sample(
        arm, 1 if arm else 0, "surface.functions", state, float(len(names)), side=side, functions=list(names), **about
    )


def reachable(arm: str, kernel: str) -> Sample:
    allow, refuse = int(Action.ALLOW), int(Action.ERRNO | 1)
    made = [
        Call(number=0, name="read", filtered=Outcome.ALLOWED, answer=allow, seen=9, bare=9),
        Call(number=250, name="keyctl", filtered=Outcome.REFUSED, answer=refuse, seen=1, bare=22),
        Call(number=467, name="open_tree_attr", filtered=Outcome.ALLOWED, answer=allow, seen=38, bare=9),
    ]
    chosen = made if arm == "container" else made[:1]
    held = {
        "filters": 1,
        "instructions": 4,
        "calls": {"read": ["allowed", "allowed", 0], "open_tree_attr": ["refused", "ENOSYS", 467]},
    }
    calls = [described(call) for call in chosen]
    return surface_sample(arm, 0, "surface.calls", "", 1.0, calls=calls, kernel=kernel, in_force=held)
