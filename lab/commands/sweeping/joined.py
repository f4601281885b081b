"""The hosts behind a scheduler of somebody else's: whose ``lab sweep worker`` has joined it."""

from __future__ import annotations

from lab.commands.sweeping.engine import Client
from lab.commands.sweeping.plan import Host
from lab.commands.sweeping.wire import NAME
from lab.commands.sweeping.worker import Keys, resource_of
from lab.errors import LabError

REACH_SECONDS = 20.0


def hosts_of(scheduler: str, keys: Keys) -> tuple[Host, ...]:
    """Raises LabError where the scheduler can't be reached, or has none."""
    try:
        with Client(scheduler, security=keys.security(), timeout=REACH_SECONDS) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
    except OSError as error:
        raise LabError(
            f"{scheduler} can't be reached: {error}", hint="are the keys its own, and is it up?"
        ) from error
    prefix = resource_of("")
    names = {name.removeprefix(prefix) for each in workers for name in each["resources"] if name.startswith(prefix)}
    if found := tuple(Host(name=name) for name in sorted(names) if NAME.fullmatch(name)):
        return found
    raise LabError(f"no lab sweep worker has joined {scheduler}", hint="lab sweep worker --scheduler …")
