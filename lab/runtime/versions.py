"""The versions of the runtime specification that lab-oci is tested with: said by its help, ``features``, ``spec`` and
the pages. An older bundle means what it meant in its version, as far as a later one has changed that.
"""

from __future__ import annotations

OLDEST = "1.0.0"
NEWEST = "1.3.0"
RANGE = f"{OLDEST} to {NEWEST}"


def reaches(version: str, least: str) -> bool:
    """Whether a bundle's ``version`` is ``least`` or later, by its first two numbers: 1.3.0-rc.1 means 1.3."""
    return _numbers(version) >= _numbers(least)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")[:2]]
