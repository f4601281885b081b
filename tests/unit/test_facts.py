"""What lab says about a host, from a tree of files that is no real host's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lab
from lab.host.survey import facts

FILES = {
    "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "proc/sys/kernel/osrelease": "6.1.0-40-amd64\n",
    "proc/sys/kernel/version": "#1 SMP PREEMPT_DYNAMIC Debian\n",
    "proc/cpuinfo": (
        "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2596.102\n"
        "flags\t\t: fpu svm hypervisor\n\nprocessor\t: 1\nmodel name\t: another\n"
    ),
    "proc/meminfo": "MemTotal:  16000 kB\nMemAvailable:  8000 kB\nSwapTotal:  0 kB\nHugePages_Total:   3\n",
    "proc/loadavg": "0.52 0.40 0.30 2/345 6789\n",
    "proc/stat": "cpu  10 20 30 40 50 60 70 800 0 0\ncpu0 1 2 3\n",
    "proc/pressure/cpu": "some avg10=31.53 avg60=19.02 avg300=8.03 total=38992349\nfull avg10=0.00 total=0\n",
    "proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu io memory pids\n",
    "sys/devices/system/cpu/online": "0-3,8\n",
    "sys/devices/system/cpu/smt/control": "on\n",
    "sys/devices/system/cpu/vulnerabilities/meltdown": "Not affected\n",
    "sys/devices/system/cpu/vulnerabilities/spectre_v1": "Mitigation: barriers\n",
    "sys/devices/system/cpu/cpu0/cache/index0/level": "1\n",
    "sys/devices/system/cpu/cpu0/cache/index0/type": "Data\n",
    "sys/devices/system/cpu/cpu0/cache/index0/size": "48K\n",
    "sys/kernel/mm/ksm/run": "1\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_provenance_reads_the_tree(host: Path) -> None:
    found = facts.provenance(host)
    assert found["distribution"] == "Debian GNU/Linux 12 (bookworm)"
    assert found["kernel_release"] == "6.1.0-40-amd64"
    assert found["cpu"]["model"] == "AMD EPYC"
    assert found["cpu"]["online"] == 5
    assert found["cpu"]["smt"] == "on"
    assert found["cpu"]["virtualised"] is True
    assert found["cpu"]["hardware_virtualisation"] == "svm"
    assert found["cpu"]["caches_bytes"] == {"L1d": 48 * 1024}
    assert found["cpu"]["governor"] is None
    assert found["mitigations"] == {"spectre_v1": "Mitigation: barriers"}
    assert found["memory"]["total_bytes"] == 16000 * 1024
    assert found["memory"]["ksm"] == "on"
    assert found["memory"]["transparent_huge_pages"] == "madvise"
    assert found["cgroups"] == {"mode": "v2", "v1": [], "v2": ["cpu", "io", "memory", "pids"]}
    assert found["noise"]["load_average"] == [0.52, 0.40, 0.30]
    assert found["noise"]["steal_seconds"] == pytest.approx(8.0)
    assert found["noise"]["pressure"] == {"cpu": 31.53}


def test_provenance_of_this_host_is_plain_json() -> None:
    found = facts.provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]["online"] >= 1
    assert found["memory"]["total_bytes"] > found["memory"]["available_bytes"] > 0


def test_identity_differs_between_hosts_and_hides_the_machine_id(host: Path) -> None:
    before = facts.identity(host)
    (host / "etc/machine-id").write_text("fedcba9876543210fedcba9876543210\n")
    assert facts.identity(host) != before
    assert not any(before in text for text in FILES.values())
    assert len(before) == 12


def test_a_host_without_pressure_information_says_none(host: Path) -> None:
    (host / "proc/pressure/cpu").unlink()
    assert facts.noise(host)["pressure"] is None


def test_versions_of_this_host() -> None:
    found = facts.versions()
    assert found["lab"] == lab.__version__
    assert all(text and "\n" not in text for text in found.values())
    if shutil.which("mmdebstrap"):
        said = subprocess.run(["mmdebstrap", "--version"], capture_output=True, text=True, check=True).stdout
        assert found["mmdebstrap"] == facts.find_version(said)


def test_git_revision_tells_a_dirty_checkout(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=t", "-c", "user.email=t@example.org", *words],
            check=True, capture_output=True,
        )  # fmt: skip

    assert facts.git_revision(tmp_path) is None
    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    clean = facts.git_revision(tmp_path)
    assert clean is not None
    assert len(clean) == 12
    (tmp_path / "file").write_text("two")
    assert facts.git_revision(tmp_path) == f"{clean}-dirty"


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22"),
        ("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1\nspec: 1.0.2-dev", "1.1.5+ds1"),
        ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer", "4.1.0-3+b2"),
        ("mmdebstrap 1.3.5", "1.3.5"),
        ("tool v2.0.1.", "2.0.1"),
        ("no version at all, built in 2024", None),
    ],
)
def test_find_version(said: str, version: str | None) -> None:
    assert facts.find_version(said) == version


@given(st.sets(st.integers(0, 300), min_size=1))
def test_count_range_list_inverts_the_kernels_format(numbers: set[int]) -> None:
    ordered = sorted(numbers)
    starts = [n for n in ordered if n - 1 not in numbers]
    ends = [n for n in ordered if n + 1 not in numbers]
    text = ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
    assert facts.count_range_list(text + "\n") == len(numbers)


@given(st.text())
def test_parsers_survive_any_text(text: str) -> None:
    facts.parse_os_release(text)
    facts.parse_cpuinfo(text)
    facts.parse_pressure(text)
    facts.parse_meminfo(text)
    facts.find_version(text)
    facts.chosen(text)


MOUNTS = r"""22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:22 / /proc rw,nosuid shared:5 - proc proc rw
31 22 0:27 / /tmp rw shared:9 master:2 - tmpfs tmpfs rw
40 22 254:17 / /var/lib/lab rw - ext4 /dev/vdb rw
41 22 254:1 /srv /mnt rw - ext4 /dev/vda1 rw
42 22 254:33 / /mnt/with\040blank rw - xfs /dev/vdc rw
"""


def test_each_disk_is_found_once_and_what_has_none_is_not() -> None:
    assert facts.disks(MOUNTS) == ("/", "/var/lib/lab")
