"""How long it takes to be there, and to be gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lab.instance import Instance
from lab.metrics.base import Metric, Observation, Subject
from lab.model import DoneReadiness, Phase, StartedReadiness, TcpReadiness

BOOT_PHASES = (
    Phase.REQUESTED,
    Phase.ISOLATED,
    Phase.KERNEL,
    Phase.INIT,
    Phase.EXECUTED,
    Phase.RESTORED,
    Phase.ADDRESSED,
    Phase.LISTENING,
    Phase.RESPONDED,
)


SILENT = (TcpReadiness, StartedReadiness, DoneReadiness, type(None))
"""What says nothing when it is ready: it is so by its port that opens, or by its execve."""


class Boot(Metric):
    """Seconds on the host's CLOCK_MONOTONIC; no guest timestamp enters.

    ``boot.total`` starts when lab decides to launch and stops when it is ready, as its scenario has it.
    ``boot.PHASE`` is the segment from the phase seen before it, so that the segments add up to the total.
    ``boot.read`` is in bytes: what all its host processes, a VMM included, fetched from disks until then. What was in
    the host's page cache was not fetched; what the kernel reads ahead on their behalf was.
    ``teardown.total`` starts when lab asks it to stop and stops when nothing of it is left on the host.

    Of an instance that is restored instead of booted, ``boot.restored`` takes the place of the segments from kernel
    to execve, and ``snapshot.size`` is what the saved one takes of the host's disk, ``snapshot.memory`` what of the
    host's memory, where its memory is mapped.

    Of a disk of the user's, ``boot.addressed`` takes the place of those from kernel to execve: until its system
    was given an address by DHCP.

    ``call.NAME``, where an engine beside it is asked by calls: how long that one took, by lab's clock, the way to
    the engine and back included; they lie within the segments.

    Left out: what is done once per image (build, disk, guest kernel, snapshot), and the client's choice to look.
    """

    name = "boot"
    order = 10

    def ready(self, subject: Subject) -> Iterator[Observation]:
        timeline = subject.instance.timeline
        stamps = timeline.stamps()
        resolutions = {phase: timeline.resolution_seconds(phase) for phase in BOOT_PHASES}
        yield from segments(stamps, resolutions, answered=not isinstance(subject.scenario.readiness, SILENT))
        for name, seconds in (subject.instance.companion.calls if subject.instance.companion else {}).items():
            yield Observation(quantity=f"call.{name}", value=seconds, unit="seconds")
        ends = isinstance(subject.scenario.readiness, DoneReadiness)  # perhaps it has ended: nobody is left to count
        if not ends and (fetched := fetched_by(subject.instance)) is not None:
            yield Observation(quantity="boot.read", value=fetched, unit="bytes")
        if (size := subject.instance.snapshot_bytes) is not None:
            yield Observation(quantity="snapshot.size", value=size, unit="bytes")
        if (held := subject.instance.saved_memory_bytes()) is not None:
            yield Observation(quantity="snapshot.memory", value=held, unit="bytes")

    def ended(self, subject: Subject) -> Iterator[Observation]:
        timeline = subject.instance.timeline
        stopping, gone = timeline.at(Phase.STOPPING), timeline.at(Phase.GONE)
        if stopping is not None and gone is not None:
            yield Observation(
                quantity="teardown.total",
                value=gone - stopping,
                unit="seconds",
                resolution=timeline.resolution_seconds(Phase.GONE),
            )


def segments(
    stamps: dict[Phase, float], resolutions: dict[Phase, float], *, answered: bool = True
) -> Iterator[Observation]:
    """Each phase's segment, then the total. Phases that did not happen are skipped, and so is RESPONDED where it is
    the phase before it under another name, for nothing ``answered``.

    A marker may overtake an earlier phase's (they come by different channels): such a segment is 0, and its
    detail keeps by how much it came too late.
    """
    started = previous = stamps[Phase.REQUESTED]
    blur = 0.0
    for phase in BOOT_PHASES[1:]:
        if phase not in stamps or (phase is Phase.RESPONDED and not answered):
            continue
        at = max(previous, stamps[phase])
        overtaken = at - stamps[phase]
        yield Observation(
            quantity=f"boot.{phase}",
            value=at - previous,
            unit="seconds",
            resolution=max(blur, resolutions.get(phase, 0.0)),
            detail={"overtaken_by_seconds": overtaken} if overtaken else {},
        )
        previous, blur = at, resolutions.get(phase, 0.0)
    if Phase.RESPONDED in stamps:
        yield Observation(
            quantity="boot.total", value=stamps[Phase.RESPONDED] - started, unit="seconds",
            resolution=resolutions.get(Phase.RESPONDED, 0.0),
        )  # fmt: skip


def fetched_by(instance: Instance) -> int | None:
    """Bytes that all host processes of an instance, a VMM included, have fetched from disks until now."""
    fetched = [fetched_bytes(pid) for pid in instance.cgroup.processes()]
    return None if None in fetched else sum(filter(None, fetched))


def fetched_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Bytes that a process and its children, as far as it has waited for them, fetched from disks (proc_pid_io(5)).

    None where the kernel does not count; 0 for a process that ended meanwhile.
    """
    try:
        text = (proc / str(pid) / "io").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0 if (proc / "self/io").exists() else None
    return int(text.partition("\nread_bytes:")[2].split()[0])
