"""What a package with an environment of Python's says of those whose bits are in it: names, versions, licences.

Read from what each distribution says of itself (the core metadata specification, METADATA in its dist-info folder).
lab's own Debian package is made of one: debian/rules.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from textwrap import fill

OWN = "lab-boundaries"
LONGEST_LICENCE = 60
"""Some distributions have their licence's whole text where its name belongs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """``texts`` are the licences' files and ``libraries`` those that came beside the modules, both relative to the
    folder of all packages.
    """

    name: str
    version: str
    licence: str
    texts: tuple[str, ...]
    libraries: tuple[str, ...]


def distributions(packages: Path) -> Iterator[Distribution]:
    """Those in the folder ``packages`` (site-packages), but lab itself, by name."""
    for folder in sorted(packages.glob("*.dist-info"), key=lambda path: path.name.lower()):
        about = HeaderParser().parsestr((folder / "METADATA").read_text("utf-8"))
        if about["Name"] == OWN:
            continue
        files = sorted(path.relative_to(packages) for path in folder.rglob("*") if path.is_file())
        beside = packages / f"{folder.name.partition('-')[0]}.libs"
        yield Distribution(
            name=about["Name"],
            version=about["Version"],
            licence=licence(about),
            texts=tuple(
                str(each) for each in files if re.match(r"(?i)(licen[cs]e|copying|notice|authors)", each.name)
            ),
            libraries=tuple(sorted(path.name for path in beside.glob("*"))),
        )


def licence(about: Message) -> str:
    """Its name, as the metadata have it in one of three places."""
    if (named := about["License-Expression"]) is not None:
        return str(named)
    named = " ".join(str(about["License"] or "").split())
    classified = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier", []) if "License ::" in each]
    if named and (len(named) <= LONGEST_LICENCE or not classified):
        return named if len(named) <= LONGEST_LICENCE else f"{named[:LONGEST_LICENCE]}…"
    return ", ".join(classified) or "see its files"


def told(packages: Path, installed: str) -> str:
    """A paragraph for each; ``installed`` is where ``packages`` will be."""
    paragraphs = []
    for each in distributions(packages):
        lines = [f"{each.name} {each.version}: {each.licence}"]
        lines += [f"    {installed}/{text}" for text in each.texts]
        if each.libraries:
            lines.append(
                fill("with " + ", ".join(each.libraries), 76, initial_indent="    ", subsequent_indent="    ")
            )
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"


if __name__ == "__main__":
    (found,) = Path(sys.argv[1]).glob("lib/python3*/site-packages")
    sys.stdout.write(told(found, f"/usr/lib/lab/{found.relative_to(sys.argv[1])}"))
