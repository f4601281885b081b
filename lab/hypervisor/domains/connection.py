"""The only import of libvirt: a connection of lab's own, its event loop, and errors with a remedy.

QEMU's driver runs inside this process (``qemu:///embed?root=DIR``): no daemon to install or start, and the host's
own libvirt is never touched. A daemon's would be of no use: the QEMU that it starts is neither in lab's network
namespace, where its tap is, nor lab's to put into a cgroup and a jail. What libvirt learnt about the installed
QEMU, four seconds of probing, is kept under ``<home>/cache/libvirt`` and given to the next session.

Source: https://libvirt.org/drvqemu.html, "Embedded driver".
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from lab.host.closing import Closing

# Read when libvirt is loaded. Embedded, it would print to standard error what a daemon sends to a log; errors
# arrive as exceptions all the same, and QEMU's own words are in ROOT/log/qemu/.
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")

import libvirt
import libvirt_qemu

from lab.errors import BackendUnavailable, LabError
from lab.host.cgroup.systemd import keep_off_the_bus
from lab.host.session.ledger import Session
from lab.hypervisor.domains import ownrun
from lab.hypervisor.emulator import INCOMING, find_qemu, install_emulator

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# Everything below root belongs to lab: no labels, no cgroups but lab's, no log daemon. libvirt starts QEMU as root
# because it is the jail that gives all of that away (jail/jail.c), in which a namespace of libvirt's would be no use.
# No guest has huge pages: libvirt would make a folder for them where they are mounted, which no ordinary user may.
QEMU_CONF = """\
user = "root"
group = "root"
stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
dynamic_ownership = 0
remember_owner = 0
seccomp_sandbox = 1
hugetlbfs_mount = []
"""

# libvirt puts a monitor's socket at ROOT/lib/qemu/domain-ID-NAME/monitor.sock, where it shortens names of more than
# 24 bytes; unix(7) allows 107.
LONGEST_ROOT = 48

_event_loop = threading.Lock()
_event_loop_runs = False


class _Driver:
    """libvirt's embedded driver: one per process, at the root of its first opening, to the process's end.

    Its threads write there until then, and a later connection of the same process has to use that root again. So it
    is in a folder of the process's own, a session beside those of its sites: no other command takes it for a dead
    one's, and none of these sites takes it along.
    """

    def __init__(self) -> None:
        self.root: Path | None = None
        self._session: Session | None = None
        self._lock = threading.Lock()

    def enter(self) -> Path:
        """The root, made at the first use. Raises LabError."""
        with self._lock:
            if self.root is None:
                self._session = Session.open()
                self.root = self._session.directory / "libvirt"
                atexit.register(self.leave)
            return self.root

    def leave(self) -> None:
        """Remove it, as the process's last act. Idempotent."""
        with self._lock:
            if self._session is not None:
                self._session.close()


_driver = _Driver()


def leave_driver() -> None:
    """For a process that ends without the interpreter's farewell: remove what libvirt's driver wrote."""
    _driver.leave()


class Hypervisor(Closing):
    """A connection to libvirt. Thread-safe. A context manager; leaving it disconnects, it stops no machine."""

    def __init__(
        self, connection: Any, *, emulator: Path, qemu: Path, seccomp: bytes, root: Path, home: Path
    ) -> None:
        self._connection = connection
        self._home = home
        self.root = root  # where this libvirt keeps its files
        self.emulator = emulator  # what it takes for QEMU
        self.qemu = qemu
        self.seccomp = seccomp  # what that may ask of the kernel

    @classmethod
    def open(cls, *, home: Path, seccomp: bytes) -> Hypervisor:
        """Connect to a driver of our own.

        ``seccomp`` is the program that decides about each QEMU's system calls, an array of struct sock_filter.
        Raises BackendUnavailable when libvirt or QEMU is missing, LabError.
        """
        emulator = install_emulator(home)
        root = _driver.enter()
        if len(str(root)) > LONGEST_ROOT:
            raise LabError(f"{root} is too long a path for libvirt's sockets", hint="use a shorter runtime folder")
        _make_root(root, home / "cache" / "libvirt")
        uri = f"qemu:///embed?root={root}"
        keep_off_the_bus()  # there libvirt would have systemd-machined register each QEMU, and give it a group
        ownrun.make()
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # it prints to standard error, too
        _start_event_loop()
        with _on_one_processor():
            connection = _guarded(lambda: libvirt.open(uri), f"libvirt can't open {uri}", BackendUnavailable)
        return cls(connection, emulator=emulator, qemu=find_qemu(), seccomp=seccomp, root=root, home=home)

    def version(self) -> tuple[str, str]:
        """libvirt's and QEMU's versions."""
        numbers = _guarded(
            lambda: (self._connection.getLibVersion(), self._connection.getVersion()), "libvirt doesn't answer"
        )
        libvirt_version, qemu_version = (f"{n // 1_000_000}.{n // 1000 % 1000}.{n % 1000}" for n in numbers)
        return libvirt_version, qemu_version

    def start(self, xml: str) -> Domain:
        """Create a transient domain and run its vCPUs. QEMU is a child of the calling thread: it and its tap
        live in the network namespace that this thread is in. Raises LabError with libvirt's own words.
        """
        return Domain(_guarded(lambda: self._connection.createXML(xml, 0), "libvirt can't start the machine"), self)

    def find(self, name: str) -> Domain | None:
        """A running domain by name."""
        try:
            return Domain(self._connection.lookupByName(name), self)
        except libvirt.libvirtError:
            return None

    def process_of(self, name: str) -> int | None:
        """The pid of a domain's QEMU, None when it isn't known (any more)."""
        try:
            return int((self.root / "run" / "qemu" / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Disconnect and keep what libvirt learnt. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        _let_settle(connection)
        _save_cache(self.root / "cache" / "qemu" / "capabilities", self._home / "cache" / "libvirt")
        _guarded(connection.close, "libvirt can't be closed")


SETTLE_SECONDS = 3.0
SETTLE_STEP_SECONDS = 0.02


def _let_settle(connection: Any) -> None:
    """Wait for libvirt to book the end of every machine: threads of its own do that, and write below its root, which
    would be made again just after it was removed. One that still runs is not ours to wait for any longer.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    with suppress(libvirt.libvirtError):
        while connection.numOfDomains() > 0 and time.monotonic() < deadline:
            time.sleep(SETTLE_STEP_SECONDS)


SAVE_SECONDS = RESTORE_SECONDS = 120.0
GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
SWITCHED_OFF = (
    (libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_GUEST),
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN),
)
NO_SPACE = (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR)
"""QEMU pauses a machine whose disk the host has no space for (werror=enospc); other errors it tells the guest."""
LOG_LINES = 8
SAVE_STEP_SECONDS = 0.02
RESTORE_STEP_SECONDS = 0.002
"""A restored machine stands still until lab sees that its state is read: this lies within what is measured."""


class Domain:
    """A machine as libvirt knows it."""

    def __init__(self, domain: Any, hypervisor: Hypervisor) -> None:
        self._domain = domain
        self.name: str = domain.name()
        self.process = hypervisor.process_of(self.name)
        self._switched_off = threading.Event()
        self.has_no_space = False  # the host has none for what it writes to its disk, so its vCPUs are paused
        self._when_no_space: Callable[[], None] = lambda: None
        self._log = hypervisor.root / "log" / "qemu" / f"{self.name}.log"

    def read_state(self) -> None:
        """Have QEMU read the devices' state of a machine whose memory it has mapped. Raises LabError."""
        self._leave_memory_out()
        self._ask("migrate-incoming", {"uri": INCOMING[1]})

    def go_on(self) -> None:
        """Have the vCPUs of a restored machine run as soon as its state has been read. Raises LabError.

        libvirt's own order is lost when it comes before that: the machine was paused when it was saved, and QEMU
        makes it again what the stream says it was.
        """
        deadline = time.monotonic() + RESTORE_SECONDS
        while (status := self._ask("query-status")["status"]) != "running":
            if status == "paused":
                self._ask("cont")
                continue
            if time.monotonic() > deadline:
                raise LabError(f"QEMU does not restore {self.name}: its machine is {status}")
            time.sleep(RESTORE_STEP_SECONDS)

    def pause(self) -> None:
        """Stop the vCPUs; QEMU itself goes on. Raises LabError."""
        _guarded(self._domain.suspend, f"libvirt can't pause {self.name}")

    def resume(self) -> None:
        """Let stopped vCPUs run. Raises LabError."""
        _guarded(self._domain.resume, f"libvirt can't resume {self.name}")

    def write_state(self, target: int, *, memory: bool) -> None:
        """Pause the vCPUs, and write the devices' state to the file ``target`` as QEMU's migration stream, RAM among
        it unless it is a file that is kept, so that ``memory`` is false.

        On return all of it is written, the disks included, and the machine can only be destroyed. Raises LabError.

        Source: https://qemu.readthedocs.io/en/latest/interop/qemu-qmp-ref.html (getfd, migrate, query-migrate).
        """
        self.pause()
        if not memory:
            self._leave_memory_out()
        # By itself QEMU would write no more than 128 MiB/s, to spare the network of a migration.
        self._ask("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        self._ask("getfd", {"fdname": "state"}, [target])
        self._ask("migrate", {"uri": "fd:state"})
        deadline = time.monotonic() + SAVE_SECONDS
        while (found := self._ask("query-migrate"))["status"] != "completed":
            if found["status"] in ("failed", "cancelled") or time.monotonic() > deadline:
                raise LabError(f"QEMU can't save {self.name}: {found.get('error-desc', found['status'])}")
            time.sleep(SAVE_STEP_SECONDS)

    def _leave_memory_out(self) -> None:
        """Of the stream, as far as it is a file that is shared: both who writes it and who reads it have to know."""
        wanted = {"capability": "x-ignore-shared", "state": True}
        self._ask("migrate-set-capabilities", {"capabilities": [wanted]})

    def _ask(self, command: str, arguments: dict[str, Any] | None = None, files: list[int] | None = None) -> Any:
        """One command of QEMU's monitor."""
        text = json.dumps({"execute": command, "arguments": arguments or {}})
        answer = _guarded(
            lambda: libvirt_qemu.qemuMonitorCommandWithFiles(self._domain, text, files or [], 0),
            f"QEMU of {self.name} does not answer",
        )
        reply = json.loads(answer[0] if isinstance(answer, tuple) else answer)
        if "error" in reply:
            raise LabError(f"QEMU of {self.name} refuses {command}: {reply['error'].get('desc', reply['error'])}")
        return reply["return"]

    def press_power_button(self) -> None:
        """What a system takes as the wish to end; one that knows no ACPI does not notice. Fine when it has gone."""
        try:
            self._domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in GONE:
                raise LabError(f"libvirt can't press the power button of {self.name}: {error}") from error

    def watch_ending(self, when_no_space: Callable[[], None]) -> None:
        """From now on `switched_off` and `has_no_space` tell. The guest's wish is heard of before QEMU ends by it.

        ``when_no_space`` is called, from a thread of its own, once the machine waits for space that nobody may give.
        """
        self._when_no_space = when_no_space
        connection = self._domain.connect()
        _guarded(
            lambda: connection.domainEventRegisterAny(
                self._domain, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._note_event, None
            ),
            f"libvirt does not tell of {self.name}",
        )

    def switched_off(self, timeout_seconds: float) -> bool:
        """Whether its own system has switched it off; waits that long to hear of it."""
        return self._switched_off.wait(timeout_seconds)

    def _note_event(self, _connection: Any, _domain: Any, event: int, detail: int, _opaque: Any) -> None:
        """https://libvirt.org/html/libvirt-libvirt-domain.html, virDomainEventType."""
        if (event, detail) in SWITCHED_OFF:
            self._switched_off.set()
        if (event, detail) == NO_SPACE:
            self.has_no_space = True
            threading.Thread(target=self._when_no_space, name=f"full {self.name}", daemon=True).start()

    def log_tail(self) -> str:
        """The last lines of what QEMU itself has said."""
        return (
            "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if self._log.exists() else ""
        )

    def destroy(self) -> None:
        """Pull the plug; fine when it has gone by itself."""
        try:
            self._domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_DEFAULT)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in GONE:
                raise LabError(f"libvirt can't stop {self.name}: {error}") from error


def _guarded(call: Callable[[], Result], what: str, kind: type[LabError] = LabError) -> Result:
    try:
        return call()
    except libvirt.libvirtError as error:
        raise kind(f"{what}: {error}", hint="`lab doctor` checks libvirt and QEMU") from error


def _start_event_loop() -> None:
    """libvirt wants one event loop per process, registered before the first connection."""
    global _event_loop_runs
    with _event_loop:
        if _event_loop_runs:
            return
        _guarded(libvirt.virEventRegisterDefaultImpl, "libvirt has no event loop")
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _event_loop_runs = True


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            log.exception("libvirt's event loop")


@contextmanager
def _on_one_processor() -> Iterator[None]:
    """Keep the calling thread to one processor, the same at every time; the threads that it starts are free again.

    libvirt keeps what it knows of QEMU with all that the processor says of itself (cpuid), and asks QEMU anew, twice,
    where that differs. In leaf 0x1f it keeps the number of the processor that it happened to run on: on two of them
    its memory was good every other time (libvirt 9.0; Intel's manual, volume 2A, CPUID, "V2 Extended Topology").
    """
    allowed = os.sched_getaffinity(0)
    one = {min(allowed)}
    os.sched_setaffinity(0, one)
    try:
        yield
    finally:
        for task in (int(path.name) for path in Path("/proc/self/task").iterdir()):
            with suppress(OSError):  # it has ended
                if os.sched_getaffinity(task) == one:
                    os.sched_setaffinity(task, allowed)


def _make_root(root: Path, cache: Path) -> None:
    capabilities = root / "cache" / "qemu" / "capabilities"
    for directory in (root / "etc", capabilities):
        directory.mkdir(parents=True, exist_ok=True)
    (root / "etc" / "qemu.conf").write_text(QEMU_CONF)
    if cache.is_dir():
        for path in cache.glob("*.xml"):
            shutil.copy2(path, capabilities)


def _save_cache(capabilities: Path, cache: Path) -> None:
    if not capabilities.is_dir():
        return
    cache.mkdir(parents=True, exist_ok=True)
    for path in capabilities.glob("*.xml"):
        kept = cache / path.name
        if not kept.exists() or kept.read_bytes() != path.read_bytes():
            unfinished = cache / f"{path.name}.{os.getpid()}.unfinished"
            shutil.copy2(path, unfinished)
            unfinished.rename(kept)
