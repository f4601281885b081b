"""lab's Debian package: built by lab, installed into a Debian, used there by root and an ordinary user, and purged.

The Debian is a folder that becomes the root of a process with mounts, processes and control groups of its own, as
those of a machine are: lab's own removal of what is nobody's must see no other lab's groups.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from debian_packages import CHANGES, LISTED, debian_package
from tiny import fill

from lab.images.debian.mmdebstrap import mmdebstrap

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(7200)]

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
USER = "ada"
IN_ROOT = r"""
for controller in /sys/fs/cgroup/*/; do
    mkdir "$controller$GROUP"
    for name in cpuset.cpus cpuset.mems; do
        if [ -e "$controller$name" ]; then cat "$controller$name" > "$controller$GROUP/$name"; fi
    done
    echo $$ > "$controller$GROUP/cgroup.procs"
done
exec unshare --cgroup --mount --pid --fork --kill-child=KILL bash -euc '
mount --make-rprivate /
mount --bind "$TREE" "$TREE"
mount --rbind /dev "$TREE/dev"
mount --rbind /sys "$TREE/sys"
for controller in "$TREE"/sys/fs/cgroup/*/; do mount --bind "$controller$GROUP" "$controller"; done
mount -t proc proc "$TREE/proc"
mount -t tmpfs -o mode=755 tmpfs "$TREE/run"
cd "$TREE"
pivot_root . mnt
umount --lazy /mnt
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    bash -euc "$SCRIPT"
'
"""
USED = """
cd "$HOME"
lab --version
lab scenario ls | grep -q web-app
lab doctor --on process,container
lab image import /tmp/app.tar app
lab run --on process app -- /bin/busybox echo a process
code=0; lab run --on container app -- /bin/busybox sh -c "echo a container; exit 7" || code=$?
test "$code" = 7
lab report sample
test -s results/sample/report.html
rm -r results
"""
BY_ROOT = """
lab-oci features > /dev/null
lab run -d --name kept app -- /bin/busybox sleep 4321
pgrep -x busybox
lab ps --quiet | grep kept
"""
Act = Callable[[str], str]


def run(*words: str | Path, **environment: str) -> str:
    surroundings = {**os.environ, **environment}
    done = subprocess.run(words, capture_output=True, text=True, timeout=3600, check=False, env=surroundings)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return debian_package(SUITE, tmp_path_factory.mktemp("package") / "lab.deb")


@pytest.fixture(scope="module")
def debian(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Act]]:
    """The root of a Debian with what the package depends on, an ordinary user, and what does something there."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("control groups v2 alone: the tests of ordinary machines have systemd make such groups")
    tree, scratch = tmp_path_factory.mktemp("debian") / "root", tmp_path_factory.mktemp("scratch")
    wanted = run("dpkg-deb", "--field", package, "Depends")
    names = sorted({need.split()[0] for need in wanted.split(", ")})
    mmdebstrap(SUITE, tree, scratch, ["--include=" + ",".join(names), "--dpkgopt=force-unsafe-io"])
    shutil.copy(package, tree / "root/lab.deb")
    fill(scratch / "app")
    run("tar", "-C", scratch / "app", "-cf", tree / "tmp/app.tar", ".")
    group = f"lab-test-{os.getpid()}"

    def act(script: str) -> str:
        try:
            return run(
                "setpriv", "--pdeathsig=KILL", "bash", "-euc", IN_ROOT, TREE=str(tree), GROUP=group, SCRIPT=script
            )
        finally:
            for top in Path("/sys/fs/cgroup").glob(f"*/{group}"):
                for each in [*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top]:
                    each.rmdir()

    act(f"useradd --create-home --shell /bin/bash {USER}")
    yield tree, act
    shutil.rmtree(tree)


def everything(tree: Path) -> dict[str, str]:
    """Each file with its type, mode, owner and, of the accounts, its content."""
    listed = run("find", tree, "-xdev", "-printf", LISTED).splitlines()
    found = dict(line.split("\t", 1) for line in listed)
    for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid"):
        found[f"./etc/{name}"] += (tree / "etc" / name).read_text()
    return {path: state for path, state in found.items() if not CHANGES.match(path)}


def test_nothing_in_it_is_of_where_it_was_made(package: Path, tmp_path: Path) -> None:
    run("dpkg-deb", "--extract", package, tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert not [name for name in names if name.endswith((".pyc", "direct_url.json", "__pycache__"))]
    hosts = re.findall(r"https?://([\w.-]+)", run(sys.executable, "-m", "pip", "config", "list"))
    hosts += re.findall(
        r"https?://([\w.-]+)", "".join(path.read_text() for path in Path("/etc/apt").rglob("*.sources"))
    )
    private = {host for host in hosts if not host.endswith((".debian.org", ".pypi.org", ".pythonhosted.org"))}
    for word in ("/build/lab", str(ROOT), *private):
        done = subprocess.run(["grep", "-rlF", word, tmp_path], capture_output=True, text=True, check=False)
        assert done.stdout == "", word
    pages = {name for name in names if name.startswith("usr/share/man/man1/")}
    commands = re.findall(r"^\| `lab ([^`]+)` \|", (ROOT / "docs/commands.md").read_text(), re.MULTILINE)
    assert {f"usr/share/man/man1/lab-{each.replace(' ', '-')}.1.gz" for each in commands} < pages
    assert {"usr/share/man/man1/lab.1.gz", "usr/share/man/man1/lab-oci.1.gz"} < pages
    assert "usr/share/bash-completion/completions/lab" in names


def test_it_is_installed_used_and_purged(debian: tuple[Path, Act]) -> None:
    """With images on a disk of their own, which stays; where they are on none, their folder goes
    (`machines.test_package`).
    """
    tree, act = debian
    before = everything(tree)
    told = act(f"""
mkdir /var/lib/lab && mount -t tmpfs -o mode=755 lab /var/lib/lab
apt-get install -qq --yes --no-install-recommends /root/lab.deb
test -n "$(find /usr/lib/lab -name '*.pyc' -print -quit)"
{USED}
{BY_ROOT}
setpriv --reuid {USER} --regid {USER} --init-groups env HOME=/home/{USER} bash -euc '{USED}'
rm -rf /tmp/lab-*
apt-get purge -qq --yes lab
if pgrep -x busybox; then exit 1; fi
test ! -e /run/lab
test -z "$(ls -A /var/lib/lab)" && umount /var/lib/lab && rmdir /var/lib/lab
find /sys/fs/cgroup -mindepth 3 -type d
""")
    assert told.count("a process\n") == told.count("a container\n") == 2
    assert "/lab" not in told.rpartition("Purging")[2], "no control group is left"
    assert everything(tree) == before
