"""What a site says of its changes, in words: on its page, on a change's own page, in the feed."""

from __future__ import annotations

from collections import Counter

from lab.analysis.history.facts import plain
from lab.analysis.history.lines import Change, Coincidence, Event, Line
from lab.analysis.quantities import format_ratio, format_ratios, format_value, some

NO_COINCIDENCE = "Nothing else that is recorded of host, versions or image changed within two runs of it."
MOST_COINCIDENCES = 12


def event_title(event: Event) -> str:
    return f"{event.scenario} on host {event.host}: {counted(event)}"


def counted(event: Event) -> str:
    """``2 worse, 1 better``, and the one line that changed if it is but one."""
    if len(event.changes) == 1:
        line, change = event.changes[0]
        return f"{plain(line.arm)}, {plain(line.title)}: {change.direction}{_by(change)}"
    counts = Counter(change.direction for _, change in event.changes)
    told = ", ".join(f"{counts[each]} {each}" for each in ("worse", "better", "different") if counts[each])
    titles = list(dict.fromkeys(plain(line.title) for line, _ in event.changes))
    arms = list(dict.fromkeys(plain(line.arm) for line, _ in event.changes))
    if len(titles) == 1:
        return f"{titles[0]}: {told} ({some(arms)})"
    return f"{arms[0]}: {told} ({some(titles)})" if len(arms) == 1 else told


def told(line: Line, change: Change) -> str:
    """One change of one line with both medians, and the ratio with its interval."""
    before, after = (format_value(each, line.unit) for each in (change.before, change.after))
    interval = format_ratios(change.low, change.high)
    sure = f"{_by(change)} ({interval})" if interval else _by(change)
    return f"{plain(line.arm)}, {plain(line.title)}: {change.direction}, {before} → {after}{sure}"


def _by(change: Change) -> str:
    return f", {format_ratio(change.ratio)}" if change.ratio == change.ratio else ""


def away(runs: int) -> str:
    """How far from a change something else changed."""
    if runs == 0:
        return "at the same run"
    return f"{abs(runs)} run{'s' * (abs(runs) != 1)} {'later' if runs > 0 else 'earlier'}"


def coincidence_told(each: Coincidence) -> str:
    return f"{plain(each.name)}: {_short(each.before)} → {_short(each.after)}, {away(each.away)}"


def coincidences_told(event: Event) -> str:
    """What was recorded differently there. It is never called a cause."""
    if not event.coincidences:
        return NO_COINCIDENCE
    named = "; ".join(coincidence_told(each) for each in event.coincidences[:MOST_COINCIDENCES])
    more = len(event.coincidences) - MOST_COINCIDENCES
    rest = f"; and {more} more" if more > 0 else ""
    return f"Recorded differently there (a coincidence, not a cause): {named}{rest}."


def _short(value: str) -> str:
    """A digest is told apart by its beginning."""
    return f"{value[:19]}…" if value.startswith("sha256:") and len(value) > 24 else value
