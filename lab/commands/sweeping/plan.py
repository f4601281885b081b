"""What a sweep measures, and where: two TOML files.

scenarios = ["web-app", "idle"]                     # names; hosts have them, too
backends = ["process", "container", "microvm"]      # one run measures all of them, block by block
runs = 3                                            # of each scenario on each host; the default is 1
options = ["--budget", "10m"]                       # of lab compare
results = "results"                                 # beside the plan; this is the default
retries = 1                                         # of what failed; this is the default

[factors]                                           # of lab compare --factor: all levels meet in each run
cpus = ["0.5", "1"]

[images]                                            # digests; without one the first host that answers settles it
web-app = "sha256:…"

[polite]
busy = 0.25                                         # processors that others may use: above it, a host waits
patience = "1h"                                     # so long; then it is refused

hosts.toml:

[hosts.alpha]
ssh = "sweep@alpha"                                 # as ssh(1) has it
port = 22
key = "keys/sweep"                                  # beside this file, as all of its paths
known_hosts = "known_hosts"
config = "ssh_config"                               # instead of one's own
lab = "/opt/lab/.venv/bin/lab"                      # there
command = ["sudo", "-n", "/usr/local/sbin/lab-sweep-host"]      # what the worker asks; default: lab sweep host
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.commands.sweeping.wire import NAME, check_options
from lab.errors import UsageError
from lab.host.units import parse_seconds

PLAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
LOCAL = "local"
"""How the one host of ``--local`` is called."""
MOST_RUNS, MOST_RETRIES = 1000, 10
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``options`` of lab compare as ``--name=value``; ``images``: digests by scenario, where the plan has them."""

    name: str
    folder: str
    scenarios: tuple[str, ...]
    options: tuple[str, ...]
    results: str
    runs: int = 1
    retries: int = 1
    images: Mapping[str, str] = field(default_factory=dict)
    busy: float = 0.25
    patience_seconds: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One of hosts.toml's, its paths made absolute; without ``ssh`` it is this one."""

    name: str
    ssh: str = ""
    port: int = 22
    key: str = ""
    known_hosts: str = ""
    config: str = ""
    lab: str = "lab"
    command: tuple[str, ...] = ()


def read_plan(path: Path) -> Plan:
    """Raises UsageError with what is wrong in the file."""
    raw = _Table(path, _toml(path), "")
    if not PLAN_NAME.fullmatch(path.stem):
        raise UsageError(f"{path.stem!r} is no name for a plan", hint="letters, digits, dots and hyphens")
    raw.allow("scenarios", "backends", "runs", "options", "results", "retries", "factors", "images", "polite")
    scenarios, options = raw.texts("scenarios"), _joined(path, raw.texts("options", ()))
    if not scenarios or len(set(scenarios)) < len(scenarios) or not all(NAME.fullmatch(each) for each in scenarios):
        raise raw.wrong("scenarios", "a list of scenarios' names, each once")
    if backends := raw.texts("backends", ()):
        options += (f"--on={','.join(backends)}",)
    factors = raw.table("factors")
    options += tuple(f"--factor={name}={','.join(factors.texts(name))}" for name in factors.raw)
    try:
        check_options(options)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from error
    images = raw.table("images")
    images.allow(*scenarios)
    if not all(DIGEST.fullmatch(str(digest)) for digest in images.raw.values()):
        raise raw.wrong("images", "digests like sha256:…, of 64 hexadecimal digits")
    polite = raw.table("polite")
    polite.allow("busy", "patience")
    return Plan(
        name=path.stem, folder=str(path.absolute().parent), scenarios=scenarios, options=options,
        results=str(path.absolute().parent / raw.text("results", "results")),
        runs=raw.whole("runs", 1, 1, MOST_RUNS), retries=raw.whole("retries", 1, 0, MOST_RETRIES),
        images=dict(images.raw), busy=polite.positive("busy", 0.25),
        patience_seconds=parse_seconds(polite.text("patience", "1h")),
    )  # fmt: skip


def read_hosts(path: Path) -> tuple[Host, ...]:
    """Raises UsageError with what is wrong in the file."""
    raw = _Table(path, _toml(path), "")
    raw.allow("hosts")
    hosts = raw.table("hosts")
    if not hosts.raw:
        raise raw.wrong("hosts", "a table [hosts.NAME] for each host")
    return tuple(_host(path, name, hosts.table(name)) for name in hosts.raw)


def _host(path: Path, name: str, raw: _Table) -> Host:
    raw.allow("ssh", "port", "key", "known_hosts", "config", "lab", "command")
    ssh, folder = raw.text("ssh", ""), path.absolute().parent
    if not NAME.fullmatch(name):
        raise UsageError(f"{path}: {name!r} is no name for a host", hint="lower case letters, digits and hyphens")
    if not ssh or ssh.startswith("-") or any(letter.isspace() for letter in ssh):
        raise raw.wrong("ssh", "a destination like sweep@alpha")
    files = {each: raw.text(each, "") for each in ("key", "known_hosts", "config")}
    places = {each: str(folder / file) if file else "" for each, file in files.items()}
    for each, place in places.items():
        if place and not Path(place).is_file():
            raise raw.wrong(each, f"a file, and {place} is none")
    return Host(
        name=name, ssh=ssh, port=raw.whole("port", 22, 1, 65535), lab=raw.text("lab", "lab"),
        command=raw.texts("command", ()), **places,
    )  # fmt: skip


def _joined(path: Path, words: Sequence[str]) -> tuple[str, ...]:
    """Options with their values, each as one word."""
    found: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if "=" not in word and not (left and word.startswith("--")):
            raise UsageError(f"{path}: {word} has no value", hint='options = ["--budget", "10m"]')
        found.append(word if "=" in word else f"{word}={left.pop(0)}")
    return tuple(found)


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", hint="docs/sweeping.md shows one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint="TOML: https://toml.io") from error


@dataclass(frozen=True, slots=True)
class _Table:
    """Each complaint names the file and the key."""

    path: Path
    raw: Mapping[str, Any]
    name: str

    def wrong(self, key: str, wanted: str) -> UsageError:
        return UsageError(f"{self.path}: {self.name}{key} has to be {wanted}", hint="docs/sweeping.md shows one")

    def allow(self, *keys: str) -> None:
        if unknown := sorted(set(self.raw) - set(keys)):
            raise UsageError(f"{self.path}: there is no {self.name}{unknown[0]}", hint=f"there are {', '.join(keys)}")

    def table(self, key: str) -> _Table:
        found = self.raw.get(key, {})
        if not isinstance(found, dict):
            raise self.wrong(key, "a table")
        return _Table(self.path, found, f"{self.name}{key}.")

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        found = self.raw.get(key, default)
        if not isinstance(found, list | tuple) or not all(isinstance(each, str) and each for each in found):
            raise self.wrong(key, "a list of texts")
        return tuple(found)

    def text(self, key: str, default: str) -> str:
        found = self.raw.get(key, default)
        if not isinstance(found, str) or (key in self.raw and not found):
            raise self.wrong(key, "a text")
        return found

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        found = self.raw.get(key, default)
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise self.wrong(key, f"a number from {least} to {most}")
        return found

    def positive(self, key: str, default: float) -> float:
        found = self.raw.get(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < float("inf"):
            raise self.wrong(key, "a number above 0")
        return float(found)
