"""Images on their way: to and from Debian's docker-registry, as archives through skopeo and podman, as a bundle."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import preloaded
import pytest
from hostile import Entry, archive, compressed, digest
from tiny import GREETING, tiny_image

from lab.errors import ImageError
from lab.images.ociconfig import architecture
from lab.images.store import Image, Origin, Store
from lab.images.transfer import archive as archives
from lab.images.transfer import registry
from lab.images.transfer.archive import Format
from lab.images.transfer.export import export_tar, import_tar
from lab.images.transfer.registry import Access
from lab.images.upkeep.diff import compare
from lab.images.upkeep.verify import verify

LAB = preloaded.LAB
# htpasswd -bnB user secret
PASSWORDS = "user:$2b$05$lFl2NSkEm07mAGXLa6J7VOKNikpfmK5Mwrya.9hd5bwg5mb.k5k7O\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


@pytest.fixture
def image(store: Store) -> Image:
    return tiny_image(store)


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "other")


def lab(
    home: Store, *words: str | Path, stdin: bytes = b"", code: int = 0, before: Sequence[str | Path] = ()
) -> subprocess.CompletedProcess[bytes]:
    done = preloaded.run(
        [*LAB, *map(str, before), "image", *map(str, words)], input=stdin, capture_output=True, check=False,
        timeout=250, env={**os.environ, "LAB_HOME": str(home.home)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()
    return done


# -- a registry ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Served:
    """A docker-registry that runs, and where it keeps what it is given."""

    address: str
    storage: Path


CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http: {{addr: "{address}"{tls}}}
{auth}
"""


@pytest.fixture
def serve(tmp_path: Path, missing: Callable[[str], None]) -> Iterator[Callable[..., Served]]:
    """Starts registries on the loopback; ended by their pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*, passwords: str = "", certificate: Path | None = None) -> Served:
        program = shutil.which("docker-registry")
        if program is None:
            missing("docker-registry")
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        place = tmp_path / f"registry-{len(started)}"
        place.mkdir()
        (place / "passwords").write_text(passwords)
        auth = f"auth: {{htpasswd: {{realm: test, path: {place / 'passwords'}}}}}" if passwords else ""
        tls = f", tls: {{certificate: {certificate}, key: {certificate.with_name('key.pem')}}}" if certificate else ""
        config = CONFIG.format(storage=place / "storage", address=address, auth=auth, tls=tls)
        (place / "config.yml").write_text(config)
        with (place / "log").open("wb") as log:
            started.append(
                subprocess.Popen([str(program), "serve", str(place / "config.yml")], stdout=log, stderr=log)
            )
        deadline = time.monotonic() + 100
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=5)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert time.monotonic() < deadline, (place / "log").read_text()
                time.sleep(0.02)
        return Served(address=address, storage=place / "storage")

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_what_was_pushed_is_pulled_with_the_same_digest(
    serve: Callable[..., Served], store: Store, image: Image, other: Store
) -> None:
    served = serve()
    name = f"{served.address}/team/tiny:1"
    pushed = lab(store, "push", "tiny", name, "--tls-verify=false")
    assert pushed.stdout.decode() == f"{name}  {image.digest}\n"
    pulled = lab(other, "pull", name, "--tls-verify=false")
    assert image.digest in pulled.stdout.decode()
    found = other.find(name)
    assert (found.digest, found.origin, found.config) == (image.digest, Origin.REGISTRY, image.config)
    assert compare(other, found, found) == []
    by_digest = lab(other, "pull", f"{served.address}/team/tiny@{image.digest}", "--tls-verify=false")
    assert image.digest in by_digest.stdout.decode()
    # what the registry has goes on its way byte for byte, whoever reads it
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
    )
    assert digest(raw.stdout) == image.digest
    assert verify(other).problems == ()


def test_a_docker_manifest_keeps_its_digest_too(
    serve: Callable[..., Served], store: Store, image: Image, other: Store
) -> None:
    served = serve()
    with (store.home / "docker.tar").open("wb") as target:
        archives.save([image], store, target, Format.DOCKER)
    source, target_name = f"docker-archive:{store.home / 'docker.tar'}", f"{served.address}/tiny:docker"
    words = ["skopeo", "--insecure-policy", "copy", "-q", "--format=v2s2", "--dest-tls-verify=false"]
    subprocess.run([*words, source, f"docker://{target_name}"], check=True)
    pulled = registry.pull(target_name, other, access=Access(verify_tls=False))
    assert pulled.annotations["lab.registry.digest"] == pulled.digest != image.digest
    assert other.read_json(pulled.digest)["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert other.manifest(pulled).digest == store.manifest(image).digest
    again = f"{served.address}/again:1"
    assert registry.push(pulled, again, other, Access(verify_tls=False)) == pulled.digest


def test_credentials_are_what_the_registry_wants(
    serve: Callable[..., Served], store: Store, image: Image, tmp_path: Path
) -> None:
    served = serve(passwords=PASSWORDS)
    name = f"{served.address}/tiny:1"
    for words in ([], ["--creds", "user:wrong"]):
        refused = lab(store, "push", "tiny", name, "--tls-verify=false", *words, code=1).stderr.decode()
        assert refused.startswith(f"lab: the registry did not take {name}")
        assert "skopeo login" in refused
    lab(store, "push", "tiny", name, "--tls-verify=false", "--creds", "user:secret")
    auth = tmp_path / "auth.json"
    subprocess.run(
        ["skopeo", "login", "--tls-verify=false", f"--authfile={auth}", "-u", "user", "--password-stdin",
         served.address],
        input=b"secret", check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    lab(store, "pull", name, "--tls-verify=false", "--authfile", auth)
    logged = lab(store, "pull", name, "--tls-verify=false", "--creds", "user:wrong", code=1)
    assert b"Traceback" not in logged.stderr
    assert not list((store.home / "tmp").iterdir())


def test_a_registry_s_refusals_are_one_line_with_a_remedy(serve: Callable[..., Served], store: Store) -> None:
    served = serve()
    unknown = lab(store, "pull", f"{served.address}/nothing:1", "--tls-verify=false", code=1).stderr.decode()
    assert "no registry gave" in unknown
    assert "skopeo list-tags" in unknown
    assert len(unknown.splitlines()) == 2
    secure = lab(store, "pull", f"{served.address}/nothing:1", "--tls-verify=true", code=1).stderr.decode()
    assert "--tls-verify=false" in secure
    assert "2" in str(lab(store, "pull", "UPPER", code=2).returncode)


# -- archives ------------------------------------------------------------------------------------------------


def test_an_oci_archive_through_skopeo_keeps_the_digest(
    store: Store, image: Image, other: Store, tmp_path: Path
) -> None:
    mine, theirs = tmp_path / "mine.tar", tmp_path / "theirs.tar"
    lab(store, "save", "tiny", "-o", mine)
    words = ["skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests"]
    subprocess.run([*words, f"oci-archive:{mine}:tiny:latest", f"oci-archive:{theirs}:renamed:1"], check=True)
    lab(other, "load", theirs)
    assert other.find("renamed:1").digest == image.digest
    piped = lab(store, "save", "tiny").stdout
    assert piped == mine.read_bytes()
    assert lab(other, "load", stdin=piped).stdout.startswith(b"tiny:latest  " + image.digest.encode())
    assert verify(other).problems == ()


@pytest.fixture
def short() -> Iterator[Path]:
    """podman's runroot may have fifty characters."""
    with tempfile.TemporaryDirectory(prefix="lab-") as directory:
        yield Path(directory)


def podman(short: Path, *words: str | Path) -> str:
    """podman with a storage of its own."""
    place = ["--root", short / "root", "--runroot", short / "run", "--storage-driver", "vfs"]
    argv = ["podman", *map(str, place), "--cgroup-manager=cgroupfs", *map(str, words)]
    return subprocess.run(argv, capture_output=True, check=True, text=True, timeout=250).stdout


def test_podman_takes_our_archives_and_we_take_its(
    store: Store, image: Image, other: Store, tmp_path: Path, short: Path
) -> None:
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")  # nor by bootstrap: its package enables services of the host
    config = store.read_json(image.digest)["config"]["digest"]
    for form in ("oci-archive", "docker-archive"):
        lab(store, "save", "tiny", "--format", form, "-o", tmp_path / form)
        podman(short, "load", "-q", "-i", tmp_path / form)
        told = podman(short, "images", "--no-trunc", "--format", "{{.ID}} {{.Digest}}")
        assert config in told
        assert (image.digest in told) == (form == "oci-archive")
        podman(short, "save", "-q", "--format", form, "-o", tmp_path / f"{form}-back", config[7:])
        lab(other, "load", tmp_path / f"{form}-back", "--name", form)
        back = other.find(form)
        assert other.read_json(back.digest)["config"]["digest"] == config
        assert back.chain == image.chain
        podman(short, "rmi", "-f", config[7:])
    assert verify(other).problems == ()


def test_several_images_share_an_archive_and_its_layers(store: Store, image: Image, other: Store) -> None:
    store.tag("second:2", {"digest": image.digest, "size": store.blob(image.digest).stat().st_size})
    for form in Format:
        buffer = io.BytesIO()
        archives.save([image, store.find("second:2")], store, buffer, form)
        assert buffer.tell() < 2 * (2 << 20) + 65536
        buffer.seek(0)
        assert [one.name for one in archives.load(buffer, other)] == ["tiny:latest", "second:2"]


LAYER = archive([Entry(name=b"f", data=b"x")])


def layout(layer: bytes, diff_id: str, **changes: object) -> bytes:
    """An OCI archive by hand, of one layer; ``changes`` replace what the layer's descriptor says."""
    config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}).encode()
    described = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer), "size": len(layer), **changes,
    }  # fmt: skip
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"mediaType": "x", "digest": digest(config), "size": len(config)},
            "layers": [described],
        }
    ).encode()
    index = json.dumps({"manifests": [{"digest": digest(manifest), "size": len(manifest)}]}).encode()
    blobs = {digest(data): data for data in (config, manifest, layer)}
    entries = [Entry(name=f"blobs/sha256/{name[7:]}".encode(), data=data) for name, data in blobs.items() if data]
    return archive([*entries, Entry(name=b"index.json", data=index), Entry(name=b"oci-layout", data=b"{}")])


def described(document: object, **more: object) -> tuple[dict[str, object], Entry]:
    """A descriptor of a JSON document, and the archive's entry that holds it."""
    data = json.dumps(document).encode()
    entry = Entry(name=f"blobs/sha256/{digest(data)[7:]}".encode(), data=data)
    return {"digest": digest(data), "size": len(data), **more}, entry


def test_an_index_gives_this_machine_s_image(store: Store) -> None:
    def made_for(system: str, machine: str, word: str) -> tuple[dict[str, object], list[Entry]]:
        layer = archive([Entry(name=b"word", data=word.encode())])
        config, first = described(
            {"os": system, "architecture": machine, "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}
        )
        kind = "application/vnd.oci.image.layer.v1.tar"
        layers = [{"mediaType": kind, "digest": digest(layer), "size": len(layer)}]
        platform = {"os": system, "architecture": machine}
        manifest, second = described({"schemaVersion": 2, "config": config, "layers": layers}, platform=platform)
        return manifest, [first, second, Entry(name=f"blobs/sha256/{digest(layer)[7:]}".encode(), data=layer)]

    ours = made_for("linux", architecture(), "ours")
    others = [made_for("linux", "s390x", "other"), made_for("windows", architecture(), "other")]
    for manifests, found in (([*others, ours], True), (others, False)):
        index, entry = described({"schemaVersion": 2, "manifests": [manifest for manifest, _ in manifests]})
        top = json.dumps({"schemaVersion": 2, "manifests": [index]}).encode()
        parts = [part for _, each in manifests for part in each]
        data = io.BytesIO(archive([*parts, entry, Entry(name=b"index.json", data=top)]))
        if found:
            (image,) = archives.load(data, store, "many")
            assert (store.lower_directories(image)[0] / "word").read_text() == "ours"
        else:
            with pytest.raises(ImageError, match="not made for this machine"):
                archives.load(data, store, "none")


def test_an_old_docker_archive_links_to_the_layer_it_has_already(store: Store) -> None:
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(LAYER)] * 2}}).encode()

    def saved(*layers: str) -> io.BytesIO:
        listed = [{"Config": "c.json", "RepoTags": ["old:1", "old:2"], "Layers": layers}]
        entries = [
            Entry(name=b"1/layer.tar", data=LAYER),
            Entry(name=b"2/layer.tar", kind=b"2", link=b"../1/layer.tar"),
            Entry(name=b"3/layer.tar", kind=b"2", link=b"../../etc/passwd"),
            Entry(name=b"c.json", data=config),
            Entry(name=b"manifest.json", data=json.dumps(listed).encode()),
        ]
        return io.BytesIO(compressed(archive(entries), "gzip"))

    images = archives.load(saved("1/layer.tar", "2/layer.tar"), store)
    assert [image.name for image in images] == ["old:1", "old:2"]
    assert len(images[0].layers) == 2
    assert len(store.lower_directories(images[0])) == 1  # overlayfs takes no directory twice
    with pytest.raises(ImageError, match="layer 2 is missing"):
        archives.load(saved("1/layer.tar", "3/layer.tar"), store)


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (layout(LAYER, digest(b"other")), "but the image says"),
        (layout(LAYER[:600], digest(LAYER)), "it ends in the middle|but the image says"),
        (layout(compressed(LAYER, "gzip")[:-9], digest(LAYER)), "ends too early|not a readable archive"),
        (layout(compressed(LAYER, "zstd")[:-5], digest(LAYER)), "not a readable archive|but the image says"),
        (layout(LAYER, digest(LAYER), size=1), "bytes instead of 1"),
        (layout(LAYER, digest(LAYER), digest="sha256:" + "0" * 64), "is missing"),
        (layout(LAYER, digest(LAYER), digest="sha256:../../../etc/passwd"), "not a SHA-256 digest"),
        (layout(LAYER, digest(LAYER), digest=digest(b"x"), mediaType=FOREIGN), "is foreign"),
        (layout(LAYER, digest(LAYER), mediaType="application/vnd.oci.image.layer.v1.tar+encrypted"), "unknown type"),
        (layout(archive([Entry(name=b"../f")]), digest(archive([Entry(name=b"../f")]))), "leads out of it"),
        (archive([Entry(name=b"index.json", data=b"{")]), "can't be read"),
        (archive([Entry(name=b"index.json", data=b'{"manifests": []}')]), "has no manifests"),
        (archive([Entry(name=b"manifest.json", data=b'[{"Config": "../../etc/passwd"}]')]), "leads to nothing"),
        (archive([Entry(name=b"f")]), "neither an OCI archive nor a Docker archive"),
        (archive([Entry(name=b"/etc/../../index.json", data=b"{}")]), "leads out of it"),
        (b"junk" * 1000, "not a readable archive"),
    ],
    ids=range(16),
)
def test_a_bad_image_is_refused_whole(data: bytes, message: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        archives.load(io.BytesIO(data), store, "bad")
    assert "\n" not in caught.value.message
    assert store.images() == []
    assert not list(store.unpacked.iterdir())
    assert not list(store.blobs.iterdir())
    assert not list((store.home / "tmp").iterdir())


def test_an_honest_archive_by_hand_is_taken(store: Store) -> None:
    for how in ("plain", "gzip", "zstd"):
        (image,) = archives.load(io.BytesIO(layout(compressed(LAYER, how), digest(LAYER))), store, f"good:{how}")
        assert (store.lower_directories(image)[0] / "f").read_text() == "x"
    assert len(list(store.unpacked.iterdir())) == 1


# -- files ---------------------------------------------------------------------------------------------------


def test_a_tar_becomes_an_image_and_an_image_a_tar(store: Store, image: Image, tmp_path: Path) -> None:
    exported = lab(store, "export", "tiny").stdout
    lab(store, "import", "-", "copy", stdin=exported)
    copied = store.find("copy")
    assert copied.origin is Origin.IMPORTED
    assert [change.kind for change in compare(store, image, copied)] == ["config"] * 3
    buffer = io.BytesIO()
    export_tar(store, copied, buffer)
    assert import_tar(store, io.BytesIO(compressed(buffer.getvalue(), "gzip")), "again").digest == copied.digest
    listed = subprocess.run(["tar", "-t"], input=exported, capture_output=True, check=True).stdout.decode()
    assert {"./", "bin/busybox", "srv/index.html", "tmp/"} <= set(listed.split("\n"))


def test_a_bundle_runs_under_runc(store: Store, image: Image, tmp_path: Path) -> None:
    lab(store, "export", "tiny", "--bundle", tmp_path / "bundle")
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert config["process"]["args"][0] == "httpd"
    config["process"]["args"] = ["cat", "/srv/index.html"]
    (tmp_path / "bundle" / "config.json").write_text(json.dumps(config))
    name = f"lab-test-{os.getpid()}"
    done = subprocess.run(
        ["runc", "--root", tmp_path / "state", "run", "--bundle", tmp_path / "bundle", name],
        capture_output=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.stdout.decode() == GREETING, done.stderr.decode()
    assert b"exists" in lab(store, "export", "tiny", "--bundle", tmp_path / "bundle", code=1).stderr.lower()


# -- interrupted ---------------------------------------------------------------------------------------------


def test_a_kill_in_the_middle_never_corrupts_the_store(store: Store, image: Image, other: Store) -> None:
    saved = store.home / "saved.tar"
    with saved.open("wb") as target:
        archives.save([image], store, target, Format.OCI)
    environment = {**os.environ, "LAB_HOME": str(other.home)}
    survived = 0
    for number in range(8):
        children = [
            subprocess.Popen(
                [*LAB, "image", "load", str(saved), "--name", f"n{number}-{each}"],
                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for each in range(2)
        ]  # fmt: skip
        time.sleep(0.15 + 0.05 * number)  # from before the first byte to after the last
        children[0].send_signal(signal.SIGKILL)
        survived += sum(child.wait() == 0 for child in children)
        if number % 4 == 3:
            assert verify(other).problems == ()
    assert survived >= 8
    assert lab(other, "verify").returncode == 0
    assert not list((other.home / "tmp").iterdir())
