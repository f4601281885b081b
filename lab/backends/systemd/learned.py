"""What nspawn has left its first process, read back from the kernel, so that a further process gets the same.

Each version of nspawn has a filter and capabilities of its own, and no way to run a second command without systemd's
daemons. The filters, of which there are several, are made one program.

Sources: seccomp(2); Documentation/userspace-api/seccomp_filter.rst; proc_pid_status(5); getrlimit(2).
"""

from __future__ import annotations

import base64
import resource
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lab import record
from lab.errors import LabError
from lab.host.kernel.filters import INSTRUCTION_BYTES, installed
from lab.runtime.config import capabilities
from lab.runtime.config.model import Capabilities, Config, Rlimit
from lab.runtime.launcher.spec import Spec

INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, value
RETURN, JUMP = 0x06, 0x05  # BPF_RET | BPF_K, BPF_JMP | BPF_JA
ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
INFINITE = (1 << 64) - 1


def learned(spec: Spec, pid: int) -> Spec:
    """``spec`` with what the process ``pid`` is held by. Raises LabError where that can't be read, OSError when it
    has ended.
    """
    program = joined(installed(pid))
    return replace(spec, config=_held(spec.config, pid), filter=base64.b64encode(program).decode())


def _held(config: Config, pid: int) -> Config:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    said = dict(line.split(":", 1) for line in lines)
    bounding = capabilities.names(int(said["CapBnd"], 16))
    sets = Capabilities(bounding=bounding, effective=bounding, permitted=bounding)
    process = record.replace(config.process, capabilities=sets, rlimits=tuple(_rlimits(pid)))
    return record.replace(config, process=process)


def _rlimits(pid: int) -> list[Rlimit]:
    kinds = [name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"]
    held = {name: resource.prlimit(pid, getattr(resource, name)) for name in kinds}
    return [Rlimit(type=name, soft=_bound(soft), hard=_bound(hard)) for name, (soft, hard) in held.items()]


def _bound(value: int) -> int:
    return INFINITE if value == resource.RLIM_INFINITY else value


def joined(programs: Sequence[bytes]) -> bytes:
    """One filter that decides what ``programs``, the oldest first, decide together, as long as each either allows a
    call or refuses it: what the youngest refuses is refused by it, and what it allows the next is asked about. b""
    for none.
    """
    found = b""
    for number, program in enumerate(reversed(programs), start=1):
        found += program if number == len(programs) else _passing_on(program)
    if len(found) // INSTRUCTION_BYTES > MOST_INSTRUCTIONS:
        raise LabError(f"the filters of {len(programs)} programs are too long for one")
    return found


def _passing_on(program: bytes) -> bytes:
    """The same, which goes on behind its end with what it allows."""
    instructions = list(INSTRUCTION.iter_unpack(program))
    end = len(instructions)
    return b"".join(
        INSTRUCTION.pack(JUMP, 0, 0, end - place - 1)
        if (code, value) == (RETURN, ALLOW)
        else INSTRUCTION.pack(code, true, false, value)
        for place, (code, true, false, value) in enumerate(instructions)
    )
