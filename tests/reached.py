"""Hosts to be reached through ssh, on this one: each is a set of namespaces with a server of ssh in it.

Keys, known hosts, users and ports are their own. Where no server is installed, Debian's is fetched alone.
Killing a host's first process ends all of it; taking its link down is a partition.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from host_state import wait_until

ROOT = Path(__file__).parents[1]
USER, UID, PORT = "sweep", 64201, 2222
SSHD_CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {keys}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
"""
# The shell is the first process there: it outlives what the server began, and reaps what has lost its parent.
BEGIN = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind {folder}/passwd /etc/passwd
mount --bind {folder}/group /etc/group
read go
ip link set lo up
ip address add {address}/30 dev {link}
ip link set {link} up
export LD_LIBRARY_PATH={libraries}
exec 0< /dev/null
setpriv --reuid {uid} --regid {uid} --clear-groups {sshd} -D -e -f {folder}/sshd_config 2> {folder}/sshd.log &
wait
"""


def server(cache: Path) -> tuple[Path, Path]:
    """sshd(8), and the folder of the libraries that it brings. Raises CalledProcessError without a mirror."""
    if (installed := Path("/usr/sbin/sshd")).exists():
        return installed, Path("/nonexistent")
    root = cache / "openssh-server"
    if not (root / "done").exists():
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["apt-get", "-q", "download", "openssh-server", "libwrap0"], cwd=root, check=True, capture_output=True,
            timeout=300,
        )  # fmt: skip
        for package in root.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True, timeout=60)
        (root / "done").touch()
    (library,) = root.glob("**/libwrap.so.0")
    return root / "usr/sbin/sshd", library.parent


@dataclass(slots=True, kw_only=True)
class Reached:
    """One host. ``own`` is where its lab notes what it did."""

    name: str
    folder: Path
    number: int
    sshd: Path
    libraries: Path
    process: subprocess.Popen[bytes] | None = None
    _first: str = ""  # the number of its first process on this side

    @property
    def address(self) -> str:
        return f"198.19.25{self.number}.2"

    @property
    def link(self) -> str:
        """The near end of its cable; the far end has an x behind."""
        return f"labsw{os.getpid() % 100000}{self.number}"

    @property
    def own(self) -> Path:
        return self.folder / "own"

    def start(self) -> None:
        text = BEGIN.format(
            folder=self.folder, address=self.address, link=f"{self.link}x", uid=UID, sshd=self.sshd,
            libraries=self.libraries,
        )  # fmt: skip
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", text],
            stdin=subprocess.PIPE, process_group=0,
        )  # fmt: skip
        inside = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        assert wait_until(lambda: Path(inside).read_text().split())
        (self._first,) = Path(inside).read_text().split()
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", f"{self.link}x", "netns", self._first)
        run("ip", "address", "add", f"198.19.25{self.number}.1/30", "dev", self.link)
        run("ip", "link", "set", self.link, "up")
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()
        log = self.folder / "sshd.log"
        assert wait_until(lambda: log.exists() and "listening" in log.read_text()), log.read_text()

    def kill(self) -> None:
        """All of it, at once, as if it had lost its power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            with suppress(subprocess.CalledProcessError):
                run("ip", "link", "delete", self.link)
            (self.folder / "sshd.log").unlink(missing_ok=True)

    def connect(self, *, up: bool) -> None:
        """Plug its cable in, or pull it out."""
        run("ip", "link", "set", self.link, "up" if up else "down")

    def listening(self) -> set[str]:
        """Addresses and ports of the sockets that listen there (proc(5), /proc/net/tcp and tcp6)."""
        found = set()
        for name in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self._first}/net/{name}").read_text().splitlines()[1:]:
                address, port = line.split()[1].split(":")
                if line.split()[3] == "0A":
                    ip = (
                        ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
                        if len(address) == 8
                        else address
                    )
                    found.add(f"{ip}:{int(port, 16)}")
        return found

    def processes(self) -> list[tuple[int, str]]:
        """What runs there, besides the shell and the server: numbers of this side, and command lines."""
        namespace, found = Path(f"/proc/{self._first}/ns/pid").readlink(), []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if (path / "ns/pid").readlink() == namespace and words and "sshd" not in words:
                    found.append((int(path.name), words))
        return found


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=60)


@contextmanager
def hosts(folder: Path, names: tuple[str, ...], cache: Path) -> Iterator[dict[str, Reached]]:
    """Those of ``names``, and ``folder/hosts.toml`` about them; ``folder`` is one that everybody may enter."""
    sshd, libraries = server(cache)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
    text, known, found = "", "", {}
    for number, name in enumerate(names):
        host = Reached(name=name, folder=folder / name, number=number, sshd=sshd, libraries=libraries)
        (host.folder / "home").mkdir(parents=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host.folder / "host_key"))
        (host.folder / "passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\n{USER}:x:{UID}:{UID}::{host.folder}/home:/bin/sh\n"
        )
        (host.folder / "group").write_text(f"root:x:0:\n{USER}:x:{UID}:\n")
        (host.folder / "sshd_config").write_text(
            SSHD_CONFIG.format(port=PORT, address=host.address, folder=host.folder, keys=folder / "key.pub")
        )
        key = (host.folder / "host_key.pub").read_text()
        known += f"[{host.address}]:{PORT} {key}"
        own(host.folder)
        found[name] = host
        text += f"""
[hosts.{name}]
ssh = "{USER}@{host.address}"
port = {PORT}
key = "key"
known_hosts = "known_hosts"
config = "ssh_config"
lab = "{ROOT}/.venv/bin/lab"
command = ["{ROOT}/.venv/bin/python", "{ROOT}/tests/sweeping.py", "{host.own}/lab"]
"""
    (folder / "known_hosts").write_text(known)
    (folder / "ssh_config").touch()
    (folder / "hosts.toml").write_text(text)
    try:
        for host in found.values():
            host.start()
        yield found
    finally:
        for host in found.values():
            host.kill()


def own(folder: Path) -> None:
    """Give all below ``folder`` to the hosts' user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, UID)


def empty(host: Reached, *, within_seconds: float) -> list[tuple[int, str]]:
    """What still runs on ``host`` after so long: nothing, one hopes."""
    deadline = time.monotonic() + within_seconds
    while (left := host.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
