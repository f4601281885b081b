"""What a caller may ask of an OCI runtime for convenience, and what could be got by it that nobody meant to give.

Each attempt ends with one word on standard output: ``through`` for whoever got something of the host's, ``held``
otherwise. Nothing of the host's is changed: files are opened and not written.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bundles import TIMEOUT_SECONDS, Bundle, program
from oci import BASE_INTERPRETER, until

from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import Hierarchies, Unused

THROUGH, HELD = "through", "held"
VERSIONS = {"runc": "1.1.5", "crun": "1.8.1"}
"""Those that were asked; another one may have mended what this one lets through."""
WATCH_SECONDS, PATIENT_SECONDS = 2, 60
"""For how long a container looks at what comes, and where something has to come to it: it ends with that."""
STARTS = 10
TTL = "/proc/sys/net/ipv4/ip_default_ttl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an attempt is prepared: a bundle with busybox and the escaping program, and a folder of the host's."""

    runtime: str
    bundle: Bundle
    folder: Path

    def canary(self) -> Path:
        """A file of the host's."""
        path = self.folder / "canary"
        path.write_text("")
        return path

    def run(self, *options: str, prefix: tuple[str, ...] = ()) -> str:
        """What becomes of the bundle under ``run``, as it was told."""
        return judge(self.bundle.run(self.runtime, *options, prefix=prefix, check=False).output)

    def verb(self, *words: str, check: bool = True) -> str:
        """Any other verb: its standard output. That of a container it leaves behind goes nowhere."""
        command = [*program(self.runtime), "--root", str(self.bundle.folder / "state"), *words]
        with (self.folder / "output").open("w+") as output:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=TIMEOUT_SECONDS, check=check
            )
            output.seek(0)
            return output.read()

    def started(self) -> str:
        """A container of the bundle, in the background."""
        name = f"t{uuid.uuid4().hex[:8]}"
        self.bundle.write(f"/lab/test-{name}/one")
        self.verb("create", "--bundle", str(self.bundle.folder), name)
        self.verb("start", name)
        return name

    def end(self, name: str) -> None:
        """Remove it, and the groups above its own."""
        self.verb("delete", "--force", name)
        for tree in (Hierarchies.detect(), Unused.detect()):
            ControlGroup.open(f"lab/test-{name}/one", hierarchies=tree).prune_parents()

    def program(self) -> Path:
        """The program that the host executes as the runtime."""
        found = BASE_INTERPRETER if self.runtime == "lab-oci" else program(self.runtime)[-1]
        return Path(os.path.realpath(found if found.startswith("/") else str(shutil.which(found))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row of docs/security.md. ``control`` is the same without what stops it: it must get through."""

    asks: str  # as the page says
    gets: str
    attempt: Callable[[Place], str]
    control: Callable[[Place], str] | None = None
    through: tuple[str, ...] = ()  # the runtimes that let it through

    def expected(self, runtime: str) -> str:
        return THROUGH if runtime in self.through else HELD


def judge(said: str) -> str:
    """What became of an attempt, from what it printed; the escaping program's words too."""
    lines = said.strip().splitlines()
    return THROUGH if lines and lines[-1] in (THROUGH, "succeeded") else HELD


def told(condition: str) -> str:
    """A shell script that says through if ``condition`` is true."""
    return f"if {condition}; then echo {THROUGH}; else echo {HELD}; fi"


MASKED = ["/proc/kcore", "/proc/interrupts"]
LOCKED = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"]
EVERYTHING = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER KILL SETGID SETUID SETPCAP SYS_ADMIN SYS_PTRACE SYS_CHROOT
MKNOD NET_ADMIN SYS_RAWIO SYS_RESOURCE"""


def grant(place: Place, *names: str) -> None:
    """Capabilities besides those of the bundle."""
    sets = place.bundle.value["process"]["capabilities"]
    for kind in sets:
        sets[kind] = sorted({*sets[kind], *names})


def annotations(place: Place) -> str:
    place.bundle.value["annotations"] = {
        "lab.enter": "chroot",
        "lab.init": "false",
        "org.opencontainers.runtime.no-pivot": "true",
        "run.oci.no_pivot": "1",
        "run.oci.seccomp_fail_unknown_syscall": "0",
    }
    grant(place, "CAP_SYS_CHROOT")
    place.bundle.value["process"]["args"] = ["escape", "leave_chroot", str(place.canary())]
    return place.run()


def new_proc(place: Place, *, masked: bool) -> str:
    """On a host with a second whole /proc, as a chroot of anybody's has one: crun hides /proc and /sys by these names
    alone, so what became of it hung on what else the host was doing.
    """
    second = place.folder / "second"
    second.mkdir()
    mount = f'mount -t proc proc "{second}" && exec "$@"'
    with_it = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
    if masked:
        place.bundle.value["linux"] |= {"maskedPaths": MASKED, "readonlyPaths": LOCKED}
    grant(place, "CAP_SETFCAP")  # to map root to itself, since Linux 5.12; Docker's defaults have it
    opened = told("(: >> /tmp/sys/kernel/core_pattern) 2>/dev/null")
    place.bundle.script(f"unshare -Urmpf sh -c 'mount -t proc proc /tmp; {opened}' || echo {HELD}")
    return place.run("--no-pivot", prefix=with_it)


def watched(place: Place, come: Callable[[Place, str], object], seconds: int = WATCH_SECONDS) -> str:
    """A container that may trace looks at every process that comes: at its program, and at the root that it has."""
    words = ["watch", str(place.canary()), str(place.program().stat().st_ino), str(seconds)]
    return looked_at(place, words, come)


def looked_at(place: Place, words: list[str], come: Callable[[Place, str], object]) -> str:
    grant(place, "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
    place.bundle.script(f"escape {' '.join(words)} > /seen; echo end >> /seen; sleep 1000")
    name = place.started()
    seen = place.bundle.root / "seen"
    while not seen.exists() or not seen.read_text().endswith("end\n"):
        come(place, name)
    said = seen.read_text().removesuffix("end\n")
    place.end(name)
    return judge(said)


def execute(place: Place, name: str) -> None:
    place.verb("exec", name, "true", check=False)


def nsenter(place: Place, name: str) -> None:
    """nsenter(1) brings a process of the host's along, with all that it has."""
    words = ["nsenter", "--pid", "--target", str(pid_of(place, name)), "sleep", "0.2"]
    subprocess.run(words, check=False, timeout=TIMEOUT_SECONDS)


def executed(place: Place) -> str:
    return watched(place, execute)


def seized(place: Place, come: Callable[[Place, str], object] = execute, seconds: int = WATCH_SECONDS) -> str:
    """A container that may trace traces what comes, while it has more power than it is going to have."""
    return looked_at(place, ["seize", str(seconds)], come)


def pid_of(place: Place, name: str) -> int:
    return int(json.loads(place.verb("state", name))["pid"])


def host_tool(place: Place) -> str:
    """The control."""
    return watched(place, nsenter, PATIENT_SECONDS)


def hook(place: Place, script: str) -> str:
    """A hook that is the container's program."""
    value: dict[str, Any] = {"path": "/bin/sh", "args": ["sh", "-c", f"({script}) > /told"]}
    place.bundle.value["hooks"] = {"startContainer": [value]}
    place.bundle.run(place.runtime, check=False)
    found = place.bundle.root / "told"
    return judge(found.read_text() if found.exists() else "")


def capable_hook(place: Place) -> str:
    return hook(place, told("mount -t tmpfs none /tmp 2>/dev/null"))


def capable_hook_control(place: Place) -> str:
    grant(place, "CAP_SYS_ADMIN")
    return capable_hook(place)


def by_path(place: Place, kind: str, path: str) -> None:
    """A namespace of the host's in place of a new one."""
    spaces = place.bundle.value["linux"]["namespaces"]
    spaces[:] = [space for space in spaces if space["type"] != kind] + [{"type": kind, "path": path}]


def net_sysctl(place: Place, path: str = "/proc/self/ns/net") -> str:
    """A setting of the network is given its present value: the host's stays as it is even if it gets through."""
    by_path(place, "network", path)
    place.bundle.value["linux"]["sysctl"] = {"net.ipv4.ip_default_ttl": Path(TTL).read_text().strip()}
    place.bundle.script(f"echo {THROUGH}")
    return place.run()


def net_sysctl_control(place: Place) -> str:
    """Of somebody else's network, who made it for that."""
    other = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        own = Path("/proc/self/ns/net").readlink()
        until(lambda: Path(f"/proc/{other.pid}/ns/net").readlink() != own, "its network")
        return net_sysctl(place, f"/proc/{other.pid}/ns/net")
    finally:
        other.kill()
        other.wait()


def host_name(place: Place) -> str:
    """The host is called what it is called."""
    by_path(place, "uts", "/proc/self/ns/uts")
    place.bundle.value["hostname"] = os.uname().nodename
    place.bundle.script(f"echo {THROUGH}")
    return place.run()


def opened(place: Place, count: int) -> tuple[str, ...]:
    """Words in front of a runtime's: a folder of the host's is open as descriptors 3 to 5."""
    names = " ".join(f"{number}<'{place.folder}'" for number in (3, 4, 5))
    return "bash", "-c", f'exec {names} && exec "$@"', "bash"


def one_descriptor_more(place: Place, count: int = 1) -> str:
    place.canary()
    place.bundle.script(told("cd /proc/self/fd/4 2>/dev/null && test -e canary"))
    return place.run("--preserve-fds", str(count), prefix=opened(place, count))


def directory_of_descriptor(place: Place) -> str:
    """As CVE-2024-21626, with a descriptor that was handed over on purpose: to be used, not to begin in."""
    place.canary()
    place.bundle.value["process"]["cwd"] = "/proc/self/fd/3"
    place.bundle.script(told("test -e canary || test -e ../canary"))
    return place.run("--preserve-fds", "1", prefix=opened(place, 1))


def all_capabilities(place: Place, *, control: bool = False) -> str:
    """exec gives a process more than the container has: all of it ends at the container's root."""
    place.bundle.script("sleep 1000")
    name = place.started()
    process = place.bundle.value["process"] | {"args": ["escape", "leave_chroot", str(place.canary())]}
    everything = [f"CAP_{word}" for word in EVERYTHING.split()]
    process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), everything)
    process["noNewPrivileges"] = False
    (place.folder / "process.json").write_text(json.dumps(process))
    try:
        if control:  # the same folder, entered by chroot(1)
            words = ["chroot", str(place.bundle.root), "/bin/escape", "leave_chroot", str(place.canary())]
            return judge(subprocess.run(words, capture_output=True, text=True, check=False).stdout)
        return judge(place.verb("exec", "--process", str(place.folder / "process.json"), name, check=False))
    finally:
        place.end(name)


def neighbour(place: Place) -> str:
    """Another container that shares its pid namespace, by path, is started again and again."""

    def come(place: Place, name: str) -> None:
        value = json.loads(json.dumps(place.bundle.value))
        spaces = value["linux"]["namespaces"]
        path = f"/proc/{pid_of(place, name)}/ns/pid"
        spaces[:] = [space for space in spaces if space["type"] != "pid"] + [{"type": "pid", "path": path}]
        value["process"]["args"] = ["true"]
        other = Bundle(folder=place.folder, value=value)
        value["root"]["path"] = str(place.bundle.root)
        other.run(place.runtime, check=False)

    return watched(place, come, PATIENT_SECONDS)


def hook_that_is_the_runtime(place: Place) -> str:
    """As CVE-2019-5736: a hook of the image whose interpreter is /proc/self/exe."""
    evil = place.bundle.root / "bin" / "evil"
    evil.write_text("#!/proc/self/exe\nopen('/told', 'w').write('through\\n')\n")
    evil.chmod(0o755)
    place.bundle.value["hooks"] = {"startContainer": [{"path": "/bin/evil", "args": ["evil"]}]}
    place.bundle.run(place.runtime, check=False)
    found = place.bundle.root / "told"
    return judge(found.read_text() if found.exists() else "")


def open_files(place: Place) -> str:
    """What the runtime has written of a container, its environment included, and others may read."""
    place.bundle.script("sleep 1000")
    place.bundle.value["process"]["env"].append("PASSWORD=secret")
    before = os.umask(0)
    try:
        name = place.started()
    finally:
        os.umask(before)
    state = place.bundle.folder / "state"
    found = [path for path in state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    place.end(name)
    return THROUGH if any("secret" in path.read_text(errors="replace") for path in found) else HELD


def swapped(place: Place) -> str:
    """A folder of the image becomes a link to one of the host's while something is mounted below it."""
    from test_escapes_at_start import Swapping

    victim = place.folder / "victim"
    victim.mkdir()
    (place.bundle.root / "data").mkdir()
    (place.bundle.root / "link").symlink_to(f"../../../../../../../../..{victim}")
    place.bundle.mount("/data/below/it", type="bind", source=str(place.bundle.root / "bin"), options=["bind", "ro"])
    with Swapping(place.bundle.root / "data", place.bundle.root / "link"):
        for _ in range(STARTS):
            place.bundle.run(place.runtime, check=False)
    return THROUGH if list(victim.iterdir()) else HELD


def source_in_a_volume(place: Place) -> str:
    """A folder of one container's volume is mounted in another, and the former swaps it for a link to the host's."""
    from test_escapes_at_start import Swapping

    place.canary()
    volume = place.bundle.folder / "volume"
    (volume / "here").mkdir(parents=True)
    (volume / "link").symlink_to(place.folder)
    place.bundle.mount("/data", type="bind", source=str(volume / "here"), options=["bind", "ro"])
    place.bundle.script(told("[ -e /data/canary ]"))
    with Swapping(volume / "here", volume / "link"):
        found = {place.run() for _ in range(STARTS)}
    return THROUGH if THROUGH in found else HELD


WITH_A_KEY = """
import ctypes, os, sys
call, key = ctypes.CDLL(None).syscall, sys.argv[1].encode()
assert call(250, 1, None) > 0 and call(248, b"user", key, b"secret", 6, -3) > 0
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""keyctl(2), KEYCTL_JOIN_SESSION_KEYRING; add_key(2) to that; and what is to have it."""


def keyring(place: Place, *options: str) -> str:
    """A key of whoever starts the container, in the session keyring, which is inherited."""
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of keyctl and add_key are x86-64's")
    name = f"lab-test-{uuid.uuid4().hex[:8]}"
    place.bundle.value["process"]["args"] = ["escape", "find_session_key", name]
    return place.run(*options, prefix=(sys.executable, "-c", WITH_A_KEY, name))


def given_file(place: Place, stdin: str = "< '{}'") -> str:
    """Standard input is opened anew, for writing, by a user who does not own it."""
    canary = place.canary()
    canary.chmod(0o600)
    place.bundle.value["process"]["user"] = {"uid": 1000, "gid": 1000}
    place.bundle.script(told("(: >> /proc/self/fd/0) 2>/dev/null"))
    words = f'"$@" {stdin}' if "<" in stdin else f'{stdin} | "$@"'
    return place.run(prefix=("bash", "-c", words.format(canary), "bash"))


def environment_of_the_image(place: Place, **hook: object) -> str:
    """A hook that runs inside and is the host's program, without an environment of its own."""
    told_at = place.folder / "told"
    place.bundle.value["process"]["env"].append(f"OF_IMAGE={THROUGH}")
    words = ["sh", "-c", f'echo "$OF_IMAGE" > "{told_at}"']
    value = {"path": shutil.which("sh"), "args": words, **hook}
    place.bundle.value["hooks"] = {"createContainer": [value]}
    place.bundle.run(place.runtime, check=False)
    return judge(told_at.read_text())


ATTEMPTS = {
    "annotations": Attempt(
        asks="annotations, an image's among them",
        gets="a root that can be left by chroot(2)",
        attempt=annotations,
    ),
    "no-pivot": Attempt(
        asks="`--no-pivot`, where the host has a second /proc mounted, as for a chroot",
        gets="a /proc without masks, in a user namespace of its own",
        attempt=lambda place: new_proc(place, masked=True),
        through=("crun",),
        control=lambda place: new_proc(place, masked=False),
    ),
    "exec": Attempt(
        asks="`exec` into a container that has CAP_SYS_PTRACE",
        gets="the runtime's program where it can be written to, or the host's root",
        attempt=executed,
        control=host_tool,
    ),
    "exec traced": Attempt(
        asks="`exec` with no_new_privs into a container that has CAP_SYS_PTRACE",
        gets="a process of the runtime's to trace while it has every capability",
        attempt=seized,
        through=("runc", "crun"),
        control=lambda place: seized(place, nsenter, PATIENT_SECONDS),
    ),
    "startContainer": Attempt(
        asks="a `startContainer` hook, which is a program of the image",
        gets="more than the application may",
        attempt=capable_hook,
        control=capable_hook_control,
    ),
    "net sysctl": Attempt(
        asks="the host's network namespace by path, with a `net.*` sysctl",
        gets="a setting of the host's network",
        attempt=net_sysctl,
        through=("crun",),
        control=net_sysctl_control,
    ),
    "hostname": Attempt(
        asks="the host's UTS namespace by path, with a hostname",
        gets="the host's name",
        attempt=host_name,
        through=("runc", "crun"),
    ),
    "preserve-fds": Attempt(
        asks="`--preserve-fds 1`",
        gets="the second descriptor of the caller's, a folder of the host's",
        attempt=one_descriptor_more,
        control=lambda place: one_descriptor_more(place, 2),
    ),
    "cwd": Attempt(
        asks="`--preserve-fds 1`, and a working directory that is /proc/self/fd/3",
        gets="a place outside of the root to begin in (CVE-2024-21626)",
        attempt=directory_of_descriptor,
        through=("crun",),
    ),
    "exec with every capability": Attempt(
        asks="`exec --process` with every capability",
        gets="a root that can be left by chroot(2)",
        attempt=all_capabilities,
        control=lambda place: all_capabilities(place, control=True),
    ),
    "shared pid namespace": Attempt(
        asks="a pid namespace by path, that of a container that has CAP_SYS_PTRACE",
        gets="the runtime's program where it can be written to, or the host's root",
        attempt=neighbour,
        through=("lab-oci", "runc", "crun"),
        control=host_tool,
    ),
    "hook": Attempt(
        asks="a `startContainer` hook that begins with `#!/proc/self/exe`",
        gets="the runtime's interpreter, inside, with the runtime's power",
        attempt=hook_that_is_the_runtime,
    ),
    "environment": Attempt(
        asks="a `createContainer` hook without `env`: the host's program, run inside",
        gets="it an environment of the image's, LD_PRELOAD and all (CVE-2025-23266)",
        attempt=environment_of_the_image,
        through=("runc",),
        control=lambda place: environment_of_the_image(place, env=[f"OF_IMAGE={THROUGH}"]),
    ),
    "given file": Attempt(
        asks="standard input from a file of the host's, and another user than root",
        gets="that file, to write to",
        attempt=given_file,
        through=("runc", "crun"),
        control=lambda place: given_file(place, "true"),
    ),
    "files": Attempt(
        asks="nothing: a container has its environment, and the caller's umask is 0",
        gets="passwords in a file of the runtime's that everybody may read",
        attempt=open_files,
    ),
    "swapped": Attempt(
        asks="a mount below a folder of the image that is swapped for a link meanwhile",
        gets="folders made on the host (CVE-2021-30465, CVE-2024-45310)",
        attempt=swapped,
    ),
    "keyring": Attempt(
        asks="nothing: keys of whoever starts a container are in the session keyring",
        gets="one of those keys; `--no-new-keyring` gives them on purpose",
        attempt=keyring,
        control=lambda place: keyring(place, "--no-new-keyring"),
    ),
    "source in a volume": Attempt(
        asks="a mount whose source is in a folder that another container writes to",
        gets="what a link leads to that it puts there, from the host's root on (as CVE-2021-25741)",
        attempt=source_in_a_volume,
        through=("lab-oci", "runc", "crun"),
    ),
}
