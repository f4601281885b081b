"""lab's microvm beside the very same QEMU command started by hand: what libvirt, the cgroup and the tap add.

The command line is read from a running microvm of lab's (/proc/PID/cmdline). What serves libvirt alone is taken
out: the stopped start, the monitor, the secret for it, and the network card, whose tap is a descriptor that
libvirt opens. Initramfs and disks' layers are made before the clock starts; lab's own clock includes them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.site import Site
from lab.backends.support.guests.machine import MachineInstance
from lab.errors import LabError
from lab.experiment.selfbench.containers import APPLICATION, Results, interleave, make_root
from lab.experiment.watch import Watch
from lab.host.clock import Timeline, now
from lab.images.store import Image, Origin
from lab.instance import LaunchRequest
from lab.model import ImageConfig, Limits, Phase, Process

if TYPE_CHECKING:
    from lab.hypervisor.machine import Machine

BACKEND = "microvm"
IMAGE = "lab/selfbench"
APPLICATION_ARGV = ("/bin/sleep", "3600")
WARM_UPS = 1
INIT_TIMEOUT_SECONDS = 120.0


def measure_machines(site: Site, results: Results, rounds: int, watch: Watch) -> None:
    """Request to init, of lab's microvm and of QEMU by hand, interleaved."""
    backend = site.backend(BACKEND)
    watch.doing("preparing a guest")
    image = _image(site)
    backend.prepare(image)
    by_hand = _ByHand(site)
    count = iter(range(10**9))

    def launch() -> float:
        name = f"bench-vm-{next(count)}"
        logs = by_hand.folder / name
        logs.mkdir()
        request = LaunchRequest(
            name=name, image=image, process=Process(argv=APPLICATION_ARGV), limits=Limits(), log_directory=logs
        )
        with backend.launch(request) as instance:
            taken = _until_init(instance.timeline, instance.timeline.at(Phase.REQUESTED))
            assert isinstance(instance, MachineInstance)
            by_hand.learn(instance.machine)
            instance.stop(grace_seconds=0)
        return taken

    try:
        launch()
        contenders = {"microvm": launch, "qemu": by_hand.launch}
        found = interleave(
            contenders, rounds, results.seed, lambda text: watch.doing(f"microvms: {text}"), warm_ups=WARM_UPS
        )
    finally:
        shutil.rmtree(by_hand.folder, ignore_errors=True)
    results.add("microvm", "lab: request to the guest's init", found["microvm"])
    results.add("qemu", "QEMU by hand: to the guest's init", found["qemu"])


class _ByHand:
    """Starts what it has learnt from a running microvm."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.folder = site.scratch / "by-hand"
        self.folder.mkdir()
        self._machine: Machine | None = None
        self._argv: list[str] = []
        self._count = iter(range(10**9))

    def learn(self, machine: Machine) -> None:
        """Read the command line, the first time."""
        if self._machine is None:
            self._argv = Path(f"/proc/{machine.process}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
            self._machine = machine

    def launch(self) -> float:
        """Seconds from starting QEMU to the guest's init; QEMU is killed and reaped then."""
        from lab.hypervisor.channels.ports import Channels
        from lab.hypervisor.guest.artefacts import prepare_guest
        from lab.hypervisor.parts import make_parts

        assert self._machine is not None
        directory = self.folder / str(next(self._count))
        directory.mkdir()
        request = replace(self._machine.request, directory=directory, log_directory=directory)
        make_parts(request, prepare_guest(self.site.home), self.site.hypervisor.emulator)
        timeline = Timeline()
        channels = Channels(directory, timeline, directory, stdout=None, stderr=None)
        argv = by_hand(self._argv, str(self._machine.request.directory), str(directory))
        try:
            began = now()
            with (directory / "qemu.log").open("wb") as log:
                process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                return _until_init(timeline, began)
            except LabError as error:
                error.detail = (directory / "qemu.log").read_text("utf-8", "replace") + channels.console_tail()
                raise
            finally:
                process.kill()
                process.wait()
        finally:
            channels.close()
            shutil.rmtree(directory)


def by_hand(argv: Sequence[str], old: str, new: str) -> list[str]:
    """libvirt's QEMU command line without what needs libvirt, for the files of the folder ``new``. Pure."""
    words = [str(shutil.which("qemu-system-x86_64") or argv[0])]
    for option, value in _options(argv[1:]):
        if _serves_libvirt(option, value):
            continue
        words.append(option)
        if value is not None:
            words.append(_without_descriptors(option, value).replace(old, new))
    return words


def _options(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """``-name value`` and ``-flag`` pairs; no value of libvirt's begins with a dash."""
    index = 0
    while index < len(words):
        has_value = index + 1 < len(words) and not words[index + 1].startswith("-")
        yield words[index], words[index + 1] if has_value else None
        index += 2 if has_value else 1


def _serves_libvirt(option: str, value: str | None) -> bool:
    text = value or ""
    return (
        option in ("-S", "-mon", "-sandbox")
        or (option == "-chardev" and "id=charmonitor" in text)
        or (option == "-object" and '"secret"' in text)
    )


def _without_descriptors(option: str, value: str) -> str:
    """A network card on a hub nobody else is at, in place of a tap that libvirt opened."""
    if option != "-netdev":
        return value
    name = json.loads(value)["id"] if value.startswith("{") else value.partition("id=")[2].partition(",")[0]
    return f"hubport,id={name},hubid=0"


def _until_init(timeline: Timeline, began: float | None) -> float:
    if not timeline.wait(Phase.INIT, INIT_TIMEOUT_SECONDS):
        raise LabError(f"the guest's init did not come within {INIT_TIMEOUT_SECONDS:g} s", hint="lab doctor")
    at = timeline.at(Phase.INIT)
    assert at is not None
    assert began is not None
    return at - began


def _image(site: Site) -> Image:
    """busybox alone, in the store."""
    with site.store.scratch("selfbench") as folder:
        layer = site.store.add_layer(make_root(folder / "root"))
    return site.store.add_image(
        IMAGE, config=ImageConfig(command=(APPLICATION,)), layers=(layer,), origin=Origin.BUILT
    )
