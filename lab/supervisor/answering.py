"""Whether a detached instance answers, as ``lab run -d --wait`` wants to know."""

from __future__ import annotations

from lab.errors import LabError
from lab.runtime.channel import ChannelClosed
from lab.supervisor import client
from lab.supervisor.record import InstanceRecord


def answers(record: InstanceRecord, *, checked: bool) -> bool:
    """Whether its HEALTHCHECK says healthy or, where it is not ``checked``, its first published port is served.

    Its supervisor is asked, who connects inside. From outside that can't be told: lab's proxy accepts every
    connection at once, and while a guest boots, or is slow to refuse, it stays open as a served one would.
    """
    if checked:
        return record.health == "healthy"
    if not record.published:
        return False
    try:
        return client.reaches(record, record.published[0].instance_port)
    except (LabError, ChannelClosed):  # it has just ended, which whoever waits finds out
        return False
