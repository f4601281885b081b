"""arm64, on a host of another kind: by day what is written for it, by night its programs, cross-built and emulated.

No arm64 processor takes part. By night Debian's cross-compiler and QEMU's user mode are fetched and unpacked into a
folder of the test's own, and QEMU is called by its name: the kernel's binfmt_misc has no part in it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_runtime_scripts import calls_of, common

from lab.backends import registry
from lab.cli.host import doctor
from lab.errors import BackendUnavailable
from lab.host import processor
from lab.host.survey import checks
from lab.hypervisor import accelerator, emulator
from lab.hypervisor.guest.artefacts import prepare_guest
from lab.inside import build
from lab.metrics.cpu import COMPUTE_CHECKSUM, COMPUTE_ROUNDS
from lab.model import Accelerator
from lab.runtime.process import trampoline
from lab.runtime.scripts import child, script
from lab.runtime.scripts.bearer import ANSWER
from lab.runtime.seccomp import calls, compiler

ARM64, EM_AARCH64 = "aarch64", 183
PACKAGES = ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user")
HANDLERS = Path("/proc/sys/fs/binfmt_misc")


@pytest.fixture
def arm64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "machine", lambda: ARM64)
    monkeypatch.setattr(checks, "machine", lambda: ARM64)


# What is said there


@pytest.mark.usefixtures("arm64")
def test_what_shares_the_kernel_is_usable_and_what_has_its_own_is_not(tmp_path: Path) -> None:
    host = [check for check in checks.host_checks() if check.name == "host"]
    assert host[0].ok
    kinds = registry.available()
    lacks = {kind.name: doctor.judge(kind, kind.check(), kind.check()).obstacles for kind in kinds}
    assert {name for name, obstacles in lacks.items() if "machines" in obstacles} == {"microvm", "krun", "vm", "uml"}
    assert lacks["microvm"] == ("machines",), "no remedy for what would be of no use"
    names = {check.name for check in checks.host_checks()}
    assert {"mmdebstrap", "skopeo", "gcc"} <= names
    assert not {"qemu-system-x86_64", "qemu-img", "GRUB for BIOS"} & names
    for asked in (lambda: prepare_guest(tmp_path), emulator.find_qemu):
        with pytest.raises(BackendUnavailable, match="this is aarch64") as caught:
            asked()
        assert "x86-64" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    verdict = accelerator.choose_accelerator(tmp_path, b"")
    assert (verdict.accelerator, ARM64 in verdict.reason) == (Accelerator.TCG, True)


def test_here_nothing_of_that_is_an_obstacle() -> None:
    if processor.machine() not in processor.WITH_MACHINES:
        pytest.skip("needs x86-64")
    assert processor.check_machines().ok
    processor.require_machines()


def test_on_any_other_processor_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "machine", lambda: "riscv64")
    monkeypatch.setattr(checks, "machine", lambda: "riscv64")
    found = checks.processor()
    assert (found.ok, found.required_by) == (False, checks.ALL)
    assert "riscv64" in found.found


# What is written for it


def test_what_has_a_table_has_it_everywhere() -> None:
    assert set(calls.OWN) == set(processor.WITH_CALLS) == set(compiler.MACHINES) == set(trampoline.CODE)
    assert {machine: next(iter(known)) for machine, known in compiler.MACHINES.items()} == calls.OWN
    assert set(script.numbers("riscv64")) == set(script.OWN_CALLS)


def test_a_container_is_born_by_the_same_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are the machine's; names, order, arguments and data are not."""
    told = {}
    for machine in processor.WITH_CALLS:
        known = script.numbers(machine)
        monkeypatch.setattr(script, "NUMBERS", known)
        script._known.clear()  # parts that were written with other numbers
        names = {number: name for name, number in known.items()}
        written, data = calls_of(child.script_of(common(), [0, 1, 2], 1).packed(0, -1, child.CHANNEL))
        told[machine] = [(names[number], *rest) for number, *rest in written], data
    script._known.clear()
    assert told[ARM64] == told["x86_64"]
    assert [script.numbers(machine)["openat"] for machine in (ARM64, "x86_64")] == [56, 257]
    assert len(told[ARM64][0]) > 100


# What is built for it, emulated


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """Programs for arm64, made and run."""

    tools: Path  # where the packages were unpacked
    helper: Path

    def made(self, *words: str | Path, target: Path) -> Path:
        """``words`` begin with gcc and are as lab says them on a host of that kind, with warnings as errors."""
        compiler, *rest = words
        own = self.tools / "usr" / "aarch64-linux-gnu"
        places = ["-isystem", own / "include", "-B", own / "lib", "-L", own / "lib"] if own.exists() else []
        self.called(f"aarch64-linux-gnu-{compiler}", "-Werror", *places, *rest, "-o", target)
        return target

    def called(self, *words: str | Path, **more: object) -> subprocess.CompletedProcess[bytes]:
        done = self.started(*words, **more)
        assert done.returncode == 0, done.stderr.decode()
        return done

    def started(self, *words: str | Path, **more: object) -> subprocess.CompletedProcess[bytes]:
        """Called by name, the one that was unpacked or the host's."""
        return subprocess.run(words, env=self.environment, capture_output=True, timeout=250, **more)  # type: ignore[call-overload,no-any-return]

    @property
    def environment(self) -> dict[str, str]:
        libraries = ":".join(map(str, (self.tools / "usr" / "lib").glob("*-linux-gnu")))
        path = f"{self.tools / 'usr' / 'bin'}:{os.environ['PATH']}"
        return {"PATH": path, "LD_LIBRARY_PATH": libraries, "LANG": "C.UTF-8"}

    def run(self, *words: str | Path, **more: object) -> subprocess.CompletedProcess[bytes]:
        return self.started("qemu-aarch64", "-U", "LD_LIBRARY_PATH", *words, **more)

    def inside(self, *words: str | Path, **more: object) -> bytes:
        done = self.run(self.helper, *words, **more)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str], None]) -> Iterator[Emulated]:
    folder = tmp_path_factory.mktemp("arm64")
    (folder / "archives" / "partial").mkdir(parents=True)
    before = sorted(HANDLERS.glob("*"))
    settings = [f"Dir::Cache::archives={folder}/archives", "Debug::NoLocking=1", "APT::Sandbox::User=root"]
    options = [word for each in settings for word in ("-o", each)]
    words = [*options, "install", "--download-only", "--yes", "--no-install-recommends", *PACKAGES]
    get = shutil.which("apt-get")
    if not get or subprocess.run([get, *words], capture_output=True, timeout=900).returncode:
        missing(f"package lists with {', '.join(PACKAGES)}")
    tools = folder / "tools"
    tools.mkdir()
    for archive in sorted((folder / "archives").glob("*.deb")):  # unpacked, not installed: no script of theirs runs
        subprocess.run(["dpkg-deb", "--extract", archive, tools], check=True, timeout=250)
    shutil.rmtree(folder / "archives")
    found = Emulated(tools=tools, helper=folder / "inside")
    stamp = f'-DSOURCE_DIGEST="{build.digest()}"'
    found.made(*build.COMPILE, stamp, *sorted(build.SOURCES.rglob("*.c")), "-lm", target=found.helper)
    yield found
    assert sorted(HANDLERS.glob("*")) == before, "the kernel executes nothing that it did not before"


@pytest.mark.nightly
def test_the_helper_is_static_and_for_arm64(emulated: Emulated) -> None:
    head = emulated.helper.read_bytes()[:64]
    assert struct.unpack_from("<H", head, 18) == (EM_AARCH64,)
    segments = subprocess.run(["readelf", "-l", emulated.helper], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in segments
    with pytest.raises(OSError, match="Exec format error"):
        subprocess.run([emulated.helper, "version"], check=True)
    emulated.made(*emulator.COMPILE, '-DQEMU="/qemu"', "-DCHANGED=1", emulator.SOURCE, target=emulated.tools / "jail")


@pytest.mark.nightly
def test_it_computes_the_same_bits(emulated: Emulated) -> None:
    assert emulated.inside("version").decode().strip() == build.digest()
    told = json.loads(emulated.inside("compute", f"{COMPUTE_ROUNDS}"))
    assert told["checksum"] == COMPUTE_CHECKSUM


@pytest.mark.nightly
def test_it_packs_and_lists_the_same_files(emulated: Emulated, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "ä below").mkdir(parents=True)
    (folder / "large").write_bytes(bytes(range(256)) * 4097)
    (folder / "ä below" / ("long" * 40)).write_text("x")
    (folder / "link").symlink_to("ä below")
    os.link(folder / "large", folder / "linked")
    os.mkfifo(folder / "fifo", 0o600)
    words = "pack", folder, "files"
    packed = emulated.inside(*words)
    assert packed == subprocess.run([build.program(), *words], capture_output=True, check=True).stdout
    assert len(packed) > 256 * 4097
    own = subprocess.run([build.program(), "manifest", folder], capture_output=True, check=True).stdout
    assert emulated.inside("manifest", folder) == own
    assert own.count(b"\n") > 5
    (tmp_path / "again").mkdir()
    emulated.inside("unpack", tmp_path / "again", input=packed)
    assert emulated.inside("manifest", tmp_path / "again" / "files") == own


@pytest.mark.nightly
def test_it_asks_the_kernel(emulated: Emulated) -> None:
    lines = b"call getpid\ncall ioperm 0x80 1 1\nread /proc/sys/kernel/ostype\nstat /dev/null\nlist /proc/self/ns\n"
    pid, ports, system, null, spaces = map(json.loads, emulated.inside("batch", input=lines).splitlines())
    assert pid["ret"] > 1
    assert ports["name"] == "ENOSYS", "no arm64 has I/O ports: an answer, not a failure"
    assert system["text"] == "Linux\n"
    assert null["node"] == "1:3"
    assert {"mnt", "net", "pid"} <= set(spaces["names"])
    assert emulated.run(emulated.helper, "nonsense").returncode == 2
    timed = json.loads(emulated.inside("crossings"))["crossings"]
    assert {"getpid", "minor_fault", "pipe"} <= {name for name, found in timed.items() if found.get("median", 0) > 0}


@pytest.mark.nightly
def test_it_refuses_what_is_no_script(emulated: Emulated) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(60)
    births = os.memfd_create("births")
    os.truncate(births, 4)
    words = ["qemu-aarch64", "-U", "LD_LIBRARY_PATH", str(emulated.helper), "begin"]
    bearer = subprocess.Popen(words, stdin=theirs, stdout=births, env=emulated.environment)
    try:
        theirs.close()
        os.close(births)
        ours.send(b"nonsense")
        assert ANSWER.unpack(ours.recv(64)) == (errno.EBADMSG, -1)
        ours.close()
        assert bearer.wait(60) == 0
    finally:
        bearer.kill()
        bearer.wait()


@pytest.mark.nightly
def test_a_program_is_executed_by_way_of_its_own_instructions(emulated: Emulated, tmp_path: Path) -> None:
    stub = tmp_path / "stub"
    stub.write_bytes(trampoline.program(ARM64))
    stub.chmod(0o755)

    def executed(*words: str) -> subprocess.CompletedProcess[bytes]:
        return emulated.run("-E", "SAID=by the host", "-0", words[0], stub, *words[1:])

    done = executed("/bin/sh", "sh", "-c", 'echo "$SAID, $1"; exit 5', "sh", "two words")
    assert (done.returncode, done.stdout) == (5, b"by the host, two words\n")
    for words, code in (("/absent", "x"), 127), (("/etc/passwd", "x"), 126), (("/bin/sh",), 126):
        done = executed(*words)
        assert (done.returncode, done.stderr) == (code, trampoline.COMPLAINT)


@pytest.mark.nightly
def test_the_numbers_are_the_kernels(emulated: Emulated) -> None:
    source = b"#include <asm/unistd.h>\n"
    own = emulated.tools / "usr" / "aarch64-linux-gnu" / "include"
    places = ["-isystem", own] if own.exists() else []
    told = emulated.called("aarch64-linux-gnu-gcc", *places, "-E", "-dM", "-", input=source).stdout.decode()
    kernels = dict(re.findall(r"__NR_(?:3264_)?(\w+) (\d+)", told))
    known = calls.numbers(calls.OWN[ARM64])
    assert len(kernels) > 280
    assert {name: int(kernels[name]) for name in known if name in kernels} == {
        name: known[name] for name in known if name in kernels
    }
    used = set(script.numbers(ARM64)) - set(script.OWN_CALLS)
    assert used == set(known)
    assert len(set(known) & set(kernels)) > 280
