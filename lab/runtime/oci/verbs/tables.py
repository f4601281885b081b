"""What there is: ``state``, ``list``, ``ps``."""

from __future__ import annotations

from lab.errors import LabError, UsageError
from lab.runtime.oci import store
from lab.runtime.oci.options import FLAG, VALUE
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lab.runtime.oci.main import Call

OPTIONS = {
    "state": {},
    "list": {"format f": VALUE, "quiet q": FLAG},
    "ps": {"format f": VALUE},
}
FORMATS = ("table", "json")
COLUMNS = {"ID": "id", "PID": "pid", "STATUS": "status", "BUNDLE": "bundle", "CREATED": "created", "OWNER": "owner"}


def state(call: Call) -> int:
    """``state ID``: the specification's properties (runtime.md, "State"), and those that runc adds."""
    entry = call.entry()
    return call.say_json(described(entry, entry.read()))


def described(entry: store.Entry, found: store.State) -> dict[str, Any]:
    status = entry.status(found)
    return {
        "ociVersion": found.version,
        "id": found.id,
        "pid": 0 if status == store.STOPPED else found.pid,
        "status": status,
        "bundle": found.bundle,
        "rootfs": found.root,
        "created": found.created,
        "annotations": found.annotations,
        "owner": found.owner,
    }


def list_all(call: Call) -> int:
    """``list``: every container below ``--root``."""
    form = format_of(call)
    found = []
    for entry in store.entries(call.root):
        with suppress(LabError):  # deleted while we looked, or just being made
            found.append(described(entry, entry.read()))
    if call.given.flag("quiet"):
        return call.say("".join(f"{each['id']}\n" for each in found))
    if form == "json":
        return call.say_json(found)
    rows = [[str(each[key]) for key in COLUMNS.values()] for each in found]
    return call.say(table(list(COLUMNS), rows))


def ps(call: Call) -> int:
    """``ps ID [options of ps(1)]``: the processes of its control group, as the host numbers them."""
    from lab.host.command import run

    form = format_of(call)
    if not call.given.words:
        raise UsageError("ps takes a container id")
    identity, *options = call.given.words
    pids = store.Entry(call.root, identity).read().its_group().processes()
    if form == "json":
        return call.say_json(sorted(pids))
    lines = run(["ps", *(options or ["-ef"])], timeout_seconds=30).stdout.decode().splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise UsageError("ps shows no PID with these options", hint="add -o pid")
    at = titles.index("PID")
    kept = [line for line in lines[1:] if int(line.split()[at]) in pids]
    return call.say("".join(f"{line}\n" for line in [lines[0], *kept]))


def format_of(call: Call) -> str:
    form = call.given.value("format", "table")
    if form not in FORMATS:
        raise UsageError(f"--format {form}: not one of {', '.join(FORMATS)}")
    return form


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what they hold."""
    lines = [titles, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)
