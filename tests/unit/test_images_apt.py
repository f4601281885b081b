"""Which of the host's package archives a new Debian root gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.errors import CommandError, LabError
from lab.images.debian import apt, fetching, recipes
from lab.images.debian.apt import sources_beyond, sources_for
from lab.images.transfer import trust
from lab.model import Completed

DEB822 = """
Types: deb deb-src
# a comment
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://mirror.invalid/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://elsewhere.invalid/apt
Suites: stable
Components: main

Enabled: no
Types: deb
URIs: http://off.invalid/debian
Suites: bookworm
Components: main
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_deb822_entries_are_cut_to_what_is_needed(configuration: Path) -> None:
    (configuration / "sources.list.d" / "debian.sources").write_text(DEB822)
    found = sources_for("bookworm", configuration)
    assert "Suites: bookworm bookworm-updates\n" in found
    assert "Suites: bookworm-security\n" in found
    assert found.count("Types: deb\n") == found.count("Components: main\n") == 2
    assert " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n" in found
    assert "elsewhere" not in found
    assert "off.invalid" not in found


def test_another_release_from_the_same_archives(configuration: Path) -> None:
    """With the keys of those entries; one that wants no signature is asked for one all the same."""
    folder = configuration / "sources.list.d"
    (folder / "debian.sources").write_text(DEB822.replace("Types: deb deb-src", "Types: deb\nTrusted: yes", 1))
    found = sources_beyond("trixie", configuration)
    assert "Suites: trixie trixie-updates\n" in found
    assert "Suites: trixie-security\n" in found
    assert "bookworm" not in found
    assert "Trusted" not in found
    assert " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n" in found
    (folder / "newer.sources").write_text("Types: deb\nURIs: http://own.invalid\nSuites: trixie\nComponents: main\n")
    assert sources_beyond("trixie", configuration).count("URIs:") == 1, "the host's own come first"


def test_no_archive_of_debians_is_none(configuration: Path) -> None:
    (configuration / "sources.list").write_text("deb http://ubuntu.invalid/ubuntu noble main universe\n")
    assert sources_beyond("trixie", configuration) == ""


def test_one_line_entries(configuration: Path) -> None:
    (configuration / "sources.list").write_text(
        "# deb http://comment.invalid/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/keyrings/x.gpg] http://mirror.invalid/debian bookworm main contrib # x\n"
        "deb-src http://mirror.invalid/debian bookworm main\n"
    )
    assert sources_for("bookworm", configuration) == (
        "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm\nComponents: main\n"
        "Signed-By: /keyrings/x.gpg\n"
    )


def test_the_keys_that_entries_name() -> None:
    text = "Signed-By: /k/b.gpg /k/a.gpg\n\nSigned-By: /k/a.gpg\n\nSigned-By:\n -----BEGIN\n"
    assert [str(path) for path in apt.keyrings(text)] == ["/k/a.gpg", "/k/b.gpg"]


@pytest.mark.parametrize(
    "entry",
    [
        "deb http://archive.invalid/ubuntu jammy main\n",
        "deb http://mirror.invalid/debian trixie main\n",
        "deb http://mirror.invalid/debian-security bookworm-security main\n",
        "deb http://mirror.invalid/debian bookworm contrib\n",
        "",
    ],
)
def test_another_release_or_distribution_has_none(entry: str, configuration: Path) -> None:
    (configuration / "sources.list").write_text(entry)
    assert sources_for("bookworm", configuration) == ""


def test_only_what_reaching_an_archive_needs_is_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.model import Completed

    dump = b'APT::Get "1";\nAcquire::http::Proxy "http://proxy.invalid";\nAcquire::Check-Date "false";\n'
    monkeypatch.setattr(apt, "run", lambda *_, **__: Completed(exit_code=0, stdout=dump, stderr=b""))
    assert apt.settings() == 'Acquire::http::Proxy "http://proxy.invalid";\nAcquire::Check-Date "false";\n'


def test_leftovers_of_a_recipe_are_removed(tmp_path: Path) -> None:
    kept = ("etc/passwd", "var/lib/apt/extended_states", "var/log/apt/.keep", "usr/bin/sh")
    gone = (
        "etc/machine-id",
        "etc/resolv.conf",
        "var/lib/apt/lists/x_Packages",
        "var/log/dpkg.log",
        "tmp/x",
        "var/lib/dpkg/status-old",
    )
    for name in (*kept, *gone, "var/log/wtmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "run" / "lock").mkdir(parents=True)
    recipes.clean(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left >= set(kept[:2])
    assert not left & set(gone)
    assert (tmp_path / "var/log/wtmp").read_text() == ""
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("lent", [True, False])
def test_a_program_of_debians_is_fetched_with_the_certificate_that_is_lent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lent: bool
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nbGFi\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(trust.VARIABLE, str(file) if lent else "")
    monkeypatch.setattr(apt, "sources_beyond", lambda _suite: DEB822)
    bundles: list[str] = []

    def run(argv: list[str | Path], **_options: Any) -> Completed:
        words = [str(word) for word in argv]
        told = [word.partition("CaInfo=")[2] for word in words if "Acquire::https::CaInfo=" in word]
        bundles.extend(Path(path).read_text() for path in told)
        if "download" in words:
            raise CommandError("apt-get failed", detail="E: Failed to fetch x  403  Forbidden [IP: 192.0.2.1 443]")
        return Completed(exit_code=0, stdout=b"", stderr=b"")

    monkeypatch.setattr(fetching, "run", run)
    with pytest.raises(LabError, match="runsc could not be fetched: a server forbade it"):
        fetching.fetch_once(
            "runsc", "trixie", told=lambda _: None, known=lambda: None, keep=lambda _unpacked, _made: None
        )
    assert [bundle.endswith(file.read_text()) for bundle in bundles] == [True, True] * lent
