"""The same limits by every way that lab has of running something: what the kernel holds for the group is the same.

Read from the files themselves, by nothing of lab's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import contract
import pytest
from bundles import Bundle, configuration, program
from host_state import groups_named

from lab.backends.registry import find
from lab.backends.site import Site
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import Hierarchies, Unused
from lab.images.store import Image
from lab.model import Limits
from lab.runtime.cgroup import resources
from lab.runtime.config import schema

MIB = 1 << 20
LIMITS = Limits(memory_bytes=96 * MIB, cpus=0.75, pids=57)
UNLIKE_DEFAULT = {  # what each kind of file says of LIMITS, where this host has it
    "memory.limit_in_bytes": str(96 * MIB),
    "memory.max": str(96 * MIB),
    "memory.swap.max": "0",
    "cpu.cfs_quota_us": "75000",
    "cpu.max": "75000 100000",
    "pids.max": "57",
}
FILES = (
    *UNLIKE_DEFAULT, "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness",
    "memory.oom_control", "memory.kmem.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes", "memory.use_hierarchy",
    "memory.low", "memory.min", "memory.high", "memory.oom.group", "cpu.shares", "cpu.cfs_period_us",
    "cpu.cfs_burst_us", "cpu.rt_runtime_us", "cpu.rt_period_us", "cpu.idle", "cpu.weight", "cpu.max.burst",
)  # fmt: skip
WAYS = ("process", "container", "userns", "runc", "crun")


def held(group: str) -> dict[str, str]:
    """Every file by which memory, CPU and pids may be limited, with its first line."""
    found = {}
    for mount in Hierarchies.detect().joined():
        for name in FILES:
            file = mount / group / name
            if file.exists():
                found[name] = file.read_text().splitlines()[0]
    return found


@pytest.fixture(scope="module")
def by_lab_oci(tmp_path_factory: pytest.TempPathFactory, busybox_root: Path) -> Iterator[dict[str, str]]:
    """What `lab-oci create` makes of the same limits, as config.json says them."""
    folder = tmp_path_factory.mktemp("bundle")
    bundle = Bundle(folder=folder, value=configuration(args=["sleep", "600"]))
    bundle.root.symlink_to(busybox_root)
    bundle.value["linux"]["resources"] = schema.write(resources.of_limits(LIMITS))
    name, group = f"alike-{folder.name}", f"lab/test-{folder.name}/one"
    bundle.write(f"/{group}")
    words = [*program("lab-oci"), "--root", folder / "state"]
    subprocess.run([*words, "create", "--bundle", folder, name], stdin=subprocess.DEVNULL, check=True, timeout=250)
    try:
        yield held(group)
    finally:
        subprocess.run([*words, "delete", "--force", name], check=True, timeout=250)
        for tree in (Hierarchies.detect(), Unused.detect()):
            ControlGroup.open(group, hierarchies=tree).prune_parents()
    assert groups_named(str(Path(group).parent)) == []


def test_lab_oci_holds_them(by_lab_oci: dict[str, str]) -> None:
    wanted = {name: text for name, text in UNLIKE_DEFAULT.items() if name in by_lab_oci}
    assert {name: by_lab_oci[name] for name in wanted} == wanted
    assert len(wanted) >= 3, "memory, CPU and pids"


@pytest.mark.parametrize("way", WAYS)
def test_every_backend_holds_what_lab_oci_holds(
    way: str,
    by_lab_oci: dict[str, str],
    site: Site,
    image: Image,
    tmp_path: Path,
    missing: Callable[[str], None],
) -> None:
    for check in find(way).check():
        if not check.ok:
            missing(f"{check.name} ({check.found})")
    site.backend(way).prepare(image)
    wanted = contract.request(site, image, f"alike-{way}", "sleep", "600", logs=tmp_path, limits=LIMITS)
    with site.backend(way).launch(wanted) as instance:
        assert held(str(instance.cgroup.path)) == by_lab_oci
