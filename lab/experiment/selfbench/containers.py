"""lab measured beside what it is made of: lab-oci, runc, crun and unshare on one bundle, QEMU started by hand.

Everything to be compared runs in one call and interleaved: each round starts every contender once, in a random
order, so that whatever drifts on the host meets all of them. A contender's clock starts when it is asked to
start and stops when nothing of it is left, unless its name says otherwise; the harness's own cost is measured
with a program that does nothing, and shown, never subtracted.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab.backends.site import Site
from lab.errors import CommandError, LabError
from lab.experiment.watch import Watch
from lab.host import syscalls
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import Mode, Unused, host_hierarchies, make_room
from lab.host.clock import now
from lab.host.session.ledger import Resource, ResourceKind
from lab.model import Phase, Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Config
from lab.runtime.launcher.launcher import Directory, Overlay, Spec
from lab.runtime.oci.install import command as lab_oci

WARM_UPS = 2
SEQUENCE = 100  # containers one after another
EDGE = 10  # of them at either end are compared
TIMEOUT_SECONDS = 30.0
APPLICATION = "/bin/true"
LINKS = ("true", "sh", "sleep")
WAITING = ("/bin/sleep", "2.5")
SETTLING_SECONDS = 2.0
RUNTIMES: dict[str, Callable[[], list[str]]] = {
    "lab-oci": lab_oci,
    "runc": lambda: ["runc"],
    "crun": lambda: ["crun"],
}
"""Programs that start a container from a bundle, each a process of its own."""

REFUSES_HYBRID = ("crun",)
"""crun 1.8 works with cgroup v1 or v2, and not with both: on such a host it is shown v1 alone."""

TERMS = (
    "On unequal terms: lab-oci, runc, crun and unshare are programs started anew, lab's launcher runs already. "
    "unshare makes no cgroups, devices, masks, seccomp filter or init and drops no capability. lab-oci, runc and "
    "crun get the bundle's folder itself as their root, lab lays a writable overlay over it, whose unmounting waits "
    "until the host's file system is written out (both are shown). Where a host has cgroup v1 and v2, crun is shown "
    "v1 alone, and makes no group in v2."
)
"""Shown below the goals: what a ratio does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One contender's observations in seconds, in the order in which they were made."""

    name: str
    what: str
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What lab promises: the median of ``ours`` at most ``at_most`` times that of ``theirs``.

    Without ``theirs`` it is ``at_most`` seconds. ``paired`` series were made in the same rounds.
    """

    sentence: str
    ours: str
    theirs: str
    at_most: float
    paired: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What a runtime's own process holds while its container lives (proc_pid_smaps(5))."""

    what: str
    rss_bytes: int
    pss_bytes: int


GOALS = (
    Goal(sentence="a container, of what runc needs", ours="container", theirs="runc", at_most=0.15),
    Goal(sentence="a container, of what unshare needs", ours="container", theirs="unshare", at_most=2.0),
    Goal(sentence="lab-oci run, of runc run", ours="lab-oci", theirs="runc", at_most=0.45),
    Goal(sentence="lab-oci run, of crun run", ours="lab-oci", theirs="crun", at_most=0.9),
    Goal(
        sentence="docker run with lab-oci, of the same with runc",
        ours="docker lab-oci", theirs="docker runc", at_most=1.0,
    ),
    Goal(
        sentence="a microvm's init, of QEMU by hand", ours="microvm", theirs="qemu", at_most=1.25
    ),
    Goal(
        sentence="the last ten of 100, of the first ten",
        ours="last ten", theirs="first ten", at_most=1.2, paired=False,
    ),
    Goal(sentence="lab --help", ours="help", theirs="", at_most=0.1),
    Goal(sentence="a layer unpacked and proven, of tar -x", ours="unpack", theirs="tar", at_most=1.3),
    Goal(sentence="an image's disk, of mke2fs -d", ours="disk", theirs="mke2fs", at_most=1.5),
    Goal(sentence="a build on a warm base, of buildah's", ours="build cold", theirs="buildah cold", at_most=1.0),
    Goal(
        sentence="a build out of the cache, of buildah's", ours="build cached", theirs="buildah cached", at_most=0.5
    ),
    Goal(sentence="a build out of the cache", ours="build cached", theirs="", at_most=0.5),
)  # fmt: skip


@dataclass(slots=True)
class Results:
    """Every series by name, and why a contender is absent."""

    rounds: int
    seed: int
    series: dict[str, Series] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    parents: dict[str, Parent] = field(default_factory=dict)

    def add(self, name: str, what: str, seconds: Sequence[float]) -> None:
        self.series[name] = Series(name=name, what=what, seconds=tuple(seconds))


def interleave(
    contenders: dict[str, Callable[[], float]],
    rounds: int,
    seed: int,
    doing: Callable[[str], None],
    *,
    warm_ups: int = WARM_UPS,
) -> dict[str, list[float]]:
    """Run every contender once per round, in an order drawn from ``seed``; warm-up rounds are not returned."""
    generator = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-warm_ups, rounds):
        doing(f"round {number + 1} of {rounds}" if number >= 0 else "warming up")
        for name in generator.sample(list(contenders), len(contenders)):
            taken = contenders[name]()
            if number >= 0:
                seconds[name].append(taken)
    return seconds


def measure_containers(site: Site, results: Results, watch: Watch) -> None:
    """lab, runc, crun and unshare on one busybox bundle, then a hundred of lab's in a row, then ``lab --help``."""
    with ExitStack() as stack:
        folder = site.scratch / "selfbench"
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        root = make_root(folder / "rootfs")
        config = bundle.container_config(Process(argv=(APPLICATION,)))
        executed: list[float] = []
        plain: list[float] = []
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, null)
        contenders: dict[str, Callable[[], float]] = {
            "container": lambda: _container(site, config, Overlay(lower=(root,)), null, executed),
            "container plain": lambda: _container(site, config, Directory(path=root), null, plain),
            "unshare": lambda: spawn(["unshare", "-mpfuin", "--mount-proc", APPLICATION]),
            "nothing": lambda: spawn([APPLICATION]),
        }
        references: dict[str, Reference] = {}
        for runtime in RUNTIMES:
            try:
                references[runtime] = Reference(runtime, site, config, folder, root, stack)
                contenders[runtime] = references[runtime].run
            except LabError as error:
                results.absent[runtime] = error.message
        watch.doing("containers")
        found = interleave(contenders, results.rounds, results.seed, lambda text: watch.doing(f"containers: {text}"))
        results.add("container", "lab: request to exec, exit, all of it removed", found["container"])
        results.add("container exec", "lab: request to exec alone", executed[WARM_UPS:])
        results.add("container plain", "lab: the same without the overlay, as runc", found["container plain"])
        for runtime, reference in references.items():
            results.add(runtime, f"{runtime} run, on the same bundle", found[runtime])
            results.parents[runtime] = reference.parent()
        results.add("unshare", "unshare -mpfuin --mount-proc /bin/true", found["unshare"])
        results.add("nothing", "/bin/true: the harness's own cost", found["nothing"])
        watch.doing(f"{SEQUENCE} containers in a row")
        row = [_container(site, config, Overlay(lower=(root,)), null, executed) for _ in range(SEQUENCE)]
        results.add("first ten", f"lab: the first {EDGE} of {SEQUENCE} in a row", row[:EDGE])
        results.add("last ten", f"lab: the last {EDGE} of {SEQUENCE} in a row", row[-EDGE:])


def measure_help(results: Results, watch: Watch) -> None:
    """``lab --help`` as a user starts it, a new interpreter each time."""
    watch.doing("lab --help")
    lab = str(Path(sys.executable).with_name("lab"))
    found = interleave({"help": lambda: spawn([lab, "--help"])}, results.rounds, 0, lambda _: None)
    results.add("help", "lab --help, warm", found["help"])


def make_root(root: Path) -> Path:
    """busybox under the names the bundle uses, and the mount points a runtime expects."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise CommandError("busybox is not installed", hint="apt-get install busybox-static")
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    for link in LINKS:
        (root / "bin" / link).symlink_to("busybox")
    return root


def spawn(argv: Sequence[str | Path]) -> float:
    """Seconds from asking for a program to its end. Raises CommandError if it fails."""
    words = [str(word) for word in argv]
    began = now()
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    taken = now() - began
    if done.returncode != 0:
        raise CommandError(f"{words[0]} failed with exit code {done.returncode}", detail=done.stderr.decode()[-2000:])
    return taken


def _container(site: Site, config: Config, root: Overlay | Directory, null: int, executed: list[float]) -> float:
    """lab's own: the clock runs until the container has been removed, as runc's does."""
    began = now()
    spec = Spec(name=f"bench-{len(executed)}", config=config, root=root)
    with site.launcher.launch(spec, stdin=null, stdout=null, stderr=null) as container:
        code = container.wait(TIMEOUT_SECONDS)
        at = container.timeline.at(Phase.EXECUTED)
    taken = now() - began
    if code != 0 or at is None:
        raise LabError(f"{APPLICATION} in a container ended with {code}", hint="lab doctor")
    executed.append(at - began)
    return taken


class Reference:
    """An OCI runtime's ``run`` on the same bundle. Raises LabError when it is absent or can't run one here."""

    def __init__(self, runtime: str, site: Site, config: Config, folder: Path, root: Path, stack: ExitStack) -> None:
        self._program = RUNTIMES[runtime]()
        if shutil.which(self._program[0]) is None:
            raise CommandError(f"{runtime} is not installed", hint=f"apt-get install {runtime}")
        self._runtime = runtime
        self._place = folder / runtime
        self._group = group_of(site.session.id, runtime)
        self._session = site.session.id
        self._count = 0
        sleeping = replace(config, process=replace(config.process, args=WAITING))
        for name, each in (("state", None), ("true", config), ("sleep", sleeping)):
            (self._place / name).mkdir(parents=True)
            if each is not None:
                bundle.write(each, self._place / name, root=str(root), cgroups_path=f"/{self._group}")
        site.session.record(Resource(kind=ResourceKind.OTHER_CGROUP, name=group_of(site.session.id)))
        stack.callback(remove_groups, self._group)
        make_room(self._group)
        self._elsewhere = _shown_v1_alone(stack) if runtime in REFUSES_HYBRID else None
        try:
            self.run()
        except CommandError as error:
            last = error.detail.splitlines()[-1] if error.detail else error.message
            raise CommandError(f"{runtime} can't run the bundle here: {last}") from error

    def run(self) -> float:
        """Seconds of a container that does nothing, from start to removal."""
        words = self._words("true")
        return self._elsewhere.submit(spawn, words).result() if self._elsewhere else spawn(words)

    def parent(self) -> Parent:
        """What its command takes while it waits for its container, some seconds after the start."""
        return self._elsewhere.submit(self._parent).result() if self._elsewhere else self._parent()

    def _parent(self) -> Parent:
        with subprocess.Popen(self._words("sleep"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            time.sleep(SETTLING_SECONDS)
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        values = {
            line.split(":")[0]: int(line.split()[1]) << 10 for line in text.splitlines() if line.endswith(" kB")
        }
        return Parent(
            what=f"{self._runtime} run, while its container lives", rss_bytes=values["Rss"], pss_bytes=values["Pss"]
        )

    def _words(self, bundle_name: str) -> list[str]:
        self._count += 1
        name = f"lab-{self._session}-{self._runtime}-{self._count}"
        place = self._place
        return [*self._program, "--root", str(place / "state"), "run", "--bundle", str(place / bundle_name), name]


def _shown_v1_alone(stack: ExitStack) -> ThreadPoolExecutor | None:
    """A thread that doesn't see the v2 tree beside v1's, nor do programs that it starts; None where it is alone.

    What a thread unshares is its own (unshare(2)), so the clock of what it starts does not run for it.
    """
    found = host_hierarchies()
    if found.mode is not Mode.HYBRID:
        return None

    def hide() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.umount2(str(found.unified), syscalls.MNT_DETACH)

    thread = stack.enter_context(ThreadPoolExecutor(1, "lab-bench"))
    thread.submit(hide).result()
    return thread


def remove_groups(group: str) -> None:
    """Of a reference. It removes its own group, as long as nobody kills it; and never the parents it made."""
    ours = ControlGroup.open(group)
    ours.kill()
    ours.remove(keep_parents=True)
    ControlGroup.open(group, hierarchies=Unused.detect()).remove()
