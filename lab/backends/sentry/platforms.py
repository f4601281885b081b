"""How the application's system calls get to gVisor's kernel: its platforms, and which of them this host has.

Source: gvisor.dev, Architecture Guide, "Platforms".
"""

from __future__ import annotations

from lab.host.home import home
from lab.hypervisor.accelerator import last_proof
from lab.instance import Knob
from lab.model import Accelerator

SYSTRAP, PTRACE, KVM = "systrap", "ptrace", "kvm"
PLATFORM = Knob(
    name="platform",
    levels=(SYSTRAP, PTRACE, KVM),
    tells="what it costs to catch a system call: by SIGSYS, by ptrace(2), or as a guest under KVM",
)


def lacking() -> dict[str, str]:
    """The platforms that can't be had here, and why: a line each.

    A /dev/kvm that opens is no proof: there are hosts on which no guest comes up with it.
    """
    proof = last_proof(home())
    if proof is None:
        return {KVM: "nobody has proven here that KVM runs a guest: lab doctor --prove"}
    return {} if proof.accelerator is Accelerator.KVM else {KVM: proof.reason}
