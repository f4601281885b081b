"""Kernel samepage merging: whether the host keeps equal pages of its instances once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from lab.experiment.hostfactors.base import HostFactor
from lab.host import ksm
from lab.instance import Backend, LaunchRequest
from lab.metrics.base import Observation
from lab.model import Check, Kernel

OFF, ON = "off", "on"


class Ksm(HostFactor):
    """KSM of the whole host, on for the life of one instance, then off again and everything unmerged.

    Offered to it is the RAM of guests, which QEMU offers by itself (``mem-merge``), and all private memory of a
    process or container of lab's runtime, which asks for it with prctl(2) PR_SET_MEMORY_MERGE. What became of it is
    ``memory.ksm.merged`` of `lab.metrics.memory`. One copy has little that equals anything; `lab density --ksm on`
    shows what n of them have.
    """

    name = "ksm"
    levels = (OFF, ON)
    tells = "how much memory the host saves by keeping equal pages once, and what looking for them costs"

    @classmethod
    def check(cls) -> list[Check]:
        found = ksm.state()
        used = found is not None and (found.running or found.shared_pages > 0)
        says = "missing" if found is None else "in use already" if used else "off"
        return [
            Check(
                name="ksm",
                ok=found is not None and not used,
                found=says,
                remedy=f"echo {ksm.STOP_AND_UNMERGE} > {ksm.FOLDER / 'run'}" if used else "a kernel with CONFIG_KSM",
            )
        ]

    @classmethod
    def applies_to(cls, backend: type[Backend]) -> bool:
        """A VMM offers its guest's RAM; of the runtimes lab's own does it for a container, from Linux 6.4 on."""
        return backend.kernel is Kernel.OWN or (not backend.reference and ksm.can_be_asked_for())

    def asked(self, level: str, request: LaunchRequest) -> LaunchRequest:
        return replace(request, mergeable=level == ON)

    @contextmanager
    def at(self, level: str, backend: Backend, request: LaunchRequest) -> Iterator[list[Observation]]:
        if level == OFF:
            ksm.require_off()
            yield [_seen()]
            return
        with ksm.on(self.site.session):
            yield [_seen()]


def _seen() -> Observation:
    found = ksm.state()
    return Observation(quantity="ksm.running", value=float(found is not None and found.running), unit="1")
