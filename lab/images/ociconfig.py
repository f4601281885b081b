"""`ImageConfig` to and from the OCI image configuration (OCI image-spec, config.md). Pure."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from lab.errors import ImageError
from lab.images.layers import epoch
from lab.model import ImageConfig

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's name in OCI's terms, which are Go's."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def config_to_oci(config: ImageConfig, diff_ids: Sequence[str]) -> dict[str, Any]:
    """The JSON object to store; holds no wall-clock time, so that equal images have equal digests."""
    run: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in config.environment.items()],
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "WorkingDir": config.working_directory,
        "User": config.user,
        "ExposedPorts": {f"{port}/tcp": {} for port in config.exposed_ports},
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
    }
    return {
        "created": epoch().isoformat().replace("+00:00", "Z"),
        "architecture": architecture(),
        "os": "linux",
        "config": {key: value for key, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }


def config_from_oci(document: Mapping[str, Any]) -> ImageConfig:
    """The part that says how to run it. Raises ImageError for another operating system or architecture."""
    if document.get("os", "linux") != "linux" or document.get("architecture", architecture()) != architecture():
        raise ImageError(
            f"the image is for {document.get('os')}/{document.get('architecture')}",
            hint=f"this machine runs linux/{architecture()}",
        )
    run: Mapping[str, Any] = document.get("config") or {}
    pairs = [item.partition("=") for item in run.get("Env") or []]
    ports = [key.partition("/") for key in run.get("ExposedPorts") or {}]
    return ImageConfig(
        environment={name: value for name, _, value in pairs},
        entrypoint=tuple(run.get("Entrypoint") or ()),
        command=tuple(run.get("Cmd") or ()),
        working_directory=run.get("WorkingDir") or "/",
        user=run.get("User") or "",
        exposed_ports=tuple(int(port) for port, _, protocol in ports if protocol in ("", "tcp") and port.isdigit()),
        labels=dict(run.get("Labels") or {}),
        stop_signal=run.get("StopSignal") or "SIGTERM",
    )
