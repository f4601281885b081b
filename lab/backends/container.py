"""Our own container runtime, as Docker would run the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lab.backends.support.host import OWN_ROOT, HostBackend, HostInstance
from lab.backends.support.saving import BOOT, RESTORE, START, Snapshots
from lab.errors import BackendUnavailable, LaunchError
from lab.instance import NO_KNOBS, Knob, LaunchRequest, Parity

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts
    from lab.images.store import Image
    from lab.runtime.config.model import Config, MountConfig
    from lab.runtime.launcher.checkpoint import Checkpoint


class ContainerBackend(HostBackend):
    """Namespaces, cgroups, fourteen capabilities, a seccomp filter, no_new_privs."""

    name = "container"
    title = "container (lab)"
    mechanism = "a process of the host behind namespaces, cgroups, dropped capabilities and a seccomp filter"
    order = 20
    rootless = True
    parity = Parity(
        differences=(
            "It shares the host's kernel and page cache; its memory limit covers the application, not a kernel.",
        ),
        rootless=(
            OWN_ROOT,
            "Its device nodes are the host's, bound, and no program guards what is opened: the kernel makes no node "
            "for an ordinary user that could be opened.",
        ),
    )
    knobs: ClassVar[tuple[Knob, ...]] = (START,)
    keeps_streams: ClassVar[bool] = False  # see `Snapshots`

    def __init__(self, site: SharedParts) -> None:
        super().__init__(site)
        self._snapshots: Snapshots[Checkpoint] = Snapshots(
            site,
            self.name,
            lambda request, _: self._launch(request, savable=True),
            keeps_streams=self.keeps_streams,
        )

    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        levels = super().settle(knobs)
        if levels.get(START.name) == RESTORE and (why := cls._cannot_restore()):
            raise BackendUnavailable(
                f"{START.name}={RESTORE} of {cls.name} can't be had here: {why}", hint=cls._remedy_to_restore()
            )
        return levels

    @classmethod
    def lacking(cls) -> dict[tuple[str, str], str]:
        why = cls._cannot_restore() if START in cls.knobs else ""
        return {(START.name, RESTORE): why} if why else {}

    @classmethod
    def _cannot_restore(cls) -> str:
        """Why none can be restored here, in a line; "" where they can."""
        from lab.host.survey import criu

        return criu.obstacle()

    @classmethod
    def _remedy_to_restore(cls) -> str:
        """What helps against that."""
        from lab.host.survey import criu

        return criu.check().remedy

    def config(self, request: LaunchRequest, network_namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        from lab.runtime.bundle import container_config

        return container_config(
            request.process,
            request.limits,
            hostname=request.name,
            network_namespace=network_namespace,
            extra_mounts=mounts,
        )

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """As without the knob; of what is restored what was saved, too."""
        return super().files(image, knobs) + self._snapshots.files(knobs)

    def rehearse(self, request: LaunchRequest) -> None:
        self._saved(request)

    def launch(self, request: LaunchRequest) -> HostInstance:
        return self._launch(request, self._saved(request))

    def _saved(self, request: LaunchRequest) -> Checkpoint | None:
        wanted = {
            "outlive lab": request.detached,
            "offer its memory to KSM": request.mergeable,
            "see files of the host": bool(request.volumes),
        }
        for what, is_wanted in wanted.items():
            if is_wanted and request.knobs.get(START.name, BOOT) == RESTORE:
                raise LaunchError(
                    f"{request.name} can't {what}: it goes on from one that was saved and did not",
                    hint=f"{START.name}={BOOT}",
                    exit_code=125,
                )
        return self._snapshots.of(request)
