"""The specification's scalar types: each a name for mypy, and a test with words for whoever got one wrong.

Sources: runtime-spec schema/defs.json and defs-linux.json, config.md, config-linux.md.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Uint16 = int
Uint32 = int
Uint64 = int
Int32 = int
Int64 = int
Percent = int
OomScore = int
Mode = int
FileMode = int
Weight = int
Seconds = int
Nanoseconds = int
Text = str
Word = str
AbsolutePath = str
Variable = str
Version = str
Capability = str
NamespaceKind = str
RlimitKind = str
Propagation = str
DeviceKind = str
RuleKind = str
Access = str
Domain = str
IoClass = str
Policy = str
PolicyFlag = str
Architecture = str
SeccompAction = str
SeccompFlag = str
Operator = str
MemoryMode = str
MemoryFlag = str
Cpus = str
Numbers = str

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
RLIMITS = (
    "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS", "RTPRIO",
    "RTTIME", "SIGPENDING", "STACK",
)  # fmt: skip
MEMORY_MODES = (
    "MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
)  # fmt: skip
MEMORY_FLAGS = ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable")
IO_CLASSES = ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")
POLICIES = (
    "SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE",
)  # fmt: skip
POLICY_FLAGS = (
    "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX",
)  # fmt: skip
ARCHITECTURES = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86", "X86_64", "X32", "ARM", "AARCH64", "LOONGARCH64", "M68K", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL",
        "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390", "S390X", "SH", "SHEB", "PARISC", "PARISC64",
        "RISCV64",
    )
)  # fmt: skip
ACTIONS = tuple(
    f"SCMP_ACT_{name}"
    for name in ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY")
)
SECCOMP_FLAGS = tuple(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"))
OPERATORS = tuple(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))


class Scalar:
    """A JSON type, what else holds of its values, and the words for both."""

    def __init__(self, base: type, words: str, test: Callable[..., bool] | None = None) -> None:
        self.base = base
        self.words = words
        self.test = test

    def accepts(self, value: object) -> bool:
        """Whether ``value`` is one. A JSON truth value is no number."""
        if not isinstance(value, self.base) or (self.base is int and isinstance(value, bool)):
            return False
        return self.test is None or self.test(value)


def _range(least: int, most: int, words: str = "") -> Scalar:
    return Scalar(int, words or f"an integer from {least} to {most}", lambda value: least <= value <= most)


def _one_of(names: Iterable[str]) -> Scalar:
    known = tuple(names)
    return Scalar(str, f"one of {', '.join(known)}", lambda value: value in known)


def _is_text(value: str) -> bool:
    return "\0" not in value


def _is_version(value: str) -> bool:
    """SemVer 2.0 with the major version 1."""
    numbers = value.partition("+")[0].partition("-")[0].split(".")
    return len(numbers) == 3 and all(number.isdecimal() for number in numbers) and numbers[0] == "1"


def _is_list_of_numbers(value: str) -> bool:
    """cpuset(7), "List format"."""
    parts = [part.strip().partition(":")[0] for part in value.split(",")]
    return all(end.isdecimal() for part in parts for end in part.split("-", 1)) or value == ""


MOST_NUMBERS = 8192  # processors of a kernel, CONFIG_NR_CPUS; nodes are fewer


def _is_plain_list(value: str) -> bool:
    """Numbers and ranges, without cpuset(7)'s strides; each one that there may be."""
    for part in value.split(",") if value else ():
        first, _, last = part.strip().partition("-")
        last = last or first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < MOST_NUMBERS):
            return False
    return True


KINDS: dict[str, Scalar] = {
    "str": Scalar(str, "a string"),
    "int": Scalar(int, "an integer"),
    "bool": Scalar(bool, "true or false"),
    "Uint16": _range(0, (1 << 16) - 1),
    "Uint32": _range(0, (1 << 32) - 1),
    "Uint64": _range(0, (1 << 64) - 1),
    "Int32": _range(-(1 << 31), (1 << 31) - 1),
    "Int64": _range(-(1 << 63), (1 << 63) - 1),
    "Percent": _range(0, 100),
    "OomScore": _range(-1000, 1000),
    "Mode": _range(0, 0o7777, "file permissions, an integer from 0 to 4095"),
    "FileMode": _range(0, (1 << 32) - 1, "st_mode (inode(7)), an integer from 0 to 4294967295"),
    "Weight": _range(0, 1000),  # 10 to 1000, 0 for what the kernel has
    "Seconds": _range(1, (1 << 31) - 1, "a positive number of seconds"),
    "Nanoseconds": _range(0, 999_999_999),
    "Text": Scalar(str, "a string without a null character", _is_text),
    "Word": Scalar(str, "a string that is not empty", lambda value: _is_text(value) and value != ""),
    "AbsolutePath": Scalar(str, "an absolute path", lambda value: _is_text(value) and value.startswith("/")),
    "Variable": Scalar(str, "NAME=value", lambda value: _is_text(value) and value.find("=") > 0),
    "Version": Scalar(str, "a version 1.x.y of the specification", _is_version),
    "Capability": Scalar(str, "the name of a capability (capabilities(7))", _is_text),  # an unknown one is left out
    "NamespaceKind": _one_of(NAMESPACES),
    "RlimitKind": _one_of(f"RLIMIT_{name}" for name in RLIMITS),
    "Propagation": _one_of(PROPAGATIONS),
    "DeviceKind": _one_of(("c", "b", "u", "p")),
    "RuleKind": _one_of(("a", "c", "b", "u", "p")),
    "Access": Scalar(str, "letters out of r, w and m", lambda value: set(value) <= set("rwm")),
    "Domain": _one_of(("LINUX", "LINUX32")),
    "IoClass": _one_of(IO_CLASSES),
    "Policy": _one_of(POLICIES),
    "PolicyFlag": _one_of(POLICY_FLAGS),
    "Architecture": _one_of(ARCHITECTURES),
    "SeccompAction": _one_of(ACTIONS),
    "SeccompFlag": _one_of(SECCOMP_FLAGS),
    "Operator": _one_of(OPERATORS),
    "Numbers": Scalar(str, f"a list of numbers below {MOST_NUMBERS} and ranges, as 0-3,7", _is_plain_list),
    "MemoryMode": _one_of(MEMORY_MODES),
    "MemoryFlag": _one_of(MEMORY_FLAGS),
    "Cpus": Scalar(str, "a list of numbers and ranges (cpuset(7))", _is_list_of_numbers),
}
