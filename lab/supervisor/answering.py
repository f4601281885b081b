"""Whether a detached instance answers, as ``lab run -d --wait`` wants to know."""

from __future__ import annotations

import socket

from lab.supervisor.record import Record

SILENCE_SECONDS = 0.2


def answers(record: Record, *, checked: bool) -> bool:
    """Whether its HEALTHCHECK says healthy or, where it is not ``checked``, its first published port is served.

    lab's own proxy accepts every connection, and closes it at once where nobody serves the port inside. So one that
    stays open for a moment, or on which something is said, is served.
    """
    if checked:
        return record.health == "healthy"
    if not record.published:
        return False
    port = record.published[0]
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    try:
        with socket.create_connection((wildcards.get(port.address, port.address), port.host_port), 1.0) as connection:
            connection.settimeout(SILENCE_SECONDS)
            return bool(connection.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False
