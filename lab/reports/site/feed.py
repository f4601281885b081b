"""The changes as an Atom feed (RFC 4287)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID
from xml.etree import ElementTree as ET

from lab.analysis.history.lines import Event
from lab.reports.site.content import Site, day, event_file, shown
from lab.reports.site.words import coincidences_told, event_title, told

NAMESPACE = "http://www.w3.org/2005/Atom"
MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How an event is known to those who read the feed: ``id`` stays when it is found a run earlier or later;
    ``first`` and ``updated`` are times of publishing, in seconds since 1970.
    """

    id: UUID
    first: float
    updated: float


def feed(site: Site, identity: UUID, seen: Mapping[str, Seen], began: float, url: str = "") -> bytes:
    """The newest `MOST` changes, each with what else changed there.

    ``url`` is where the site is read, ending in a slash; without it links are relative (RFC 4287, section 4.2.7.1,
    allows a reference), and readers resolve them against where they found the feed. ``began``: when the site was
    published first.
    """
    ET.register_namespace("", NAMESPACE)
    root = ET.Element(f"{{{NAMESPACE}}}feed")
    entries = sorted(site.events, key=lambda each: seen[each.id].updated, reverse=True)[:MOST]
    _add(root, "title", f"{site.title}: what changed")
    _add(root, "id", identity.urn)
    _add(root, "updated", _time(max((seen[each.id].updated for each in entries), default=began)))
    _add(_add(root, "author"), "name", "lab publish")
    _add(root, "link", rel="alternate", type="text/html", href=f"{url}index.html")
    if url:
        _add(root, "link", rel="self", type="application/atom+xml", href=f"{url}feed.xml")
    for event in entries:
        _entry(_add(root, "entry"), site, event, seen[event.id], url)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _entry(entry: ET.Element, site: Site, event: Event, seen: Seen, url: str) -> None:
    _add(entry, "title", event_title(event))
    _add(entry, "id", seen.id.urn)
    _add(entry, "published", _time(seen.first))
    _add(entry, "updated", _time(seen.updated))
    _add(entry, "link", rel="alternate", type="text/html", href=f"{url}{event_file(event)}")
    before, after = site.runs[event.before], site.runs[event.after]
    lines = [
        f"From {shown(before.name)} to {shown(after.name)}, {day(after.started)}.",
        *(told(line, change) for line, change in event.changes),
        coincidences_told(event),
    ]
    _add(entry, "content", "\n".join(lines), type="text")


def _add(parent: ET.Element, name: str, text: str = "", **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, f"{{{NAMESPACE}}}{name}", attributes)
    if text:
        element.text = text
    return element


def _time(seconds: float) -> str:
    """RFC 3339, UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
