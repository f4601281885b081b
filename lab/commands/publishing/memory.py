"""What was read of each run, kept between two publishings, so that only new runs are read: a SQLite file in the
site's folder.

It holds what the site itself shows, and nothing more, since it may be copied with the site.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from uuid import UUID, uuid4

from lab import __version__
from lab.analysis.history.facts import About
from lab.analysis.history.points import Point
from lab.errors import ResultsError
from lab.reports.site.feed import Seen
from lab.results.store import PARQUET, PROGRESS, RUN, SAMPLES

SCHEMA = f"2/{__version__}"
"""Another one, and all is read again."""

TABLES = """
CREATE TABLE IF NOT EXISTS run (name TEXT PRIMARY KEY, print TEXT, about TEXT, points TEXT);
CREATE TABLE IF NOT EXISTS place (line TEXT PRIMARY KEY, print TEXT, places TEXT);
CREATE TABLE IF NOT EXISTS event (
    id TEXT PRIMARY KEY, uuid TEXT, scenario TEXT, host TEXT, started REAL, first REAL, updated REAL, print TEXT
);
CREATE TABLE IF NOT EXISTS page (file TEXT PRIMARY KEY, print TEXT);
CREATE TABLE IF NOT EXISTS site (key TEXT PRIMARY KEY, value TEXT);
"""


class Memory:
    """Of one site. What is put is kept once the ``with`` of `opened` ends well."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._looked_up: set[str] = set()

    def recall(self, name: str, fingerprint: str) -> tuple[About, list[Point]] | None:
        """What was read of a run, if its files are still those."""
        found = self._sql.execute(
            "SELECT about, points FROM run WHERE name = ? AND print = ?", (_key(name), fingerprint)
        ).fetchone()
        if found is None:
            return None
        return About(**json.loads(found[0])), [Point(*each) for each in json.loads(found[1])]

    def keep(self, name: str, fingerprint: str, about: About, points: list[Point]) -> None:
        texts = json.dumps(asdict(about)), json.dumps(points)
        self._sql.execute("REPLACE INTO run VALUES (?, ?, ?, ?)", (_key(name), fingerprint, *texts))

    def save(self) -> None:
        """What was read so far stays, even if this publishing does not end."""
        self._sql.commit()

    def forget_all_but(self, names: set[str], files: set[str]) -> None:
        """Nothing is kept of runs and pages that are gone, nor of lines as they were."""
        runs = {_key(name) for name in names}
        tables = (("run", "name", runs), ("page", "file", files), ("place", "line", self._looked_up))
        for table, column, kept in tables:
            known = self._sql.execute(f"SELECT {column} FROM {table}").fetchall()
            gone = [row for row in known if row[0] not in kept]
            self._sql.executemany(f"DELETE FROM {table} WHERE {column} = ?", gone)

    def places(self, line: str, fingerprint: str) -> tuple[int, ...] | None:
        """Where a line of exactly these values was found to change."""
        self._looked_up.add(line)
        found = self._sql.execute(
            "SELECT places FROM place WHERE line = ? AND print = ?", (line, fingerprint)
        ).fetchone()
        return None if found is None else tuple(json.loads(found[0]))

    def keep_places(self, line: str, fingerprint: str, places: tuple[int, ...]) -> None:
        self._sql.execute("REPLACE INTO place VALUES (?, ?, ?)", (line, fingerprint, json.dumps(places)))

    def noted(self, file: str) -> str:
        """What a page was made of; "" of one that was never made."""
        found = self._sql.execute("SELECT print FROM page WHERE file = ?", (file,)).fetchone()
        return "" if found is None else str(found[0])

    def note(self, file: str, fingerprint: str) -> None:
        self._sql.execute("REPLACE INTO page VALUES (?, ?)", (file, fingerprint))

    def identity(self, now: float) -> tuple[UUID, float]:
        """The site's own id, and when it was published first."""
        values = {"id": str(uuid4()), "began": repr(now)}
        self._sql.executemany("INSERT OR IGNORE INTO site VALUES (?, ?)", values.items())
        known = dict(self._sql.execute("SELECT key, value FROM site").fetchall())
        return UUID(known["id"]), float(known["began"])

    def events(self) -> Mapping[str, tuple[str, str, float, Seen, str]]:
        """By id: scenario, host, when the first run after it began, how the feed knows it, what was said of it."""
        rows = self._sql.execute("SELECT id, scenario, host, started, uuid, first, updated, print FROM event")
        return {
            row[0]: (row[1], row[2], row[3], Seen(id=UUID(row[4]), first=row[5], updated=row[6]), row[7])
            for row in rows.fetchall()
        }

    def keep_events(self, events: Mapping[str, tuple[str, str, float, Seen, str]]) -> None:
        """These, and no others."""
        self._sql.execute("DELETE FROM event")
        self._sql.executemany(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (key, str(seen.id), scenario, host, started, seen.first, seen.updated, said)
                for key, (scenario, host, started, seen, said) in events.items()
            ],
        )


@contextmanager
def opened(path: Path) -> Iterator[Memory]:
    """Raises ResultsError when the file can't be used; one that is damaged is begun anew by its user's hand."""
    try:
        connection = sqlite3.connect(path)
        try:
            known = connection.execute("PRAGMA user_version").fetchone()[0]
            connection.executescript(TABLES)
            told = dict(connection.execute("SELECT key, value FROM site").fetchall())
            if known == 0 or told.get("schema") != SCHEMA:
                for table in ("run", "page", "place"):
                    connection.execute(f"DELETE FROM {table}")
                connection.execute("REPLACE INTO site VALUES ('schema', ?)", (SCHEMA,))
                connection.execute("PRAGMA user_version = 1")
            with connection:
                yield Memory(connection)
        finally:
            connection.close()
    except (sqlite3.Error, json.JSONDecodeError, TypeError) as error:
        raise ResultsError(
            f"{path} can't be used: {error}", hint=f"rm {path}: all runs are then read again"
        ) from error


def fingerprint(run: Path, everything: bool) -> str:
    """Changes whenever the run's files do."""
    told = [str(everything)]
    for name in (RUN, SAMPLES, PROGRESS, PARQUET):
        try:
            found = (run / name).stat()
            told.append(f"{found.st_size}/{found.st_mtime_ns}")
        except OSError:
            told.append("-")
    return " ".join(told)


def _key(name: str) -> str:
    """A folder's name as SQLite takes it, which need not be UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()
