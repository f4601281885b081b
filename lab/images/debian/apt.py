"""The host's own apt configuration, as far as a new Debian root needs it: which archives, how to reach them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.host.command import run

SOURCES = Path("/etc/apt")
FIELDS = re.compile(r"(?P<key>[A-Za-z-]+):[ \t]*(?P<value>.*)")
ONE_LINE = re.compile(r"deb\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>\S.*)")
RELEASES = ("bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable")
"""How entries call the Debian releases that lab runs on, and those to come."""

CARRIED = re.compile(r"Acquire::(https?::Proxy|Check-Valid-Until|Check-Date|Max-ValidTime)\b", re.IGNORECASE)


def sources_for(suite: str, configuration: Path = SOURCES) -> str:
    """The host's entries for a Debian suite, its updates and security, "main" alone, in deb822 style.

    Empty when the host has none: it runs another release or distribution (sources.list(5)).
    """
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    stanzas = []
    for stanza in _stanzas(configuration):
        suites = [one for one in stanza.get("Suites", "").split() if one in wanted]
        usable = "deb" in stanza.get("Types", "").split() and stanza.get("Enabled", "yes").lower() not in (
            "no",
            "false",
        )
        if suites and usable and "main" in stanza.get("Components", "").split():
            kept = {**stanza, "Types": "deb", "Suites": " ".join(suites), "Components": "main"}
            kept.pop("Enabled", None)
            stanzas.append("".join(f"{key}: {value}\n" for key, value in kept.items()))
    has_suite = any(re.search(rf"^Suites:.*\b{suite}(\s|$)", stanza, re.MULTILINE) for stanza in stanzas)
    return "\n".join(stanzas) if has_suite else ""


def sources_beyond(suite: str, configuration: Path = SOURCES) -> str:
    """Entries for a Debian suite that the host itself may not use, in the archives that it has another one from:
    the host's for ``suite``, or else that other's with its name exchanged. Signatures are asked for in any case.

    Empty when no Debian that lab knows is among the host's.
    """
    for known in (suite, *RELEASES):
        if found := sources_for(known, configuration):
            signed = [line for line in found.splitlines() if not line.startswith("Trusted:")]
            named = re.compile(rf"\b{known}(?=-updates|-security|\s|$)")
            return "".join((named.sub(suite, line) if line.startswith("Suites:") else line) + "\n" for line in signed)
    return ""


def keyrings(sources: str) -> list[Path]:
    """The key files that entries in deb822 style name: without them the same entries are worth nothing elsewhere."""
    fields = re.findall(r"^Signed-By:(.*)$", sources, re.MULTILINE)
    return sorted({Path(word) for field in fields for word in field.split() if word.startswith("/")})


def settings() -> str:
    """The host's proxies and date checks as lines of apt.conf(5), so that apt works in the image as it does here."""
    dump = run(["apt-config", "dump"], timeout_seconds=10).stdout.decode("utf-8", "replace")
    return "".join(f"{line}\n" for line in dump.splitlines() if CARRIED.match(line))


def _stanzas(configuration: Path) -> Iterator[Mapping[str, str]]:
    folder = configuration / "sources.list.d"
    for path in [configuration / "sources.list", *sorted(folder.glob("*.list"))]:
        if path.is_file():
            yield from _one_line_style(path.read_text("utf-8", "replace"))
    for path in sorted(folder.glob("*.sources")):
        for block in re.split(r"\n\s*\n", path.read_text("utf-8", "replace")):
            if stanza := _deb822(block):
                yield stanza


def _one_line_style(text: str) -> Iterator[Mapping[str, str]]:
    for line in text.splitlines():
        match = ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        options = dict(word.split("=", 1) for word in (match["options"] or "").strip(" []").split() if "=" in word)
        stanza = {
            "Types": "deb", "URIs": match["uri"], "Suites": match["suite"], "Components": match["components"],
        }  # fmt: skip
        if "signed-by" in options:
            stanza["Signed-By"] = options["signed-by"]
        if "trusted" in options:
            stanza["Trusted"] = options["trusted"]
        yield stanza


def _deb822(block: str) -> dict[str, str]:
    """One stanza; continuation lines, such as those of an embedded key, stay part of their field."""
    fields: dict[str, str] = {}
    key = ""
    for line in block.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and key:
            fields[key] += "\n" + line
        elif match := FIELDS.match(line):
            key = match["key"]
            fields[key] = match["value"].strip()
    return fields
