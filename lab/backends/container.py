"""Our own container runtime, as Docker would run the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.host import HostBackend
from lab.instance import LaunchRequest, Parity

if TYPE_CHECKING:
    from lab.runtime.config import Config, MountConfig


class Container(HostBackend):
    """Namespaces, cgroups, fourteen capabilities, a seccomp filter, no_new_privs."""

    name = "container"
    title = "container (lab)"
    mechanism = "a process of the host behind namespaces, cgroups, dropped capabilities and a seccomp filter"
    order = 20
    parity = Parity(
        differences=(
            "It shares the host's kernel and page cache; its memory limit covers the application, not a kernel.",
        )
    )

    def config(self, request: LaunchRequest, network_namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        from lab.runtime.bundle import container_config

        return container_config(
            request.process,
            request.limits,
            hostname=request.name,
            network_namespace=network_namespace,
            extra_mounts=mounts,
        )
