"""Which hardware can it reach?"""

from __future__ import annotations

from collections.abc import Sequence

from lab.isolation.base import (
    BOOT_ID,
    EVERY_ID,
    NO_SYS,
    Answer,
    Boundary,
    Context,
    Found,
    Group,
    HostValue,
    Inconclusive,
    Mechanism,
    Privilege,
    Probe,
    Reply,
    Severity,
    expect,
    expectations,
    is_another_kernel,
    on_whose_kernel,
    stopped_by,
)
from lab.isolation.probes.kernel import SHARED

NO_NODES = expect(Answer.NO, because="without a capability it makes no node, and bwrap's mounts are nodev")


class BlockDevice(Privilege):
    """Makes a node with the numbers of the host's disk and opens it read-only; nothing is read."""

    id = "block-device"
    question = "Can it open the host's disk?"
    pages = ("mknod(2)", "cgroups(7)")
    group = Group.DEVICES
    mechanism = Mechanism.CGROUP
    line = "node b"
    allowed = frozenset({""})
    refused = Privilege.refused | {"ENXIO", "ENODEV"}
    expected = expectations(
        bare=expect(Answer.YES, because="root may make and open every device node"),
        container=expect(
            Answer.NO, because="mknod(2) is allowed, but the device cgroup, or a nodev mount, refuses the open"
        ),
        own_kernel=expect(
            Answer.NO, Answer.GUEST, because="these numbers name a disk of the virtual machine, if any"
        ),
        bubblewrap=NO_NODES,
    )

    def lines(self, context: Context) -> Sequence[str]:
        if context.disk is None:
            raise Inconclusive("the host has no disk to look for")
        major, minor = context.disk
        return (f"{self.line} {major} {minor}", BOOT_ID)


class PhysicalMemory(Privilege):
    """A node like /dev/mem, opened read-only; nothing is read."""

    id = "physical-memory"
    question = "Can it open physical memory?"
    pages = ("mem(4)", "cgroups(7)")
    group = Group.DEVICES
    mechanism = Mechanism.CGROUP
    line = "node c 1 1"
    allowed = frozenset({""})
    refused = Privilege.refused | {"ENXIO", "ENODEV"}
    because = "the device cgroup refuses the open, and Docker's 14 capabilities lack CAP_SYS_RAWIO"
    bubblewrap = NO_NODES


class FirmwareTables(HostValue):
    """The machine's name as the firmware gives it (DMI)."""

    id = "dmi"
    question = "Whose hardware does the firmware's table name?"
    pages = ("sysfs(5)", "dmidecode(8)")
    group = Group.DEVICES
    mechanism = Mechanism.NONE
    severity = Severity.LEAK
    path = "/sys/class/dmi/id/product_name"
    expected = expectations(
        bare=expect(Answer.HOST, because="/sys is the host's"),
        container=expect(Answer.HOST, because="/sys is read-only, but shows the host's hardware"),
        own_kernel=expect(
            Answer.OWN, Answer.NO, because="the virtual machine's firmware describes itself, where there is one"
        ),
        bubblewrap=NO_SYS,
    )


class IoPorts(Privilege):
    """ioperm(2) for one port, the one that firmware writes its progress to, in a process that ends at once; the port
    is not touched.
    """

    id = "io-ports"
    question = "Can it speak to hardware through I/O ports?"
    group = Group.DEVICES
    line = "call ioperm 0x80 1 1"
    allowed = frozenset({""})
    pages = ("ioperm(2)", "capabilities(7)")
    because = "Docker's 14 capabilities lack CAP_SYS_RAWIO, and the filter refuses ioperm(2)"
    libkrun = expect(Answer.NO, because="its kernel is built without ioperm(2)")


class Virtualisation(Privilege):
    """/dev/kvm opened and closed: with it one can run virtual machines, and reach a large piece of the kernel.

    An ordinary user may open it as one of a group. Every instance has left it, which is no boundary's doing.
    """

    id = "kvm"
    question = "Can it use the processor's virtualisation?"
    pages = ("ioctl(2)", "cgroups(7)")
    group = Group.DEVICES
    mechanism = Mechanism.CGROUP
    line = "open /dev/kvm both"
    allowed = frozenset({""})
    refused = Privilege.refused | {"ENXIO", "ENODEV"}
    severity = Severity.INFORMATION
    expected = expectations(
        bare=expect(Answer.YES, because="it has the host's /dev"),
        container=expect(Answer.NO, because="its /dev has no such node, and the device cgroup would refuse it"),
        own_kernel=expect(Answer.NO, Answer.GUEST, because="the guest's processor has it only where it is nested"),
        bubblewrap=expect(Answer.NO, because="the /dev that bwrap makes has no such node"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (self.line, "read /proc/self/uid_map 100", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        is_roots = " ".join(str(host[1].get("text", "")).split()) == EVERY_ID
        if seen[0]["name"] == "EACCES" and not is_roots:
            raise Inconclusive("lab's user opens it by a group, if at all, and an instance has left all groups")
        return super().judge(seen, host, context)


class KernelMessages(Privilege):
    """/dev/kmsg opened for reading, and nothing read."""

    id = "kernel-messages"
    question = "Can it open the kernel's messages, /dev/kmsg?"
    group = Group.DEVICES
    mechanism = Mechanism.CGROUP
    line = "node c 1 11"
    allowed = frozenset({""})
    refused = Privilege.refused | {"ENXIO", "ENODEV"}
    severity = Severity.LEAK
    pages = ("syslog(2)", "proc_kmsg(5)")
    because = "the device cgroup refuses the open"
    bubblewrap = NO_NODES


class DeviceNodes(Probe):
    """The names in /dev."""

    id = "device-nodes"
    question = "Is its /dev the host's?"
    group = Group.DEVICES
    mechanism = Mechanism.NAMESPACE
    expected = expectations(
        bare=expect(Answer.HOST, because="it has the host's /dev"),
        container=expect(Answer.OWN, because="the runtime makes a small /dev with harmless nodes"),
        own_kernel=expect(Answer.OWN, because="the guest's kernel makes nodes for the virtual machine's devices"),
    )
    pages = ("null(4)", "devices(4)", "mount_namespaces(7)")

    def lines(self, context: Context) -> Sequence[str]:
        return ("list /dev", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        names, theirs = set(seen[0]["names"]), set(host[0]["names"])
        if seen[0]["errno"]:
            return Found(answer=Answer.NO, evidence=f"/dev: {seen[0]['name']}")
        same = names == theirs and not is_another_kernel(seen[1], host[1])
        return Found(
            answer=Answer.HOST if same else Answer.OWN,
            evidence=f"{len(names)} names in /dev, {len(names & theirs)} of the host's {len(theirs)}",
            value=float(len(names)),
        )


class _Hardware(Probe):
    """The names in a directory of /sys that lists hardware, where the host has any."""

    group = Group.DEVICES
    mechanism = Mechanism.NONE
    severity = Severity.LEAK
    pages = ("sysfs(5)",)
    path = ""

    def lines(self, context: Context) -> Sequence[str]:
        return (f"list {self.path}", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        names = sorted(seen[0]["names"])
        if not names:
            error = str(seen[0]["name"])
            return Found(answer=Answer.NO, evidence=f"{self.path}: {error or 'empty'}", mechanism=stopped_by(error))
        evidence = f"{self.path}: {' '.join(names)[:100]}"
        if on_whose_kernel(seen[1], host[1]) is Answer.GUEST:
            return Found(answer=Answer.OWN, evidence=evidence, value=float(len(names)))
        return Found(answer=Answer.HOST, evidence=evidence, value=float(len(names)))


class PciDevices(_Hardware):
    """What is on the host's PCI bus."""

    id = "pci-devices"
    question = "Does it see what hardware the host has?"
    path = "/sys/bus/pci/devices"
    expected = expectations(
        bare=SHARED[Boundary.BARE],
        container=expect(Answer.HOST, because="/sys is read-only, but shows the host's hardware"),
        own_kernel=expect(Answer.OWN, Answer.NO, because="it sees the virtual machine's bus, where there is one"),
        bubblewrap=NO_SYS,
    )


class FirmwareFiles(_Hardware):
    """What the firmware left for the kernel below /sys/firmware: tables, variables, the memory map."""

    id = "firmware-files"
    question = "Does it see the host firmware's tables?"
    mechanism = Mechanism.MASKED
    path = "/sys/firmware"
    expected = expectations(
        bare=SHARED[Boundary.BARE],
        container=expect(Answer.NO, because="/sys/firmware is masked by an empty directory"),
        nspawn=expect(Answer.HOST, because="/sys is read-only, and nothing of it masked"),
        own_kernel=expect(
            Answer.OWN, Answer.NO, because="it sees the virtual machine's firmware, where there is one"
        ),
        bubblewrap=NO_SYS,
    )


class ProcessorName(HostValue):
    """The model name in /proc/cpuinfo, which is what the CPUID instruction says."""

    id = "processor-model"
    question = "Does it see which processor the host has?"
    group = Group.DEVICES
    mechanism = Mechanism.HARDWARE
    severity = Severity.INFORMATION
    path = "/proc/cpuinfo"
    passes_through = True
    pages = ("proc_cpuinfo(5)",)
    expected = expectations(
        bare=expect(Answer.HOST, because="the processor answers everybody"),
        container=expect(Answer.HOST, because="the processor answers everybody; no namespace covers it"),
        own_kernel=expect(
            Answer.OWN,
            Answer.HOST,
            because="the VMM chooses what the virtual processor is called: its own, or the host's",
        ),
    )

    def essence(self, text: str) -> str:
        lines = [line for line in str(text).splitlines() if line.startswith(("model name", "CPU implementer"))]
        return lines[0].partition(":")[2].strip() if lines else ""


class VirtualProcessor(Probe):
    """The flag "hypervisor" in /proc/cpuinfo (CPUID leaf 1, ECX bit 31), which a VMM sets for its guests. A host that
    is a virtual machine itself has it too, so the boot id tells whom it speaks of; and of a kernel that is a process
    of the host's it speaks of the host's VMM, as there is no other.
    """

    id = "hypervisor-bit"
    question = "Is the processor that it runs on the host's own?"
    group = Group.DEVICES
    mechanism = Mechanism.HARDWARE
    severity = Severity.INFORMATION
    pages = ("proc_cpuinfo(5)",)
    expected = expectations(
        bare=expect(Answer.HOST, because="it runs on what the host runs on"),
        container=expect(Answer.HOST, because="a container is no machine: the processor is the host's"),
        own_kernel=expect(Answer.OWN, because="the VMM shows a virtual processor"),
        user_space=expect(
            Answer.HOST, Answer.OWN, because="its kernel passes on what the processor says, a virtual one's, too"
        ),
        user_mode=expect(
            Answer.HOST, Answer.OWN, because="its kernel is a process, and passes on what the processor says"
        ),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("read /proc/cpuinfo 4096", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        if seen[0]["errno"] or not seen[0]["text"]:
            return Found(answer=Answer.NO, evidence=f"/proc/cpuinfo: {seen[0]['name']}")
        inside, outside = (" hypervisor" in reply["text"] for reply in (seen[0], host[0]))
        evidence = f"the hypervisor bit is {int(inside)}, on the host {int(outside)}"
        if on_whose_kernel(seen[1], host[1]) is Answer.YES:
            return Found(answer=Answer.HOST, evidence=evidence, value=float(inside))
        if inside and outside and context.is_process:
            evidence = f"{evidence}, and no VMM lies between: its kernel is a process of the host's"
            return Found(answer=Answer.HOST, evidence=evidence, value=float(inside))
        return Found(answer=Answer.OWN if inside else Answer.HOST, evidence=evidence, value=float(inside))
