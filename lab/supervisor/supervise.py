"""THE STORY OF A DETACHED INSTANCE, as its supervisor lives it: a lab process with a site and one instance.

1. lock      nobody else supervises this instance
2. site      a session of its own; or that of a supervisor which was killed, taken over
3. launch    prepare, launch, wait until the application is executed; or adopt what still runs
4. keep      from here on the instance survives this process: ledger and launcher are told
5. record    it runs: written down, and told to the command that waits
6. serve     answer who asks, until the application ends or somebody stops it
7. release   cgroup, writable layer, network: gone, and verified
8. record    how it ended; the logs stay until ``lab rm``

Should the launcher die, the process starts over from 2, as a new supervisor would, with the same pid.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from lab.errors import ExitUnknown, LabError, LaunchError
from lab.host.clock import Timeline
from lab.host.home import runtime_root
from lab.host.identity import privilege
from lab.instance import Instance, LaunchRequest, Survivor
from lab.model import Accelerator, Phase
from lab.runtime.channel import Channel, ChannelClosed
from lab.runtime.spawner.detached import SOCKET as SPAWNER_SOCKET
from lab.supervisor import record as records
from lab.supervisor.control import SOCKET, Answer, encode_error, listen
from lab.supervisor.health import watch_health
from lab.supervisor.record import InstanceRecord, Pid, State
from lab.supervisor.server import Ended, Event, Health, Lost, Server, Stop

if TYPE_CHECKING:
    from lab.backends.site import Site

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0


def supervise(name: str, starter: Channel, *, adopting: bool, namespace: int | None = None) -> None:
    """Launch or adopt the instance ``name``, and live until it has ended. ``starter`` hears STARTED or FAILED.

    ``namespace`` is a descriptor of its network, saved by a supervisor that started over.
    """
    with records.supervising(name), ExitStack() as stack:
        record = records.stored(name)
        if record is None:
            raise LabError(f"no instance is called {name}")
        record = records.write(replace(record, supervisor=Pid.of(os.getpid())))
        with _all_or_nothing(record, stack, adopting=adopting):
            site, instance = _adopted(record, stack, namespace) if adopting else _launched(record, stack)
            server = Server(instance, listen(site.session.directory / SOCKET), site.network.socket)
            record = _keep(record, site, instance)
            server.start()
            _tell(starter, adopting)
        site.launcher.when_gone = lambda: server.events.put(Lost())
        signal.signal(signal.SIGTERM, lambda *_: server.events.put(Stop(grace_seconds=GRACE_SECONDS)))
        watch_health(instance, server)
        while isinstance(event := server.next_event(), Health):
            record = _write(replace(record, health=event.state))
        if isinstance(event, Lost):
            _start_over(name, site)
        record, left = _end(record, instance, event, stack)
        server.finish(record.exit_code, left)
        if record.remove:
            records.remove(record)
    _leave_libvirt()
    os._exit(0)  # at once: threads of libvirt's may still be writing about a machine that was killed


@contextmanager
def _all_or_nothing(record: InstanceRecord, stack: ExitStack, *, adopting: bool) -> Iterator[None]:
    """What never ran leaves no record: whoever asked for it is told why. What runs already, or ran once, is left."""
    try:
        yield
    except BaseException:
        if adopting:
            stack.pop_all()
        elif not record.again:
            records.remove(record)
        raise


def _write(record: InstanceRecord) -> InstanceRecord:
    """As `records.write`; a full disk is no reason to end what runs, or to leave behind what has ended."""
    try:
        return records.write(record)
    except OSError as error:
        log.error("lab: the record of %s can't be written: %s", record.name, error)
        return record


def _launched(record: InstanceRecord, stack: ExitStack) -> tuple[Site, Instance]:
    from lab.backends.site import Site

    site = stack.enter_context(Site.open(detached=record.name))
    backend = site.backend(record.backend)
    request = _request(record)
    backend.prepare(request.image, request.knobs)
    instance = stack.enter_context(backend.launch(request))
    instance.wait_executed()
    return site, instance


def _adopted(record: InstanceRecord, stack: ExitStack, namespace: int | None) -> tuple[Site, Instance]:
    """Nothing is undone on a failure: the instance is left as it was found, for the next to try."""
    from lab.backends.site import Site

    site = Site.adopt(runtime_root() / record.session, namespace=namespace)
    _survive(record, site, record.first)  # before anything else can fail
    timeline = Timeline()
    for phase, at in record.stamps.items():
        timeline.mark(Phase(phase), at)
    survivor = Survivor(
        pid=record.first.number,
        address=IPv4Address(record.address),
        accelerator=Accelerator(record.accelerator),
        timeline=timeline,
    )
    instance = site.backend(record.backend).adopt(_request(record), survivor)
    stack.enter_context(site)
    return site, stack.enter_context(instance)


def _request(record: InstanceRecord) -> LaunchRequest:
    from lab.supervisor.source import decode_image

    return LaunchRequest(
        name=record.name,
        image=decode_image(record.source),
        process=record.process,
        limits=record.limits,
        log_directory=records.folder(record.name),
        published=record.published or record.wanted,
        volumes=record.volumes,
        detached=True,
        knobs=record.knobs,
    )


def _keep(record: InstanceRecord, site: Site, instance: Instance) -> InstanceRecord:
    """Steps 4 and 5. The record comes last: it promises that the instance survives."""
    first = record.first if record.first.number else _first(instance)
    if first is not None:
        _survive(record, site, first)
    return records.write(
        replace(
            record,
            state=State.RUNNING,
            session=site.session.id,
            first=first or record.first,
            started=record.started or time.time(),
            address=str(instance.address),
            published=instance.published,
            accelerator=instance.accelerator,
            stamps={str(phase): at for phase, at in instance.timeline.stamps().items()},
        )
    )


def _survive(record: InstanceRecord, site: Site, first: Pid) -> None:
    """Tell ledger and launcher. A launcher that outlived a supervisor has been told by that one."""
    site.session.keep_for(first.number)
    if site.reconnected:
        return
    held = [] if site.network_lost else [site.network.namespace.descriptor]
    exit_path = records.folder(record.name) / records.EXIT
    try:
        pidfd = os.pidfd_open(first.number)
    except ProcessLookupError:  # it has ended meanwhile, and this process will hear of it
        return
    try:
        site.launcher.keep(
            record.name,
            pidfd,
            held,
            locks=site.store.used(),
            socket_path=site.session.directory / SPAWNER_SOCKET,
            exit_path=exit_path,
        )
    finally:
        os.close(pidfd)


def _first(instance: Instance) -> Pid | None:
    """The oldest process of its cgroup: its init or its VMM. None when it has ended already."""
    processes = [Pid.of(number) for number in instance.cgroup.processes()]
    living = [process for process in processes if process.started]
    return min(living, key=lambda process: (process.started, process.number), default=None)


def _tell(starter: Channel, adopting: bool) -> None:
    """Who started an instance and is gone before it could be told wants none; a survivor stays in any case."""
    try:
        starter.send(Answer.STARTED)
    except ChannelClosed:
        if not adopting:
            raise LabError("the command that started this instance was killed") from None
    finally:
        starter.close()


def _end(
    record: InstanceRecord, instance: Instance, event: Event, stack: ExitStack
) -> tuple[InstanceRecord, LabError | None]:
    """Steps 7 and 8, and what could not be released. The exit code is written down first: what follows can't lose it
    any more.
    """
    code, error, failure = None, "", None
    if isinstance(event, Ended):
        code, error = event.code, event.error
        record = _write(replace(record, exit_code=code))
    try:
        instance.stop(event.grace_seconds if isinstance(event, Stop) else 0.0)
        with suppress(ExitUnknown, LaunchError):
            code = instance.wait(0.0) if code is None else code
        stack.close()
    except LabError as left:
        log.error("lab: %s: %s", left.message, left.detail)
        error, failure = error or left.message, left
    return _write(replace(record, state=State.EXITED, exit_code=code, error=error, ended=time.time())), failure


def _leave_libvirt() -> None:
    """What its driver wrote ends with this program, however that ends."""
    if "lab.hypervisor.domains.connection" in sys.modules:
        from lab.hypervisor.domains.connection import leave_driver

        leave_driver()


def _start_over(name: str, site: Site) -> None:
    """The launcher has died, and this process has lost the means to start commands beside the application. A
    program that is executed keeps its pid, and so its session; of its descriptors it keeps the network's.
    """
    namespace = os.dup(site.network.namespace.descriptor)
    os.set_inheritable(namespace, True)
    log.error("lab: the launcher of %s has died; its supervisor starts over", name)
    _leave_libvirt()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "lab.supervisor", "adopt", name, "-1", str(namespace)])


def _become_root(name: str, *, adopting: bool) -> None:
    """An ordinary user's supervisor lives in the user namespace of its instance, at first in a new one.

    Raises LabError.
    """
    if privilege.granted(privilege.Need.CONTAIN):
        return
    from lab.host import entering

    record = records.read(name) if adopting else None
    if record is not None and record.runs:
        entering.join(record.first.number)
    else:
        entering.enter()


def main(arguments: list[str]) -> int:
    """``python -m lab.supervisor launch|adopt NAME CHANNEL [NAMESPACE]``, as `lab.supervisor.client` starts it."""
    verb, name, descriptor = arguments[:3]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if int(descriptor) >= 0:
        starter = Channel.inherited(int(descriptor))
        os.set_inheritable(int(descriptor), False)
    else:
        starter, nobody = Channel.pair()
        nobody.close()
    namespace = int(arguments[3]) if len(arguments) > 3 else None
    try:
        _become_root(name, adopting=verb == "adopt")
        supervise(name, starter, adopting=verb == "adopt", namespace=namespace)
    except (LabError, OSError) as error:
        failure = error if isinstance(error, LabError) else LabError(str(error))
        log.error("lab: %s: %s", failure, failure.detail)
        with suppress(ChannelClosed, OSError):
            starter.send(Answer.FAILED, error=encode_error(failure))
        return failure.exit_code
    return 0
