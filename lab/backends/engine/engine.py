"""The Engine of one session: started when the first image is prepared, gone with the session.

It lives in lab's network, and its ``docker0`` is lab's bridge: Docker makes the pair of links of each container and
gives it an address, out of a range that lab leaves to it. Its processes are in a group of their own, so that what
they cost can be told from what the containers cost.

dockerd, containerd, a shim per container and what these start are the Engine's, and its containers are theirs: once
the first process of its PID namespace is killed, nothing of them runs any more.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.engine import dockerd
from lab.backends.engine.client import Client, Refused, until_it_answers
from lab.backends.support.programs.anothers import open_files, processes_of, pss_bytes
from lab.backends.support.programs.takenover import TakenOver
from lab.errors import LabError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import Unused, make_room
from lab.host.session.ledger import Resource, ResourceKind
from lab.host.survey.virtualisation import platform
from lab.model import Limits
from lab.network.network import ANOTHERS, BRIDGE
from lab.runtime.cgroup.instances import limited
from lab.runtime.oci.install import EXECUTABLE

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts
    from lab.images.store import Image


NAME = "docker-engine"
"""Of its group beside those of the instances; no instance is called so, for it names a folder of its own, too."""

PARTS = ("dockerd", "containerd", "containerd-shim")
"""How the names of its programs begin, of which the kernel keeps fifteen letters (proc_pid_comm(5))."""


class _TooSlow(LabError):
    """The daemon gave its containerd up, which a slow host would have started in the end."""


class Engine:
    """A Docker Engine that runs."""

    def __init__(
        self, site: SharedParts, folder: Path, client: Client, process: subprocess.Popen[bytes] | None
    ) -> None:
        self.site = site
        self.folder = folder
        self.client = client
        self.cgroup = ControlGroup.open(group_of(site.session.id, NAME))
        self._process = process
        self._images = TakenOver(
            site.store, folder, whose="Docker", load=self._take_in, find=lambda name: client.image(name)
        )
        self.depth = 1
        """Its processes have numbers of their own."""
        self.alone_bytes: int | None = None
        """PSS of its daemons once the first image was loaded, before anything ran."""

    @classmethod
    def start(cls, site: SharedParts) -> Engine:
        """Start one, and wait until it answers: again, on an emulated host, where dockerd gives its containerd up too
        soon. Nothing is left of it when that fails. Raises LabError.
        """
        session, folder = site.session, site.scratch / NAME
        group = group_of(session.id, NAME)
        session.record(Resource(kind=ResourceKind.OTHER_CGROUP, name=group_of(session.id)))
        session.record(Resource(kind=ResourceKind.CGROUP, name=group))  # removed first: else it goes on writing
        make_room(f"{group_of(session.id)}/any")
        for tried in itertools.count(1):
            try:
                return cls._started(site, folder, group)
            except _TooSlow as error:
                if tried >= platform().patience:
                    raise LabError(error.message, hint=error.hint) from error
        raise AssertionError("some try is the last")

    @classmethod
    def _started(cls, site: SharedParts, folder: Path, group: str) -> Engine:
        network = site.network
        with ExitStack() as undo:
            cgroup = limited(group, Limits())
            undo.callback(cgroup.remove, keep_parents=True)
            folder.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            process = network.run_in(
                lambda: dockerd.start_in(
                    folder,
                    cgroup_parent=f"/{group_of(site.session.id)}",
                    entrances=[directory / "cgroup.procs" for directory in cgroup.directories],
                    runtimes={"lab-oci": str(EXECUTABLE)},
                    settings=_settings(),
                )
            )
            undo.callback(_end, process, cgroup)
            try:
                client = until_it_answers(folder / "socket", lambda: process.poll() is not None, folder / "log")
            except LabError as error:
                if process.poll() is not None and dockerd.was_too_slow(folder):
                    raise _TooSlow(error.message, hint=error.hint) from error
                raise
            undo.pop_all()
        return cls(site, folder, client, process)

    @classmethod
    def adopt(cls, site: SharedParts) -> Engine:
        """The one of a session that was taken over. Raises LabError when it has ended."""
        folder = site.scratch / NAME
        try:
            return cls(site, folder, Client.connect(folder / "socket"), None)
        except Refused as error:
            raise LabError(f"the Docker Engine of session {site.session.id} has ended", hint="lab clean") from error

    @cached_property
    def version(self) -> str:
        """Of dockerd, containerd and runc: ``20.10.24, containerd 1.6.20, runc 1.1.5``."""
        said = self.client.version()
        parts = {str(each["Name"]): str(each["Version"]) for each in said.get("Components", [])}
        others = (f"{name} {parts[name].partition('~')[0]}" for name in ("containerd", "runc") if name in parts)
        return ", ".join([str(said["Version"]), *others])

    def load(self, image: Image) -> str:
        """The image's id with Docker, which is the digest of its configuration; it is loaded the first time.

        Raises ParityError when Docker has made other layers of it than lab has.
        """
        return self._images.take(image)

    def layers(self, image: Image) -> list[Path]:
        """Docker's own copy of the image's layers."""
        return self._images.layers(image)

    def _take_in(self, packed: Path) -> None:
        with packed.open("rb") as source:
            self.client.load(source)
        if self.alone_bytes is None:
            self.alone_bytes = sum(pss_bytes(pid) for pid in self.processes())

    def processes(self) -> dict[int, str]:
        """The pids of its parts on the host, each with its name."""
        return processes_of(self.cgroup, PARTS)

    def bundle(self, identity: str) -> Path | None:
        """The config.json that a container's runtime got, by way of a daemon's mounts, where it lies; None if it does
        not lie there.
        """
        for pid in self.processes():
            if (found := Path(f"/proc/{pid}/root{dockerd.BUNDLES}/{identity}/config.json")).exists():
                return found
        return None

    def close(self) -> None:
        """End it, and with it all its containers; remove what it had. Idempotent. Raises LabError."""
        with ExitStack() as each:
            unused = ControlGroup.open(group_of(self.site.session.id), hierarchies=Unused.detect())
            each.callback(unused.remove, keep_parents=False)
            each.callback(shutil.rmtree, self.folder, ignore_errors=True)
            each.callback(self.cgroup.remove, keep_parents=True)
            each.callback(_end, self._process, self.cgroup)
            each.callback(self.client.close)


def _end(process: subprocess.Popen[bytes] | None, cgroup: ControlGroup) -> None:
    if process is not None:
        process.kill()
        process.wait()
    cgroup.kill()


def _settings() -> dict[str, object]:
    """On lab's bridge, without what would reach beyond it; open files as Docker's own service allows."""
    files = open_files()
    return {
        "bridge": BRIDGE, "fixed-cidr": str(ANOTHERS), "ip-forward": False, "ip-masq": False, "userland-proxy": False,
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": files, "Soft": files}},
    }  # fmt: skip


def host_pid(cgroup: ControlGroup, pid: int, depth: int = 1) -> int | None:
    """The process of the group that has the number ``pid`` with the Engine, whose namespace of processes is ``depth``
    below this one.
    """
    for candidate in cgroup.processes():
        with suppress(OSError):
            status = Path(f"/proc/{candidate}/status").read_text()
            numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
            here = len(Path(f"/proc/{os.getpid()}/status").read_text().partition("NSpid:")[2].splitlines()[0].split())
            at = here - 1 + depth
            if len(numbers) > at and int(numbers[at]) == pid:
                return candidate
    return None
