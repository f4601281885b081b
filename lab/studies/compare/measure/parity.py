"""Are the copies the same? Asked inside each of them, because that is the only place where it can be seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lab.errors import LaunchError, ParityError
from lab.experiment.placing import where
from lab.host.cpulist import numbers
from lab.host.survey.virtualisation import platform
from lab.images.store import Manifest
from lab.instance import INSIDE, Backend, Instance, LaunchRequest
from lab.model import Kernel

SHOWN_DIFFERENCES = 12
CPUS = {Kernel.OWN: "number of vCPUs", Kernel.USER_MODE: "a quota of the host's CPUs"}
MANIFEST_SECONDS = 120.0  # what an emulated guest may need to read a large image


def verify_manifest(backend: Backend, request: LaunchRequest, expected: Manifest, ready_seconds: float) -> str:
    """Let an instance print the digest of every file it sees, in place of the application's start.

    The application is not started, so nothing has been written yet: the digest must be the image's own. Printing may
    take as long as becoming ready. Returns the digest. Raises ParityError with the first differing files,
    LaunchError when the instance fails.
    """
    timeout_seconds = platform().patience * max(MANIFEST_SECONDS, ready_seconds)
    without = [word for path in _added(backend, expected) for word in ("--without", path)]
    digest, lines = _print_manifest(backend, request, timeout_seconds, *without, "--digest").split()
    if digest.decode() != expected.digest:
        logs = request.log_directory.with_name(f"{request.log_directory.name}-diff")
        logs.mkdir(exist_ok=True)
        again = replace(request, name=f"{request.name}-diff", log_directory=logs)
        different = expected.diff(_print_manifest(backend, again, timeout_seconds, *without))
        raise ParityError(
            f"{backend.name} sees other files than the image holds: {len(different)} lines differ,"
            f" {int(lines)} files seen, {expected.file_count} expected",
            hint="lab would compare two different things; please report this with the lines above",
            detail="\n".join(different[:SHOWN_DIFFERENCES]),
        )
    return digest.decode()


def _added(backend: Backend, expected: Manifest) -> list[str]:
    """What the backend adds to every root, and this image does not hold: it is the backend's, and said in its parity.

    A file that the image holds is compared, whoever would have added one there.
    """
    if not backend.adds:
        return []
    held = {line.rpartition(" ")[2] for line in expected.text_path.read_text("ascii").splitlines()}
    return [path for path in backend.adds if path not in held]


def _print_manifest(backend: Backend, request: LaunchRequest, timeout_seconds: float, *options: str) -> bytes:
    argv = (INSIDE, "manifest", *options, "/")
    process = replace(request.process, argv=argv, uid=0, gid=0, additional_gids=(), working_directory="/")
    knobs = {**backend.carrying(request.knobs), **backend.reading}
    with backend.launch(replace(request, process=process, knobs=knobs)) as instance:
        code = instance.wait(timeout_seconds)
        log = request.log_directory
        if code != 0:
            raise LaunchError(
                f"{backend.name} could not print the manifest: "
                + ("it did not end in time" if code is None else f"exit code {code}"),
                hint=f"see {log}",
                detail="\n".join((log / "stderr.log").read_text(errors="replace").splitlines()[-SHOWN_DIFFERENCES:])
                if (log / "stderr.log").exists()
                else "",
            )
    return (log / "stdout.log").read_bytes()


def limits_seen(instance: Instance, kernel: Kernel) -> Mapping[str, Any]:
    """The limits as they stand where they bind: the cgroup's for a shared kernel, the guest's size for its own.

    Keys: memory_bytes, cpus, pids (None: unlimited or not a number there), ``as``: what these numbers are, and
    cpus_allowed: the list of the host's CPUs that its processes there may run on, a VMM's included. Whether limits
    take effect is for the isolation probes to show.
    """
    return {**_limits(instance, kernel), "cpus_allowed": where(instance)}


def _limits(instance: Instance, kernel: Kernel) -> Mapping[str, Any]:
    if instance.given is not None:
        return {
            "memory_bytes": instance.given.memory_bytes,
            "cpus": instance.given.cpus,
            "pids": None,
            "as": "what its machine was made with; nobody could be asked inside",
        }
    if not kernel.is_guest:
        held = instance.cgroup.effective_limits()
        return {"memory_bytes": held.memory_bytes, "cpus": held.cpus, "pids": held.pids, "as": "cgroup limits"}
    return {
        "memory_bytes": _meminfo(read_inside(instance, "/proc/meminfo")).get("MemTotal"),
        "cpus": _cpus(instance, kernel),
        "pids": instance.request.limits.pids,
        "as": f"guest RAM as its kernel sees it (MemTotal), {CPUS[kernel]}, a pids limit in the guest",
    }


def _cpus(instance: Instance, kernel: Kernel) -> float | None:
    """A virtual machine's are as many as it sees; what is a process of the host has a quota."""
    if kernel is Kernel.USER_MODE:
        return instance.cgroup.effective_limits().cpus
    return float(len(numbers(read_inside(instance, "/sys/devices/system/cpu/online"))))


def read_inside(instance: Instance, path: str) -> str:
    """The text of a small file as the instance sees it. Raises LaunchError when it can't be read."""
    answer = json.loads(instance.inside("read", path).stdout)
    if answer["errno"]:
        raise LaunchError(f"{path} can't be read inside {instance.name}: {answer['name']}")
    return str(answer["text"])


def kernel_release(instance: Instance) -> str:
    """The release of the kernel that answers inside. Raises LaunchError when it does not tell.

    One in user space need not have all of /proc: the third word of proc_version(5) says it, too.
    """
    try:
        return read_inside(instance, "/proc/sys/kernel/osrelease")
    except LaunchError:
        return read_inside(instance, "/proc/version").split()[2]


def _meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes (proc_meminfo(5))."""
    pairs = (line.split() for line in text.splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in pairs if len(words) == 3}
