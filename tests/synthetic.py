"""A made-up run, for tests of the store, the analysis and the reports alone. Nothing in it was measured.

Its shape is a real run's: four backends and an A/A arm in randomised complete blocks, one instance that failed
and one that timed out; its figures are about those of a small host without KVM.
"""

from __future__ import annotations

import html
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.model import Accelerator
from lab.reports import style
from lab.results.record import Arm, Run, Sample, Status
from lab.results.store import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lab.reports.charts import Chart, Panel

DIGEST = "sha256:" + "5f" * 32
MANIFEST = "sha256:" + "a7" * 32
MIB = 1024.0**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What one backend's figures scatter around; seconds, MiB and requests/s."""

    title: str
    mechanism: str
    order: int
    accelerator: Accelerator
    segments: Mapping[str, float]
    teardown: float
    pss: float
    anon: float
    file: float
    kernel: float
    guest: tuple[float, float] | None
    cpu_boot: float
    idle: float
    per_thousand: float
    compute: float
    requests: float
    median_latency: float
    differences: tuple[str, ...] = ()


PROBES: tuple[tuple[str, str, str, str, str, str], ...] = (  # id, group, question, answers of bare, container, vm
    ("kernel-release", "kernel sharing", "Which kernel answers its system calls?", "host", "host", "own"),
    ("boot-id", "kernel sharing", "Whose boot id does it see?", "host", "host", "own"),
    ("memory-total", "kernel sharing", "How much memory does it believe to have?", "host", "host", "own"),
    ("host-processes", "visibility", "Does it see the host's processes?", "yes", "no", "no"),
    ("kill-host-process", "visibility", "Could it kill a process of the host?", "yes", "no", "no"),
    (
        "namespaces",
        "visibility",
        "Does it live in the host's namespaces (cgroup, ipc, pid, uts)?",
        "host",
        "own",
        "own",
    ),
    ("mount", "privilege", "Can it mount a file system?", "yes", "no", "guest"),
    ("load-module", "privilege", "Can it load code into the kernel?", "yes", "no", "guest"),
    ("kernel-log", "privilege", "Can it read the kernel's log?", "yes", "no", "guest"),
    ("set-clock", "privilege", "Can it set the clock?", "yes", "no", "guest"),
    ("reboot", "privilege", "Can it reboot the machine?", "yes", "no", "guest"),
    ("sysrq", "privilege", "Can it open /proc/sysrq-trigger for writing?", "yes", "no", "guest"),
    ("block-device", "devices", "Can it open the host's disk?", "yes", "no", "no"),
    ("physical-memory", "devices", "Can it open physical memory?", "inconclusive", "inconclusive", "inconclusive"),
    ("bpf", "kernel attack surface", "Can it use bpf(2)?", "yes", "no", "guest"),
    ("perf-events", "kernel attack surface", "Can it watch the whole machine?", "yes", "no", "guest"),
    ("io-uring", "kernel attack surface", "Can it use io_uring?", "yes", "no", "guest"),
    ("capabilities", "kernel attack surface", "Does its root hold every capability?", "yes", "no", "guest"),
    ("memory-limit", "limits", "Does its memory limit hold?", "effective", "effective", "effective"),
    ("pids-limit", "limits", "Does its limit of processes hold?", "effective", "effective", "guest"),
    ("cpu-limit", "limits", "Does its CPU limit hold?", "effective", "effective", "effective"),
)
REACH = {"host": "open", "yes": "open", "own": "own", "guest": "own", "inconclusive": "unknown"}

BACKENDS: Mapping[str, Made] = {
    "process": Made(
        title="process", mechanism="chroot alone: it shares everything else with the host", order=10,
        accelerator=Accelerator.NATIVE,
        segments={"isolated": 0.004, "init": 0.002, "executed": 0.002, "listening": 0.138, "responded": 0.004},
        teardown=0.012, pss=18, anon=14.5, file=6.2, kernel=1.1, guest=None, cpu_boot=0.14, idle=0.0004,
        per_thousand=0.33, compute=1.02, requests=2900, median_latency=0.0013,
    ),
    "container": Made(
        title="container (lab)", mechanism="namespaces, cgroups, capabilities and seccomp, on the host's kernel",
        order=20, accelerator=Accelerator.NATIVE,
        segments={"isolated": 0.007, "init": 0.004, "executed": 0.006, "listening": 0.141, "responded": 0.004},
        teardown=0.031, pss=18.6, anon=14.9, file=6.3, kernel=1.9, guest=None, cpu_boot=0.15, idle=0.0005,
        per_thousand=0.36, compute=1.03, requests=2700, median_latency=0.0014,
    ),
    "microvm": Made(
        title="microVM", mechanism="a kernel of its own on minimal virtual devices", order=30,
        accelerator=Accelerator.TCG,
        segments={
            "isolated": 0.21, "kernel": 0.42, "init": 0.74, "executed": 0.11, "listening": 1.38, "responded": 0.09,
        },
        teardown=0.18, pss=143, anon=128, file=21, kernel=4.1, guest=(48, 21), cpu_boot=3.4, idle=0.011,
        per_thousand=4.9, compute=9.8, requests=260, median_latency=0.0148,
        differences=("its memory limit is the guest's RAM, kernel included",),
    ),
    "vm": Made(
        title="virtual machine", mechanism="an ordinary PC with its own kernel and a full Debian", order=40,
        accelerator=Accelerator.TCG,
        segments={"isolated": 0.34, "kernel": 1.6, "init": 1.9, "executed": 6.4, "listening": 1.6, "responded": 0.12},
        teardown=2.9, pss=301, anon=279, file=33, kernel=6.4, guest=(119, 84), cpu_boot=14.2, idle=0.031,
        per_thousand=5.3, compute=9.9, requests=238, median_latency=0.0163,
        differences=("its memory limit is the guest's RAM, kernel included", "a whole Debian runs beside it"),
    ),
}  # fmt: skip
ARMS = (*BACKENDS, "container#aa")
FAILED, TIMED_OUT = (2, "vm"), (3, "microvm")


def write_run(root: Path, *, blocks: int = 5, seed: int = 7, noise: float = 0.04, bad_luck: bool = True) -> RunFolder:
    """A finished run folder under ``root``. ``noise`` is the relative scatter (a log-normal's sigma)."""
    folder = RunFolder.create(root, _run(blocks, seed))
    with folder:
        for block in range(blocks + 1):  # block 0 warms up
            order = list(ARMS) if block else list(BACKENDS)
            random.Random(f"{seed}/{block}").shuffle(order)
            for position, arm in enumerate(order):
                folder.append(*_observe(block, arm, position, seed, noise, bad_luck))
                folder.complete(block, arm)
                (folder.log_directory(f"b{block}-{arm}") / "stdout.log").write_text("ready\n")
        folder.finish("blocks done")
    return folder


def keep_only(folder: RunFolder, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Drop every sample but the wanted ones, so that a test draws no more than it needs."""
    file = folder.path / "samples.jsonl"
    lines = [line for line in file.read_text().splitlines() if wanted(json.loads(line))]
    assert lines
    file.write_text("".join(f"{line}\n" for line in lines))


def leave_pictures_empty(patch: pytest.MonkeyPatch, *, all_but_words: bool = False) -> None:
    """For tests of what a report says: saving its pictures, twice each, takes half of its time. With
    ``all_but_words`` the PNG alone is empty, and the SVG has its words.
    """

    def save(figure: Figure, directory: Path, name: str) -> tuple[Path, Path]:
        png, svg = directory / f"{name}.png", directory / f"{name}.svg"
        png.touch()
        if all_but_words:
            figure.savefig(svg, metadata={"Date": None})
        else:
            svg.write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1420 960"/>')
        return png, svg

    patch.setattr(style, "save", save)


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """For tests of what a comparison's report says in words: neither its pictures nor the drawings in its page are
    drawn. In a drawing's place is all that it would have been drawn from, as text.
    """

    def picture(chart: Chart, looks: object, directory: Path, name: str) -> tuple[Path, Path]:
        png, svg = directory / f"{name}.png", directory / f"{name}.svg"
        png.touch()
        svg.write_text(f'<svg xmlns="http://www.w3.org/2000/svg"><title>{html.escape(repr(chart))}</title></svg>')
        return png, svg

    def inline(panel: Panel, looks: object, name: str, alt: str, *, width: float, base: float) -> str:
        return f'<svg role="img" aria-label="{html.escape(alt)}"><title>{html.escape(repr(panel))}</title></svg>'

    leave_pictures_empty(patch)
    patch.setattr("lab.reports.drawing.picture", picture)
    patch.setattr("lab.studies.compare.report.document.inline", inline)


def _observe(block: int, arm: str, position: int, seed: int, noise: float, bad_luck: bool) -> list[Sample]:
    backend = arm.removesuffix("#aa")
    made = BACKENDS[backend]
    status = Status.OK
    if bad_luck and (block, arm) == FAILED:
        status = Status.FAILED
    if bad_luck and (block, arm) == TIMED_OUT:
        status = Status.TIMEOUT
    chance = random.Random(f"{seed}/{block}/{arm}")
    quantities = _quantities(made, chance, noise)
    if block == 0:  # asked of the warm-up, which does no load
        quantities = [one for one in quantities if one[0].startswith("boot.")] + list(_answers(made))
    if status is not Status.OK:
        quantities = [("boot.total", "", None, "seconds", "the application never answered", {})]
    return [
        Sample(
            metric=quantity.split(".")[0], quantity=quantity, value=value, unit=unit, backend=backend, arm=arm,
            block=block, position=position, instance=f"b{block}-{arm}", state=state,
            status=Status.FAILED if text == "inconclusive" else status,
            accelerator=made.accelerator, kernel="6.1.0-40-amd64", image=DIGEST, warmup=block == 0,
            at=1_795_000_000.0 + 60 * block, text=text, detail=detail,
            resolution=0.001 if quantity == "boot.listening" else 0.0,
        )
        for quantity, state, value, unit, text, detail in quantities
    ]  # fmt: skip


Observed = tuple[str, str, float | None, str, str, dict[str, object]]


def _quantities(made: Made, chance: random.Random, noise: float) -> list[Observed]:
    def about(value: float) -> float:
        return value * chance.lognormvariate(0, noise)

    segments = {name: about(value) for name, value in made.segments.items()}
    found: list[Observed] = [(f"boot.{name}", "", value, "seconds", "", {}) for name, value in segments.items()]
    found.append(("boot.total", "", sum(segments.values()), "seconds", "", {}))
    found.append(("teardown.total", "", about(made.teardown), "seconds", "", {}))
    for state, growth in (("idle", 1.0), ("after-load", 1.12)):
        found += [(name, state, about(value * growth) * MIB, "bytes", "", {}) for name, value in _memory(made)]
    found += [
        ("cpu.boot", "", about(made.cpu_boot), "seconds", "", {}),
        ("cpu.idle", "idle", about(made.idle), "1", "", {}),
        ("cpu.per_1000_requests", "", about(made.per_thousand), "seconds", "", {}),
        ("cpu.compute", "", about(made.compute), "seconds", "", {}),
        (
            "load.requests_per_second",
            "",
            about(made.requests),
            "requests/s",
            "",
            {"requests": int(made.requests * 3)},
        ),
    ]
    for name, factor in (("p50", 1.0), ("p75", 1.3), ("p90", 1.8), ("p95", 2.2), ("p99", 3.6)):
        value = about(made.median_latency * factor)
        found.append((f"load.latency.{name}", "", value, "seconds", "", {"requests": int(made.requests * 3)}))
    return found


def _memory(made: Made) -> Iterator[tuple[str, float]]:
    usage = made.anon + made.file + made.kernel
    yield from (
        ("memory.pss", made.pss), ("memory.rss", made.pss * 1.2), ("memory.mapped", made.pss * 4 + 60),
        ("memory.cgroup.usage", usage), ("memory.cgroup.anon", made.anon), ("memory.cgroup.file", made.file),
        ("memory.cgroup.kernel", made.kernel), ("memory.working_set", usage - made.file / 2),
        ("memory.host.available_change", usage * 1.1),
    )  # fmt: skip
    if made.guest:
        yield from (("memory.guest.used", made.guest[0]), ("memory.guest.cache", made.guest[1]))


def _answers(made: Made) -> Iterator[Observed]:
    kind = 2 if made.guest else int(made.title != "process")
    for probe, group, question, *answers in PROBES:
        answer = answers[kind]
        detail: dict[str, object] = {
            "group": group, "question": question, "evidence": f"<{probe}>: EPERM", "severity": "tells about the host",
            "expected": "" if answer == "inconclusive" else answer, "as_expected": answer != "inconclusive" or None,
            "reason": f"because of what it is: {made.mechanism}", "reach": REACH.get(answer, "closed"),
            "mechanism": "capability" if kind == 1 else "none",
        }  # fmt: skip
        if (probe, kind) == ("kernel-log", 1):
            answer, detail = "yes", detail | {"as_expected": False, "reach": "open"}
        yield f"isolation.{probe}", "", None, "answer", answer, detail


def _run(blocks: int, seed: int) -> Run:
    arms = tuple(
        Arm(
            label=label, backend=label.removesuffix("#aa"), title=BACKENDS[label.removesuffix("#aa")].title,
            mechanism=BACKENDS[label.removesuffix("#aa")].mechanism, order=BACKENDS[label.removesuffix("#aa")].order,
            accelerator=BACKENDS[label.removesuffix("#aa")].accelerator, kernel="6.1.0-40-amd64",
            differences=BACKENDS[label.removesuffix("#aa")].differences,
        )
        for label in ARMS
    )  # fmt: skip
    return Run(
        name="", scenario="web-app", title="Made-up figures of a test", started="2026-11-23T22:45:01+00:00",
        command_line=("lab", "compare", "web-app", "--blocks", str(blocks), "--seed", str(seed)), seed=seed,
        blocks_planned=blocks, budget_seconds=None, limits={"memory_bytes": 268435456, "cpus": 1.0, "pids": 128},
        metrics=("boot", "memory", "cpu", "load", "isolation"), arms=arms,
        image={
            "name": "web-app", "digest": DIGEST, "manifest_digest": MANIFEST, "origin": "built",
            "base": {"name": "python:3.11-slim", "digest": DIGEST, "origin": "recipe"}, "size_bytes": 188_000_000,
            "layers": 3, "files": 9001,
        },
        host={
            "identity": "0123456789ab", "distribution": "A test's Linux", "kernel_release": "6.1.0-40-amd64",
            "architecture": "x86_64", "cpu": {"model": "A test's CPU", "online": 2, "virtualised": True},
            "memory": {"total_bytes": 24 * 1024**3, "ksm": "off", "transparent_huge_pages": "madvise"},
            "cgroups": {"mode": "hybrid", "v1": ["cpu", "memory"], "v2": []}, "clocksource": "tsc",
            "mitigations": {"spectre_v2": "Mitigation: Retpolines"},
        },
        versions={"lab": "0.1.0", "python": "3.11.2", "qemu": "7.2.17", "libvirt": "9.0.0", "git": "0123abc"},
        settings={
            "load": {"kind": "Load", "path": "/", "connections": 4, "duration_seconds": 3.0}, "warm_ups": 1,
            "readiness": {"kind": "HttpReadiness", "path": "/health", "status": 200, "body": "ok"},
            "idle_seconds": 10.0, "caches": "warm", "excluded": "warm-up instances (block 0)",
        },
        noop={"process": 0.0021, "microvm": 0.0105},
        parity={
            name: {
                "manifest_digest": MANIFEST,
                "limits": {
                    "memory_bytes": 268435456, "cpus": 1.0, "pids": 128,
                    "as": "guest RAM and vCPUs" if made.guest else "cgroup limits",
                },
            }
            for name, made in BACKENDS.items()
        },
    )  # fmt: skip
