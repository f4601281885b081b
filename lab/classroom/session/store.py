"""A session's one file: SQLite, in a folder of its own below lab's home, the owner's alone.

Every change is on its way to the disk when a method returns (write-ahead log), so that a server that was killed goes
on where it was. Of a student there is: nickname, when they joined, guesses with their time. No address, no browser;
the token in the phone's cookie only as a hash.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from lab.errors import LabError, ResultsError, UsageError
from lab.host.home import home
from lab.host.identity import private, privilege

FILE, LOCK = "state.sqlite", "serve.lock"
VERSION = 1
TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS students (
    id INTEGER PRIMARY KEY, nickname TEXT NOT NULL, folded TEXT NOT NULL UNIQUE, token TEXT NOT NULL UNIQUE,
    joined REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS guesses (
    student INTEGER NOT NULL REFERENCES students(id) ON DELETE CASCADE, question INTEGER NOT NULL,
    vote INTEGER NOT NULL, guess REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (student, question, vote)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """Somebody in the class."""

    id: int
    nickname: str


class Store:
    """The open file of one session. Used by one process at a time, in one thread."""

    def __init__(self, folder: Path) -> None:
        """Open the file in ``folder``, made if need be. Raises ResultsError when that is impossible."""
        self.folder = folder
        with _as_owner(folder):
            self._open()

    def _open(self) -> None:
        folder = self.folder
        try:
            self._db = sqlite3.connect(folder / FILE, isolation_level=None)
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "secure_delete = ON"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(TABLES)
        except sqlite3.Error as error:
            raise ResultsError(
                f"{folder / FILE} can't be used: {error}", hint=f"lab class rm {folder.name}"
            ) from error
        (folder / FILE).chmod(private.FILE)

    def close(self) -> None:
        """Fold the log into the file and close it. Idempotent."""
        with _as_owner(self.folder):
            self._db.close()

    # --- what the session is

    def get(self, key: str, default: Any = None) -> Any:
        """What was kept below ``key``."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def put(self, **values: Any) -> None:
        """Keep ``values``, all or none of them."""
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    # --- who is in it

    def join(self, nickname: str, token: str) -> Student | None:
        """Somebody new by that name, None where somebody has it."""
        try:
            done = self._db.execute(
                "INSERT INTO students (nickname, folded, token, joined) VALUES (?, ?, ?, ?)",
                (nickname, folded(nickname), hashed(token), time.time()),
            )
        except sqlite3.IntegrityError:
            return None
        return Student(id=int(done.lastrowid or 0), nickname=nickname)

    def student(self, token: str) -> Student | None:
        """Whose token it is."""
        row = self._db.execute("SELECT id, nickname FROM students WHERE token = ?", (hashed(token),)).fetchone()
        return Student(id=row[0], nickname=row[1]) if row else None

    def students(self) -> list[Student]:
        """Everybody, in the order in which they came."""
        rows = self._db.execute("SELECT id, nickname FROM students ORDER BY id")
        return [Student(id=each[0], nickname=each[1]) for each in rows]

    def number(self) -> int:
        """How many there are."""
        return int(self._db.execute("SELECT count(*) FROM students").fetchone()[0])

    def remove(self, student: int) -> None:
        """Forget somebody, guesses included."""
        self._db.execute("DELETE FROM students WHERE id = ?", (student,))

    # --- what they guessed

    def guess(self, student: int, question: int, vote: int, guess: float) -> None:
        """Keep a guess in place of the one there was."""
        self._db.execute(
            "INSERT OR REPLACE INTO guesses VALUES (?, ?, ?, ?, ?)", (student, question, vote, guess, time.time())
        )

    def guesses(self, question: int, vote: int) -> dict[int, float]:
        """Everybody's of one vote, by student."""
        rows = self._db.execute(
            "SELECT student, guess FROM guesses WHERE question = ? AND vote = ?", (question, vote)
        )
        return {row[0]: row[1] for row in rows}

    def guesses_of(self, student: int) -> dict[tuple[int, int], float]:
        """One student's, by question and vote."""
        rows = self._db.execute("SELECT question, vote, guess FROM guesses WHERE student = ?", (student,))
        return {(row[0], row[1]): row[2] for row in rows}

    def _transaction(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db


def hashed(token: str) -> str:
    """What is kept of a token: it is 256 random bits, which no table can find."""
    return sha256(token.encode()).hexdigest()


def folded(nickname: str) -> str:
    """Two names that read alike are the same one."""
    import unicodedata

    return unicodedata.normalize("NFKC", nickname).casefold()


def root() -> Path:
    """The folder of all sessions."""
    return home() / "class"


def _as_owner(folder: Path) -> AbstractContextManager[None]:
    """What is in there, the user that serves it may have put there: root opens it as that user."""
    status = folder.stat()
    return privilege.acting_as(status.st_uid, status.st_gid)


def folder_of(name: str) -> Path:
    """A session's folder, by its name. Raises UsageError when there is no such session."""
    folder = root() / name
    if "/" in name or name.startswith(".") or not (folder / FILE).is_file():
        raise UsageError(f"there is no class {name!r}", hint="lab class ls")
    return folder


def prepare(name: str, owner: tuple[int, int] | None) -> Path:
    """A session's folder, made if need be: ``owner``'s (user, group) where it is somebody else, and theirs alone.

    Raises LabError when it can't be made.
    """
    folder = root() / name
    try:
        root().mkdir(parents=True, exist_ok=True, mode=0o711)
        folder.mkdir(mode=private.FOLDER, exist_ok=True)
        if owner is not None:
            os.chown(folder, *owner)  # what is in it is theirs already
    except OSError as error:
        raise LabError(f"{folder} can't be made: {error.strerror}", hint="LAB_HOME names another place") from error
    return folder


def every() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name, and what is known of each session (``lesson``, ``created``, ``used``, ``keep_days``, ``students``)."""
    for file in sorted(root().glob(f"*/{FILE}")):
        store = Store(file.parent)
        try:
            keys = ("created", "used", "keep_days")
            material = store.get("material", {})
            known = {key: store.get(key, 0) for key in keys} | {"lesson": material.get("lesson", "")}
            yield file.parent.name, known | {"students": store.number()}
        finally:
            store.close()


def is_served(folder: Path) -> bool:
    """Whether a server has the session open."""
    with _as_owner(folder):
        descriptor = private.lock_file(folder / LOCK)
    return private.is_locked(descriptor)


def delete(name: str) -> None:
    """Remove all that was kept of a session. Raises UsageError when there is none, LabError while it is served."""
    folder = folder_of(name)
    if is_served(folder):
        raise LabError(f"{name} is being served", hint="end lab class serve first (Ctrl-C)")
    shutil.rmtree(folder)


def expire(now: float) -> list[str]:
    """Remove the sessions whose time is over, and name them."""
    old = [name for name, known in every() if known["used"] and now > known["used"] + known["keep_days"] * 86400]
    gone = [name for name in old if not is_served(root() / name)]
    for name in gone:
        delete(name)
    return gone
