"""The two ways a container starts: by the script that C carries out, and by `lab.runtime.init`. They end in the same.

The same configuration is started both ways, with the same name, and tells what it sees of itself. `--explain` takes
the way of the interpreter; whether the other one was taken to its end, the launcher's log says.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from roots import open_folder
from running import Output, Start

from lab.errors import LaunchError
from lab.host.clock import Remark, Taken, Timeline
from lab.inside.build import program
from lab.model import Limits, Phase, Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config import capabilities
from lab.runtime.config.model import Capabilities, MountConfig, Rlimit, User
from lab.runtime.launcher.launcher import Container, Directory, Launcher, Overlay, Spec
from lab.runtime.plan import Enter

CONFIGURATIONS = 24
REPORT = r"""
pwd; umask; id; hostname; env | sort; ulimit -a
grep -vE '^(Vm|Rss|voluntary|nonvoluntary|Hugetlb|Mems|Cpus|Threads|SigQ|x86|untag|CoreD)' /proc/self/status
for kind in cgroup ipc mnt net pid uts user time; do readlink /proc/self/ns/$kind; done
cat /proc/self/cgroup /proc/self/limits /proc/self/oom_score_adj /proc/self/mountinfo /proc/1/cgroup
ls -l /proc/self/fd 2>/dev/null | grep -v total | busybox awk '{print $1, $3, $4, $9, $10, $11}'
stat -c '%N %F %a %u:%g %t:%T' / /* /dev/* /dev/pts/* /dev/shm /dev/mqueue /sys/fs/cgroup/* /.lab/* /mnt/* /run/*
grep -E '^(Cap|Sec|NoNew|Sig[BIC]|Uid|Gid|Groups)' /proc/1/status; cat /proc/1/limits
ifconfig -a | head -2; cat /proc/sys/net/ipv4/ip_unprivileged_port_start
for each in /proc/kcore /proc/keys /proc/acpi /sys/firmware; do ls $each 2>&1 | head -3
head -c 5 $each 2>/dev/null | wc -c; done
cut -d' ' -f4-7 /proc/1/stat; stat -L -c '%u:%g %F' /proc/self/fd/0 /proc/self/fd/1
"""


class Watching:
    """A listener that hears nothing: who has one is started by the interpreter."""

    def remark(self, remarks: Mapping[str, Remark]) -> None: ...
    def taken(self, taken: Taken) -> None: ...
    def marked(self, phase: Phase, at: float) -> None: ...


Tell = Callable[..., str]


@pytest.fixture
def told(launcher: Launcher) -> Tell:
    """What a container started by one of the ways has said, and its exit code."""

    def tell(spec: Spec, *, watched: bool) -> str:
        output = Output()
        source = os.open("/dev/null", os.O_RDONLY)
        timeline = Timeline(Watching() if watched else None)
        try:
            with launcher.launch(
                spec, stdin=source, stdout=output.descriptor, stderr=output.descriptor, timeline=timeline
            ) as container:
                output.handed_over()
                code = container.wait(120)
        except LaunchError as error:
            output.handed_over()
            return f"{error} {error.exit_code}"
        finally:
            os.close(source)
        return f"{output.text()}exit code {code}"

    return tell


def log_of(launcher: Launcher) -> str:
    return (launcher.scratch / "launcher.log").read_text()


def comparable(text: str) -> str:
    """Without numbers that are given to each start anew: of namespaces, mounts, devices, processes and pipes."""
    text = re.sub(r"(\w+):\[(\d+)\]", r"\1:[]", text)
    text = re.sub(r"^\d+ \d+ \d+:\d+ ", "mount ", text, flags=re.MULTILINE)
    text = re.sub(r"/proc/self/fd/\d+", "/proc/self/fd/N", text)
    text = re.sub(r"^(NStgid|NSpid|NSpgid|NSsid|Pid|PPid|Tgid|Ngid|Name):.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"/proc/\d+/fd|master:\d+|shared:\d+|RX.*|TX.*", "", text)


def drawn(seed: int, folder: Path, busybox_root: Path) -> Spec:
    """A configuration out of everything that scripts know, and its root."""
    dice = random.Random(seed)
    uid = dice.choice([0, 0, 1000])
    environment = dice.choice([{}, {"HOME": "/here"}, {"HOME": ""}, {"A": "b=c", "PATH": "/bin"}])
    granted = dice.choice([(), ("CAP_CHOWN",), capabilities.DOCKER_DEFAULT, capabilities.held()])
    process = Process(
        argv=("sh", "-c", REPORT), uid=uid, gid=dice.choice([0, 1001]), environment=environment,
        additional_gids=dice.choice([(), (7, 8)]), working_directory=dice.choice(["/", "/tmp", "/made/new"]),
    )  # fmt: skip
    mounts: list[MountConfig] = []
    (folder / "data").mkdir(exist_ok=True)
    (folder / "file").write_text("text")
    if dice.random() < 0.5:
        mounts.append(bundle.bind(folder / "data", "/mnt/data", read_only=dice.random() < 0.5))
    if dice.random() < 0.5:
        mounts.append(bundle.bind(folder / "file", "/etc/named"))
    if dice.random() < 0.5:
        options = dice.choice([("nosuid", "size=1m"), ("mode=700", "noexec"), ("ro",), ("rprivate", "strictatime")])
        mounts.append(MountConfig(destination="/run/it", type="tmpfs", source="tmpfs", options=options))
    config = bundle.container_config(
        process, Limits(memory_bytes=64 << 20, pids=64), hostname=dice.choice(["", "named"]), extra_mounts=mounts,
        network_namespace=dice.choice([None, bundle.HOST]),
    )  # fmt: skip
    ambient = granted if dice.random() < 0.3 else ()
    sets = Capabilities(
        bounding=granted, effective=granted if uid == 0 or ambient else (), permitted=granted, inheritable=ambient,
        ambient=ambient,
    )  # fmt: skip
    changed = replace(
        config.process, capabilities=sets, no_new_privileges=dice.random() < 0.5,
        oom_score_adj=dice.choice([None, 100]),
        rlimits=dice.choice([(), (Rlimit(type="RLIMIT_NOFILE", soft=100, hard=200),)]),
        user=User(
            uid=uid, gid=process.gid, additional_gids=process.additional_gids, umask=dice.choice([None, 0o77])
        ),
    )  # fmt: skip
    linux = config.linux
    if dice.random() < 0.3:
        linux = replace(linux, seccomp=None)
    if dice.random() < 0.3:
        linux = replace(linux, masked_paths=("/proc/none", *linux.masked_paths[:3]), readonly_paths=())
    if config.linux.namespaces and all(space.type != "network" for space in linux.namespaces):
        linux = replace(linux, sysctl={})
    read_only = replace(config.root, readonly=dice.random() < 0.4)
    made = replace(config, process=changed, linux=linux, root=read_only)
    root = Overlay(lower=(busybox_root,)) if dice.random() < 0.8 else Directory(path=busybox_root)
    return Spec(name=f"drawn{seed}", config=made, root=root, savable=dice.random() < 0.3)


@pytest.mark.parametrize("seed", range(CONFIGURATIONS))
def test_both_ways_end_in_the_same(
    seed: int, launcher: Launcher, told: Tell, tmp_path: Path, busybox_root: Path
) -> None:
    spec = drawn(seed, tmp_path, busybox_root)
    told(spec, watched=True)  # in a root that is not its own, mount points are left behind
    before = log_of(launcher)
    reference, scripted = told(spec, watched=True), told(spec, watched=False)
    assert "Seccomp:" in reference, reference
    assert log_of(launcher) == before or spec.config.process.cwd == "/made/new", "which a script does not make"
    assert comparable(scripted).splitlines() == comparable(reference).splitlines()


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_bare_process_takes_the_script_as_well(
    uid: int, launcher: Launcher, told: Tell, tmp_path: Path, busybox_root: Path
) -> None:
    """What others are compared with would start by the slower way otherwise, and look slower than it is."""
    (tmp_path / "file").write_text("text")
    process = Process(argv=("sh", "-c", REPORT), uid=uid, gid=uid, working_directory="/tmp")
    config = bundle.process_config(
        process, Limits(memory_bytes=64 << 20, pids=64), extra_mounts=[bundle.bind(tmp_path / "file", "/etc/named")]
    )
    spec = Spec(name=f"bare{uid}", config=config, root=Overlay(lower=(busybox_root,)), enter=Enter.CHROOT)
    before = log_of(launcher)
    reference, scripted = told(spec, watched=True), told(spec, watched=False)
    assert log_of(launcher) == before, "it failed, or there was none"
    changing = re.compile(r"^(-|mount|c|b|d|l|p|s|/dev/|/run/|/sys/|RX|TX).*|.*/pts/.*", re.MULTILINE)
    assert "Seccomp:" in reference, reference
    assert changing.sub("", comparable(scripted)).split() == changing.sub("", comparable(reference)).split()
    sleeping = bundle.process_config(Process(argv=("sleep", "100")))
    spec = Spec(name="sleeping", config=sleeping, root=Overlay(lower=(busybox_root,)), enter=Enter.CHROOT)
    with (
        open_folder() as folder,
        Launcher.start(f"bare{uid}", folder / "bare") as fresh,
        Path("/dev/null").open("r+b", 0) as null,
        fresh.launch(spec, stdin=null.fileno(), stdout=null.fileno(), stderr=null.fileno()) as container,
    ):
        assert {comm(container)} < {Path(f"/proc/{pid}/comm").read_text().strip() for pid in children(fresh.pid)}


def test_the_common_case_takes_the_script(launcher: Launcher, start: Start) -> None:
    """And the launcher has one more child from then on: the process that bore the container."""
    before = log_of(launcher)
    container, _ = start("exec sleep 100")
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in children(launcher.pid)}
    assert log_of(launcher) == before, "it failed, or there was none"
    assert len(names - {comm(container)}) == 1


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def comm(container: Container) -> str:
    return Path(f"/proc/{container.pid}/comm").read_text().strip()


@pytest.mark.parametrize(
    ("argv", "code"), [(("nothing-of-that-name",), 127), (("/tmp",), 126)], ids=["absent", "a folder"]
)
def test_a_program_that_can_not_be_executed_is_told_in_the_same_words(
    argv: tuple[str, ...], code: int, told: Tell, busybox_root: Path
) -> None:
    spec = Spec(
        name="absent", config=bundle.container_config(Process(argv=argv)), root=Overlay(lower=(busybox_root,))
    )
    reference, scripted = told(spec, watched=True), told(spec, watched=False)
    assert scripted == reference
    assert reference.endswith(f" {code}")


def test_what_a_script_does_not_foresee_is_done_or_told_by_the_reference(
    launcher: Launcher, told: Tell, tmp_path: Path, busybox_root: Path
) -> None:
    """A link where a file is to be mounted is followed within the root; one in place of /proc is refused."""
    layer, hostile_layer = tmp_path / "layer", tmp_path / "hostile"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc" / "named").symlink_to("/elsewhere/file")
    hostile_layer.mkdir()
    (hostile_layer / "proc").symlink_to("tmp")
    (tmp_path / "file").write_text("text\n")
    mount = bundle.bind(tmp_path / "file", "/etc/named")
    config = bundle.container_config(Process(argv=("cat", "/elsewhere/file")), extra_mounts=(mount,))
    plain = bundle.container_config(Process(argv=("true",)))
    for name, spec in {
        "link": Spec(name="link", config=config, root=Overlay(lower=(layer, busybox_root))),
        "proc": Spec(name="proc", config=plain, root=Overlay(lower=(hostile_layer, busybox_root))),
    }.items():
        reference, scripted = told(spec, watched=True), told(spec, watched=False)
        assert scripted == reference
        assert ("text\nexit code 0" if name == "link" else "125") in reference, reference
        assert f"the script for {name} failed" in log_of(launcher)


def test_a_string_with_a_zero_byte_is_no_shorter_one(told: Tell, busybox_root: Path) -> None:
    """To the kernel it would end there, and what follows be another variable."""
    config = bundle.container_config(Process(argv=("env",)))
    process = replace(config.process, env=("A=b\0LD_PRELOAD=/x",))
    spec = Spec(name="zero", config=replace(config, process=process), root=Overlay(lower=(busybox_root,)))
    assert told(spec, watched=False) == told(spec, watched=True)


def test_home_is_found_as_the_reference_finds_it(told: Tell, tmp_path: Path, busybox_root: Path) -> None:
    texts = [
        "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user\n",
        "a:x:1000:1:/short\nb:x:1000:1:::\nc:x:1000:1::/c",
        "",
        "x:x:01000:0::/octal\n",
        "y:x:1000:0::/with a blank:more:and more\n",
        "z:x:1000:1::/\0zero:\n",
    ]
    for number, text in enumerate(texts):
        layer = tmp_path / f"layer{number}"
        (layer / "etc").mkdir(parents=True)
        (layer / "etc" / "passwd").write_text(text)
        config = bundle.container_config(Process(argv=("sh", "-c", "echo $HOME"), uid=1000))
        spec = Spec(name="home", config=config, root=Overlay(lower=(layer, busybox_root)))
        reference, scripted = told(spec, watched=True), told(spec, watched=False)
        assert scripted == reference, text


@pytest.mark.parametrize("watched", [True, False], ids=["the interpreter", "a script"])
def test_the_callers_keys_stay_the_callers(told: Tell, busybox_root: Path, *, watched: bool) -> None:
    """A session keyring is inherited, and has a number, which shows whether it is the launcher's still, and ours."""
    words = ("keyctl", "0", "-3", "0")  # KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, make none
    config = bundle.container_config(Process(argv=("/.lab/inside", "call", *words)))
    config = replace(config, linux=replace(config.linux, seccomp=None))
    ours = json.loads(subprocess.run([program(), "call", *words], capture_output=True, check=True).stdout)["ret"]
    output = told(Spec(name="keys", config=config, root=Overlay(lower=(busybox_root,))), watched=watched)
    theirs = json.loads(output.partition("exit")[0])["ret"]
    assert theirs > 0
    assert theirs != ours


def test_what_another_was_sent_is_not_in_the_memory_that_a_child_begins_with(
    launcher: Launcher, told: Tell, busybox_root: Path
) -> None:
    """A child is a copy of the process that bears it, which keeps requests in one place."""
    secret = "x" * 20_000 + uuid.uuid4().hex
    for environment in ({"SECRET": secret}, {}):
        config = bundle.container_config(Process(argv=("true",), environment=environment))
        assert "exit code 0" in told(
            Spec(name="one", config=config, root=Overlay(lower=(busybox_root,))), watched=False
        )
    (bearer,) = children(launcher.pid)
    assert uuid.UUID(secret[-32:]).hex.encode() not in memory_of(bearer)


def memory_of(pid: str) -> bytes:
    """What it may write to."""
    found = b""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            place, access = line.split()[:2]
            if "w" in access:
                first, end = (int(each, 16) for each in place.split("-"))
                memory.seek(first)
                found += memory.read(end - first)
    assert found
    return found


def test_a_bearer_that_is_stopped_keeps_the_launcher_from_nothing(busybox_root: Path) -> None:
    """When its client has gone, the launcher ends it; it does not ask."""
    config = bundle.container_config(Process(argv=("true",)))
    null = os.open(os.devnull, os.O_RDWR)
    with open_folder() as folder, Launcher.start(uuid.uuid4().hex[:8], folder / "own") as own:
        spec = Spec(name="one", config=config, root=Overlay(lower=(busybox_root,)))
        with own.launch(spec, stdout=null, stderr=null) as container:
            container.wait(120)
        (bearer,) = map(int, children(own.pid))
        handle = os.pidfd_open(bearer)
        try:
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
            own._channel.hang_up()
            assert own._process.wait(120) is not None
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            os.close(handle)
    os.close(null)


def test_a_bearer_that_was_killed_is_replaced(busybox_root: Path) -> None:
    """By another bearer, or, where nobody has missed it before the next start asks it, by the reference and then."""
    config = bundle.container_config(Process(argv=("true",)))
    null = os.open(os.devnull, os.O_RDWR)
    bearers = []
    with open_folder() as folder, Launcher.start(uuid.uuid4().hex[:8], folder / "own") as own:
        for _ in range(3):
            spec = Spec(name="one", config=config, root=Overlay(lower=(busybox_root,)))
            with own.launch(spec, stdout=null, stderr=null) as container:
                assert container.wait(120) == 0
            bearers.append([int(each) for each in children(own.pid)])
            for bearer in bearers[-1]:
                handle = os.pidfd_open(bearer)
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                os.close(handle)
    os.close(null)
    assert all(len(each) <= 1 for each in bearers), "and no zombie"
    first, second, third = bearers
    assert first
    assert second or third
    assert first not in (second, third)


@pytest.mark.parametrize(("open_files", "code"), [(6, 2), (64, 0)], ids=["too few", "the control"])
def test_a_bearer_without_room_for_descriptors_ends(open_files: int, code: int) -> None:
    """It has read nothing then, and the launcher goes by the reference."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs, os.fdopen(os.memfd_create("births"), "wb") as births:
        births.truncate(4)
        words = ["prlimit", f"--nofile={open_files}", str(program()), "begin"]
        assert subprocess.run(words, stdin=theirs, stdout=births, timeout=250, check=False).returncode == code


@pytest.mark.parametrize("open_files", [1, 3, 4, 5, 64])
def test_a_limit_that_a_script_does_not_survive_is_told_as_the_reference_tells_it(
    open_files: int, told: Tell, busybox_root: Path
) -> None:
    """It fails after the boundary stands, and begins anew."""
    config = bundle.container_config(Process(argv=("true",)))
    limit = Rlimit(type="RLIMIT_NOFILE", soft=open_files, hard=open_files)
    config = replace(config, process=replace(config.process, rlimits=(limit,)))
    spec = Spec(name="few", config=config, root=Overlay(lower=(busybox_root,)))
    assert told(spec, watched=False) == told(spec, watched=True)
