"""The control: what no isolation costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.support.host import OWN_ROOT, HostBackend
from lab.instance import LaunchRequest, Parity

if TYPE_CHECKING:
    from lab.runtime.config.model import Config, MountConfig


class Process(HostBackend):
    """The image under chroot(2), with all of root's capabilities and no filter."""

    name = "process"
    title = "process (chroot)"
    mechanism = (
        "an ordinary process of the host that sees the image's files by chroot, and nothing else of a boundary"
    )
    order = 10
    confines = False
    rootless = True
    parity = Parity(
        differences=(
            "A mount namespace of its own keeps the host's mount table clean, and a network namespace gives it the "
            "same veth path as the others; nothing else separates it from the host.",
            "Limits come from the same cgroups as a container's: they are the experiment's, not a boundary.",
        ),
        rootless=(OWN_ROOT,),
    )

    @property
    def stays_in_chroot(self) -> bool:
        return True

    def config(self, request: LaunchRequest, network_namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        from lab.runtime.bundle import process_config

        return process_config(
            request.process, request.limits, network_namespace=network_namespace, extra_mounts=mounts
        )
