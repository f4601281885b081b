"""Docker Engine with lab-oci as its runtime: what a container finds around it, and what it may do."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from dockering import IMAGE, Docker

DEFAULT_CAPABILITIES = "00000000a80425fb"  # Docker's fourteen
NO_CAPABILITIES = "0" * 16
CAPABILITIES = "sed -n 's/^Cap[PEB].*\\t//p' /proc/self/status"


KNOWN = (1 << 38) - 1  # the capabilities that Docker 20.10 has heard of; later ones know all


@pytest.fixture
def all_capabilities(docker: Docker) -> int:
    """Those that this host has. Where one was taken from it, runc can't start a privileged container: it insists."""
    held = int(Path("/proc/self/status").read_text().partition("CapBnd:")[2].split()[0], 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if docker.runtime == "runc" and held != (1 << last + 1) - 1:
        pytest.skip("this host lacks a capability, which lab-oci leaves out and runc does not")
    return held & KNOWN


# Who, where, with what


def test_defaults(docker: Docker) -> None:
    script = f"id; pwd; echo $HOME $PATH; {CAPABILITIES}; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; umask"
    assert docker.lines("--", script) == [
        "uid=0(root) gid=0(root) groups=0(root)",
        "/",
        "/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        *[DEFAULT_CAPABILITIES] * 3,
        "NoNewPrivs:\t0",
        "Seccomp:\t2",
        "0022",
    ]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--user", "guest"], "1000 1000 1000 2000 /home/guest"),
        (["--user", "1000"], "1000 1000 1000 2000 /home/guest"),
        (["--user", "12:34"], "12 34 34 /"),
        (["--user", "guest:extra"], "1000 3000 3000 /home/guest"),
        (["--user", "guest", "--group-add", "extra", "--group-add", "77"], "1000 1000 77 1000 2000 3000 /home/guest"),
    ],
    ids=["name", "number", "numbers", "group", "more-groups"],
)
def test_users(docker: Docker, options: list[str], ids: str) -> None:
    said = docker.output(*options, "--", "sh", "-c", "id -u; id -g; id -G | tr ' ' '\\n' | sort -n; echo $HOME")
    assert " ".join(said.split()) == ids


def test_a_user_writes_to_its_streams(docker: Docker) -> None:
    """They are pipes of the daemon's, and /dev/stdout opens them anew."""
    done = docker.run("--user", "1000", "--", "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr")
    assert (done.out, done.err) == ("out\n", "err\n")


def test_the_hosts_null_device_is_out_of_reach(docker: Docker) -> None:
    """Standard input is the host's unless the runtime opens the container's own; masks may be the host's, too."""
    before = Path("/dev/null").stat()
    script = "stat -L -c '%d %i' /dev/null /proc/self/fd/0"
    own, opened = docker.lines("--user", "1000", "--", script)
    assert own == opened
    own, opened = docker.ok("exec", docker.waiting(), "sh", "-c", script).split("\n")
    assert own == opened or docker.runtime == "runc", "runc 1.1 does so for a first process alone"
    docker.run("--", "sh", "-c", "chmod 666 /proc/self/fd/0 /proc/keys /proc/timer_list")  # what it is anyway
    after = Path("/dev/null").stat()
    assert (after.st_uid, after.st_gid, after.st_ctime_ns) == (before.st_uid, before.st_gid, before.st_ctime_ns)


def test_no_capabilities_for_another_user(docker: Docker) -> None:
    assert docker.lines("--user", "1000", "--", CAPABILITIES) == [NO_CAPABILITIES] * 2 + [DEFAULT_CAPABILITIES]


def test_environment_and_working_directory(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("LISTED=two words\n")
    options = ["--env", "GIVEN=a=b", "--env-file", f"{tmp_path}/env", "--workdir", "/made/for/it", "--read-only"]
    assert docker.lines(*options, "--", "pwd; echo $GIVEN; echo $LISTED") == ["/made/for/it", "a=b", "two words"]


def test_names_and_addresses(docker: Docker) -> None:
    options = ["--hostname", "inside", "--domainname", "example.test", "--add-host", "other:192.0.2.7",
               "--dns", "192.0.2.53", "--dns-search", "example.test"]  # fmt: skip
    script = (
        "hostname; cat /proc/sys/kernel/domainname; grep other /etc/hosts; cat /etc/resolv.conf; cat /etc/hostname"
    )
    said = docker.lines("--network=bridge", *options, "--", script)
    assert said[:3] == ["inside", "example.test", "192.0.2.7\tother"]
    assert {"search example.test", "nameserver 192.0.2.53"} < set(said)
    assert said[-1] == "inside"


# Capabilities, filters, masks


@pytest.mark.parametrize(
    ("options", "capabilities"),
    [
        (["--cap-drop", "all"], NO_CAPABILITIES),
        (["--cap-drop", "all", "--cap-add", "net_admin"], "0000000000001000"),
        (["--cap-add", "sys_time", "--cap-drop", "mknod"], "00000000a20425fb"),
    ],
    ids=["none", "one", "changed"],
)
def test_capabilities(docker: Docker, options: list[str], capabilities: str) -> None:
    assert docker.lines(*options, "--", CAPABILITIES) == [capabilities] * 3


def test_a_capability_is_what_allows(docker: Docker) -> None:
    assert docker.run("--", "chown", "1:1", "/srv/given").code == 0
    assert "not permitted" in docker.run("--cap-drop", "chown", "--", "chown", "1:1", "/srv/given").err


def test_no_new_privileges(docker: Docker) -> None:
    script = "grep NoNewPrivs /proc/self/status"
    assert docker.lines("--security-opt", "no-new-privileges", "--", script) == ["NoNewPrivs:\t1"]


def test_without_a_filter(docker: Docker) -> None:
    script = "grep Seccomp: /proc/self/status; unshare -U true && echo unshared"
    assert docker.lines("--security-opt", "seccomp=unconfined", "--", script) == ["Seccomp:\t0", "unshared"]
    assert "not permitted" in docker.run("--", "unshare", "-U", "true").err, "Docker's own filter"


def test_a_filter_of_ones_own(docker: Docker, tmp_path: Path) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]}
    (tmp_path / "profile").write_text(json.dumps(profile))
    done = docker.run("--security-opt", f"seccomp={tmp_path}/profile", "--", "mkdir", "/tmp/refused")
    assert done.code == 1
    assert "Operation not supported" in done.err


def test_masks(docker: Docker) -> None:
    script = """
        cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l
        for path in /proc/sys/kernel/hostname /proc/irq/default_smp_affinity; do
            echo > $path
        done 2>&1 | grep -c 'Read-only'
        touch /sys/x 2>&1 | grep -c 'Read-only'
    """
    assert docker.lines("--", script) == ["0", "0", "2", "1"]


def test_without_masks(docker: Docker) -> None:
    script = "grep -c -E ' /proc/(keys|timer_list|sys|bus) ' /proc/mounts || true"
    assert docker.lines("--", script) == ["4"]
    assert docker.lines("--security-opt", "systempaths=unconfined", "--", script) == ["0"]


def test_privileged(docker: Docker, all_capabilities: int) -> None:
    script = "grep Seccomp: /proc/self/status; mount -t tmpfs tmpfs /srv && echo mounted; readlink /dev/ptmx; "
    writable = (
        "for path in /proc/sys/kernel/hostname /sys/kernel /sys/fs/cgroup/*; do test -w $path || echo $path; done"
    )
    said = docker.lines("--privileged", "--", f"{CAPABILITIES}; {script}{writable}; ls /dev")
    assert [int(word, 16) & KNOWN for word in said[:3]] == [all_capabilities] * 3
    assert said[3:6] == ["Seccomp:\t0", "mounted", "pts/ptmx"]
    assert "/proc/sys/kernel/hostname" not in said
    assert {"kmsg", "null", "ptmx"} < set(said[6:]), "the host's devices"


def test_a_privileged_container_opens_the_hosts_devices(docker: Docker, all_capabilities: int, device: Path) -> None:
    assert docker.lines("--privileged", "--", f"exec 3< {device} && echo opened") == ["opened"]


def test_privileged_exec(docker: Docker, all_capabilities: int) -> None:
    said = docker.ok("exec", "--privileged", docker.waiting(), "sh", "-c", CAPABILITIES)
    assert int(said.split()[0], 16) & KNOWN == all_capabilities


# Devices


def test_devices(docker: Docker) -> None:
    said = docker.output("--", "ls", "/dev").split()
    assert " ".join(said) == "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    script = "cd /dev; echo x > null; head -c 4 zero | wc -c; head -c 4 urandom | wc -c; echo x > full; readlink ptmx"
    assert docker.lines("--", script) == ["4", "4", "pts/ptmx"]


OPENED_BY_ALL = ("/dev/loop-control", "/dev/fuse", "/dev/net/tun")
"""Devices that anybody may open who has the node, and that no container has by default but, with runc, the last."""


@pytest.fixture
def device() -> Path:
    found = [Path(name) for name in OPENED_BY_ALL if Path(name).is_char_device()]
    if not found:
        pytest.skip(f"this host has none of {', '.join(OPENED_BY_ALL)}")
    return found[0]


def test_a_device_of_the_hosts(docker: Docker, device: Path) -> None:
    options = ["--device", f"{device}:/dev/inside/one:r"]
    said = docker.lines(*options, "--", "cd /dev/inside; ls -l one | cut -c 1; exec 3< one && echo opened")
    assert said == ["c", "opened"]
    refused = docker.run(*options, "--", "sh", "-c", "echo x > /dev/inside/one")
    assert "not permitted" in refused.err


def test_a_rule_for_devices(docker: Docker, device: Path) -> None:
    number = device.stat().st_rdev
    major, minor = os.major(number), os.minor(number)
    script = f"mknod /srv/one c {major} {minor} && exec 3< /srv/one && echo opened"
    assert docker.lines("--device-cgroup-rule", f"c {major}:{minor} rwm", "--", script) == ["opened"]
    if device.name != "tun":
        assert "not permitted" in docker.run("--", "sh", "-c", script).err


# Mounts


def test_a_read_only_root(docker: Docker) -> None:
    done = docker.run("--read-only", "--", "touch", "/srv/refused")
    assert done.code == 1
    assert "Read-only file system" in done.err
    script = "touch /tmp/x /dev/shm/x && echo x > /dev/null && echo written"
    assert docker.lines("--read-only", "--tmpfs", "/tmp", "--", script) == ["written"]


def test_a_tmpfs(docker: Docker) -> None:
    options = ["--tmpfs", "/t:rw,exec,size=1m,mode=0710,uid=1000", "--tmpfs", "/srv"]
    script = (
        "stat -c '%a %u' /t; df -k /t | tail -n 1 | awk '{print $2}'; grep -c ' /t .*noexec' /proc/mounts; ls /srv"
    )
    assert docker.lines(*options, "--", script)[:3] == ["710 1000", "1024", "0"]


def test_volumes(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from the host\n")
    options = [
        "--volume",
        f"{tmp_path}:/rw",
        "--volume",
        f"{tmp_path}:/ro:ro",
        "--volume",
        f"{tmp_path}/given:/srv/given",
    ]
    script = (
        "cat /ro/given /srv/given; echo made > /rw/made; touch /ro/refused 2>&1 | grep -c 'Read-only file system'"
    )
    assert docker.lines(*options, "--", script) == ["from the host", "from the host", "1"]
    assert (tmp_path / "made").read_text() == "made\n"


def test_a_named_volume_begins_with_what_the_image_has(docker: Docker) -> None:
    name = docker.name()
    docker.ok("volume", "create", name)
    assert docker.lines("--volume", f"{name}:/srv", "--", "cat /srv/given; echo more >> /srv/given") == [
        "from the image"
    ]
    assert docker.lines("--volume", f"{name}:/v:ro", "--", "cat /v/given") == ["from the image", "more"]
    docker.ok("volume", "rm", name)


def test_volumes_of_another(docker: Docker) -> None:
    first = docker.background("--volume", "/data", "--tmpfs", "/srv")
    docker.ok("exec", first, "sh", "-c", "echo shared > /data/file")
    assert docker.lines("--volumes-from", first, "--", "cat /data/file") == ["shared"]


@pytest.mark.parametrize(
    ("propagation", "kind", "seen"),
    [
        pytest.param("rshared", "shared:", "1", marks=pytest.mark.nightly),
        ("rslave", "master:", "1"),
        pytest.param("rprivate", "-", "0", marks=pytest.mark.nightly),
    ],
)
def test_propagation(docker: Docker, propagation: str, kind: str, seen: str) -> None:
    """A mount made on the daemon's side, below what the container was given, is seen there or not."""
    place = f"/run/{docker.name()}"
    docker.engine.beside("mkdir", "-p", f"{place}/below")
    name = docker.background("--mount", f"type=bind,src={place},dst=/v,bind-propagation={propagation}")
    docker.engine.beside("mount", "-t", "tmpfs", "tmpfs", f"{place}/below")
    line = docker.ok("exec", name, "grep", " /v ", "/proc/self/mountinfo")
    assert line.split()[6].startswith(kind)
    assert docker.ok("exec", name, "sh", "-c", "grep -c ' /v/below ' /proc/self/mountinfo || true") == seen
    docker.ok("rm", "--force", name)
    docker.engine.beside("umount", f"{place}/below")


def test_what_can_not_be_mounted_is_named(docker: Docker) -> None:
    done = docker.run("--volume", "/etc/hostname:/srv/given/below", "--", "true")
    assert done.code != 0
    assert "/srv/given/below" in done.err
    assert "/etc/hostname" in done.err
    assert "StepFailed" not in done.err


# Namespaces


def test_namespaces_of_its_own(docker: Docker) -> None:
    script = "for kind in mnt pid net ipc uts; do readlink /proc/self/ns/$kind; done"
    outside = docker.engine.beside("sh", "-c", script).split()
    assert not set(outside) & set(docker.lines("--", script))


def test_namespaces_of_the_hosts(docker: Docker) -> None:
    script = "for kind in net pid ipc uts; do readlink /proc/self/ns/$kind; done"
    outside = docker.engine.beside("sh", "-c", script).split()
    options = ("--network=host", "--pid=host", "--ipc=host", "--uts=host")
    assert docker.lines(*options, "--", script) == outside


def test_namespaces_of_another_container(docker: Docker) -> None:
    first = docker.background("--ipc=shareable")
    options = [f"--pid=container:{first}", f"--network=container:{first}", f"--ipc=container:{first}"]
    script = "for kind in pid net ipc; do readlink /proc/{}/ns/$kind; done"
    said = docker.lines(*options, "--", f"{script.replace('{}', '1')}; {script.replace('{}', 'self')}; ps")
    assert said[:3] == said[3:6]
    assert any("sleep 1000" in line for line in said)


def test_cgroup_namespaces(docker: Docker) -> None:
    outside = docker.engine.beside("readlink", "/proc/self/ns/cgroup").strip()
    script = "readlink /proc/self/ns/cgroup; cut -d : -f 3 /proc/self/cgroup"
    own, *groups = docker.lines("--cgroupns=private", "--", script)
    assert own != outside
    assert set(groups) == {"/"}
    own, *groups = docker.lines("--cgroupns=host", "--", script)
    assert own == outside
    assert any(re.search("/[^/]*[0-9a-f]{64}", group) for group in groups), "the container's own, as the host has it"


def test_sysctls(docker: Docker) -> None:
    options = ["--sysctl", "net.ipv4.ip_default_ttl=77", "--sysctl", "kernel.msgmax=12345"]
    assert docker.lines(*options, "--", "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax") == [
        "77",
        "12345",
    ]


def test_shared_memory(docker: Docker) -> None:
    assert docker.lines("--shm-size", "5m", "--", "df -k /dev/shm | tail -n 1 | awk '{print $2}'") == ["5120"]
    assert docker.lines("--ipc=none", "--", "grep -c /dev/shm /proc/mounts || true") == ["0"]


def test_limits_of_resources(docker: Docker) -> None:
    options = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "stack=1048576"]
    assert docker.lines(*options, "--", "ulimit -S -n; ulimit -H -n; ulimit -c; ulimit -s") == [
        "100",
        "200",
        "0",
        "1024",
    ]


def test_a_limit_that_can_not_be_given_is_named(docker: Docker) -> None:
    done = docker.run("--ulimit", "nofile=100:99999999999", "--", "true")
    assert done.code != 0
    assert "rlimit" in done.err
    assert "operation not permitted" in done.err.lower()


def test_nothing_of_the_daemons_is_open(docker: Docker) -> None:
    assert docker.output("--", "sh", "-c", "sleep 9 & sleep 1; ls /proc/$!/fd").split() == ["0", "1", "2"]


def test_the_image_does_not_change(docker: Docker) -> None:
    assert docker.ok("run", "--rm", "--runtime", docker.runtime, IMAGE, "rm", "-r", "/srv") == ""
    assert docker.lines("--", "cat /srv/given") == ["from the image"]
