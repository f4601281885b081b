"""A user namespace together with namespaces that are not its own, given by path: joined first, as runc does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import RUNTIMES, Bundle, configuration, installed
from roots import fill, open_folder

from lab.host.clock import now

MAPPINGS = [{"containerID": 0, "hostID": 200_000, "size": 70_000}]
KINDS = {"network": "net", "uts": "uts", "ipc": "ipc"}
DEADLINE_SECONDS = 100


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with open_folder() as folder:
        (folder / "rootfs").mkdir()
        fill(folder / "rootfs")
        for name in ("proc", "dev", "sys"):
            (folder / "rootfs" / name).mkdir()
        value = configuration()
        value["linux"]["namespaces"].append({"type": "user"})
        value["linux"]["uidMappings"] = value["linux"]["gidMappings"] = MAPPINGS
        value.pop("hostname", None)
        yield Bundle(folder=folder, value=value)


@pytest.fixture
def others() -> Iterator[Path]:
    """/proc/PID/ns of a process whose network, name and IPC are neither the host's nor a user namespace's."""
    words = ["unshare", "--net", "--uts", "--ipc", "sh", "-c", "echo; exec sleep 100"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield Path(f"/proc/{process.pid}/ns")
        process.kill()


def give(bundle: Bundle, place: Path, *kinds: str) -> None:
    kept = [space for space in bundle.value["linux"]["namespaces"] if space["type"] not in kinds]
    given = [{"type": kind, "path": str(place / KINDS[kind])} for kind in kinds]
    bundle.value["linux"]["namespaces"] = kept + given


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_those_by_path_are_joined_before_a_new_user_namespace(bundle: Bundle, others: Path, runtime: str) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    give(bundle, others, *KINDS)
    bundle.script("for kind in net uts ipc; do readlink /proc/self/ns/$kind; done; cat /proc/self/uid_map")
    output = bundle.run(runtime).output.split()
    assert output == [*(str((others / kind).readlink()) for kind in KINDS.values()), "0", "200000", "70000"]


def test_and_before_a_given_one_that_does_not_own_them(bundle: Bundle, others: Path) -> None:
    """runc 1.1 enters the user namespace first, and then can't join them: those after it do as lab does."""
    with subprocess.Popen(["unshare", "--user", "sleep", "1000"]) as owner:
        place, host = Path(f"/proc/{owner.pid}"), str(Path("/proc/self/ns/user").readlink())
        began = now()
        while str((place / "ns" / "user").readlink()) == host:
            assert now() < began + DEADLINE_SECONDS
        for name in ("uid_map", "gid_map"):
            (place / name).write_text("0 200000 70000")
        give(bundle, others, "network")
        linux = bundle.value["linux"]
        linux["namespaces"][:] = [space for space in linux["namespaces"] if space["type"] != "user"]
        linux["namespaces"].append({"type": "user", "path": str(place / "ns" / "user")})
        del linux["uidMappings"], linux["gidMappings"]
        bundle.script("for kind in user net; do readlink /proc/self/ns/$kind; done; cat /proc/self/uid_map")
        expected = [str((place / "ns" / "user").readlink()), str((others / "net").readlink())]
        output = bundle.run("lab-oci").output.split()
        owner.kill()
    assert output == [*expected, "0", "200000", "70000"]


def test_what_shows_a_namespace_shows_the_one_given(bundle: Bundle, others: Path) -> None:
    """Root of the user namespace may mount neither, so lab does: runc refuses, crun shows the host's whole /sys."""
    queue = "/dev/mqueue"
    subprocess.run(
        ["nsenter", f"--ipc={others / 'ipc'}", "unshare", "--mount", "sh", "-c",
         "mount -t mqueue mqueue /mnt && touch /mnt/theirs"], check=True,
    )  # fmt: skip
    give(bundle, others, "network", "ipc")
    bundle.mount("/sys", type="sysfs", source="sysfs", options=["nosuid", "noexec", "nodev", "ro"])
    bundle.mount("/dev", type="tmpfs", source="tmpfs", options=["nosuid"])
    bundle.mount(queue, type="mqueue", source="mqueue", options=["nosuid", "noexec", "nodev"])
    bundle.script(f"ls /sys/class/net; ls {queue}; grep -q ' / /sys ro,' /proc/self/mountinfo && echo read-only")
    assert bundle.run("lab-oci").output.split() == ["lo", "theirs", "read-only"]


def test_a_namespace_that_is_none_is_told_by_its_path(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    bundle.value["linux"]["namespaces"] = [
        space for space in bundle.value["linux"]["namespaces"] if space["type"] != "network"
    ]
    bundle.value["linux"]["namespaces"].append({"type": "network", "path": str(tmp_path / "none")})
    ended = bundle.run("lab-oci", check=False)
    assert ended.exit_code != 0
    assert f"join namespaces: {tmp_path / 'none'}: " in ended.errors
