"""The glossary: each word once, the vocabulary of the code among them, and pages that lead to it."""

from __future__ import annotations

import re
from pathlib import Path

import lab
from lab.backends.registry import available

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "glossary.md"
ROW = re.compile(r"^\| \*\*([^*]+)\*\* \| (.+) \| .*\|$", re.MULTILINE)


def words() -> dict[str, str]:
    found = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(found) == len({word for word, _ in found}), "a word has one sense"
    return dict(found)


def test_every_row_is_a_word_with_a_meaning() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    heads = [line for line in rows if line.startswith(("| word", "| ---"))]
    assert len(words()) == len(rows) - len(heads) > 50


def test_the_codes_own_vocabulary_is_in_it() -> None:
    assert lab.__doc__ is not None
    vocabulary = set(re.findall(r"^(\w+)  +\w", lab.__doc__, re.MULTILINE))
    assert {"scenario", "backend", "sample", "run", "session", "arm", "block", "factor", "quantity"} <= vocabulary
    assert vocabulary <= set(words())
    measured = {kind.name for kind in available() if not kind.reference and ":" not in kind.name}
    assert measured <= set(words())


def test_the_pages_that_readers_begin_with_lead_to_it() -> None:
    assert "(docs/glossary.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(glossary.md)" in (ROOT / "docs" / "reading-a-report.md").read_text(encoding="utf-8")
