"""Podman of one session: a store, settings and mounts of its own, and no process that stays.

Each call is a program that ends; what remains of a start is a conmon, which holds the container. All of them live in
lab's network namespace, out of which nothing leads, and in a group of their own, so that what they cost can be told
from what the containers cost.

Source: podman(1), containers.conf(5), containers-storage.conf(5), conmon(8).
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.backends.libpod.place import Place
from lab.backends.support.programs import children
from lab.backends.support.programs.anothers import ENTER, open_files, processes_of, pss_bytes
from lab.backends.support.programs.takenover import TakenOver
from lab.errors import CommandError, LabError
from lab.host import procstat
from lab.host.cgroup.control import ControlGroup, CpuUsage
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import Unused, make_room
from lab.host.cgroup.systemd import Scope
from lab.host.command import run
from lab.host.identity import privilege
from lab.host.session.ledger import Resource, ResourceKind
from lab.host.survey.facts import find_version
from lab.model import Limits
from lab.network.namespace import Namespace
from lab.runtime.cgroup.instances import limited
from lab.runtime.launcher.descriptors import memory_file
from lab.runtime.oci.install import EXECUTABLE

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts
    from lab.images.store import Image

log = logging.getLogger(__name__)

NAME = "podman-engine"
"""Of its group beside those of the instances; no instance is called so, for it names a folder of its own, too."""

CONTAINERS = "root/overlay-containers"

PATH = "/usr/bin:/usr/sbin:/bin:/sbin"  # the distribution's programs, whatever else is installed
PROGRAMS = ("podman", "conmon", "runc")
PACKAGE = "podman runc"
OLDEST = (4, 0)  # whose log driver can be passthrough (podman-run(1))
RUNTIMES = ("runc", "lab-oci", "crun")
PARTS = ("podman", "conmon", "runc", "crun")
LABEL = "lab.session"
FLAG = "lab-enter"
ENTERING = """\
#!/bin/sh
before=
for word; do
    shift
    case $before$word in
    --{flag}=*) while read -r procs; do echo $$ >"$procs" || exit; done <"${{word#*=}}" ;;
    {crun}--cgroup-manager) before=value: ; continue ;;
    value:*) ;;
    *) set -- "$@" "$word" ;;
    esac
    before=
done
exec {runtime} "$@"
"""
"""What an ordinary user's podman takes for its runtime. It enters the groups that lab's flag says, and leaves out the
option with which podman asks for no group, which crun alone knows.
"""
SETTLE_SECONDS, STEP_SECONDS = 5.0, 0.01
SECONDS = 120.0  # for a call, on a host that is busy
LOAD_SECONDS = 1800.0  # for one that unpacks an image, of whatever size

SORTED = re.compile(": OCI (runtime attempted|permission denied|runtime error).*$")
"""What podman adds to a runtime's complaint: which sort of error it takes that for."""

UNHEARD = "(no logs from conmon)"

POLICY = {"default": [{"type": "insecureAcceptAnything"}]}
"""containers-policy.json(5): images come from lab's own store, and their digests are compared."""


class SettledGroup(ControlGroup):
    """Podman's own group, which is read when podman has done what there was to do.

    A command that was executed in a container leaves a conmon for some tenths of a second, which has podman clean up
    after it. lab's own questions are such commands: without waiting, they would be charged to what is measured next.
    """

    def cpu(self) -> CpuUsage:
        self.settle()
        return super().cpu()

    def settle(self) -> None:
        """Until nothing of podman's runs but the conmons of containers; not for ever, for that may be a user's."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while any(map(_passes, self.processes())) and time.monotonic() < deadline:
            time.sleep(STEP_SECONDS)


def _passes(pid: int) -> bool:
    """Whether that process is podman, or the conmon of a command."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return words[0].endswith(b"podman") or b"--exec-process-spec" in words
    return False


class Podman:
    """A podman that can be called, and what it keeps."""

    def __init__(self, site: SharedParts, folder: Path, place: Place) -> None:
        self.site = site
        self.folder = folder
        group = ControlGroup.open(group_of(site.session.id, NAME))
        self.cgroup = SettledGroup(group.path, group.hierarchies)
        self._place = place
        self._network = Namespace(os.dup(site.network.namespace.descriptor))  # the site's may be closed before it
        self._images = TakenOver(site.store, folder, whose="podman", load=self._load, find=self._image)
        self._moded: set[str] = set()
        self.alone_bytes: int | None = None
        """PSS of its processes once the first image was loaded, before anything ran."""

    @classmethod
    def start(cls, site: SharedParts) -> Podman:
        """Make its folder, its group and its mounts. Nothing is left of them when that fails. Raises LabError."""
        session, folder = site.session, site.scratch / NAME
        group = group_of(session.id, NAME)
        session.record(Resource(kind=ResourceKind.OTHER_CGROUP, name=group_of(session.id)))
        session.record(Resource(kind=ResourceKind.CGROUP, name=group))  # removed first: what is in it makes more
        make_room(f"{group_of(session.id)}/any")
        with ExitStack() as undo:
            cgroup = limited(group, Limits())
            undo.callback(cgroup.remove, keep_parents=True)
            folder.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            (folder / "hooks").mkdir()
            place = Place.make(_settings(folder))
            undo.callback(place.close)
            made = cls(site, folder, place)
            undo.callback(made._network.close)
            made.call("info", "--format", "{{.Version.Version}}")  # it makes its store, before any clock runs
            log.debug("podman %s", made.version)
            undo.pop_all()
        return made

    @classmethod
    def adopt(cls, site: SharedParts, survivor: int) -> Podman:
        """The one of a session that was taken over, by a conmon that has kept its mounts and lab's network: one of
        its group, or where an ordinary user has none, the parent of the process ``survivor``.

        Raises LabError when all of them have ended.
        """
        cgroup = ControlGroup.open(group_of(site.session.id, NAME))
        for pid in processes_of(cgroup, ("conmon",)) or _conmon_of(survivor):
            with suppress(OSError):
                place = Place.of(pid)
                site.adopt_network_of(pid)
                return cls(site, site.scratch / NAME, place)
        raise LabError(f"the containers of session {site.session.id} have ended", hint="lab clean")

    @cached_property
    def version(self) -> str:
        """Of podman and conmon: ``4.3.1, conmon 2.1.6``."""
        conmon = find_version(_said("conmon", "--version")) or "?"
        return f"{version()}, conmon {conmon}"

    def take(self, image: Image) -> str:
        """The image's id with podman, which is the digest of its configuration; it is loaded the first time.

        Raises ParityError when podman has made other layers of it than lab has.
        """
        identity = self._images.take(image)
        self._give_root_its_mode(image)
        return identity

    def _give_root_its_mode(self, image: Image) -> None:
        """Where no layer names the root folder, podman's is 0555, and everybody else's 0755 (containers/storage,
        drivers/overlay): the uppermost layer's is what a container's own begins with.
        """
        if image.digest not in self._moded:
            uppermost = self.site.store.lower_directories(image)[0]
            self._images.layers(image)[0].chmod(uppermost.stat().st_mode & 0o7777)
            self._moded.add(image.digest)

    def layers(self, image: Image) -> list[Path]:
        """Podman's own copy of the image's layers."""
        return self._images.layers(image)

    def _load(self, packed: Path) -> None:
        self.call("load", "--quiet", "--input", str(packed), seconds=LOAD_SECONDS)
        if self.alone_bytes is None:
            self.alone_bytes = sum(pss_bytes(pid) for pid in self.cgroup.processes())

    def _image(self, name: str) -> Mapping[str, Any]:
        return dict(json.loads(self.call("image", "inspect", name))[0])

    def inspect(self, container: str) -> Mapping[str, Any]:
        """All that it knows of a container. Raises LabError."""
        return dict(json.loads(self.call("container", "inspect", container))[0])

    def call(self, *arguments: str, seconds: float = SECONDS) -> str:
        """What ``podman ARGUMENTS`` prints, to its end within ``seconds``. Raises LabError with its last words."""
        with ExitStack() as opened:
            null, out, err = (memory_file(b"", opened) for _ in range(3))
            pid = self.spawn(arguments, [null, out, err])
            code = children.wait_child(pid, seconds, f"podman {arguments[0]}")
            said, complaint = (_content(each) for each in (out, err))
        if code:
            raise LabError(last_words(complaint) or f"podman {arguments[0]} ended with exit code {code}")
        return said

    def spawn(self, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
        """Start podman in its mounts, its group and lab's network, with ``descriptors`` as 0, 1, 2, …; its pid.

        Raises LaunchError.
        """
        entrances = [str(directory / "cgroup.procs") for directory in self.cgroup.directories]
        words = ["/bin/sh", "-euc", ENTER, "-", *entrances, "--", program("podman"), *self._places(), *arguments]

        def inside() -> int:
            self._place.enter()
            return children.spawn(words, descriptors, environment=_environment(self.folder))

        return self._network.run(inside)

    def entering(self, cgroup: ControlGroup) -> list[str]:
        """The words by which an ordinary user's podman, which makes no group, has its runtime enter this one. What
        podman and conmon cost stays out of it.
        """
        Scope(cgroup.path.parts[0]).open_to_children()
        file = self.folder / f"groups-of-{cgroup.path.name}"
        file.write_text("".join(f"{directory}/cgroup.procs\n" for directory in cgroup.directories))
        return ["--runtime-flag", f"{FLAG}={file}"]

    def _places(self) -> list[str]:
        return ["--tmpdir", str(self.folder / "tmp"), "--log-level", "error"]

    def userdata(self, identity: str) -> Path:
        """The folder of a container, in which each command that is executed in it has one, too."""
        return self.folder / CONTAINERS / identity / "userdata"

    def exit_file(self, identity: str) -> Path:
        """Where a conmon writes the exit code, which podman soon removes (conmon(8), --exit-dir)."""
        return self.folder / "tmp" / "exits" / identity

    def processes(self) -> dict[int, str]:
        """The pids on the host of what is podman's, each with its name: its conmons, once it is settled."""
        self.cgroup.settle()
        return processes_of(self.cgroup, PARTS)

    def close(self) -> None:
        """End what still runs of it, and remove what it had. Idempotent. Raises LabError."""
        with ExitStack() as each:
            unused = ControlGroup.open(group_of(self.site.session.id), hierarchies=Unused.detect())
            each.callback(unused.remove, keep_parents=False)
            each.callback(shutil.rmtree, self.folder, ignore_errors=True)
            each.callback(self._place.close)
            each.callback(self._network.close)
            each.callback(self.cgroup.remove, keep_parents=True)
            each.callback(self.cgroup.kill)
            if any((self.folder / CONTAINERS).glob("*/userdata")):  # of an instance that nobody has stopped
                each.callback(self.call, "rm", "--all", "--force", "--time", "0", "--volumes")


def _conmon_of(pid: int) -> list[int]:
    with suppress(OSError):
        parent = int(procstat.fields(pid)[procstat.PARENT])
        if Path(f"/proc/{parent}/comm").read_text().strip() == "conmon":
            return [parent]
    return []


def lacking() -> str:
    """What this host has not got, "" if there is all: a program, or a podman that is young enough."""
    missing = next((name for name in PROGRAMS if shutil.which(name, path=PATH) is None), "")
    if missing:
        return f"{missing} is not installed"
    release = tuple(int(number) for number in version().split(".")[:2] if number.isdigit())
    return "" if release >= OLDEST else f"podman {version() or 'of an unknown version'}, lab needs 4.0 or newer"


def has(runtime: str) -> bool:
    """Whether containers can be made with it."""
    return runtime == "lab-oci" or shutil.which(runtime, path=PATH) is not None


def program(name: str) -> str:
    """Its path; the name alone of what is not there."""
    return shutil.which(name, path=PATH) or name


@cache
def version() -> str:
    """Of podman; "" where there is none."""
    return find_version(_said("podman", "--version")) or ""


def _said(name: str, *arguments: str) -> str:
    try:
        return run([program(name), *arguments], timeout_seconds=SECONDS).stdout.decode(errors="replace")
    except CommandError:
        return ""


def last_words(complaint: str) -> str:
    """The last line of what podman complains about, without what it puts in front of it; where podman has understood
    nothing of its runtime's complaint, as of one with a warning before it, that one.
    """
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    if len(lines) > 1 and UNHEARD in lines[-1]:
        lines.pop()
    said = next((line for line in reversed(lines) if line.startswith("Error: ")), lines[-1] if lines else "")
    return SORTED.sub("", said.removeprefix("Error: "))


def _content(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read().decode(errors="replace")


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the caller's: settings could be in it, and whoever logs in to registries."""
    return {"PATH": PATH, "HOME": str(folder), "LANG": "C.UTF-8"}


def ulimits() -> list[str]:
    """As many open files as on other backends. As many processes as podman has itself, which lowers its own limit to
    the highest pid there is: it would ask for more, which a host without CAP_SYS_RESOURCE refuses.
    """
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    processes = most if hard == resource.RLIM_INFINITY else min(most, hard)
    return ["--ulimit", f"nofile={open_files()}:{open_files()}", "--ulimit", f"nproc={processes}:{processes}"]


def _entering(path: Path, name: str, program: str) -> Path:
    """A program that enters the groups that its flag says, and becomes the runtime."""
    crun = "crun:" if name == "crun" else ""
    path.write_text(ENTERING.format(flag=FLAG, crun=crun, runtime=shlex.quote(program)))
    path.chmod(0o700)
    return path


def _settings(folder: Path) -> dict[str, str]:
    """The files of /etc/containers. What is said in none of them is the distribution's, in /usr/share/containers."""
    paths = {name: str(EXECUTABLE) if name == "lab-oci" else program(name) for name in RUNTIMES}
    groupless = ""
    if privilege.is_rootless():
        paths = {name: str(_entering(folder / f"enter-{name}", name, path)) for name, path in paths.items()}
        # As containers.conf(5) calls it, and as 4.3 reads it.
        groupless = "".join(
            f"runtime_supports_{word} = {json.dumps(RUNTIMES)}\n" for word in ("nocgroups", "nocgroup")
        )
    runtimes = "".join(f"{name} = [{json.dumps(path)}]\n" for name, path in paths.items())
    return {
        "policy.json": json.dumps(POLICY),
        "registries.conf": "unqualified-search-registries = []\n",
        "storage.conf": (
            f'[storage]\ndriver = "overlay"\nrunroot = {json.dumps(str(folder / "run"))}\n'
            f"graphroot = {json.dumps(str(folder / 'root'))}\n"
        ),
        "containers.conf": (
            '[containers]\napparmor_profile = "unconfined"\nbase_hosts_file = "none"\nlabel = false\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f"{groupless}hooks_dir = [{json.dumps(str(folder / 'hooks'))}]\n[engine.runtimes]\n{runtimes}"
        ),
    }
