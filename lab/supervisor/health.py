"""The image's HEALTHCHECK, for as long as the instance runs; every change is an event for the supervisor."""

from __future__ import annotations

import logging
import threading

from lab.errors import LabError
from lab.instance import Instance
from lab.supervisor import server

log = logging.getLogger(__name__)


def watch_health(instance: Instance, serving: server.Server) -> None:
    """Begin, in a thread that ends with the instance. Nothing happens where the image has no check."""
    from lab.metrics.ready.health import Health, readiness_of

    if (readiness := readiness_of(instance.request.image.config)) is None:
        return
    health = Health(instance, readiness)

    def watch() -> None:
        try:
            for state in health.states(serving.ending):
                serving.events.put(server.Health(state=state))
        except (LabError, OSError) as error:
            if not serving.ending.is_set():
                log.error("lab: the health of %s can't be told any more: %s", instance.name, error)

    threading.Thread(target=watch, name="lab-health", daemon=True).start()
