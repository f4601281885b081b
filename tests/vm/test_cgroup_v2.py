"""What this host lacks, in our own guest: cgroup v2 alone, functions that may be traced, a kernel that criu knows.

The image is this host's Python with lab and pytest beside it, copied, not installed; the guest runs the very
tests of tests/container that exercise limits, output and exit codes, and those of linux.resources for v2 alone.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import pytest

from lab.backends.support.vmm import vmm_filter
from lab.host.clock import Timeline
from lab.hypervisor.accelerator import find_accelerator
from lab.hypervisor.domains.connection import Hypervisor
from lab.hypervisor.guest.artefacts import Guest, prepare_guest
from lab.hypervisor.guest.handover import Handover
from lab.hypervisor.kinds import MICROVM
from lab.hypervisor.machine import Machine
from lab.hypervisor.parts import MachineRequest
from lab.inside import build as inside
from lab.model import Limits, Process
from lab.runtime.cgroup.instances import limited

REPOSITORY = Path(__file__).parent.parent.parent
SECONDS = 800.0  # for a busy host; a quiet one takes a fifth of it
PACKAGES = (
    "pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "pytest_timeout",
    "pyroute2", "zstandard",
)  # fmt: skip
PROGRAMS = ("bash", "mount", "umount", "unshare", "criu", "tar", "setpriv", "nsenter")
LEFT_OUT = shutil.ignore_patterns("test", "tests", "dist-packages", "idlelib", "tkinter", "ensurepip")
ALL_OF = ("inside_cgroup_v2", "inside_tracing", "inside_criu")
SOME_OF = ("test_runtime_life", "test_runtime_failures")
CHOSEN = f"{' or '.join(ALL_OF)} or (limit or exit_codes or throttles or charged or frozen) and not runc"
LEAST = {
    "inside_cgroup_v2": 10, "inside_tracing": 2, "inside_criu": 20,
    "test_runtime_life": 3, "test_runtime_failures": 1,
}  # fmt: skip

# What a Linux that can load its modules by itself loads for a bridge, and for criu; the guest is told each.
MODULES = (
    "llc/llc", "802/stp", "bridge/bridge", "../drivers/net/veth", "../drivers/net/tun",
    "unix/unix_diag", "packet/af_packet_diag", "netlink/netlink_diag",
    "ipv4/inet_diag", "ipv4/tcp_diag", "ipv4/udp_diag", "ipv4/raw_diag",
    "../lib/libcrc32c", "netfilter/nfnetlink", "netfilter/nf_tables",
)  # fmt: skip

# To criu the root has to be that of the mount namespace. It is shared with later ones, as systemd has it.
IN_ITS_ROOT = """
cd /run/lab/image
mount --move . /
exec chroot . bash -ec "$1"
"""
TEST = """
mount --make-rshared /
mkdir /tmp/home
cp -a /var/lib/lab/inside /tmp/home
export LAB_TEST_HOME=/tmp/home
exec python3 -m pytest -p no:cacheprovider -c /dev/null --rootdir /lab -v $FILES -k "$CHOSEN"
"""

RUN = """
set -e
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp  # the root is an overlay, which can't be an overlay's upper layer again
test "$(python3 -c 'from lab.host.cgroup.hierarchy import host_hierarchies; print(host_hierarchies().mode)')" = v2
for module in $MODULES; do insmod "/modules/${module##*/}.ko"; done
exec chroot /proc/1/root /bin/busybox unshare -m /bin/busybox sh -ec "$IN_ITS_ROOT" - "$TEST"
"""


@pytest.mark.nightly
@pytest.mark.timeout(SECONDS + 60)
def test_the_runtime_on_cgroup_v2(lab_home: Path, tmp_path: Path) -> None:
    disk = make_image_disk(tmp_path / "root", tmp_path / "image.ext4", prepare_guest(lab_home))
    root = Path(f"/run/lab-test-{uuid4().hex[:8]}")
    root.mkdir()
    try:
        with Hypervisor.open(home=lab_home, seccomp=vmm_filter()) as hypervisor:
            code = run_to_its_end(hypervisor, lab_home, disk, root / "m", tmp_path)
    finally:
        shutil.rmtree(root, ignore_errors=True)  # usually gone with the session
    output = (tmp_path / "stdout.log").read_text()
    evidence = output[-4000:] + (tmp_path / "stderr.log").read_text()[-2000:]
    assert code == 0, evidence
    run = Counter(re.findall(r"(\w+)\.py::", output))
    assert {name: run[name] for name in LEAST if run[name] < LEAST[name]} == {}, evidence
    assert "skipped" not in output, evidence


def run_to_its_end(hypervisor: Hypervisor, home: Path, disk: Path, directory: Path, logs: Path) -> int | None:
    environment = {
        "PATH": "/usr/bin:/bin", "PYTHONPATH": "/lab:/lab/tests:/lab/tests/container:/packages", "CHOSEN": CHOSEN,
        "FILES": " ".join(f"/lab/tests/container/{name}.py" for name in (*ALL_OF, *SOME_OF)),
        "MODULES": " ".join(MODULES), "IN_ITS_ROOT": IN_ITS_ROOT, "TEST": TEST,
        "LAB_REQUIRE": "container", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/root",
    }  # fmt: skip
    process = Process(argv=("/bin/bash", "-c", RUN), environment=environment, working_directory="/lab")
    request = MachineRequest(
        name=f"v2-{uuid4().hex[:6]}",
        design=MICROVM,
        accelerator=find_accelerator(home, vmm_filter()),
        image_disk=disk,
        handover=Handover(design=MICROVM, hostname="v2", process=process),
        directory=directory,
        log_directory=logs,
        cgroup=limited(f"lab/test-{os.getpid()}/v2", Limits()),
        limits=Limits(memory_bytes=1 << 30),
    )
    with Machine.start(hypervisor, prepare_guest(home), request, Timeline()) as machine:
        return machine.wait(SECONDS)


def make_image_disk(root: Path, disk: Path, guest: Guest) -> Path:
    """This host's Python with its libraries, a few programs, lab and its tests, as an ext4 file system."""
    for folder in (
        "modules",
        "bin",
        "etc",
        "tmp",
        "run",
        "proc",
        "sys",
        "dev",
        "root",
        "var/lib/lab",
        "var/tmp",
        "packages",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    python, standard_library = Path(sys.executable).resolve(), Path(sysconfig.get_path("stdlib"))
    copy_tree(standard_library, root / standard_library.relative_to("/"))
    (root / "usr/bin").mkdir()
    shutil.copy(python, root / "usr/bin" / python.name)
    (root / "usr/bin/python3").symlink_to(python.name)
    programs = [Path(found) for name in PROGRAMS if (found := shutil.which(name))]
    for program in programs:
        shutil.copy(program, root / "bin")
    objects = [python, *programs, *standard_library.rglob("lib-dynload/*.so")]
    for package in PACKAGES:
        objects += copy_package(package, root / "packages")
    copy_libraries(objects, root)
    helper = root / "var/lib/lab/inside" / inside.program().parent.name
    helper.mkdir(parents=True)
    shutil.copy(inside.program(), helper)
    busybox = root / "bin/busybox"
    shutil.copy("/bin/busybox", busybox)
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    for name in ("lab", "tests"):
        shutil.copytree(REPOSITORY / name, root / "lab" / name, ignore=shutil.ignore_patterns("__pycache__"))
    # emulated, compiling takes longer than the tests
    compileall.compile_dir(root / "lab", quiet=1, stripdir=str(root))
    copy_modules(guest, root / "modules")
    disk.touch()
    os.truncate(disk, 1 << 30)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", root, disk], check=True)
    return disk


def copy_modules(guest: Guest, target: Path) -> None:
    """Out of the system disk of a vm, which has them all."""
    kernel = f"/lib/modules/{guest.release}/kernel"
    orders = "".join(f"dump {kernel}/net/{name}.ko {target}/{Path(name).name}.ko\n" for name in MODULES)
    subprocess.run(
        ["debugfs", "-f", "-", guest.system.base], input=orders, text=True, check=True, capture_output=True
    )


def copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=LEFT_OUT, symlinks=True, ignore_dangling_symlinks=True)


def copy_package(name: str, target: Path) -> list[Path]:
    """Copy an importable module or package; returns its shared objects."""
    found = importlib.util.find_spec(name)
    assert found is not None, name
    assert found.origin is not None, name
    origin = Path(found.origin)
    if origin.name == "__init__.py":
        for metadata in origin.parent.parent.glob(f"{name}-*.dist-info"):
            copy_tree(metadata, target / metadata.name)
        copy_tree(origin.parent, target / origin.parent.name)
        return list(origin.parent.rglob("*.so"))
    shutil.copy(origin, target)
    return []


def copy_libraries(objects: Iterable[Path], root: Path) -> None:
    """Every shared library that the objects need, where the loader looks for it, and libseccomp, which lab loads
    by its name.
    """
    seccomp = next(Path("/usr").glob("lib*/**/libseccomp.so.2"))
    listing = subprocess.run(["ldd", *objects, seccomp], capture_output=True, text=True, check=False).stdout
    libraries = set(re.findall(r"(/\S+) \(0x", listing))
    for library in libraries:
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    libc = next(library for library in libraries if Path(library).name == "libc.so.6")
    shutil.copy(seccomp, root / Path(libc).parent.relative_to("/"))
