"""Our own container runtime, with a user namespace besides: what a rootless container's boundary is made of.

It is not rootless when root starts it: that is a runtime without privilege (docs/rootless.md), which can set no
limits but by the leave of somebody who has it. Inside, the difference shows only in who owns what.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.container import ContainerBackend
from lab.backends.support.host import INTERPRETED
from lab.host.survey import checks
from lab.instance import LaunchRequest, Parity
from lab.model import Check

if TYPE_CHECKING:
    from lab.backends.support.host import Contained
    from lab.backends.support.resources import InstanceResources
    from lab.host.clock import Timeline
    from lab.runtime.config.model import Config, MountConfig
    from lab.runtime.launcher.launcher import Spec


class UserNamespace(ContainerBackend):
    """lab's container, but its root is an ordinary user of the host."""

    name = "userns"
    title = "container in a user namespace (lab)"
    mechanism = "lab's container in a user namespace besides: its root is an ordinary user of the host"
    order = 23
    knobs = ()  # what criu does with a user namespace, and with owners' ids shifted, lab has not tried
    own_ids = True
    rootless = True
    reference = True
    parity = Parity(
        differences=(
            *ContainerBackend.parity.differences,
            "It makes its network namespace itself, which is connected while it starts and not before; its files "
            "are mounted by their owners' ids shifted.",
            INTERPRETED,
        ),
        rootless=(
            *ContainerBackend.parity.rootless,
            "Its users are those of lab's namespace, its root lab's: no owner's id is shifted, since an ordinary "
            "user may not map what lies on another's file system.",
        ),
    )

    @classmethod
    def check(cls) -> list[Check]:
        return [*super().check(), checks.user_namespaces()]

    def config(self, request: LaunchRequest, network_namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        from lab.runtime.bundle import container_config, own_ids

        users, groups = own_ids()
        made = network_namespace == Path()  # of a survivor it is known where it lives
        return container_config(
            request.process,
            request.limits,
            hostname=request.name,
            network_namespace=None if made else network_namespace,
            extra_mounts=mounts,
            id_mappings=users,
            group_mappings=groups,
        )

    def _surroundings(self, request: LaunchRequest, resources: InstanceResources) -> list[MountConfig]:
        from lab.runtime.bundle import own_ids

        users, groups = own_ids()
        mounts = super()._surroundings(request, resources)
        for mount in mounts:  # its own, to write to, as a container's are
            os.chown(mount.source, users[0].host_id, groups[0].host_id)
        return mounts

    def _connect(self, resources: InstanceResources) -> Path:
        return Path()  # a network namespace that stood before would belong to the host's root

    def _contain(self, spec: Spec, stdio: list[int], timeline: Timeline, resources: InstanceResources) -> Contained:
        return self._contain_and_connect(spec, stdio, timeline, resources)
