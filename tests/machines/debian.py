"""The root of an ordinary Debian: its packages, an ordinary user, a network, a key to come in by.

Made natively in a directory, by mmdebstrap and chroot. Out of scope: its disk and when that is made anew (`disk`),
how it boots (`machine`).
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from lab.host.command import run
from lab.images.debian import apt
from lab.images.debian.mmdebstrap import mmdebstrap

from . import checkout

USER = "student"
HOME = Path("/home") / USER
CHECKOUT = HOME / "lab"
"""Where lab's sources are in a machine: in the ordinary user's home, as after a clone."""

VERSIONS = {"bookworm": "12", "trixie": "13"}

ORDINARY = (
    "linux-image-amd64", "systemd", "systemd-sysv", "systemd-resolved", "libpam-systemd", "dbus", "polkitd", "udev",
    "dbus-user-session", "kmod", "apparmor", "openssh-server", "sudo", "ca-certificates", "git", "less", "procps",
    "iproute2",
)  # fmt: skip
"""What any Debian has that somebody clones a project on."""

NOT_THERE = frozenset({"chromium", "podman", "buildah", "docker-registry", "docker.io", "docker-cli"})
"""Of lab's packages, those that take long to install, and that no test of tests/machines asks for."""

LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")

# Decompressing an initramfs that holds every driver takes long under emulation.
SMALL_INITRAMFS = """
mkdir -p "$1/etc/initramfs-tools/conf.d"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/machine"
printf '%s\\n' virtio_pci virtio_blk ext4 > "$1/etc/initramfs-tools/modules"
"""

MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer")
"""They would hold apt's lock just after the first boot, and take minutes of an emulated processor."""

FILES = {
    "etc/fstab": "LABEL=root / ext4 defaults 0 1\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost\n",
    "etc/hostname": "{hostname}\n",
    "etc/machine-id": "",  # made at the first boot: machine-id(5)
    "etc/systemd/network/50-user.network": "[Match]\nName=en*\n\n[Network]\nDHCP=yes\n",
    f"etc/sudoers.d/{USER}": f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL\n",
    "etc/ssh/sshd_config.d/machine.conf": "UseDNS no\nPasswordAuthentication no\nMaxStartups 50\nMaxSessions 50\n",
}

CUSTOMISE = f"""
useradd --create-home --shell /bin/bash --groups sudo {USER}
systemctl enable --quiet systemd-networkd systemd-resolved ssh
systemctl mask --quiet {" ".join(MASKED)}
for home in /root {HOME}; do
    install -d -m 700 "$home/.ssh"
    install -m 600 /key.pub "$home/.ssh/authorized_keys"
done
chown -R {USER}: {HOME}
rm /key.pub
if [ -n "$(ls /usr/local/share/ca-certificates)" ]; then update-ca-certificates > /dev/null; fi
# A hundred profiles take minutes to compile under emulation; those of programs that are not there confine nothing.
for profile in /etc/apparmor.d/*; do
    name=${{profile##*/}}
    case $name in unprivileged_userns | unix-chkpwd | lsb_release | *.*) continue ;; esac
    [ ! -f "$profile" ] || command -v "$name" > /dev/null || rm "$profile"
done
touch /etc/.updated /var/.updated  # nothing to do at the first boot: systemd-update-done.service(8)
"""

# ./bootstrap's own functions, all but the packages: they are there, or left out on purpose.
INSTALL_LAB = f"""
cd {CHECKOUT}
. ./bootstrap
identify_system
mkdir -p .bootstrap
getent passwd libvirt-qemu > /dev/null || add_libvirt_user > /dev/null
umask 022
install_python
.venv/bin/python -m compileall -q --invalidation-mode checked-hash lab tests
"""

# The root of a namespace of mounts: what a program finds in /dev, /proc and resolv.conf is the host's for a while.
IN_ROOT = """
mount --make-rprivate /
mount --rbind /dev "$ROOT/dev"
mount --bind /etc/resolv.conf "$ROOT/run/resolv.conf"
mount -t proc proc "$ROOT/proc"
exec env -i $PROXIES PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot "$ROOT" bash -eu -c "$SCRIPT"
"""
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

CARRIED_PIP = ("cert", "default-timeout", "extra-index-url", "index-url", "proxy", "timeout", "trusted-host")
CERTIFICATES = Path("/usr/local/share/ca-certificates")
SECONDS = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """What is wanted: a Debian suite, with what lab needs on it or, ``fresh``, with nothing of lab's."""

    suite: str
    fresh: bool = False

    @property
    def name(self) -> str:
        return f"{self.suite}-fresh" if self.fresh else self.suite

    def packages(self) -> list[str]:
        return sorted({*ORDINARY, *(() if self.fresh else lab_packages(self.suite))} - NOT_THERE)

    def recipe(self) -> str:
        """Everything that decides what `make` makes, besides the day's versions of the packages."""
        own = Path(__file__).read_text()
        parts = [own, self.name, self.packages(), sources(self.suite), apt.settings(), pip_settings(), certificates()]
        if not self.fresh:
            project = tomllib.loads((checkout.ROOT / "pyproject.toml").read_text())["project"]
            parts += [(checkout.ROOT / name).read_text() for name in ("bootstrap", "constraints.txt")]
            parts += [project["dependencies"], project["optional-dependencies"], project["scripts"]]
        return json.dumps(parts)

    def make(self, tree: Path, scratch: Path, public_key: str) -> None:
        """Install it into the new directory ``tree``: a minute or two natively, 1.5 GiB. Needs root."""
        options = ["--include=" + ",".join(self.packages()), "--dpkgopt=force-confold", "--dpkgopt=force-unsafe-io"]
        options += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        mmdebstrap(self.suite, tree, scratch, [*options, f"--essential-hook={SMALL_INITRAMFS}"], sources(self.suite))
        files = FILES if self.fresh else {**FILES, "etc/fstab": FILES["etc/fstab"] + HOME_OF_LAB}
        for name, text in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text.format(hostname=f"debian-{VERSIONS[self.suite]}"))
        (tree / f"etc/sudoers.d/{USER}").chmod(0o440)
        (tree / "etc/pip.conf").write_text(pip_settings())
        for path in certificate_files():
            shutil.copy(path, tree / path.relative_to("/"))
        (tree / "key.pub").write_text(public_key)
        (tree / "etc/resolv.conf").unlink(missing_ok=True)
        (tree / "etc/resolv.conf").symlink_to("../run/resolv.conf")
        in_root(tree, CUSTOMISE)
        if not self.fresh:
            (tree / "var/lib/lab").mkdir(mode=0o755)
            checkout.extract(tree / CHECKOUT.relative_to("/"))
            in_root(tree, f"chown -R {USER}: {CHECKOUT}\n{INSTALL_LAB}")
        (tree / "run/resolv.conf").unlink(missing_ok=True)
        (tree / "etc/resolv.conf").unlink()
        (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")


HOME_OF_LAB = "LABEL=lab /var/lib/lab ext4 defaults 0 2\n"
"""A disk of its own: what lab makes itself and would take long to make there (`disk.make_home`)."""


def in_root(tree: Path, script: str) -> None:
    """Run a bash script in ``tree``, with the host's network; ends with this process. Raises CommandError."""
    (tree / "run/resolv.conf").touch()
    run(
        ["setpriv", "--pdeathsig=KILL",
         "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "bash", "-eu", "-c", IN_ROOT],
        timeout_seconds=SECONDS,
        environment={
            "ROOT": str(tree), "SCRIPT": script,
            "PROXIES": " ".join(f"{name}={value}" for name in PROXIES if (value := os.environ.get(name))),
        },
    )  # fmt: skip


def sources(suite: str) -> str:
    """The host's archives of that suite; where it is another Debian, its own archives under the suite's name."""
    if found := apt.sources_for(suite):
        return found
    release = platform.freedesktop_os_release()
    host = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not host:
        return ""
    return re.sub(r"(?m)^Suites:.*$", lambda line: line[0].replace(host, suite), apt.sources_for(host))


def lab_packages(suite: str) -> list[str]:
    """The names in packages.apt that hold for the suite, as ./bootstrap itself reads them."""
    script = f'. "$1"; system=debian-{VERSIONS[suite]}; packages'
    done = subprocess.run(
        ["bash", "-euc", script, "-", checkout.ROOT / "bootstrap"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def pip_settings() -> str:
    """How the host's pip reaches an index, without what lies on the host itself, as a pip.conf."""
    done = run([sys.executable, "-m", "pip", "config", "list"], timeout_seconds=60, check=False)
    lines = {}
    for key, value in re.findall(r"^\S+\.([\w-]+)='(.*)'$", done.stdout.decode("utf-8", "replace"), re.MULTILINE):
        kept = [word for word in value.split() if not word.startswith(("file:", "/")) or key == "cert"]
        if key in CARRIED_PIP and kept:
            lines[key] = f"{key} = {' '.join(kept)}\n"
    return "[global]\n" + "".join(lines[key] for key in sorted(lines))


def certificate_files() -> list[Path]:
    return sorted(CERTIFICATES.rglob("*.crt"))


def certificates() -> list[str]:
    """Authorities that the host's administrator added: a proxy that opens TLS stands in the machines' way, too."""
    return [path.read_text("utf-8", "replace") for path in certificate_files()]
