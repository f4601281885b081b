"""Machines of other designs than their backends' own, booted for real: a boot for all that goes together in one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import contract
import pytest
import tiny

from lab.backends.site import Site
from lab.errors import BackendUnavailable
from lab.images.store import Image, Origin
from lab.instance import Instance
from lab.metrics.boot import BOOT_PHASES, segments
from lab.model import ImageConfig, Phase
from lab.studies.compare.measure.parity import verify_manifest

BOOT_SECONDS = 180.0
CAPABILITY = b"\x01\0\0\x02\0\4\0\0" + bytes(12)  # cap_net_bind_service=ep, as capabilities(7) stores it


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site.open() as opened:
        yield opened


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    """A shell, and files with all that a file system may lose of them."""
    with site.store.scratch("odd") as scratch:
        root = scratch / "root"
        tiny.fill(root)
        odd = root / "srv/odd"
        odd.write_bytes(os.urandom(70_000))
        os.chown(odd, 70_000, 8)
        odd.chmod(0o4751)
        os.setxattr(odd, "security.capability", CAPABILITY)
        os.link(odd, root / "srv/same")
        (root / "srv/empty").touch()
        for number in range(300):
            (root / "srv" / f"file-{number}").write_text("x" * number)
        (root / "srv").chmod(0o751)
        layer = site.store.add_layer(root)
    config = ImageConfig(environment={"PATH": "/bin"}, command=("sleep", "1000"))
    return site.store.add_image("odd", config=config, layers=(layer,), origin=Origin.BUILT)


@pytest.fixture
def needs(site: Site, missing: Callable[[str], None]) -> Callable[[str, Mapping[str, str]], None]:
    """Skip, or fail where machines are required, without what this host has to have for these levels."""

    def check(backend: str, knobs: Mapping[str, str]) -> None:
        try:
            site.backend(backend).settle(knobs)
        except BackendUnavailable as error:
            missing(error.message)

    return check


def boot(site: Site, backend: str, image: Image, logs: Path, knobs: Mapping[str, str]) -> Instance:
    site.backend(backend).prepare(image, knobs)
    return site.backend(backend).launch(replace(contract.request(site, image, "odd", logs=logs), knobs=knobs))


def words(instance: Instance, *command: str) -> str:
    done = instance.execute(command, timeout_seconds=250)
    assert done.exit_code == 0, done
    return done.stdout.decode()


def test_the_image_is_the_same_on_another_file_system_and_another_machine(
    site: Site, image: Image, tmp_path: Path, needs: Callable[[str, Mapping[str, str]], None]
) -> None:
    """Every file with its owner, mode and attributes; and a silent kernel's start is not taken for anything."""
    knobs = {"machine": "q35", "disk": "erofs", "console": "off"}
    needs("microvm", knobs)
    backend = site.backend("microvm")
    backend.prepare(image, knobs)
    wanted = replace(contract.request(site, image, "odd", logs=tmp_path), knobs=knobs)
    verify_manifest(backend, wanted, site.store.manifest(image), BOOT_SECONDS)
    assert (tmp_path / "console.log").read_bytes().splitlines() == [b"lab: init"]


@pytest.mark.nightly
def test_a_debian_on_a_microvm_with_erofs(
    site: Site, image: Image, tmp_path: Path, needs: Callable[[str, Mapping[str, str]], None]
) -> None:
    knobs = {"machine": "microvm", "disk": "erofs", "console": "off"}
    needs("vm", knobs)
    with boot(site, "vm", image, tmp_path, knobs) as instance:
        instance.wait_executed()
        stamps = instance.timeline.stamps()
        assert Phase.KERNEL not in stamps
        assert {Phase.ISOLATED, Phase.INIT, Phase.EXECUTED} <= stamps.keys()
        seen = {one.quantity: one.value for one in segments(stamps, dict.fromkeys(BOOT_PHASES, 0.0))}
        assert set(seen) == {"boot.isolated", "boot.init", "boot.executed"}, "what is not known is in the next"
        assert sum(seen.values()) == pytest.approx(stamps[Phase.EXECUTED] - stamps[Phase.REQUESTED])
        assert "erofs" in words(instance, "grep", "erofs", "/proc/filesystems")
        assert "virtio-mmio" in words(instance, "ls", "/sys/bus/platform/drivers")
        assert words(instance, "sh", "-c", "echo written >/srv/new; cat /srv/new") == "written\n"


@pytest.mark.nightly
def test_uefi_and_a_boot_loader_start_the_same_kernel(
    site: Site, image: Image, tmp_path: Path, needs: Callable[[str, Mapping[str, str]], None]
) -> None:
    knobs = {"firmware": "ovmf"}
    needs("vm", knobs)
    with boot(site, "vm", image, tmp_path, knobs) as instance:
        instance.wait_executed()
        stamps = instance.timeline.stamps()
        order = [stamps[phase] for phase in (Phase.ISOLATED, Phase.KERNEL, Phase.INIT, Phase.EXECUTED)]
        assert order == sorted(order)
        assert "vendor" in words(instance, "sh", "-c", "ls /sys/firmware/efi")
        assert "earlyprintk=ttyS0" in words(instance, "cat", "/proc/cmdline")
        before, after = (tmp_path / "console.log").read_bytes().split(b"lab: kernel")  # said by GRUB
        assert b"Linux version" in after
        assert b"BdsDxe: starting" in before, "said by the firmware; not every GRUB names itself"
        assert b"Linux version" not in before
