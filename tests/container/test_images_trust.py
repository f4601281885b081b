"""A network whose proxy opens TLS: its certificate is lent to downloads, pulls and steps, and stays nowhere."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import re
import socket
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_images_registry import Registry, published  # noqa: F401 - a fixture
from test_images_stages import Site, base, make_repository, runner, site  # noqa: F401 - fixtures
from test_images_transfer import Served, lab, serve  # noqa: F401 - a fixture
from tiny import tiny_image

from lab.backends.libkrun import origin
from lab.commands.kit import make as making
from lab.errors import CommandError, DockerfileError, ImageError, LabError, UsageError
from lab.images.debian import apt, fetching
from lab.images.debian.mmdebstrap import mmdebstrap
from lab.images.stages.run_step import StepFailed
from lab.images.store import Image, Store
from lab.images.transfer import registry, trust
from lab.images.tree import Tree

LIES = 64  # bytes that a server promises and does not send


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate that signs itself, for the loopback: what a proxy that opens TLS shows."""
    folder = tmp_path_factory.mktemp("tls")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    words += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")]
    subprocess.run(words, check=True, capture_output=True, timeout=250)
    return folder / "ca.pem"


@pytest.fixture
def server(certificate: Path, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "file.txt").write_text("downloaded\n")
    make_repository(tmp_path / "work", folder / "repo.git")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/cut.txt":
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(LIES + 4))
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with behind_tls(functools.partial(Quiet, directory=folder), certificate) as address:
        yield f"https://{address}"


@contextmanager
def behind_tls(handler: Callable[..., http.server.BaseHTTPRequestHandler], certificate: Path) -> Iterator[str]:
    """Where a server listens that shows this certificate."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        found.socket = context.wrap_socket(found.socket, server_side=True)
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{found.server_port}"
        found.shutdown()


@pytest.fixture
def secured(certificate: Path, published: Image) -> Iterator[str]:  # noqa: F811
    """The name of an image in a registry behind such a certificate."""
    with behind_tls(Registry, certificate) as address:
        yield f"{address}/team/app:1"


def test_a_download_from_behind_a_proxy(
    site: Site,  # noqa: F811
    server: str,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    with pytest.raises(DockerfileError, match="certificate is not trusted") as caught:
        site.build(f"FROM scratch\nADD {server}/file.txt /d/\n")
    assert "--ca FILE" in caught.value.hint
    monkeypatch.setenv(trust.VARIABLE, str(certificate))
    image = site.build(f"FROM scratch\nADD {server}/file.txt /d/\n")
    assert site.read(image, "/d/file.txt") == b"downloaded\n"
    with pytest.raises(DockerfileError, match="cut off"):
        site.build(f"FROM scratch\nADD {server}/cut.txt /d/\n")


def test_a_repository_from_behind_a_proxy(
    site: Site,  # noqa: F811
    server: str,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    with pytest.raises(DockerfileError, match="certificate is not trusted"):
        site.build(f"FROM scratch\nADD {server}/repo.git /d/\n")
    monkeypatch.setenv(trust.VARIABLE, str(certificate))
    image = site.build(f"FROM scratch\nADD {server}/repo.git /d/\n")
    assert site.read(image, "/d/top") == b"top\n"


SOURCES = "Types: deb\nURIs: {}\nSuites: bookworm\nComponents: main\nTrusted: yes\n"


@pytest.mark.parametrize("is_up", [True, False])
def test_why_a_program_of_debians_can_not_be_fetched(
    server: str, is_up: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt-get update ends well where nobody answers, and the download knows no more than that there is no package."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = server if is_up else f"http://127.0.0.1:{closed.getsockname()[1]}"
    (tmp_path / "apt.conf").write_text('Acquire::http::Proxy "DIRECT";\nAcquire::https::Proxy "DIRECT";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(apt, "sources_beyond", lambda _suite: SOURCES.format(address))
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    what = "a certificate is not trusted" if is_up else "a connection was refused"
    with pytest.raises(LabError, match=f"runsc could not be fetched: {what}"):
        fetching.fetch_once("runsc", "x", told=lambda _: None, known=lambda: None, keep=lambda _unpacked, _made: None)


def test_what_mmdebstrap_fetches_from_behind_a_proxy(
    server: str, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is empty: who trusts its server hears that it has no Release."""
    sources = SOURCES.format(f"{server}/debian")
    monkeypatch.setattr(apt, "settings", lambda: 'Acquire::https::Proxy "DIRECT";\n')

    def said(number: int) -> str:
        scratch = tmp_path / f"scratch-{number}"
        scratch.mkdir(mode=0o700)
        with pytest.raises(LabError) as caught:
            mmdebstrap("bookworm", scratch / "root", scratch, [], sources)
        return f"{caught.value.message}\n{caught.value.detail}"

    monkeypatch.delenv(trust.VARIABLE, raising=False)
    assert "could not be fetched: a certificate is not trusted" in said(1)
    monkeypatch.setenv(trust.VARIABLE, str(certificate))
    told = said(2)
    assert "certificate" not in told.replace(str(tmp_path), "")
    assert "404" in told


@pytest.fixture
def index(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """pip's index behind such a certificate, with one wheel; the wheel's digest."""
    name = f"{origin.PACKAGE}-{origin.VERSION}"
    page = tmp_path / "web" / "simple" / origin.PACKAGE
    page.mkdir(parents=True)
    file = page / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.dist-info/METADATA", f"Name: {origin.PACKAGE}\nVersion: {origin.VERSION}\n")
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{name}.dist-info/RECORD", "")
        for part in (origin.LIBRARY, origin.KERNEL, origin.NOTICES, *origin.LICENCES):
            archive.writestr(f"{origin.FOLDER_IN_WHEEL}/{part}", part)
    (page / "index.html").write_text(f'<a href="{file.name}">{file.name}</a>')
    for variable in ("PIP_CERT", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server}/simple")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_pip_fetches_from_behind_a_proxy(
    index: str, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "DIGEST", index)
    monkeypatch.setattr(making, "ROOT", tmp_path / "clone")
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "constraints.txt").touch()
    project = f'[project]\ndependencies = ["{origin.PACKAGE}"]\n[project.optional-dependencies]\nmeasure = []\n'
    (tmp_path / "clone" / "pyproject.toml").write_text(project)
    monkeypatch.setattr(making, "BUILDING", ())
    (tmp_path / "scratch").mkdir()
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    with pytest.raises(LabError, match="could not be fetched: a certificate is not trusted") as caught:
        origin.fetch(lambda _: None)
    assert "--ca FILE" in caught.value.hint
    with pytest.raises(CommandError):
        making._wheels(tmp_path / "wheels", tmp_path / "scratch")
    monkeypatch.setenv(trust.VARIABLE, str(certificate))
    assert origin.fetch(lambda _: None).library.path.read_text() == origin.LIBRARY
    making._wheels(tmp_path / "wheels", tmp_path / "scratch")
    assert [path.suffix for path in (tmp_path / "wheels").iterdir()] == [".whl"]


def test_the_option_stands_before_the_command_and_behind_it(
    serve: Callable[..., Served],  # noqa: F811
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    store, other = Store.open(tmp_path / "home"), Store.open(tmp_path / "other")
    image = tiny_image(store)
    name = f"{serve(certificate=certificate).address}/team/tiny:1"
    for words in (("push", "tiny", name), ("pull", name)):
        refused = lab(store, *words, code=1).stderr.decode()
        assert "certificate" in refused
        assert "--ca FILE" in refused
    lab(store, "push", "tiny", name, "--ca", certificate)
    lab(store, "push", f"--ca={certificate}", "tiny", name)
    for words in (("pull", name, "--ca", certificate), ("pull", "--ca", certificate, name)):
        lab(other, *words)
        assert other.find(name).digest == image.digest
        other.untag([name])
    lab(other, "pull", name, before=("--ca", certificate))
    assert other.find(name).digest == image.digest
    for refused in (
        lab(other, "pull", name, before=("--ca", "/nowhere"), code=2),
        lab(other, "pull", "--ca", code=2),
    ):
        assert b"--ca" in refused.stderr


def test_a_base_from_behind_a_proxy(
    site: Site,  # noqa: F811
    secured: str,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    with pytest.raises(ImageError) as caught:
        site.build(f"FROM {secured}\n")
    assert caught.value.message == f"no base image {secured}: a certificate is not trusted"
    assert caught.value.hint.count("--ca FILE") == 1
    assert "recipe" not in str(caught.value)
    assert len(caught.value.detail.splitlines()) == 1
    monkeypatch.setenv(trust.VARIABLE, str(certificate))
    assert site.read(site.build(f"FROM {secured}\n"), "/file") == b"from afar"


def go_by(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("https_proxy", proxy), ("no_proxy", "")):
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)


class WantsPassword(http.server.BaseHTTPRequestHandler):
    """A proxy that lets nobody through."""

    def do_CONNECT(self) -> None:
        self.send_error(407)

    def log_message(self, *_: object) -> None:
        pass


def test_a_pull_whose_proxy_wants_a_password_sends_nobody_to_the_registry_s_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), WantsPassword) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        go_by(f"http://127.0.0.1:{proxy.server_port}", monkeypatch)
        with pytest.raises(ImageError, match="Proxy Authentication Required") as caught:
            registry.pull("registry.invalid/team/app:1", Store.open(tmp_path / "home"))
        proxy.shutdown()
    assert "https_proxy" in caught.value.hint
    assert "login" not in caught.value.hint


def test_a_base_that_a_proxy_keeps_back(
    site: Site,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        go_by(f"http://127.0.0.1:{closed.getsockname()[1]}", monkeypatch)
    with pytest.raises(ImageError, match=r"no base image registry\.invalid/team/app:1: a proxy") as caught:
        site.build("FROM registry.invalid/team/app:1\n")
    assert "https_proxy" in caught.value.hint


def test_a_step_is_lent_it_and_the_image_has_no_trace_of_it(
    site: Site,  # noqa: F811
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(trust.VARIABLE, str(certificate))
    lines = certificate.read_text().splitlines()
    page = (Path(__file__).parents[2] / "docs/images.md").read_text()
    (row,) = re.findall(r"^\| RUN \|.*", page, re.MULTILINE)
    names = set(re.findall("`([A-Z_]+)`", row)) - {"APT_CONFIG"}
    assert names == set(trust.OF_PROGRAMS)
    told = " && ".join(f'test "${name}" = $SSL_CERT_FILE' for name in names)
    look = f"grep -q '{lines[3]}' $SSL_CERT_FILE && {told} && ! echo x >> $SSL_CERT_FILE"
    image = site.build(f"FROM corpus\nRUN {look} && grep -q $SSL_CERT_FILE $APT_CONFIG && echo done > /done\n")
    tree = Tree(site.store.lower_directories(image))
    assert tree.read("/done") == b"done\n"
    assert not [name for name in tree.names(b"dev") if b"lab" in name]
    assert not set(image.config.environment) & {*trust.OF_PROGRAMS, "APT_CONFIG"}
    monkeypatch.delenv(trust.VARIABLE)
    with pytest.raises(StepFailed):
        site.build('FROM corpus\nRUN test -n "$SSL_CERT_FILE"\n')


def test_what_holds_no_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    (tmp_path / "der").write_bytes(b"\x30\x82")
    for file in (tmp_path / "der", tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="--ca"):
            trust.use(file)
    assert trust.lent() is None
