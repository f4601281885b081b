"""What must be known about a host before a number measured on it can be judged, or compared with another's.

Read from /proc and /sys alone, in a few milliseconds, changing nothing. Whatever this kernel or this machine
does not offer is left out or None, never guessed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from lab import __version__
from lab.errors import CommandError
from lab.host.cgroup.hierarchy import Hierarchies
from lab.host.command import run
from lab.host.cpulist import numbers
from lab.host.identity import privilege
from lab.host.survey import virtualisation

ROOT = Path("/")
COMMAND_TIMEOUT_SECONDS = 20.0

VERSION_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "qemu": ("qemu-system-x86_64", "--version"),
    "runc": ("runc", "--version"),
    "crun": ("crun", "--version"),
    "wrk": ("wrk", "-v"),
    "skopeo": ("skopeo", "--version"),
}


def provenance(root: Path = ROOT) -> dict[str, Any]:
    """The host as JSON: identity, system, CPU, what it all runs on (`Platform`), mitigations, memory, cgroups,
    and how busy it is right now.

    ``identity`` is a hash that tells two hosts apart without naming either, ``rootless`` whether an ordinary user
    looks at it. ``root`` is the tree in which
    proc, sys and etc are looked up.
    """
    return {
        "identity": identity(root),
        "rootless": privilege.is_rootless(),
        "distribution": parse_os_release(_read(root / "etc/os-release")),
        "kernel_release": _read(root / "proc/sys/kernel/osrelease"),
        "kernel_version": _read(root / "proc/sys/kernel/version"),
        "architecture": platform.machine(),
        "cpu": cpu(root),
        "platform": _platform(root),
        "mitigations": mitigations(root),
        "memory": memory(root),
        "cgroups": cgroups(root),
        "clocksource": _read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "noise": noise(root),
    }


def identity(root: Path = ROOT) -> str:
    """Twelve hexadecimal digits, the same for every run on this installation and for no other's.

    machine-id(5) asks that the id itself be kept confidential; hence a keyed hash of it.
    """
    secret = _read(root / "etc/machine-id") or _read(root / "proc/sys/kernel/hostname")
    return hashlib.blake2b(secret.encode(), key=b"lab host identity", digest_size=6).hexdigest()


def cpu(root: Path = ROOT) -> dict[str, Any]:
    """Model, online logical CPUs, SMT, caches in bytes, governor and clock where visible, and whether a
    hypervisor runs below this kernel (CPUID leaf 1, ECX bit 31, which the kernel lists as a flag).
    """
    first = parse_cpuinfo(_read(root / "proc/cpuinfo"))
    system = root / "sys/devices/system/cpu"
    scaling = system / "cpu0/cpufreq"
    return {
        "model": first.get("model name", ""),
        "vendor": first.get("vendor_id", ""),
        "microcode": first.get("microcode", ""),
        "online": count_range_list(_read(system / "online")),
        "smt": _read(system / "smt/control") or None,
        "virtualised": "hypervisor" in first.get("flags", "").split(),
        "hardware_virtualisation": next(
            (flag for flag in ("vmx", "svm") if flag in first.get("flags", "").split()), None
        ),
        "caches_bytes": _caches(system / "cpu0/cache"),
        "mhz": float(first["cpu MHz"]) if "cpu MHz" in first else None,
        "governor": _read(scaling / "scaling_governor") or None,
        "driver": _read(scaling / "scaling_driver") or None,
        "boost": _read(system / "cpufreq/boost") or None,
    }


def mitigations(root: Path = ROOT) -> dict[str, str]:
    """What the kernel says of each known CPU vulnerability, those that don't affect this CPU left out."""
    folder = root / "sys/devices/system/cpu/vulnerabilities"
    said = {path.name: _read(path) for path in sorted(folder.glob("*"))}
    return {name: text for name, text in said.items() if text and text != "Not affected"}


def memory(root: Path = ROOT) -> dict[str, Any]:
    """Sizes in bytes, and what can make two equal instances differ in memory: KSM and huge pages."""
    sizes = parse_meminfo(_read(root / "proc/meminfo"))
    mm = root / "sys/kernel/mm"
    return {
        "total_bytes": sizes.get("MemTotal"),
        "available_bytes": sizes.get("MemAvailable"),
        "swap_total_bytes": sizes.get("SwapTotal"),
        "swap_free_bytes": sizes.get("SwapFree"),
        "ksm": {"0": "off", "1": "on", "2": "off"}.get(_read(mm / "ksm/run")),
        "transparent_huge_pages": chosen(_read(mm / "transparent_hugepage/enabled")),
    }


def cgroups(root: Path = ROOT) -> dict[str, Any]:
    """The mode (v1, v2, hybrid) and the controllers that each of the two versions offers."""
    found = Hierarchies.detect(root)
    return {"mode": str(found.mode), "v1": sorted(found.v1), "v2": sorted(found.unified_controllers)}


def noise(root: Path = ROOT) -> dict[str, Any]:
    """How busy the host is now: load average, CPU time stolen since boot, and pressure where the kernel has PSI.

    ``pressure`` is the share of the last 10 s, in percent, in which some task waited for the resource.
    """
    load = _read(root / "proc/loadavg").split()
    pressure = {name: parse_pressure(_read(root / "proc/pressure" / name)) for name in ("cpu", "memory", "io")}
    return {
        "load_average": [float(number) for number in load[:3]],
        "steal_seconds": parse_steal_seconds(_read(root / "proc/stat")),
        "pressure": {name: share for name, share in pressure.items() if share is not None} or None,
    }


@cache
def versions() -> dict[str, str]:
    """The versions of lab, its git revision, and every tool that takes part; absent ones are left out."""
    found = {"lab": __version__, "python": platform.python_version()}
    for name, argv in VERSION_COMMANDS.items():
        if version := find_version(_output(argv)):
            found[name] = version
    if package := package_version("mmdebstrap"):  # itself it takes a third of a second to say so
        found["mmdebstrap"] = package.rpartition("-")[0] or package
    if package := package_version("libvirt0"):
        found["libvirt"] = package
    if revision := git_revision(Path(__file__).resolve().parents[2]):
        found["git"] = revision
    return found


def package_version(name: str) -> str:
    """What dpkg says of a package, with Debian's revision; empty where it is not installed."""
    return _output(("dpkg-query", "--show", "--showformat=${Version}", name))


def git_revision(checkout: Path) -> str | None:
    """The commit, with ``-dirty`` when a tracked file differs from it; None outside of a checkout.

    root may read a checkout that belongs to somebody else: nothing of it is executed.
    """
    argv = ["git", "-c", f"safe.directory={checkout}", "-c", "core.fsmonitor=false", "-C", str(checkout)]
    return _output([*argv, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]) or None


def parse_os_release(text: str) -> str:
    """PRETTY_NAME of os-release(5), or NAME, or an empty string."""
    fields = dict(re.findall(r"^(\w+)=[\"']?(.*?)[\"']?$", text, re.MULTILINE))
    return fields.get("PRETTY_NAME") or fields.get("NAME") or ""


def parse_cpuinfo(text: str) -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def parse_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes (its kB are 1024 bytes); pure counts as they are."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def disks(mountinfo: str) -> tuple[str, ...]:
    """Where file systems on block devices are mounted, each device once (proc_pid_mountinfo(5)); names with blanks,
    which are escaped there, are left out.
    """
    found = dict[str, str]()
    for line in mountinfo.splitlines():
        fields, _, (_, source, *_) = (part.split() for part in line.partition(" - "))
        if source.startswith("/dev/") and "\\" not in fields[4]:
            found.setdefault(fields[2], fields[4])
    return tuple(found.values())


def count_range_list(text: str) -> int:
    """How many numbers a cpuset list holds: ``0-3,8`` is 5 (cpuset(7), "List format")."""
    return len(numbers(text))


def chosen(text: str) -> str | None:
    """The bracketed word in ``always [madvise] never``."""
    match = re.search(r"\[([^]]+)\]", text)
    return match[1] if match else None


def parse_pressure(text: str) -> float | None:
    """``some avg10`` of a PSI file in percent; None when there is no such file."""
    match = re.search(r"^some avg10=([\d.]+)", text, re.MULTILINE)
    return float(match[1]) if match else None


def parse_steal_seconds(text: str) -> float | None:
    """The eighth figure of /proc/stat's ``cpu`` line: time in which a hypervisor ran somebody else (proc(5))."""
    words = text.split("\n", 1)[0].split()
    return int(words[8]) / os.sysconf("SC_CLK_TCK") if len(words) > 8 and words[0] == "cpu" else None


def find_version(text: str) -> str | None:
    """The first thing that looks like a version in what a program says of itself."""
    match = re.search(r"(?<![\w.])v?(\d+\.\d+[\w.+~:-]*)", text)
    return match[1].rstrip(".:-") if match else None


def _platform(root: Path) -> dict[str, str]:
    """What the host is, and what that does to figures."""
    known = virtualisation.platform() if root == ROOT else virtualisation.of(virtualisation.concluded(root))
    return {**asdict(known), "title": known.title, "effect": known.effect}


def _caches(folder: Path) -> dict[str, int]:
    """``{"L1d": 32768, …}``; instances of one level and type are alike on one CPU."""
    found: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        kind = {"Data": "d", "Instruction": "i"}.get(_read(index / "type"), "")
        match = re.fullmatch(r"(\d+)([KM]?)", _read(index / "size"))
        if match:
            found[f"L{_read(index / 'level')}{kind}"] = int(match[1]) * {"": 1, "K": 1024, "M": 1024**2}[match[2]]
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _output(argv: Sequence[str]) -> str:
    """What a command prints, errors included (some print their version there); empty when it can't be run."""
    try:
        done = run(argv, timeout_seconds=COMMAND_TIMEOUT_SECONDS, check=False)
    except CommandError:
        return ""
    if argv[0] in ("git", "dpkg-query") and done.exit_code != 0:
        return ""
    return (done.stdout + done.stderr).decode("utf-8", "replace").strip()
