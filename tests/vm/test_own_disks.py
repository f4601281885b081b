"""Disks that lab did not make boot, are seen to be ready from outside, stay as they are, and leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from bootable import DISK_BYTES, GREETING, WRITTEN, Untouched, grub_disk, writing_disk
from host_state import assert_unchanged, descendants, snapshot, told_of, wait_until
from seated import LOCAL, seat
from tiny import GREETING as PAGE
from tiny import tiny_image
from told import unhurried

from lab.backends.owndisk import NO_PROCESS, DiskBackend, DiskInstance, placeholder
from lab.backends.site import Site
from lab.errors import LabError, LaunchError, NotReady
from lab.experiment.scenarios.scenario import asked_alone
from lab.host.identity.lone import user_of
from lab.host.survey.checks import OVMF
from lab.host.survey.virtualisation import Ground, platform
from lab.hypervisor.disks import machine
from lab.hypervisor.disks.machine import OVERLAY
from lab.hypervisor.disks.own import examine
from lab.hypervisor.guest.bootdisk import make_boot_disk
from lab.hypervisor.guest.grub import BIOS, UEFI
from lab.hypervisor.jail.confinement import Confinement
from lab.images.store import Store
from lab.instance import LaunchRequest
from lab.metrics.base import Subject
from lab.metrics.ready.readiness import wait_ready
from lab.model import HttpReadiness, Limits, LogReadiness, Phase, Readiness, StartedReadiness
from lab.results.record import Ending
from lab.results.store import RunFolder

LAB = [sys.executable, "-c", "from lab.cli.main import main; main()"]
BOOT_SECONDS = 240.0  # emulated, on a busy host
NET_BIND_SERVICE, NET_ADMIN = 1 << 10, 1 << 12  # linux/capability.h


@pytest.fixture(scope="module", autouse=True)
def needed() -> None:
    if BIOS.missing:
        pytest.skip("GRUB for BIOS is not installed")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site.open() as opened:
        yield opened


def booted(
    site: Site, path: Path, logs: Path, *, backing: tuple[Path, ...] = (), knobs: dict[str, str] | None = None
) -> DiskInstance:
    kind = DiskBackend.of(examine(path, backing=backing))
    logs.mkdir()
    request = LaunchRequest(
        name=f"m{kind.order}", image=placeholder(kind.disk), process=NO_PROCESS, log_directory=logs,
        limits=Limits(memory_bytes=256 << 20), knobs=knobs or {},
    )  # fmt: skip
    backend = site.backend(kind.name)
    backend.prepare(request.image, request.knobs)
    instance = backend.launch(request)
    assert isinstance(instance, DiskInstance)
    return instance


def wait_for(site: Site, instance: DiskInstance, readiness: Readiness, port: int | None = None) -> None:
    scenario = asked_alone("disk", readiness, port, BOOT_SECONDS)
    subject = Subject.before_launch(scenario=scenario, network=site.network, idle_seconds=0.0)
    subject.launched(instance)
    wait_ready(subject)


@pytest.mark.parametrize(
    ("firmware", "devices"),  # by day each level once
    [
        ("seabios", "virtio"),
        ("ovmf", "plain"),
        pytest.param("seabios", "plain", marks=pytest.mark.nightly),
        pytest.param("ovmf", "virtio", marks=pytest.mark.nightly),
    ],
)
def test_a_disk_boots_speaks_and_switches_itself_off(
    site: Site, tmp_path: Path, firmware: str, devices: str, missing: Callable[[str], None]
) -> None:
    """Readiness is a line on the serial console; nobody has to have an address."""
    if firmware == "ovmf" and (UEFI.missing or not OVMF.exists()):
        missing("UEFI firmware, and GRUB for it")
    if firmware == "ovmf" and platform().ground is Ground.EMULATED:
        pytest.skip("UEFI under KVM aborts the QEMU that emulates this host")
    grub = UEFI if firmware == "ovmf" else BIOS
    before = Untouched.of(grub_disk(tmp_path / "grub.raw", "sleep 2\nhalt\n", platform=grub))
    with booted(site, before.path, tmp_path / "logs", knobs={"firmware": firmware, "devices": devices}) as instance:
        wait_for(site, instance, LogReadiness(pattern=GREETING))
        assert instance.wait(BOOT_SECONDS) == 0
    assert GREETING in (tmp_path / "logs/console.log").read_text(errors="replace")
    assert instance.timeline.at(Phase.ADDRESSED) is None
    before.check()


def test_a_restart_of_its_system_is_no_end(site: Site, tmp_path: Path) -> None:
    disk = grub_disk(tmp_path / "again.raw", "reboot\n")
    log = tmp_path / "logs/console.log"
    with booted(site, disk, tmp_path / "logs") as instance:
        assert wait_until(lambda: log.read_bytes().count(GREETING.encode()) > 1, BOOT_SECONDS)
        assert instance.wait(0.0) is None
        instance.stop(grace_seconds=0)


def test_layers_over_a_disk_boot_and_none_is_written_to(site: Site, tmp_path: Path) -> None:
    """Two files below, one of which keeps its data elsewhere."""
    base = grub_disk(tmp_path / "base.raw")
    middle, data, top = tmp_path / "middle.qcow2", tmp_path / "data.raw", tmp_path / "top.qcow2"
    for words in (
        ["create", "-f", "qcow2", "-b", base.name, "-F", "raw", "-o", f"data_file={data}", middle],
        ["create", "-f", "qcow2", "-b", middle.name, "-F", "qcow2", top],
    ):
        made = subprocess.run(["qemu-img", *map(str, words)], cwd=tmp_path, check=False, capture_output=True)
        if made.returncode:  # a file for its data and a backing file: not every QEMU has both
            subprocess.run(
                ["qemu-img", "convert", "-O", "qcow2", "-o", f"data_file={data}", base, middle], check=True
            )
    below = (middle, data) if b"base.raw" not in middle.read_bytes()[:4096] else (base, middle, data)
    before = [Untouched.of(path) for path in (top, *below)]
    with booted(site, top, tmp_path / "logs", backing=below) as instance:
        assert instance.wait(BOOT_SECONDS) == 0
    assert GREETING in (tmp_path / "logs/console.log").read_text(errors="replace")
    for each in before:
        each.check()


def test_what_fails_is_told_with_its_last_words(site: Site, tmp_path: Path) -> None:
    disk = grub_disk(tmp_path / "stays.raw", "sleep 1000\n")
    with booted(site, disk, tmp_path / "logs") as instance:
        wait_for(site, instance, LogReadiness(pattern=GREETING))
        with pytest.raises(LabError, match="can't be run in"):
            instance.execute(["true"])
        with pytest.raises(NotReady, match="can't be seen to be ready"):
            wait_for(site, instance, StartedReadiness())
        os.kill(instance.machine.process or 0, signal.SIGKILL)
        with pytest.raises(LaunchError, match="has failed") as told:
            instance.wait(120)
        assert GREETING in told.value.detail


def test_a_disk_that_qemu_may_not_read_is_refused_and_left_as_it_is(site: Site, tmp_path: Path) -> None:
    disk = grub_disk(tmp_path / "mine.raw")
    disk.chmod(0o600)
    before = Untouched.of(disk)
    with pytest.raises(LaunchError, match=re.escape("chmod o+r")):
        booted(site, disk, tmp_path / "logs")
    before.check()


def test_a_disk_that_was_changed_meanwhile_is_refused(site: Site, tmp_path: Path) -> None:
    disk = grub_disk(tmp_path / "changed.raw")
    kind = DiskBackend.of(examine(disk))
    os.utime(disk)
    with pytest.raises(LabError, match="was changed"):
        site.backend(kind.name).prepare(placeholder(kind.disk))


@pytest.fixture
def small_place(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 8 MiB, where the machines' files are."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "small", place], check=True)
    monkeypatch.setattr(site, "scratch", place)
    yield place
    subprocess.run(["umount", place], check=True)


def test_what_a_system_writes_is_bounded_by_its_disk(site: Site, tmp_path: Path) -> None:
    """Here to all of it, and the disk itself stays as it is."""
    size = 16 << 20
    before = Untouched.of(writing_disk(tmp_path / "writes.raw", size))
    with booted(site, before.path, tmp_path / "logs") as instance:
        wait_for(site, instance, LogReadiness(pattern=WRITTEN))
        overlay = instance.machine.request.directory / OVERLAY
        assert size - (1 << 16) <= overlay.stat().st_size <= size + (1 << 20)
        instance.stop(grace_seconds=0)
    before.check()


def test_a_host_without_space_ends_it_and_says_why(
    site: Site, tmp_path: Path, small_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU would let it wait for ever."""
    disk = writing_disk(tmp_path / "writes.raw", 64 << 20)
    with pytest.raises(LaunchError, match="needs 64 MiB to begin with"):
        booted(site, disk, tmp_path / "refused")
    assert not list(small_place.iterdir())
    monkeypatch.setattr(machine, "LEAST_FREE_BYTES", 1 << 20)
    with booted(site, disk, tmp_path / "logs") as instance:
        with pytest.raises(LaunchError, match="no space left") as told:
            wait_for(site, instance, LogReadiness(pattern=WRITTEN))
        assert "LAB_HOME" in told.value.hint
    assert not list(small_place.iterdir())


@pytest.fixture(scope="module")
def web(lab_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with Linux and the tiny image, which serves a page on port 8000."""
    store = Store.open(lab_home)
    path = tmp_path_factory.mktemp("disks") / "web.qcow2"
    make_boot_disk(store, tiny_image(store), path, free_bytes=32 << 20)
    return path


def test_its_system_gets_an_address_and_answers(site: Site, web: Path, tmp_path: Path) -> None:
    """… from a server that may do nothing else, in lab's network alone."""
    before = Untouched.of(web)
    with booted(site, web, tmp_path / "logs") as instance:
        pid = site.dhcp.pid
        assert pid is not None
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{user_of(pid)}\t" in status
        assert Confinement.of(pid).capabilities == NET_BIND_SERVICE | NET_ADMIN
        assert Confinement.of(pid).no_new_privs
        own, hosts = (Path(f"/proc/{each}/ns/net").readlink() for each in (pid, "self"))
        assert own != hosts
        assert "/dhcp_" in Path(f"/proc/{pid}/cgroup").read_text()
        assert pid not in instance.cgroup.processes(), "it is lab's, and charged to nobody"
        wait_for(site, instance, HttpReadiness(path="/", body=PAGE.strip()), 8000)
        stamps = instance.timeline.stamps()
        assert stamps[Phase.ISOLATED] < stamps[Phase.ADDRESSED] < stamps[Phase.LISTENING] <= stamps[Phase.RESPONDED]
        assert isinstance(instance.address, IPv4Address)
        instance.stop(grace_seconds=BOOT_SECONDS)
        assert instance.wait(0.0) == 0, "its system has heard the power button, and nobody pulled the plug"
    assert site.dhcp.pid is None, "nobody is left to ask"
    before.check()


def test_nothing_is_left_of_a_run_that_was_killed(web: Path, lab_home: Path, tmp_path: Path) -> None:
    before, host = Untouched.of(web), snapshot(lab_home)
    words = [*LAB, "run", "--on", "vm", str(web), "--ready", "tcp", "--port", "8000", "-p", "8000"]
    errors = tmp_path / "errors"
    with errors.open("wb") as told:
        lab = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=told)
    try:
        assert wait_until(lambda: b"is ready (port open)" in errors.read_bytes(), BOOT_SECONDS), errors.read_text()
        assert b"is published at http://127.0.0.1:" in errors.read_bytes()
        servers = [pid for pid, groups in told_of(descendants(lab.pid), "cgroup").items() if "/dhcp_" in groups]
        assert len(servers) == 1, "the control: there is something to be left"
    finally:
        lab.kill()
        lab.wait()
    assert wait_until(lambda: not Path(f"/proc/{servers[0]}").exists())
    subprocess.run([*LAB, "clean"], check=True, capture_output=True)
    assert_unchanged(host, home=lab_home)
    before.check()


DOCKERFILE = """FROM scratch
COPY busybox /bin/busybox
COPY index.html /srv/index.html
EXPOSE 8000
CMD ["/bin/busybox", "httpd", "-f", "-p", "8000", "-h", "/srv"]
"""


@pytest.mark.nightly
@pytest.mark.slow
def test_disks_are_compared_beside_a_container(web: Path, tmp_path: Path, missing: Callable[[str], None]) -> None:
    """Two of one name and of two formats; what can't be asked inside is left out, and said."""
    busybox = shutil.which("busybox")
    if busybox is None:
        missing("busybox-static")
    before = Untouched.of(web)
    page, other = tmp_path / "page", tmp_path / "web.disk"
    page.mkdir()
    (page / "Dockerfile").write_text(DOCKERFILE)
    shutil.copy(str(busybox), page / "busybox")
    (page / "index.html").write_text(PAGE)
    subprocess.run(["qemu-img", "convert", "-O", "raw", web, other], check=True)
    words = [
        *LAB, "compare", str(page), "--on", f"container,vm:{web},vm:{other}:format=raw", "--ready", "http:/",
        "--metrics", "boot,memory,isolation", "--blocks", "1", "--idle", "1s", "--memory", "256M",
        "--out", str(tmp_path / "results"),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, check=False, text=True, timeout=2 * BOOT_SECONDS)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    run = json.loads((folder / "run.json").read_text())
    arms = {arm["label"]: arm for arm in run["arms"]}
    assert set(arms) == {"container", "vm:web", "vm:web-2", "container#aa"}
    assert {label for label, arm in arms.items() if arm["foreign"]} == {"vm:web", "vm:web-2"}
    assert arms["vm:web"]["image"] == f"sha256:{before.digest.hex()}"
    assert run["images"][arms["vm:web"]["image"]]["name"] == "web.qcow2"
    assert run["images"][arms["vm:web"]["image"]]["origin"] == "disk"
    assert run["parity"]["vm:web"]["limits"]["memory_bytes"] == 256 << 20
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    of_disk = {sample["quantity"] for sample in samples if sample["arm"] == "vm:web" and not sample["warmup"]}
    assert {"boot.addressed", "boot.total", "memory.pss", "teardown.total"} <= of_disk
    assert not any("guest" in quantity or quantity.startswith("isolation") for quantity in of_disk)
    assert all(sample["status"] == "ok" for sample in samples if sample["metric"] != "isolation")
    assert any(sample["metric"] == "isolation" for sample in samples), "the container was asked"
    assert "did not make" in done.stdout
    before.check()


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_comparison_of_disks_goes_on_after_an_interruption_and_a_crash(lab_home: Path, tmp_path: Path) -> None:
    """From anywhere, with the same disks and no others; each arm is observed once in each block."""
    host = snapshot(lab_home)
    disks = [grub_disk(tmp_path / f"{name}.raw", "sleep 3\nhalt\n") for name in "ab"]
    begin = [
        "compare", "--on", ",".join(f"vm:./{disk.name}" for disk in disks), "--ready", f"log:{GREETING}",
        "--metrics", "boot", "--blocks", "2", "--memory", "64M", "--out", "results",
    ]  # fmt: skip
    with subprocess.Popen([*LAB, *begin], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as lab:
        began = wait_until(lambda: len(observed(tmp_path)) == 1, 2 * BOOT_SECONDS)
        lab.send_signal(signal.SIGINT)
        told = lab.communicate(timeout=BOOT_SECONDS)[1].decode()
    assert began, told
    assert lab.returncode == 130, told
    assert "lab compare --resume" in told
    (folder,) = (tmp_path / "results").iterdir()
    resume = [*LAB, "compare", "--resume", str(folder)]

    with disks[1].open("r+b") as disk:
        disk.seek(DISK_BYTES - 1)
        disk.write(b"x")
        disk.flush()
        refused = subprocess.run(resume, check=False, capture_output=True, text=True, timeout=BOOT_SECONDS)
        disk.seek(DISK_BYTES - 1)
        disk.write(b"\0")
    assert refused.returncode == 1
    assert refused.stderr.startswith("lab: b.raw has changed"), refused.stderr

    with subprocess.Popen(resume, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as lab:
        assert wait_until(lambda: len(observed(tmp_path)) == 3, 2 * BOOT_SECONDS)
        lab.kill()
    subprocess.run([*LAB, "clean"], check=True, capture_output=True)
    assert_unchanged(host, home=lab_home)

    done = subprocess.run(resume, check=False, capture_output=True, text=True, timeout=2 * BOOT_SECONDS)
    assert done.returncode == 0, done.stderr
    arms = {"vm:a", "vm:b", "vm:a#aa"}
    assert sorted(observed(tmp_path)) == sorted((block, arm) for block in (1, 2) for arm in arms)
    assert json.loads((folder / "run.json").read_text())["ended_because"] == Ending.BLOCKS
    assert_unchanged(host, home=lab_home)


def observed(out: Path) -> list[tuple[int, str]]:
    """Block and arm of each boot that counts."""
    return [
        (sample.block, sample.arm)
        for record in out.glob("results/*/run.json")
        for sample in RunFolder.open(record.parent).samples()
        if sample.quantity == "boot.total" and not sample.warmup and sample.value is not None
    ]


def test_the_command_ends_as_the_system_does(tmp_path: Path) -> None:
    disk = grub_disk(tmp_path / "halt.img", "sleep 1\nhalt\n")
    assert disk.stat().st_size == DISK_BYTES
    words = [*LAB, "run", "--on", "vm", str(disk), "--ready", f"log:{GREETING}", "--memory", "64M"]
    done = subprocess.run(words, capture_output=True, check=False, timeout=BOOT_SECONDS)
    assert done.returncode == 0, done.stderr
    assert GREETING.encode() in done.stdout
    assert b"is ready (log line)" in done.stderr


ASKS = "read answer\necho you said $answer\nread more\n"


def test_its_serial_port_is_a_terminal_that_one_leaves(tmp_path: Path) -> None:
    """What is typed arrives there, ^C too; Ctrl-] ends it, a second one at once, and the terminal is as it was."""
    disk = grub_disk(tmp_path / "asks.img", ASKS)
    with seat() as place:
        before = place.settings()
        with place.running("run", "--on", "vm", str(disk), "-it", "--memory", "64M") as process:
            place.screen.until(GREETING)
            assert wait_until(lambda: not place.settings()[LOCAL] & termios.ISIG, BOOT_SECONDS), "^C is still for lab"
            place.screen.type("two\x03 words\r")
            shown = place.screen.until("you said two") + place.screen.until(" words")
            assert re.search(r"you said twoc? words", shown), "GRUB 2.06 shows ^C as the letter, 2.12 leaves it out"
            assert process.poll() is None
            place.screen.type("\x1d")
            time.sleep(0.5)  # GRUB knows no power button, so that it would take ten seconds
            assert process.poll() is None
            place.screen.type("\x1d")
            assert process.wait(BOOT_SECONDS) == 128 + signal.SIGTERM
        assert place.settings() == before


def test_what_is_piped_in_is_typed(tmp_path: Path) -> None:
    disk = grub_disk(tmp_path / "asks.img", "read answer\necho you said $answer\nhalt\n")
    words = [*LAB, "run", "--on", "vm", str(disk), "-i", "--memory", "64M"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as lab:
        assert lab.stdin is not None
        assert lab.stdout is not None
        said = b""
        while GREETING.encode() not in said and (new := lab.stdout.read1()):
            said += new
        rest, told = lab.communicate(b"something\r", timeout=BOOT_SECONDS)
    assert lab.returncode == 0, told
    assert b"you said something" in rest


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--on", "container", "{}"], 2, "--on vm"),
        (["--on", "microvm", "{}"], 2, "--on vm"),
        (["--on", "vm", "{}", "-d"], 2, "leave out -d"),
        (["--on", "vm", "{}", "-e", "A=b"], 2, "leave out -e"),
        (["--on", "vm", "{}", "--", "sh"], 2, "leave out CMD"),
        (["--on", "vm", "{}", "-it"], 2, "leave out -t"),
        (["--on", "vm", "{}", "--backing", "/etc/hostname"], 2, "does not refer to it"),
        (["--on", "vm", "{}.qcow2"], 2, "there is no file"),
        (["--on", "vm", "{}", "--disk-format", "qcow2"], 1, "--disk-format raw"),
        (["--on", "vm", "{}", "--knob", "devices=none"], 2, "levels: virtio, plain"),
        (["--on", "vm", "{}", "--memory", "1M"], 1, "--memory 16M"),
    ],
)
def test_what_can_t_be_had_is_said_in_a_line(tmp_path: Path, words: list[str], code: int, told: str) -> None:
    disk = grub_disk(tmp_path / "a.raw")
    done = subprocess.run(
        [*LAB, "run", *(word.format(disk) for word in words)],
        capture_output=True,
        check=False,
        timeout=250,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert len(unhurried(done.stderr).strip().splitlines()) <= 2, done.stderr
