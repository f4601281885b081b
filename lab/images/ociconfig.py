"""`ImageConfig` to and from the OCI image configuration (OCI image-spec, config.md; Docker adds to it). Pure."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.errors import ImageError
from lab.images.layers import epoch
from lab.model import MOST_HEALTHCHECK_SECONDS, Healthcheck, ImageConfig

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
NANOSECONDS = 1_000_000_000
LEAST_NANOSECONDS, MOST_NANOSECONDS = 1_000_000, round(MOST_HEALTHCHECK_SECONDS) * NANOSECONDS
CACHE_COMMENT = "lab.cache:"
CACHE_NOTE = re.compile(re.escape(CACHE_COMMENT) + "([0-9a-f]{64})")
HEALTH_TIMES = {
    "Interval": "interval_seconds",
    "Timeout": "timeout_seconds",
    "StartPeriod": "start_period_seconds",
    "StartInterval": "start_interval_seconds",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One entry of an image's history: what made a layer, or only changed the configuration.

    ``cache_key`` is the build's key of that layer, for ``--cache-from``; "" when there is none.
    """

    created_by: str
    empty_layer: bool
    cache_key: str = ""
    comment: str = ""


def architecture() -> str:
    """This machine's name in OCI's terms, which are Go's."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def config_to_oci(config: ImageConfig, diff_ids: Sequence[str], history: Sequence[Step] = ()) -> dict[str, Any]:
    """The JSON object to store; holds no wall-clock time, so that equal images have equal digests.

    Layers that ``history`` says nothing of come first in it: builders refuse a history that lacks some.
    """
    missing = len(diff_ids) - sum(not step.empty_layer for step in history)
    unknown = Step(created_by="", empty_layer=False, comment="a layer without a history")
    steps = (*(unknown,) * max(0, missing), *history)
    ports = [f"{port}/tcp" for port in config.exposed_ports]
    run: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in config.environment.items()],
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "WorkingDir": config.working_directory,
        "User": config.user,
        "ExposedPorts": {port: {} for port in (*ports, *config.other_ports)},
        "Volumes": {path: {} for path in config.volumes},
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "Healthcheck": _health_to_oci(config.health) if config.health else None,
        "Shell": list(config.shell),
        "OnBuild": list(config.on_build),
    }
    stamp = epoch().isoformat().replace("+00:00", "Z")
    document: dict[str, Any] = {
        "created": stamp,
        "architecture": architecture(),
        "os": "linux",
        "config": {key: value for key, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    if config.author:
        document["author"] = config.author
    if steps:
        document["history"] = [_step_to_oci(step, stamp) for step in steps]
    return document


def config_from_oci(document: Mapping[str, Any]) -> ImageConfig:
    """The part that says how to run it. Raises ImageError for another operating system or architecture, and for what
    no program can be given: a NUL byte, or a time that is none.
    """
    if document.get("os", "linux") != "linux" or document.get("architecture", architecture()) != architecture():
        raise ImageError(
            f"the image is for {document.get('os')}/{document.get('architecture')}",
            hint=f"this machine runs linux/{architecture()}",
        )
    run: Mapping[str, Any] = document.get("config") or {}
    if _holds_nul(run):
        raise ImageError("the image's configuration has a NUL byte in a text", hint="another image")
    pairs = [item.partition("=") for item in run.get("Env") or []]
    ports = [(key, *key.partition("/")[::2]) for key in run.get("ExposedPorts") or {}]
    tcp = [int(number) for _, number, protocol in ports if protocol in ("", "tcp") and _is_port(number)]
    health = run.get("Healthcheck")
    return ImageConfig(
        environment={name: value for name, _, value in pairs},
        entrypoint=tuple(run.get("Entrypoint") or ()),
        command=tuple(run.get("Cmd") or ()),
        working_directory=run.get("WorkingDir") or "/",
        user=run.get("User") or "",
        exposed_ports=tuple(tcp),
        labels=dict(run.get("Labels") or {}),
        stop_signal=run.get("StopSignal") or "",
        other_ports=tuple(key for key, _, protocol in ports if protocol not in ("", "tcp")),
        volumes=tuple(run.get("Volumes") or ()),
        shell=tuple(run.get("Shell") or ()),
        on_build=tuple(run.get("OnBuild") or ()),
        health=_health_from_oci(health) if health and health.get("Test") else None,
        author=document.get("author") or "",
    )


def _holds_nul(found: object) -> bool:
    if isinstance(found, Mapping):
        return any(_holds_nul(key) or _holds_nul(value) for key, value in found.items())
    if isinstance(found, list):
        return any(map(_holds_nul, found))
    return isinstance(found, str) and "\0" in found


def _is_port(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 5 and 0 < int(word) < 1 << 16


def history_from_oci(document: Mapping[str, Any]) -> tuple[Step, ...]:
    """The history an image carries, oldest first; empty for one without."""
    found = []
    for entry in document.get("history") or ():
        comment = str(entry.get("comment") or "")
        noted = CACHE_NOTE.fullmatch(comment)  # a key names a file of the store, and this is somebody else's text
        key = noted[1] if noted else ""
        found.append(
            Step(
                created_by=str(entry.get("created_by") or ""),
                empty_layer=bool(entry.get("empty_layer")),
                cache_key=key,
                comment="" if key else comment,
            )
        )
    return tuple(found)


def _step_to_oci(step: Step, stamp: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"created": stamp, "created_by": step.created_by}
    if comment := f"{CACHE_COMMENT}{step.cache_key}" if step.cache_key else step.comment:
        entry["comment"] = comment
    if step.empty_layer:
        entry["empty_layer"] = True
    return entry


def _health_to_oci(health: Healthcheck) -> dict[str, Any]:
    document: dict[str, Any] = {"Test": list(health.test)}
    for key, name in HEALTH_TIMES.items():
        if value := getattr(health, name):
            document[key] = round(value * NANOSECONDS)
    if health.retries:
        document["Retries"] = health.retries
    return document


def _health_from_oci(document: Mapping[str, Any]) -> Healthcheck:
    times = {key: document.get(key) or 0 for key in (*HEALTH_TIMES, "Retries")}
    for key, value in times.items():
        least = 1 if key == "Retries" else LEAST_NANOSECONDS
        if not isinstance(value, int) or (value and not least <= value <= MOST_NANOSECONDS):
            raise ImageError(
                f"the image's HEALTHCHECK has a {key} of {value}", hint="from a millisecond to ten years"
            )
    seconds = {name: times[key] / NANOSECONDS or None for key, name in HEALTH_TIMES.items()}
    return Healthcheck(test=tuple(document["Test"]), retries=times["Retries"] or None, **seconds)
