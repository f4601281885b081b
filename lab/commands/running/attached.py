"""``lab run`` in the foreground: a session of its own, one copy in it, and nothing that is left of either."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lab.commands.building.images import build_scenario
from lab.commands.interrupt import Interruptible
from lab.commands.output import patience
from lab.commands.running.disk import run_disk
from lab.commands.running.foreground import Waited, foreground
from lab.commands.running.wanted import GRACE_SECONDS, Wanted, prepared, require_usable
from lab.host import waits
from lab.instance import LaunchRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.backends.site import Site
    from lab.commands.console.terminal import Terminal
    from lab.instance import Instance
    from lab.model import Kernel


def run_attached(wanted: Wanted, explained: Callable[[LaunchRequest, Kernel], LaunchRequest] | None = None) -> int:
    """The exit code of what ran. ``explained`` makes a request of an image one whose start is told.

    Raises Interrupted when a signal has ended it, and then nothing is left either.
    """
    from lab.backends.site import Site

    with Interruptible() as interruptible, Site.open() as site:
        try:
            waited = Waited(site, *wanted.waited) if wanted.waited else None
            if wanted.is_disk:
                return run_disk(site, wanted, interruptible, waited)
            return _run_image(site, wanted, interruptible, waited, explained)
        finally:
            interruptible.disarm()  # closing the site is what leaves nothing behind


def _run_image(
    site: Site,
    wanted: Wanted,
    interruptible: Interruptible,
    waited: Waited | None,
    explained: Callable[[LaunchRequest, Kernel], LaunchRequest] | None,
) -> int:
    backend = site.backend(wanted.backend)
    require_usable(backend)
    backend.settle(wanted.knobs)
    backend.check_volumes(wanted.volumes)
    image, process, limits = prepared(wanted, site.store, lambda scenario: build_scenario(site, scenario))
    name = wanted.name or "run"
    logs = site.scratch / "logs" / name
    logs.mkdir(parents=True)
    request = LaunchRequest(
        name=name,
        image=image,
        process=process,
        limits=limits,
        log_directory=logs,
        published=wanted.ports,
        volumes=wanted.volumes,
        knobs=wanted.knobs,
        stdin=0 if wanted.interactive else None,
        stdout=sys.stdout.fileno(),
        stderr=sys.stderr.fileno(),
        terminal=wanted.size,
    )
    if explained:
        request = explained(request, backend.kernel)
    kept = "; what is made now is kept" if backend.keeps else ""
    with patience(f"lab: preparing {image.name} for {backend.name}{kept}"):
        backend.prepare(request.image, request.knobs)
    return foreground(
        backend, request, interruptible, waited, interactive=wanted.interactive, attend=_attend, end=_end
    )


def _attend(instance: Instance, terminal: Terminal | None) -> None:
    if terminal is not None:
        instance.wait_executed()  # until then ^C is for lab: a guest boots
        terminal.hand_over(instance.resize)


def _end(instance: Instance, number: int) -> None:
    if instance.timeline.running() is not None:  # else nobody is there to hear it: a guest boots
        instance.signal(number)
        waits.within(GRACE_SECONDS, instance.wait)
