"""An application whose cost is known by construction (known.c), and what every metric says about one of it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import contract
from tiny import fill

from lab.backends.site import Site
from lab.images.store import Image, Origin, Store
from lab.metrics.base import Subject
from lab.metrics.ready.readiness import wait_ready
from lab.metrics.registry import usual_metrics
from lab.model import Figure, HttpReadiness, ImageConfig, Limits, Load, Place, Scenario, Work
from lab.results.record import Status

SOURCE = Path(__file__).with_name("known.c")
PROGRAM = "/bin/known"
ATTEMPTS = 5
LIMITS = Limits(memory_bytes=320 << 20, cpus=1.0, pids=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What it was told to do; nothing is its twin, which does the same without any known part."""

    delay_ms: int = 0
    touch_mib: int = 0
    burn_ms: int = 0
    idle_burn_ms: int = 0
    answer_ms: int = 0
    answer_burn_ms: int = 0
    linger_ms: int = 0
    job_delay_ms: int = 0
    job_burn_ms: int = 0

    def words(self) -> tuple[str, ...]:
        names = [name for name in self.__slots__ if not name.startswith("job_")]
        return (PROGRAM, *(f"{name}={getattr(self, name)}" for name in names))

    def job(self) -> tuple[str, ...]:
        return (PROGRAM, "job", f"delay_ms={self.job_delay_ms}", f"burn_ms={self.job_burn_ms}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the metrics found, by quantity and, where it has one, ``@state``; and what the application says."""

    values: dict[str, float]
    wall_seconds: float  # from its main() to its listen(), by its own clock
    cpu_seconds: float

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.values


def known_image(store: Store) -> Image:
    """Busybox and the program, in ``store``; one per source, for the store may outlive it."""
    name = f"known-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if name in store:
        return store.find(name)
    with store.scratch("known") as scratch:
        root = scratch / "root"
        fill(root)
        compile_known(root / PROGRAM.lstrip("/"))
        layer = store.add_layer(root)
    config = ImageConfig(environment={"PATH": "/bin"}, command=(PROGRAM,), exposed_ports=(contract.PORT,))
    return store.add_image(name, config=config, layers=(layer,), origin=Origin.BUILT)


def compile_known(target: Path) -> Path:
    """The program, static, at ``target``."""
    gcc = shutil.which("gcc")
    assert gcc, "gcc is not installed"
    command = [gcc, "-static", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-o", target, SOURCE]
    subprocess.run(command, check=True, timeout=250)
    return target


def scenario(parts: Parts) -> Scenario:
    """One connection, so that the answers follow each other."""
    wall = Figure(name="wall", pattern=r"wall_seconds (\S+)", unit="seconds", label="its own wall time")
    return Scenario(
        name="known",
        title="Known",
        directory=Path(),
        dockerfile=Path(),
        port=contract.PORT,
        readiness=HttpReadiness(body="known"),
        load=Load(connections=1, duration_seconds=1.0),
        work=Work(argv=parts.job(), place=Place.INSIDE, figures=(wall,)),
    )


def measure(site: Site, backend: str, name: str, parts: Parts, logs: Path) -> Found:
    """One life of one instance, with every hook of every metric; every observation must be a good one."""
    image, chosen = known_image(site.store), [metric() for metric in usual_metrics()]
    site.backend(backend).prepare(image)
    subject = Subject.before_launch(scenario=scenario(parts), network=site.network, idle_seconds=1.0)
    wanted = contract.request(site, image, name, *parts.words(), logs=logs / name, limits=LIMITS)
    with site.backend(backend).launch(wanted) as instance:
        subject.launched(instance)
        wait_ready(subject)
        seen = [
            o for hook in ("ready", "idle", "loaded") for metric in chosen for o in getattr(metric, hook)(subject)
        ]
    seen += [o for metric in chosen for o in metric.ended(subject)]
    assert {o.quantity: o.text for o in seen if o.status is not Status.OK} == {}
    told = (logs / name / "stdout.log").read_text().split()
    return Found(
        values={f"{o.quantity}@{o.state}" if o.state else o.quantity: float(o.value or 0) for o in seen},
        wall_seconds=float(told[told.index("wall_seconds") + 1]),
        cpu_seconds=float(told[told.index("cpu_seconds") + 1]),
    )


def until_quiet(check: Callable[[int], None]) -> None:
    """Try again when it fails: other programs of a busy host only ever make an instance later, never earlier."""
    for attempt in range(ATTEMPTS - 1):
        try:
            check(attempt)
            return
        except AssertionError:
            continue
    check(ATTEMPTS - 1)
