"""A Docker Engine in namespaces of its own, so that nothing of the host's is touched, and nothing of it is left.

What it mounts, its bridge and its addresses are in namespaces that end with it; so are, where it has one of processes
as well, all that it started. Of the host's it uses a folder, for its socket, and a control group, for its containers.
No rule of a packet filter is made.

`start` is for tests and for ``lab bench self``: it ends with whoever called it, and its images lie on a tmpfs.
`start_in` is for the backend: it lives in a network that is there already, in a group that counts what it costs, with
its images on a disk, and may outlive lab.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.backends.support.programs.anothers import ENTER

PROGRAMS = ("dockerd", "containerd", "docker", "docker-init")
PATH = "/usr/bin:/usr/sbin:/bin:/sbin"  # the distribution's programs come first, whatever else is installed
ENVIRONMENT = {
    "PATH": PATH,
    "HOME": "/root",
}  # no XDG_RUNTIME_DIR, which the caller's session may have: it hides /run
PACKAGE = "docker.io"

BUNDLES = "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby"
"""Where its containerd keeps a folder for each container."""

NAMESPACES = ("--mount", "--net", "--ipc", "--uts", "--propagation", "private")
PROCESSES = ("--pid", "--fork", "--kill-child=KILL", "--mount-proc")

# What it writes outside of its folder is its own; systemd's sockets stay where they are.
START = """
mkdir "$1/run" "$1/data"
mount --rbind /run "$1/run"
mount -t tmpfs tmpfs /run
mount --make-rshared /run
for kept in dbus systemd; do
    if [ -d "$1/run/$kept" ]; then mkdir "/run/$kept"; mount --rbind "$1/run/$kept" "/run/$kept"; fi
done
umount --lazy "$1/run"
mount -t tmpfs tmpfs /etc/docker
if [ "$2" = memory ]; then
    mount -t tmpfs tmpfs "$1/data"
    ip link set lo up
fi
exec docker-init -sg -- dockerd --config-file "$1/daemon.json"
"""


QUIET = {"container": "lab"}
"""What keeps it from loading its AppArmor profile into the host's kernel, where that would stay: it believes that it
is in a container, where it may not (github.com/containerd/containerd, pkg/apparmor).
"""


GAVE_UP = "timeout waiting for containerd to start"


def was_too_slow(folder: Path) -> bool:
    """Whether the daemon, which has ended, gave its containerd up: it waits fifteen seconds for that, not longer on a
    slow host (github.com/moby/moby, libcontainerd/supervisor).
    """
    log = folder / "log"
    return log.exists() and GAVE_UP in log.read_text(errors="replace")


def lacking() -> str:
    """The name of a program that this needs and the host has not got; empty if there is none."""
    return next((name for name in PROGRAMS if shutil.which(name, path=PATH) is None), "")


def where() -> str:
    """The path of the daemon, which is there."""
    return shutil.which(PROGRAMS[0], path=PATH) or ""


def start(
    folder: Path,
    *,
    cgroup_parent: str,
    runtimes: Mapping[str, str],
    by_systemd: bool = False,
    begin: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Its first process, which ends with the thread that called this, and everything else with it.

    ``folder`` holds its socket and its log; ``begin`` are words in front of the command. ``by_systemd``: control
    groups are asked of systemd, who has to know the processes by their numbers. There are no own ones then, and what
    the daemon has started may outlive it.
    """
    driver = "systemd" if by_systemd else "cgroupfs"
    _write(folder, cgroup_parent, runtimes, driver, {})
    namespaces = NAMESPACES if by_systemd else (*NAMESPACES, *PROCESSES)
    words = ["setpriv", "--pdeathsig=KILL", "unshare", *namespaces, "sh", "-euc", START, "-", str(folder), "memory"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([*begin, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT)


def start_in(
    folder: Path,
    *,
    cgroup_parent: str,
    entrances: Sequence[Path],
    runtimes: Mapping[str, str],
    settings: Mapping[str, object],
) -> subprocess.Popen[bytes]:
    """Its first process, in the network of the calling thread; it ends when it is killed, and all others with it.

    ``entrances`` are the files of a control group, ``cgroup.procs``, into which it writes itself before anything
    else: what the daemon, containerd and their helpers use is counted there. ``settings`` are further ones of
    daemon.json.
    """
    _write(folder, cgroup_parent, runtimes, "cgroupfs", settings)
    kept = [space for space in (*NAMESPACES, *PROCESSES) if space != "--net"]
    words = ["sh", "-euc", ENTER, "-", *map(str, entrances), "--"]
    words += ["unshare", *kept, "sh", "-euc", START, "-", str(folder), "disk"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT | QUIET, start_new_session=True
        )


def _write(
    folder: Path, cgroup_parent: str, runtimes: Mapping[str, str], driver: str, more: Mapping[str, object]
) -> None:
    settings = {
        "data-root": str(folder / "data"), "exec-root": "/run/docker", "pidfile": "/run/docker.pid",
        "hosts": [address(folder)], "iptables": False, "ip6tables": False, "storage-driver": "overlay2",
        "exec-opts": [f"native.cgroupdriver={driver}"], "cgroup-parent": cgroup_parent, "shutdown-timeout": 2,
        "runtimes": {name: {"path": path} for name, path in runtimes.items()},
    }  # fmt: skip
    (folder / "daemon.json").write_text(json.dumps({**settings, **more}))


def address(folder: Path) -> str:
    return f"unix://{folder}/socket"


def client(folder: Path, *arguments: str) -> list[str]:
    """The command line of ``docker …`` for it."""
    return [shutil.which("docker", path=PATH) or "docker", "--host", address(folder), *arguments]


def pack(archive: Path, folders: Mapping[str, int], files: Mapping[str, str], applets: Sequence[str] | None) -> None:
    """The only layer of an image: busybox under the names of ``applets``, or of all it has; folders with their modes;
    text files.
    """
    busybox = shutil.which("busybox") or "/bin/busybox"
    if applets is None:
        listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
        applets = [applet for applet in listed.stdout.split() if applet != "busybox"]
    with tarfile.open(archive, "w") as tar:
        for name, mode in folders.items():
            tar.addfile(_member(name, tarfile.DIRTYPE, mode))
        tar.add(busybox, "bin/busybox")
        for applet in applets:
            link = _member(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
            link.linkname = "busybox"
            tar.addfile(link)
        for name, text in files.items():
            file = _member(name, tarfile.REGTYPE, 0o644)
            file.size = len(text.encode())
            tar.addfile(file, io.BytesIO(text.encode()))


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.mode = kind, mode
    return found
