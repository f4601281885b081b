"""What an instance makes the host's kernel do: functions where they can be traced, else system calls and KVM exits.

Nothing is switched on for good: perf(1) counts as long as it runs. It would mount tracefs on the host and leave it,
so it looks from a mount namespace of its own.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lab.errors import CommandError, LabError
from lab.host.command import run
from lab.instance import Instance
from lab.metrics.wrk import LoadResult, offer
from lab.model import Scenario
from lab.network.network import Network

EVENTS = {"raw_syscalls:sys_enter": "host system calls", "kvm:kvm_exit": "exits to KVM"}
TRACING = "/sys/kernel/tracing"
LOOK = (
    'mount -t tracefs lab "$0" && head -c 1 "$0/available_filter_functions" >/dev/null && cat "$0/available_tracers"'
)
COUNT = 'mount -t tracefs lab "$0" && exec perf stat -x, -e "$1" -p "$2" -- sleep "$3"'
SECONDS = 10.0
IDLE_SECONDS = 1.0
SPARE_SECONDS = 1.5  # by which counting outlasts the load: the client's start, and perf's own
SETTLE_SECONDS = 0.3  # until perf has attached itself; longer than that it counts anyway


def function_tracing() -> str:
    """``possible here (…)``, or ``not measurable here: why``."""
    try:
        done = run(["unshare", "--mount", "sh", "-c", LOOK, TRACING], timeout_seconds=SECONDS)
    except CommandError as error:
        why = (error.detail or error.message).strip().splitlines()[-1]
        return f"not measurable here: {why}"
    tracers = done.stdout.decode().split()
    if "function" not in tracers:
        return f"not measurable here: this kernel has no function tracer (it has: {', '.join(tracers)})"
    return f"possible here (tracers: {', '.join(tracers)}), not measured by this command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """What the processes of one instance on the host, a VMM included, ask of its kernel, by event of `EVENTS`."""

    idle_per_second: Mapping[str, float]
    per_request: Mapping[str, float]  # under load, what idling takes subtracted; empty without a load


def drive(instance: Instance, network: Network, scenario: Scenario) -> Driven:
    """Count while the instance idles, then while it answers the scenario's load.

    Raises LabError when nothing can be counted here, and when not every request was answered correctly. Start-up is
    not covered: who counts needs processes that are there.
    """
    time.sleep(SETTLE_SECONDS)  # processes that only answered whether it is ready are gone then
    idle = count(instance.cgroup.processes(), IDLE_SECONDS, lambda: None)
    rates = {event: total / IDLE_SECONDS for event, total in idle.items()}
    load = scenario.load
    if load is None or scenario.port is None:
        return Driven(idle_per_second=rates, per_request={})
    results: list[LoadResult] = []
    address, port = instance.address, scenario.port
    window = load.duration_seconds + SPARE_SECONDS
    busy = count(instance.cgroup.processes(), window, lambda: results.append(offer(network, address, port, load)))
    (result,) = results
    if result.failed or not result.requests:
        raise LabError(f"{result.failed} of {result.requests} requests were not answered correctly")
    each = {
        event: max(0.0, total - rates.get(event, 0.0) * window) / result.requests for event, total in busy.items()
    }
    return Driven(idle_per_second=rates, per_request=each)


def count(pids: Iterable[int], seconds: float, meanwhile: Callable[[], None]) -> Mapping[str, int]:
    """How often each of `EVENTS` happened in these processes, their threads and children to be, in ``seconds``, in
    which ``meanwhile`` runs. An event that can't be counted here is missing.

    Raises LabError when none can.
    """
    if shutil.which("perf") is None:
        raise LabError("perf is not installed", hint="apt-get install linux-perf")
    words = ["unshare", "--mount", "sh", "-c", COUNT, TRACING]
    asked = [",".join(EVENTS), ",".join(map(str, sorted(pids))), f"{seconds:g}"]
    with ThreadPoolExecutor(1, "lab-perf") as beside:
        counting = beside.submit(run, [*words, *asked], timeout_seconds=seconds + SECONDS)
        time.sleep(SETTLE_SECONDS)
        meanwhile()
        try:
            done = counting.result()
        except CommandError as error:
            raise LabError("perf can't count here", detail=error.detail) from error
    found = parse(done.stderr.decode())
    if not found:
        raise LabError("perf can count none of its events here", detail=done.stderr.decode())
    return found


def parse(text: str) -> Mapping[str, int]:
    """The lines of ``perf stat -x,``: value, unit, event, … (perf-stat(1), "CSV FORMAT").

    What is "not counted" belongs to processes that did not run meanwhile: 0. What is "not supported" is left out.
    """
    found = {}
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2] in EVENTS and (fields[0].isdigit() or fields[0] == "<not counted>"):
            found[fields[2]] = int(fields[0]) if fields[0].isdigit() else 0
    return found
