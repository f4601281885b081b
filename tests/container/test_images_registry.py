"""A base image from a registry: a small one of the test's own, on the loopback."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import preloaded
import pytest

from lab.errors import ImageError
from lab.images.progress import silent
from lab.images.stages.bases import resolve_base
from lab.images.store import Image, Origin, Store
from lab.images.transfer import registry
from lab.model import ImageConfig


class Registry(BaseHTTPRequestHandler):
    """The reading half of the distribution specification, for one image of one store."""

    store: Store
    image: Image
    cuts = 0  # so many blobs are still to be cut off in the middle

    def do_GET(self) -> None:
        _, _, name = self.path.rpartition("/")
        if self.path == "/v2/":
            self.answer(b"{}", "application/json")
        elif "/manifests/" in self.path and name in ("1", self.image.digest):
            self.answer(self.store.blob(self.image.digest).read_bytes(), "application/vnd.oci.image.manifest.v1+json")
        elif "/blobs/" in self.path and self.store.blob(name).exists():
            self.answer(self.store.blob(name).read_bytes(), "application/octet-stream")
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - http.server looks for this name

    def answer(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            is_cut = content_type == "application/octet-stream" and Registry.cuts > 0
            Registry.cuts -= is_cut
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
            self.close_connection = self.close_connection or is_cut

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path) -> Image:
    Registry.store = Store.open(tmp_path / "published")
    return publish(b"from afar")


def publish(content: bytes) -> Image:
    """Let the registry have an image with this file."""
    store = Registry.store
    with store.scratch("test") as scratch:
        (scratch / "root").mkdir()
        (scratch / "root" / "file").write_bytes(content)
        layer = store.add_layer(scratch / "root")
    Registry.image = store.add_image(
        "published", config=ImageConfig(command=("x",)), layers=(layer,), origin=Origin.BUILT
    )
    return Registry.image


def trust(port: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let skopeo speak plain HTTP to a loopback registry; its address."""
    address = f"127.0.0.1:{port}"
    configuration = directory / ".config" / "containers" / "registries.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    monkeypatch.setenv("HOME", str(directory))
    return address


@pytest.fixture
def server(published: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
        yield trust(listening.server_port, tmp_path, monkeypatch)
        listening.shutdown()


def no_recipe(text: str, tag: str) -> Image:
    raise AssertionError("a recipe was asked for")


def base(name: str, store: Store) -> Image:
    return resolve_base(name, store=store, progress=silent, build_recipe=no_recipe)


def test_an_image_comes_from_its_registry_and_says_so(server: str, published: Image, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    image = base(f"{server}/team/app:1", store)
    assert image.origin is Origin.REGISTRY
    assert image.digest == image.annotations["lab.registry.digest"] == published.digest
    assert image.config == published.config
    assert (store.lower_directories(image)[0] / "file").read_text() == "from afar"
    Registry.image = image  # gone from the registry, but the store has it now
    assert base(f"{server}/team/app:1", store).digest == image.digest
    assert not list((store.home / "tmp").iterdir())


def test_an_image_that_the_registry_does_not_have(server: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no base image"):
        base(f"{server}/team/app:2", Store.open(tmp_path / "home"))


def test_a_damaged_layer_is_refused(server: str, published: Image, tmp_path: Path) -> None:
    blob = Registry.store.blob(published.layers[0].digest)
    blob.write_bytes(bytes(reversed(blob.read_bytes())))
    store = Store.open(tmp_path / "home")
    with pytest.raises(ImageError, match=f"{server}/team/app:1 could not be fetched: .*[Dd]igest"):
        base(f"{server}/team/app:1", store)
    assert store.images() == []
    assert not list((store.home / "tmp").iterdir())


def test_a_pull_that_was_cut_off_says_so_and_the_next_one_has_the_image(server: str, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    Registry.cuts = 1
    with pytest.raises(
        ImageError, match=f"^{server}/team/app:1 could not be fetched: a download was cut off"
    ) as caught:
        registry.pull(f"{server}/team/app:1", store)
    assert caught.value.hint == "try again"
    assert "EOF" in caught.value.detail
    assert not list(store.blobs.iterdir())
    image = registry.pull(f"{server}/team/app:1", store)
    assert (store.lower_directories(image)[0] / "file").read_text() == "from afar"
    assert not list((store.home / "tmp").iterdir())


def test_a_disk_that_a_pull_fills_is_said(server: str, tmp_path: Path) -> None:
    publish(random.Random(1).randbytes(3 << 20))
    small = tmp_path / "small"
    small.mkdir()
    mounted = 'mount -t tmpfs -o size=1m none "$LAB_HOME" && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", mounted, "-", *preloaded.LAB, "image", "pull", f"{server}/team/app:1"]
    environment = {**os.environ, "LAB_HOME": str(small)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=250, check=False)
    shown, said, hint = done.stderr.splitlines()
    assert done.returncode == 1
    assert "no space left" in shown
    assert said == f"lab: {server}/team/app:1 could not be fetched: the disk is full"
    assert "LAB_HOME" in hint


def test_a_registry_that_never_answers_does_not_hold_up_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        address = trust(silent_server.getsockname()[1], tmp_path, monkeypatch)
        started = time.monotonic()
        with pytest.raises(ImageError, match="no base image"):
            base(f"{address}/team/app:1", Store.open(tmp_path / "home"))
        assert time.monotonic() - started < 60, "nobody ever answers"


def test_a_manifest_list_of_another_machine_is_said(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    (layout / "index.json").write_text(json.dumps({"manifests": []}))
    with pytest.raises(ImageError, match="not an OCI image layout with one image"):
        registry.adopt(layout, "x", Store.open(tmp_path / "home"), Origin.REGISTRY)
