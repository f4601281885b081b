"""What the backends with a kernel of their own share: an Instance over a virtual machine."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.support.base import SiteBackend, raise_as_launch_error
from lab.backends.support.guests.guest import GuestInstance
from lab.backends.support.guests.knobs import designed
from lab.backends.support.resources import InstanceResources
from lab.backends.support.saving import MAP, Savable, Snapshots
from lab.errors import LaunchError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.clock import Timeline
from lab.host.identity import privilege
from lab.host.processor import check_machines, has_machines
from lab.host.survey import checks
from lab.hypervisor.kinds import Design
from lab.images.store import Image
from lab.images.tree import Tree
from lab.instance import NO_KNOBS, LaunchRequest, Survivor
from lab.model import Accelerator, Check, Kernel, Limits, Phase

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts
    from lab.hypervisor.guest.artefacts import Guest
    from lab.hypervisor.machine import Machine
    from lab.hypervisor.memory import SavedMemory
    from lab.hypervisor.parts import MachineRequest
    from lab.hypervisor.snapshot import Snapshot

TUN = Path("/dev/net/tun")
LIBVIRT_DRIVERS = tuple(
    Path(folder, "libvirt/connection-driver/libvirt_driver_qemu.so")
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
)
LONGEST_DIRECTORY_BYTES = 107 - len("/console") - 1  # unix(7): sun_path


class MachineInstance(GuestInstance, Savable["Snapshot"]):
    """One virtual machine that runs one application."""

    def __init__(
        self, backend: str, request: LaunchRequest, machine: Machine, resources: InstanceResources, layers: Tree
    ) -> None:
        made = machine.request
        super().__init__(
            backend, request, machine, resources, layers, accelerator=made.accelerator, cgroup=made.cgroup
        )
        self.machine = machine
        self.snapshot_bytes = made.snapshot.size_bytes if made.snapshot else None

    def saved_memory_bytes(self) -> int | None:
        saved = self.machine.request.snapshot
        return saved.memory.held_bytes if saved and saved.memory else None

    def pause(self) -> None:
        self.machine.pause()

    def resume(self) -> None:
        self.machine.resume()

    def save(self, directory: Path) -> Snapshot:
        return self.machine.save(directory, release=self._resources.release)


class MachineBackend(SiteBackend):
    """A backend whose instances are virtual machines. ``design`` is theirs where no knob says otherwise."""

    kernel = Kernel.OWN
    design: Design

    def __init__(self, site: SharedParts) -> None:
        super().__init__(site)
        self._guests: dict[Design, Guest] = {}
        self._numbers = itertools.count(1)
        self._snapshots: Snapshots[Snapshot] = Snapshots(site, self.name, self._launch_to_save)

    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        from lab.hypervisor.guest import loader
        from lab.images import disk

        levels = super().settle(knobs)
        design = designed(cls.design, levels)
        loader.require(design.firmware)
        disk.require(design.disk)
        return levels

    @classmethod
    def check_limits(cls, limits: Limits, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        from lab.hypervisor.parts import memory_bytes

        memory_bytes(limits, designed(cls.design, knobs))

    @classmethod
    def check(cls) -> list[Check]:
        if not has_machines():
            return [check_machines()]
        tools = [checks.tool(tool) for tool in checks.TOOLS if cls.name in tool.required_by]
        own_ids = [checks.subordinate_ids()] if privilege.is_rootless() else []
        return [privilege.check(), check_machines(), checks.cgroup(), *own_ids, *tools, libvirt(), tun()]

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """The guest's kernel and disks, the image's disk, what runs the vCPUs, libvirt's look at QEMU."""
        from lab.hypervisor.guest.artefacts import prepare_guest
        from lab.images.disk import image_disk

        design = self._designed(knobs)
        self._guests[design] = prepare_guest(self.site.home, design)
        image_disk(self.site.store, image, design.disk)
        _ = self.site.accelerator, self.site.hypervisor, self.site.network

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """The guest's kernel and initramfs, the disks QEMU opens, the empty layers that are copied over them; of what
        is restored the saved machines, too.
        """
        from lab.hypervisor.guest.artefacts import prepare_guest
        from lab.hypervisor.parts import files_of
        from lab.images.disk import image_disk

        design = self._designed(knobs)
        guest = self._guests.get(design) or prepare_guest(self.site.home, design)
        image_file = image_disk(self.site.store, image, design.disk)
        return files_of(design, guest, image_file) + self._snapshots.files(knobs)

    def rehearse(self, request: LaunchRequest) -> None:
        self._snapshots.of(request)

    def launch(self, request: LaunchRequest) -> MachineInstance:
        return self._launch(request, snapshot=self._snapshots.of(request))

    def _launch_to_save(self, request: LaunchRequest, level: str) -> MachineInstance:
        from lab.hypervisor.memory import SavedMemory
        from lab.hypervisor.parts import memory_bytes

        if level != MAP:
            return self._launch(request)
        wanted = memory_bytes(request.limits, self._designed(request.knobs))
        return self._launch(request, memory=SavedMemory(-(-wanted >> 20) << 20))  # MiB, as QEMU has it

    def _launch(
        self, request: LaunchRequest, *, snapshot: Snapshot | None = None, memory: SavedMemory | None = None
    ) -> MachineInstance:
        timeline = Timeline(request.listener)
        timeline.mark(Phase.REQUESTED)
        if self._designed(request.knobs) not in self._guests:
            self.prepare(request.image, request.knobs)
        resources = InstanceResources(self.site, request)
        try:
            machine = self._start(request, resources, timeline, snapshot=snapshot, memory=memory)
        except BaseException as error:
            resources.release()
            raise_as_launch_error(error)
            raise
        return MachineInstance(self.name, request, machine, resources, self._layers(request))

    def adopt(self, request: LaunchRequest, survivor: Survivor) -> MachineInstance:
        from lab.hypervisor.machine import Machine
        from lab.network.network import SUBNET, mac_of

        self.site.adopt_network_of(survivor.pid)  # a VMM has its tap, and so has kept it
        resources = InstanceResources.adopt(self.site, request, survivor.address)
        group = ControlGroup.open(group_of(self.site.session.id, request.name))
        address = IPv4Interface(f"{survivor.address}/{SUBNET.prefixlen}")
        machine = Machine.adopt(
            self._request(
                request,
                group,
                address,
                mac_of(survivor.address),
                accelerator=survivor.accelerator,
                disk=self.site.home / "disks",  # QEMU has long opened the one it needs
            ),
            survivor.pid,
            survivor.timeline,
        )
        return MachineInstance(self.name, request, machine, resources, self.files_left(request))

    def _designed(self, knobs: Mapping[str, str]) -> Design:
        return designed(self.design, self.settle(knobs))

    def _layers(self, request: LaunchRequest) -> Tree:
        return Tree(self.site.store.lower_directories(request.image))

    def _start(
        self,
        request: LaunchRequest,
        resources: InstanceResources,
        timeline: Timeline,
        *,
        snapshot: Snapshot | None,
        memory: SavedMemory | None,
    ) -> Machine:
        from lab.hypervisor.domains.domain import Interface
        from lab.hypervisor.machine import Machine
        from lab.images.disk import image_disk
        from lab.runtime.plan import Before

        design = self._designed(request.knobs)
        with timeline.step("lab", Before.NETWORK):
            tap = resources.make_tap()
        # Limits bind the guest, which is as large as they say; QEMU's own needs come on top and are measured.
        with timeline.step("lab", Before.CGROUP):
            group = resources.make_control_group(Limits())
        address = IPv4Interface(f"{tap.address}/{tap.prefix_length}")
        disk = image_disk(self.site.store, request.image, design.disk)
        wanted = self._request(request, group, address, tap.mac, accelerator=self.site.accelerator, disk=disk)
        if len(os.fsencode(wanted.directory)) > LONGEST_DIRECTORY_BYTES:
            raise LaunchError(
                f"{wanted.directory} is too long a path for QEMU's sockets", hint="set LAB_HOME to a shorter one"
            )
        network = self.site.network.namespace.descriptor
        wanted = replace(
            wanted,
            interface=Interface(tap=tap.tap, mac=tap.mac),
            network_namespace=network,
            snapshot=snapshot,
            memory=memory,
        )
        machine = Machine.start(self.site.hypervisor, self._guests[design], wanted, timeline)
        if not group.directories and machine.process:  # an ordinary user has no group by which it would be found
            self.site.session.process(machine.process)
        return machine

    def _request(
        self,
        request: LaunchRequest,
        group: ControlGroup,
        address: IPv4Interface,
        mac: str,
        *,
        accelerator: Accelerator,
        disk: Path,
    ) -> MachineRequest:
        from lab.hypervisor.guest.handover import Handover
        from lab.hypervisor.parts import MachineRequest

        design = designed(self.design, request.knobs)
        return MachineRequest(
            # libvirt forgets a machine a moment after its end: an instance's name may be used again sooner.
            name=f"lab-{self.site.session.id}-{next(self._numbers)}{self.name[0]}",
            design=design,
            accelerator=accelerator,
            image_disk=disk,
            handover=Handover(
                design=design,
                hostname=request.name,
                process=request.process,
                pids=request.limits.pids,
                address=address,
                mac=mac,
                interactive=request.stdin is not None or request.terminal is not None,
                terminal=request.terminal,
            ),
            directory=self.site.scratch / request.name,
            log_directory=request.log_directory,
            cgroup=group,
            limits=request.limits,
            stdout=request.stdout,
            stderr=request.stderr,
            stdin=request.stdin,
            detached=request.detached,
        )


def libvirt() -> Check:
    """libvirt's Python module, and the QEMU driver that is loaded into this process; neither is loaded here."""
    found = {
        "libvirt-python": importlib.util.find_spec("libvirt") is not None,
        "libvirt's QEMU driver": any(place.exists() for place in LIBVIRT_DRIVERS),
    }
    missing = [name for name, there in found.items() if not there]
    installs = "apt-get install libvirt-daemon-driver-qemu"
    return Check(
        name="libvirt",
        ok=not missing,
        found=f"{' and '.join(missing)} missing" if missing else "its QEMU driver can be loaded",
        remedy=installs if found["libvirt-python"] else privilege.AS_ROOT.format("doctor"),
    )


def tun() -> Check:
    """The device that taps are made with."""
    there, opens = TUN.is_char_device(), os.access(TUN, os.R_OK | os.W_OK)
    what = " is missing" if not there else "" if opens else " can't be opened by you"
    remedy = "chmod 666 /dev/net/tun, by an administrator" if there else "modprobe tun"
    return Check(name="tun", ok=there and opens, found=f"{TUN}{what}", remedy=remedy)
