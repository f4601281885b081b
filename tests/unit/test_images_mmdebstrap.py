"""How mmdebstrap is called on a Debian of the suite, and on a host whose apt knows no Debian."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ImageError
from lab.images.debian import apt, mmdebstrap
from lab.images.transfer import trust
from lab.model import Completed

SOURCES = "Types: deb\nURIs: http://archive.example/debian\nSuites: bookworm\nComponents: main\n"


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Every command line that would have been run."""
    calls: list[list[str]] = []

    def run(argv: list[str | Path], **_options: Any) -> Completed:
        calls.append([str(word) for word in argv])
        return Completed(exit_code=0, stdout=b"", stderr=b"")

    monkeypatch.setattr(mmdebstrap, "run", run)
    monkeypatch.setattr(apt, "settings", lambda: 'Acquire::http::Proxy "http://proxy.example:3128/";\n')
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(mmdebstrap, "KEYRING", keyring)
    return calls


def test_a_debian_uses_its_own_archives(
    called: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(apt, "sources_for", lambda _suite: SOURCES)
    assert mmdebstrap.mmdebstrap("bookworm", tmp_path / "root", tmp_path, ["--include=udev"]) == SOURCES
    assert called[0][-3:] == ["bookworm", str(tmp_path / "root"), str(tmp_path / "host.sources")]
    assert (tmp_path / "host.sources").read_text() == SOURCES
    assert "--include=udev" in called[0]


def test_another_host_uses_the_default_mirror_through_its_own_proxy(
    called: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(apt, "sources_for", lambda _suite: "")
    assert mmdebstrap.mmdebstrap("bookworm", tmp_path / "root", tmp_path, []) == ""
    assert called[0][-2:] == ["bookworm", str(tmp_path / "root")]
    assert f"--aptopt={tmp_path / '90host'}" in called[0]


def test_without_debians_keys_nothing_is_installed(
    called: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(apt, "sources_for", lambda _suite: "")
    (tmp_path / "keyring.gpg").unlink()
    with pytest.raises(ImageError, match="knows no Debian bookworm") as caught:
        mmdebstrap.mmdebstrap("bookworm", tmp_path / "root", tmp_path, [])
    assert "debian-archive-keyring" in caught.value.hint
    assert called == []


def test_a_certificate_that_is_lent_is_apts_in_the_making(
    called: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(apt, "sources_for", lambda _suite: SOURCES)
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    mmdebstrap.mmdebstrap("bookworm", tmp_path / "root", tmp_path, [])
    assert not [word for word in called[0] if "CaInfo" in word]
    lent = tmp_path / "ca.pem"
    lent.write_text("-----BEGIN CERTIFICATE-----\nbGFi\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv(trust.VARIABLE, str(lent))
    mmdebstrap.mmdebstrap("bookworm", tmp_path / "root", tmp_path, [])
    (word,) = [word for word in called[1] if "CaInfo" in word]
    found = re.fullmatch(r'--aptopt=Acquire::https::CaInfo "(.+)"', word)
    assert found
    assert Path(found[1]).is_relative_to(tmp_path)
    assert Path(found[1]).read_text().endswith(lent.read_text())
    assert called[1].index(word) < called[1].index("bookworm"), "it is an option"
