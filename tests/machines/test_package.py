"""lab's Debian package in both Debians, with systemd and KVM: installed, used by root and an ordinary user, purged.

The machine has all of lab's packages already, and a LAB_HOME, which is set aside: what an emulated processor would
need an hour for, the guest and the base of an image, the package's lab is lent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_packages import CHANGES, LISTED, debian_package

from .debian import CHECKOUT, USER
from .disk import APPLICATION
from .inside import GET, shell, state
from .machine import Machine

pytestmark = [pytest.mark.nightly, pytest.mark.parametrize("machine", ["bookworm", "trixie"], indirect=True)]

HOME, ASIDE = "/var/lib/lab", "/mnt/home"
PLACE = "/var/tmp/package"
BASE = "python:3.11-slim"
OTHER = f".{CHECKOUT}/"
LEND = f"""
mkdir -p {PLACE} {ASIDE}
./bootstrap lab image save {APPLICATION} {BASE} -o {PLACE}/images.tar
chmod 644 {PLACE}/images.tar
mount --bind {HOME} {ASIDE}
umount {HOME}
rmdir {HOME}
"""
TAKE_BACK = f"""
mkdir -p {HOME}
mount --bind {ASIDE} {HOME}
umount {ASIDE}
rmdir {ASIDE}
rm -rf {PLACE} /home/{USER}/.local/share/lab /home/{USER}/.cache/lab
"""
DEPENDENCIES = f"""
export DEBIAN_FRONTEND=noninteractive
dpkg-deb --field {PLACE}/lab.deb Depends | tr , '\\n' | sed 's/[(|].*//' > {PLACE}/depends
xargs apt-get install -qq --yes --no-install-recommends < {PLACE}/depends ||
    {{ apt-get -qq update; xargs apt-get install -qq --yes --no-install-recommends < {PLACE}/depends; }}
"""
INSTALL = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get install -qq --yes --no-install-recommends {PLACE}/lab.deb
test -n "$(find /usr/lib/lab -name '*.pyc' -print -quit)"
mkdir -p {HOME}
cp -a --sparse=always {ASIDE}/guest {ASIDE}/inside {HOME}
"""
USED = f"""
cd "$HOME"
test "$(command -v lab)" = /usr/bin/lab
lab --version
lab image load {PLACE}/images.tar
lab run --on process {APPLICATION} -- echo a process
code=0; lab run --on container {APPLICATION} -- sh -c "echo a container; exit 7" || code=$?
test "$code" = 7
lab report sample
test -s results/sample/report.html
rm -r results
"""
BY_ROOT = f"""
cd /root
lab doctor --on process,container,microvm --prove
lab run --on microvm {APPLICATION} -- echo a machine
lab compare {APPLICATION} --on process,container --metrics boot,memory --blocks 1 --idle 1s --out /root/out
test -s /root/out/*/report.html
rm -r /root/out
lab-oci features > /dev/null
lab run -d --wait --name kept -p 8080:5000 {APPLICATION}
lab ps --quiet | grep kept
/usr/lib/lab/bin/python3 -c '{GET}' http://127.0.0.1:8080/
"""
PURGE = """
export DEBIAN_FRONTEND=noninteractive
apt-get purge -qq --yes lab
for second in $(seq 60); do
    ls -A /run/lab 2> /dev/null || ls -d /sys/fs/cgroup/lab*.scope 2> /dev/null || break
    sleep 1
done
test ! -e /run/lab
"""


@pytest.fixture
def lent(machine: Machine, tmp_path: Path) -> Iterator[Machine]:
    suite = str(machine.state["suite"])
    package = debian_package(suite, tmp_path / "lab.deb")
    shell(machine, f"set -e\n{LEND}", timeout_seconds=1800)
    try:
        done = machine.run(f"cat > {PLACE}/lab.deb", stdin=package.read_bytes())
        assert done.returncode == 0, done.stderr
        yield machine
    finally:
        machine.run(f"dpkg --purge lab\n{TAKE_BACK}", timeout_seconds=1800)


def everything(machine: Machine) -> dict[str, str]:
    """Each file with its type, mode and owner; the accounts. The checkout is the other lab's."""
    listed = shell(machine, f"find / -xdev -printf '{LISTED}'".replace("\n", "\\n").replace("\t", "\\t")).splitlines()
    found = dict(line.split("\t", 1) for line in listed)
    kept = {path: kind for path, kind in found.items() if not CHANGES.match(path) and not path.startswith(OTHER)}
    return kept | {f"account {line}": "" for line in shell(machine, "cat /etc/passwd /etc/group").splitlines()}


def test_it_is_installed_used_and_purged(lent: Machine) -> None:
    shell(lent, f"set -e\n{DEPENDENCIES}", timeout_seconds=3600)
    well, before = state(lent), everything(lent)
    shell(lent, f"set -e\n{INSTALL}", timeout_seconds=3600)
    told = shell(lent, f"set -e\n{USED}\n{BY_ROOT}", timeout_seconds=3600)
    assert "Hello" in told
    assert "a machine\n" in told
    mine = lent.run("bash", "-euc", USED, user=USER, own_session=True, timeout_seconds=3600)
    assert mine.returncode == 0, mine.stdout + mine.stderr
    for said in (told, mine.stdout):
        assert "a process\n" in said
        assert "a container\n" in said
    lent.run(f"rm -rf /home/{USER}/.local/share/lab")
    shell(lent, f"set -e\n{PURGE}")
    after = everything(lent)
    assert {path: kind for path, kind in after.items() if before.get(path) != kind} == {}
    assert before.keys() - after.keys() == set()
    assert state(lent) == well
