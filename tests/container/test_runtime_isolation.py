"""What a container's process sees and may do. Where it makes sense the same assertions run under runc."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from host_state import mountinfo
from running import Run, Start

from lab.errors import LaunchError
from lab.model import Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config import capabilities
from lab.runtime.config.model import Capabilities, Config, IdMapping, Namespace
from lab.runtime.launcher.launcher import Directory, Overlay

MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/sys/firmware")
SIZES = """
for path in {paths}; do
    if [ -d $path ]; then size=$(ls $path | wc -c); else size=$(head -c 10 $path | wc -c); fi
    echo $path $size
done
"""
INTERFACES = (
    "/proc/sys/kernel/core_pattern",
    "/proc/irq/default_smp_affinity",
    "/sys/devices/system/cpu/uevent",
    "$(find /sys/fs/cgroup -name cgroup.procs)",
)
OPENED = """
for file in {files}; do
    said=$( (true >>$file) 2>&1 ) && said=opened
    echo "$said"
done
"""
OPENED_ALL = "".join(f"echo '= {files}'\n{OPENED.format(files=files)}" for files in INTERFACES)
QUESTIONS = {
    "status": "cat /proc/self/status",
    "namespaces": "for kind in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$kind; done",
    "processes": "ls /proc | grep -c '^[0-9]'",
    "devices": "ls /dev; [ -c /dev/null ] && echo x > /dev/null && head -c 4 /dev/zero | wc -c; ls -l /dev/ptmx",
    "hostname": "hostname",
}
"""The questions that only look: one container is asked all of them, for all tests of this file."""


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, str]]:
    """By runtime, once the first test has asked."""
    return {}


@pytest.fixture
def seen(request: pytest.FixtureRequest, either: Run, answers: dict[str, dict[str, str]]) -> dict[str, str]:
    """What one container answers to each of `QUESTIONS`, and to whether `MASKED` and `INTERFACES` can be used."""
    runtime = request.node.callspec.params["either"]
    if runtime not in answers:
        asked = QUESTIONS | {"masked": SIZES.format(paths=" ".join(there())), "interfaces": OPENED_ALL}
        script = "".join(f"echo '== {name}'\n{question}\n" for name, question in asked.items())
        process = Process(argv=("sh", "-c", script))
        ran = either(config=bundle.container_config(process, hostname="sandbox"))
        assert ran.exit_code == 0, ran.output
        answers[runtime] = dict(part.split("\n", 1) for part in ran.output.split("== ")[1:])
        assert list(answers[runtime]) == list(asked)
    return answers[runtime]


def there() -> list[str]:
    return [path for path in MASKED if Path(path).exists()]


def status(said: str, field: str) -> str:
    return next(line.split()[1] for line in said.splitlines() if line.startswith(f"{field}:"))


def test_root_has_dockers_capabilities_no_new_privileges_and_a_filter(seen: dict[str, str]) -> None:
    for field in ("CapPrm", "CapEff", "CapBnd"):
        assert capabilities.names(int(status(seen["status"], field), 16)) == tuple(
            sorted(capabilities.DOCKER_DEFAULT, key=capabilities.NAMES.index)
        )
    assert int(status(seen["status"], "CapInh"), 16) == 0
    assert int(status(seen["status"], "CapAmb"), 16) == 0
    assert status(seen["status"], "NoNewPrivs") == "1"
    assert status(seen["status"], "Seccomp") == "2"


def test_another_user_has_no_capability_in_effect(either: Run) -> None:
    process = Process(argv=("sh", "-c", "id; cat /proc/self/status"), uid=1000, gid=1001, additional_gids=(1002,))
    ran = either(config=bundle.container_config(process))
    assert ran.output.startswith("uid=1000 gid=1001 groups=")
    assert "1002" in ran.output.splitlines()[0]
    assert int(status(ran.output, "CapEff"), 16) == 0
    assert int(status(ran.output, "CapPrm"), 16) == 0


def test_every_namespace_is_its_own(seen: dict[str, str]) -> None:
    host = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("cgroup", "ipc", "mnt", "net", "pid", "uts")}
    inside = seen["namespaces"].split()
    assert len(inside) == 6
    assert not host & set(inside)


def test_only_its_own_processes_are_visible(seen: dict[str, str]) -> None:
    assert int(seen["processes"]) <= 5


def test_masked_paths_show_nothing(seen: dict[str, str]) -> None:
    """The control is that this kernel has them."""
    assert {"/proc/kcore", "/sys/firmware"} & set(there())
    assert dict(line.split() for line in seen["masked"].splitlines()) == dict.fromkeys(there(), "0")


def test_kernel_interfaces_are_read_only(seen: dict[str, str]) -> None:
    """They are only opened, which is what a read-only mount refuses; the control is root on the host."""
    on_host = subprocess.run(["sh", "-c", OPENED_ALL], capture_output=True, text=True, timeout=250, check=True).stdout
    assert all("opened" in said for said in on_host.split("= ")[1:]), on_host
    inside = dict(part.split("\n", 1) for part in seen["interfaces"].split("= ")[1:])
    assert list(inside) == list(INTERFACES)
    for files, said in inside.items():
        told = said.splitlines()
        assert told, files
        assert all("Read-only file system" in line for line in told), (files, told)


def test_the_devices_are_the_default_ones(seen: dict[str, str]) -> None:
    names = set(seen["devices"].split())
    assert {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "fd", "stdin"} <= names
    assert not {"kmsg", "mem", "vda", "sda", "kvm", "net"} & names


def test_a_node_of_the_hosts_disk_can_be_made_but_not_opened(either: Run) -> None:
    disk = next((name for name in ("vda", "sda", "nvme0n1", "loop0") if Path("/dev", name).exists()), None)
    if disk is None:
        pytest.skip("this host has no block device")
    number = Path("/dev", disk).stat().st_rdev
    ran = either(
        f"mknod /tmp/disk b {os.major(number)} {os.minor(number)} && echo made;"
        "head -c 1 /tmp/disk && echo opened; rm -f /tmp/disk"
    )
    assert "made" in ran.output
    assert "opened" not in ran.output


@pytest.mark.parametrize(
    "forbidden",
    [
        "mount -t tmpfs none /tmp",
        "umount /dev/shm",
        "unshare -m true",
        "ip link set lo mtu 1500",
        "hostname other",
    ],
)
def test_what_only_the_host_may_do_is_refused(either: Run, forbidden: str) -> None:
    """The control is a container whose root has two more capabilities, and no filter: there it is done."""
    config = bundle.container_config(Process(argv=("sh", "-c", f"{forbidden} && echo done")))
    assert either(config=unconfined(config)).output == "done\n"
    ran = either(config=config)
    assert "done" not in ran.output
    assert "not permitted" in ran.output or "denied" in ran.output, ran.output


def unconfined(config: Config) -> Config:
    """Only as much more as it takes: not every host's root has all capabilities to give."""
    more = (*capabilities.DOCKER_DEFAULT, "CAP_SYS_ADMIN", "CAP_NET_ADMIN")
    return replace(
        config,
        process=replace(config.process, capabilities=Capabilities(bounding=more, effective=more, permitted=more)),
        linux=replace(config.linux, seccomp=None),
    )


def test_hostname(seen: dict[str, str]) -> None:
    assert seen["hostname"].strip() == "sandbox"


def test_loopback_alone_and_up(run: Run) -> None:
    ran = run("ls /sys/class/net; cat /sys/class/net/lo/operstate /sys/class/net/lo/flags; ping -c 1 -W 1 127.0.0.1")
    assert ran.output.split()[0] == "lo"
    assert "1 packets received" in ran.output
    assert ran.exit_code == 0


def test_a_given_network_namespace_is_joined(run: Run) -> None:
    own = f"/proc/{os.getpid()}/ns/net"
    config = bundle.container_config(Process(argv=("readlink", "/proc/self/ns/net")), network_namespace=own)
    assert run(config=config).output.strip() == str(Path(own).readlink())


def test_the_hosts_network_can_be_kept(run: Run) -> None:
    config = bundle.container_config(Process(argv=("readlink", "/proc/self/ns/net")), network_namespace=bundle.HOST)
    assert run(config=config).output.strip() == str(Path("/proc/self/ns/net").readlink())


MAPPINGS = (IdMapping(container_id=0, host_id=200_000, size=65536),)


@pytest.mark.parametrize(
    ("kind", "init"),
    [(Directory, False), (Overlay, False), (Overlay, True)],
    ids=["directory", "overlay", "overlay under the helper"],
)
def test_a_user_namespace_maps_root_to_nobody_of_the_hosts(
    run: Run, busybox_root: Path, kind: type[Directory | Overlay], init: bool
) -> None:
    """A plain directory keeps its owners: in the host's root's, root inside can't make the helper's mount point."""
    config = bundle.container_config(
        Process(argv=("sh", "-c", "id -u; cat /proc/self/uid_map; ls /dev")), id_mappings=MAPPINGS
    )
    root = Directory(path=busybox_root) if kind is Directory else Overlay(lower=(busybox_root,))
    ran = run(config=config, root=root, init=init)
    assert ran.output.split()[:4] == ["0", "0", "200000", "65536"], ran.output


def test_a_given_user_namespace_is_joined_and_owns_the_new_ones(run: Run, start: Start) -> None:
    first, _ = start(config=bundle.container_config(Process(argv=("sleep", "1000")), id_mappings=MAPPINGS))
    place = f"/proc/{first.pid}/ns/user"
    script = "readlink /proc/self/ns/user; cat /proc/self/uid_map; touch /mine; busybox stat -c %u /mine"
    config = bundle.container_config(Process(argv=("sh", "-c", script)))
    spaces = (*config.linux.namespaces, Namespace(type="user", path=place))
    ran = run(config=replace(config, linux=replace(config.linux, namespaces=spaces, sysctl={})))
    assert ran.output.split()[:5] == [str(Path(place).readlink()), "0", "200000", "65536", "0"], ran.output


def test_layers_are_mapped_so_that_root_inside_owns_what_root_owns(
    run: Run, tmp_path: Path, busybox_root: Path
) -> None:
    """Even below folders that only the host's root may pass, and bound from there."""
    locked = tmp_path / "locked"
    for name in ("lower", "upper", "work", "data"):
        (locked / name).mkdir(parents=True)
    (locked / "lower" / "secret").write_text("text")
    (locked / "lower" / "secret").chmod(0o600)
    (locked / "data" / "word").write_text("bound")
    os.chown(locked / "lower" / "secret", 0, 5)
    locked.chmod(0o700)
    script = (
        "cat /secret /data/word; echo more >> /secret; echo new > /new; chown 7:8 /new; rm /bin/true; "
        "busybox stat -c '%u %g' /secret /new /data; touch /data/x || echo not mine"
    )
    config = bundle.container_config(
        Process(argv=("sh", "-c", script)),
        extra_mounts=(bundle.bind(locked / "data", "/data", read_only=False),),
        id_mappings=MAPPINGS,
    )
    upper, work = locked / "upper", locked / "work"
    ran = run(config=config, root=Overlay(lower=(locked / "lower", busybox_root), upper=upper, work=work))
    assert ran.output.startswith("textbound0 5\n7 8\n65534 65534\n")
    assert ran.output.endswith("not mine\n")
    assert [(upper / name).stat().st_uid for name in ("secret", "new")] == [0, 7], "on disk the ids are those inside"
    assert (upper / "secret").read_text() == "textmore\n"
    assert stat.S_ISCHR((upper / "bin" / "true").lstat().st_mode), "a whiteout, as any runtime reads it"


def test_a_bind_mount_can_be_mapped(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    os.chown(tmp_path / "mine", 1000, 1000)
    tmp_path.chmod(0o755)  # its own owner has no place in the map
    one = (IdMapping(container_id=1000, host_id=3000, size=1),)
    mount = bundle.bind(tmp_path, "/data", read_only=False)
    mapped = replace(mount, options=("bind", "idmap"), uid_mappings=one, gid_mappings=one)
    script = "busybox stat -c '%u %g' /data/mine"
    ran = run(config=bundle.container_config(Process(argv=("sh", "-c", script)), extra_mounts=(mapped,)))
    assert ran.output == "3000 3000\n"
    own = replace(mount, options=("bind", "idmap"))
    config = bundle.container_config(Process(argv=("sh", "-c", script)), extra_mounts=(own,), id_mappings=MAPPINGS)
    assert run(config=config).output == "1000 1000\n", "the container's own map"


def test_extra_mounts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("from the host")
    mounts = (bundle.bind(tmp_path / "words", "/etc/words"), bundle.bind(tmp_path, "/data", read_only=False))
    script = "cat /etc/words; echo x > /etc/words; echo back > /data/answer"
    ran = run(config=bundle.container_config(Process(argv=("sh", "-c", script)), extra_mounts=mounts))
    assert "from the host" in ran.output
    assert "Read-only" in ran.output
    assert (tmp_path / "answer").read_text() == "back\n"


def test_the_upper_layer_keeps_what_was_written_and_nothing_of_labs(
    run: Run, tmp_path: Path, busybox_root: Path
) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    (tmp_path / "resolv.conf").write_text("")
    config = bundle.container_config(
        Process(argv=("sh", "-c", "echo hello > /kept; echo x > /dev/shm/gone")),
        network_namespace=bundle.HOST,
        extra_mounts=(bundle.bind(tmp_path / "resolv.conf", "/etc/resolv.conf"),),
    )
    run(config=config, root=Overlay(lower=(busybox_root,), upper=upper, work=work))
    assert [str(path.relative_to(upper)) for path in upper.rglob("*")] == ["kept"]


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
@pytest.mark.parametrize("destination", ["/", "/tmp", "../../../tmp"])
def test_a_hostile_image_can_not_redirect_mounts(
    start: Start, tmp_path: Path, busybox_root: Path, place: str, destination: str
) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / place).symlink_to(destination)
    before = mountinfo()
    with pytest.raises(LaunchError, match="mount"):
        start("true", root=Overlay(lower=(hostile, busybox_root)))
    assert mountinfo() == before


def test_a_link_as_target_of_an_extra_mount_stays_inside(run: Run, tmp_path: Path, busybox_root: Path) -> None:
    hostile, victim, file = tmp_path / "hostile", tmp_path / "victim", tmp_path / "file"
    (hostile / "etc").mkdir(parents=True)
    victim.mkdir()
    file.write_text("content")
    (hostile / "etc" / "resolv.conf").symlink_to(f"../../../../../../..{victim}/resolv.conf")
    config = bundle.container_config(
        Process(argv=("cat", f"{victim}/resolv.conf")), extra_mounts=(bundle.bind(file, "/etc/resolv.conf"),)
    )
    ran = run(config=config, root=Overlay(lower=(hostile, busybox_root)))
    assert ran.output == "content", "the target was not resolved inside the root"
    assert not list(victim.iterdir()), "a file was made on the host"


@pytest.mark.parametrize("number", range(3, 12))
def test_a_working_directory_outside_the_root_is_refused(start: Start, number: int) -> None:
    process = Process(argv=("true",), working_directory=f"/proc/self/fd/{number}")
    with pytest.raises(LaunchError, match="working directory"):
        start(config=bundle.container_config(process))


def test_no_descriptor_leaks(either: Run) -> None:
    ran = either("ls -l /proc/self/fd 2>/dev/null | grep -c -- '->'")
    assert int(ran.output) <= 4, "0, 1, 2 and that of ls itself"


def test_the_control_is_chroot_alone(run: Run) -> None:
    config = bundle.process_config(
        Process(argv=("sh", "-c", "cat /proc/self/status; ls /; ls /proc/1/exe; readlink /proc/self/ns/pid"))
    )
    ran = run(config=config)
    assert capabilities.names(int(status(ran.output, "CapEff"), 16)) == capabilities.held()
    assert status(ran.output, "Seccomp") == "0"
    assert status(ran.output, "NoNewPrivs") == "0"
    assert str(Path("/proc/self/ns/pid").readlink()) in ran.output
    assert "home" not in ran.output.split(), "its root is the image"
