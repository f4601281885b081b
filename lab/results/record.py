"""One raw observation, and what must be known about the host that made it.

A run is a folder: ``run.json`` (a Run), ``samples.jsonl`` (a Sample per line, appended as it comes),
``progress.jsonl`` (which blocks and arms are done, so that a run can be resumed),
``samples.parquet`` (the same, written at the end), ``logs/INSTANCE/…``, the report and its plots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lab.host.survey.virtualisation import Ground
from lab.model import Accelerator

SCHEMA = 3
PRECISE_BLOCKS = 6
"""Before so many blocks no interval is trusted to be as narrow as it looks."""


class Ending(StrEnum):
    """Why a run that is complete ended; any other reason is one to resume it."""

    BLOCKS = "blocks done"
    BUDGET = "budget"
    PRECISION = "precision"
    DETECT = "enough to detect"


class Status(StrEnum):
    """How an observation ended; a failure is a result and is never dropped."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One observation of one quantity on one instance.

    ``quantity`` is dotted and starts with its metric: ``boot.isolated``, ``memory.pss``, ``load.latency.p99``,
    ``isolation.boot-id``. ``unit`` is one of: seconds, bytes, requests/s, 1 (a count or ratio), answer (an isolation
    probe: the answer is in ``text``), hertz. ``arm`` is what the statistics compare: the backend's name, or
    ``container#aa`` for the second label of an A/A pair, "" for what was observed of the host itself (the metrics
    ``host``: see `lab.studies.compare.measure.sentinel`, and ``breakout``: `lab.isolation.breakout`), which is of no
    instance either. ``state`` is idle, loaded, after-load or "". ``resolution`` is the error bar of a polled value,
    in ``unit``.
    """

    metric: str
    quantity: str
    value: float | None
    unit: str
    backend: str
    arm: str
    block: int  # counted through all sessions, from 1; those of warm-ups are 0, -1, … by session
    position: int  # place within the block's random order, from 0
    instance: str
    status: Status = Status.OK
    state: str = ""
    warmup: bool = False
    session: int = 1  # which of the run's sessions: a process of lab's with all that it makes, counted from 1
    accelerator: Accelerator = Accelerator.NATIVE
    kernel: str = ""  # release of the kernel that served the instance
    image: str = ""  # image digest
    at: float = 0.0  # seconds since the epoch when it was recorded
    resolution: float = 0.0
    text: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One label of the comparison and what stands behind it.

    ``factors`` has the level of each factor that applies to its backend; of all arms of a backend the one at the
    first level of each, its reference, is called like the backend. ``image`` is the digest of the image that it runs,
    when not all run the same. ``foreign``: it boots a system that lab did not make. ``nested``: its host is a machine
    that was emulated itself. ``user_kernel``: its kernel is its own, and a program of the host. ``made_by`` is the
    program of others that made its instances, if any: its path, what it said of its version and features, and its
    digest.
    """

    label: str
    backend: str
    title: str
    mechanism: str
    order: int
    accelerator: Accelerator
    kernel: str
    differences: tuple[str, ...] = ()
    factors: Mapping[str, str] = field(default_factory=dict, hash=False)
    image: str = ""
    nested: bool = False
    user_kernel: bool = False
    foreign: bool = False
    made_by: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def has_own_kernel(self) -> bool:
        """Whether a kernel of its own serves it: what runs natively has the host's, or one in user space."""
        return self.accelerator is not Accelerator.NATIVE or self.user_kernel

    @property
    def is_reference(self) -> bool:
        """Whether it stands for its backend where factors are not looked at; its A/A twin does too."""
        return not self.factors or self.label.partition("#")[0] == self.backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Provenance: everything about a run that is not an observation."""

    name: str  # the folder's name: 20261123-224501-web-app
    scenario: str
    title: str
    started: str  # ISO 8601, UTC
    command_line: tuple[str, ...]
    seed: int
    blocks_planned: int | None
    budget_seconds: float | None
    limits: Mapping[str, Any]
    metrics: tuple[str, ...]
    arms: tuple[Arm, ...]
    image: Mapping[str, Any]  # name, digest, manifest digest, origin, size in bytes, file count
    host: Mapping[str, Any]  # lab.host.survey.facts.provenance()
    versions: Mapping[str, str]  # lab, python, qemu, libvirt, runc, …, git revision
    settings: Mapping[str, Any] = field(default_factory=dict)  # load, readiness, warm-ups, resolution, excluded
    noop: Mapping[str, float] = field(default_factory=dict)  # the harness's own overhead: median seconds per kind
    parity: Mapping[str, Any] = field(default_factory=dict)  # arm -> manifest digest seen inside, limits proven
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # digest -> as image, of several
    ended: str = ""
    ended_because: str = ""  # an Ending, or interrupted | error: …
    schema: int = SCHEMA

    @property
    def host_levels(self) -> Mapping[str, str]:
        """How the host was for all arms, by host factor; what a factor of the run varies is not among them.

        A run from before this was recorded had warm caches.
        """
        varied = {factor["name"] for factor in self.settings.get("factors", [])}
        levels = {"caches": "warm", **self.settings.get("host", {})}
        return {name: level for name, level in levels.items() if name not in varied}

    @property
    def emulated(self) -> bool:
        """Whether the machine that it was measured in was emulated itself; no, where that was not recorded."""
        return bool(self.host.get("platform", {}).get("ground") == Ground.EMULATED)


def processors(host: Mapping[str, Any]) -> str:
    """What a host computes with, by its provenance: ``2 × AMD EPYC 7B13``; "" where that is not told.

    An installation can be copied to, or started on, another machine: its identity alone is not the host's.
    """
    cpu = host.get("cpu") or {}
    return f"{cpu['online']} × {cpu['model']}" if cpu.get("model") and cpu.get("online") else ""
