"""From lab's interpreter to a container's program by way of a few instructions of our own (CVE-2019-5736).

An image's program may begin with ``#!/proc/self/exe``: the kernel then executes, inside the container, whatever the
process is that calls execve(2). That must not be the host's Python: root in the container could open it through
/proc and write to it. So the interpreter executes a program in memory that can't be written any more, and that
executes the container's. The same is why the process can't be looked into before (PR_SET_DUMPABLE), but that does
not keep it from looking at itself.

It is a whole ELF file of one segment, without libraries, which a container may not have: elf(5).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

COMPLAINT = b"lab: the program can't be executed: its format, or its interpreter\n"

X86_64 = (
    b"\x83\x3c\x24\x02"  # cmp dword [rsp], 2      argc: the path, and at least one word
    b"\x72\x18"  #         jb failed
    b"\x48\x8b\x7c\x24\x08"  # mov rdi, [rsp+8]        argv[0] is the path
    b"\x48\x8d\x74\x24\x10"  # lea rsi, [rsp+16]       the words are behind it
    b"\x48\x8b\x0c\x24"  #     mov rcx, [rsp]
    b"\x48\x8d\x54\xcc\x10"  # lea rdx, [rsp+rcx*8+16] the environment behind those
    b"\x6a\x3b\x58"  #         push 59; pop rax
    b"\x0f\x05"  #             syscall                 execve; returns when it fails
    b"\xbb\x7f\x00\x00\x00"  # failed: mov ebx, 127
    b"\x83\xf8\xfe"  #         cmp eax, -ENOENT
    b"\x74\x02"  #             je tell
    b"\xff\xcb"  #             dec ebx
    b"\x6a\x01\x58"  #         tell: push 1; pop rax
    b"\x6a\x02\x5f"  #         push 2; pop rdi         standard error
    b"\x48\x8d\x35\x10\x00\x00\x00"  # lea rsi, [rip+16]  the complaint
    + b"\xba"
    + struct.pack("<I", len(COMPLAINT))  #  mov edx, its length
    + b"\x0f\x05"  #           syscall                 write
    b"\x89\xdf"  #             mov edi, ebx
    b"\xb8\xe7\x00\x00\x00"  # mov eax, 231
    b"\x0f\x05"  #             syscall                 exit_group
)
"""What it is given on its stack is in the System V ABI, "Initial Stack and Register State"."""

AARCH64 = struct.pack(
    "<20I",
    0xF94003E9,  #         ldr x9, [sp]            argc
    0xF100093F,  #         cmp x9, #2
    0x540000C3,  #         b.lo failed
    0xF94007E0,  #         ldr x0, [sp, #8]        argv[0]
    0x910043E1,  #         add x1, sp, #16         the words
    0x8B090C22,  #         add x2, x1, x9, lsl #3  the environment
    0xD2801BA8,  #         mov x8, #221
    0xD4000001,  #         svc #0                  execve
    0x52800FF3,  # failed: mov w19, #127
    0x3100081F,  #         cmn w0, #ENOENT
    0x54000040,  #         b.eq tell
    0x52800FD3,  #         mov w19, #126
    0xD2800040,  # tell:   mov x0, #2              standard error
    0x100000E1,  #         adr x1, #28             the complaint
    0xD2800002 | len(COMPLAINT) << 5,  # mov x2, # its length
    0xD2800808,  #         mov x8, #64
    0xD4000001,  #         svc #0                  write
    0x2A1303E0,  #         mov w0, w19
    0xD2800BC8,  #         mov x8, #94
    0xD4000001,  #         svc #0                  exit_group
)
"""The same, step for step. The stack is as on x86-64: "Program Execution" in the System V ABI for the Arm 64-bit
architecture.
"""

CODE = {"x86_64": X86_64, "aarch64": AARCH64}
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}  # elf.h: EM_X86_64, EM_AARCH64
ADDRESS = 0x400000
HEADER_BYTES, SEGMENT_BYTES = 64, 56
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MFD_EXEC = 0x10  # Linux 6.3; before, every such file may be executed


def program(machine: str) -> bytes:
    """The ELF file for ``machine``, one of `CODE`."""
    code, number = CODE[machine], ELF_MACHINES[machine]
    start = HEADER_BYTES + SEGMENT_BYTES
    size = start + len(code) + len(COMPLAINT)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack(
        "<HHIQQQIHHHHHH", 2, number, 1, ADDRESS + start, HEADER_BYTES, 0, 0, HEADER_BYTES, SEGMENT_BYTES, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, ADDRESS, ADDRESS, size, size, 0x1000)
    return identity + header + segment + code + COMPLAINT


def make() -> int:
    """Its file in memory, sealed and close-on-exec; -1 where lab has no instructions for the machine."""
    machine = os.uname().machine
    if machine not in CODE:
        return -1
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create("lab", flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create("lab", flags)
    os.write(descriptor, program(machine))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    return descriptor


def way(
    descriptor: int, program_name: str, words: list[str], environment: Mapping[str, str]
) -> tuple[str | int, list[str]]:
    """What to hand to execve(2) so that ``words`` are executed by way of ``descriptor`` (or directly, if it is -1).

    ``program_name`` is looked up as execvp(3) does. Raises OSError as that does; what only execve(2) itself can find
    out is told on standard error, by exit code 126 or 127.
    """
    path = find(program_name, environment)
    if descriptor < 0:
        return path, words
    named = f"/proc/self/fd/{descriptor}"  # for filters that know execve(2) alone
    return named if leads_to(named, descriptor) else descriptor, [path, *words]


def find(program_name: str, environment: Mapping[str, str]) -> str:
    """The file that would be executed. Raises FileNotFoundError, PermissionError or another OSError."""
    folders = [""] if "/" in program_name else environment.get("PATH", os.defpath).split(":")
    failure = errno.ENOENT
    for folder in folders:
        path = os.path.join(folder, program_name)
        try:
            os.stat(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise
            failure = errno.EACCES if error.errno == errno.EACCES else failure
        else:
            if os.path.isfile(path) and os.access(path, os.X_OK, effective_ids=True):
                return path
            failure = errno.EACCES
    raise OSError(failure, os.strerror(failure), program_name)


def leads_to(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False
