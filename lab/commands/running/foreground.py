"""An instance in the foreground of a terminal, whatever it is: launch it, attend to it, wait, stop."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager, nullcontext
from ipaddress import ip_address
from threading import Thread
from typing import TYPE_CHECKING

from lab.commands.interrupt import Interrupted
from lab.commands.options.brought import READY_SECONDS
from lab.commands.output import say
from lab.errors import LabError
from lab.host import waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.backends.site import Site
    from lab.commands.console.terminal import Terminal
    from lab.commands.interrupt import Interruptible
    from lab.instance import Backend, Instance, LaunchRequest
    from lab.model import Readiness

NOT_EXECUTED = (126, 127)  # as a shell says of a program that is none, or is not there
SSH_PORT = 22


def foreground(
    backend: Backend,
    request: LaunchRequest,
    interruptible: Interruptible,
    waited: Waited | None,
    *,
    interactive: bool,
    attend: Callable[[Instance, Terminal | None], None],
    end: Callable[[Instance, int], None],
) -> int:
    """The exit code of an instance of ``request``, whose image is prepared.

    ``attend`` is called once it is launched. The first signal goes to ``end``; whoever sends a second one wants the
    instance dead now.
    """
    interruptible.hold()
    place: AbstractContextManager[Terminal | None] = nullcontext()
    if request.terminal:
        from lab.commands.console.terminal import Terminal

        place = Terminal(interactive=interactive)
    with place as terminal, backend.launch(request) as instance:
        try:
            interruptible.release()
            _announce(instance)
            if waited is not None:
                waited.begin(instance)
            attend(instance, terminal)
            code = waits.waited(instance.wait)
            if code in NOT_EXECUTED and instance.timeline.running() is None:
                instance.wait_executed()  # it raises, and says what could not be executed
        except Interrupted as interrupted:
            # from a thread: the handler may have interrupted the holder of a lock that sending needs
            kill = Thread(target=instance.signal, args=(signal.SIGKILL,), daemon=True)
            interruptible.when_impatient = lambda: None if kill.ident else kill.start()
            end(instance, interrupted.number)
            raise
        finally:
            interruptible.disarm()
    return code


class Waited:
    """What is waited for, in a thread of its own, while the output goes on."""

    def __init__(self, site: Site, readiness: Readiness, port: int | None) -> None:
        self.site, self.readiness, self.port = site, readiness, port

    def begin(self, instance: Instance) -> None:
        """Say when it is ready, or that it does not become so."""
        Thread(target=self._wait, args=(instance,), name="lab-ready", daemon=True).start()

    def _wait(self, instance: Instance) -> None:
        from lab.experiment.scenarios.scenario import asked_alone
        from lab.host.units import format_seconds
        from lab.metrics.base import Subject
        from lab.metrics.ready.readiness import wait_ready
        from lab.model import Phase

        scenario = asked_alone(instance.name, self.readiness, self.port, READY_SECONDS)
        subject = Subject.before_launch(scenario=scenario, network=self.site.network, idle_seconds=0.0)
        subject.launched(instance)
        try:
            wait_ready(subject)
        except LabError as error:
            if instance.timeline.at(Phase.STOPPING) is None:  # else it is told by its end
                say(f"lab: {error.message}")
            return
        stamps = instance.timeline.stamps()
        taken = format_seconds(stamps[Phase.RESPONDED] - stamps[Phase.REQUESTED])
        say(f"lab: {instance.name} is ready ({self.readiness.milestone}) {taken} after it was started")


def _announce(instance: Instance) -> None:
    """Say where its published ports are, and who else can reach them."""
    for port in instance.published:
        reach = "" if ip_address(port.address).is_loopback else ", for every host that reaches that address"
        place = port.host if port.instance_port == SSH_PORT else f"http://{port.host}"
        say(f"lab: {instance.name}'s port {port.instance_port} is published at {place}{reach}")
