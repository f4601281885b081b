"""A race as data: for ``--json``, for the page's script, and as the rows of a plain table."""

from __future__ import annotations

from typing import Any

from lab.analysis.quantities import format_value
from lab.classroom.race.model import NOT_MEASURED, Lane, Race, Standing, ordinal, slowed, stopwatch, view


def data(race: Race) -> dict[str, Any]:
    """All of it. Times are seconds after the request; ``took`` is the way to a station, in words, ``ahead`` what
    a lane has still to pass, or what nobody has told of yet.
    """
    slow = slowed(race.rounds)
    return {
        "title": race.title,
        "goal": race.goal,
        "source": race.source,
        "remark": NOT_MEASURED,
        "stations": [
            {"phase": each.phase, "label": each.label, "short": each.short, "fill": each.fill, "ink": each.ink}
            for each in race.stations
        ],
        "slow": {"factor": slow.factor, "lanes": sorted(slow.names)},
        "wins": race.wins(),
        "rounds": [
            {"number": one.number, "lanes": [_lane(lane, race, one.places()) for lane in one.lanes]}
            for one in race.rounds
        ],
    }


def _lane(lane: Lane, race: Race, places: dict[str, int]) -> dict[str, Any]:
    times = {mark.phase: mark.at for mark in lane.marks}
    seen = view(lane, race.stations, lane.marks[-1].at if lane.marks else 0.0, places)
    return {
        "name": lane.name, "title": lane.title, "how": lane.how, "colour": lane.colour, "symbol": lane.symbol,
        "failed": lane.failed,
        "finish": lane.finish,
        "place": places.get(lane.name),
        "course": [
            {"phase": station.phase, "at": times[station.phase], "took": format_value(cell.seconds, "seconds", 2)}
            for station, cell in zip(race.stations, seen.cells, strict=True)
            if cell.standing is Standing.PASSED
        ],
        "ahead": [phase for phase in lane.course if phase not in times],
    }  # fmt: skip


def rows(race: Race) -> list[tuple[str, ...]]:
    """A head, then a row for each start of each round: what each way took, the whole, and the place."""
    found = [("ROUND", "LANE", "EXECUTES", *(each.short.upper() for each in race.stations), "FINISH", "PLACE")]
    for count, one in enumerate(race.rounds, 1):
        for lane in (_lane(each, race, one.places()) for each in one.lanes):
            took = {each["phase"]: each["took"] for each in lane["course"]}
            whole = "–" if lane["finish"] is None else stopwatch(lane["finish"])
            place = ordinal(lane["place"]) if lane["place"] else f"did not finish: {lane['failed']}"
            ways = (took.get(station.phase, "–") for station in race.stations)
            found.append((str(count), lane["name"], lane["how"], *ways, whole, place))
    return found
