"""Removing, collecting and proving: what is in use stays, what is broken is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny import tiny_image

from lab.errors import ImageError
from lab.images import disk
from lab.images.space.locks import holders
from lab.images.store import Image, Layer, Origin, Store
from lab.images.upkeep import prune
from lab.images.upkeep.prune import Busy, collect, remove
from lab.images.upkeep.verify import repair, verify
from lab.model import ImageConfig

LAB = [sys.executable, "-c", "from lab.cli.main import main; main()"]
HOLD = """
import pathlib, sys
from lab.images.store import Store
store = Store(pathlib.Path(sys.argv[1]))
{how}
print("held", flush=True)
sys.stdin.read()
"""
USE = 'store.lower_directories(store.find("tiny"))'
WRITE = "writing = store.writing(); writing.__enter__()"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


@pytest.fixture
def image(store: Store) -> Image:
    """An image whose files were used by a process that has ended."""
    subprocess.run(
        [sys.executable, "-c", "import sys, pathlib; from lab.images.store import Store;"
         "from tiny import tiny_image; from lab.images.disk import image_disk;"
         "store = Store(pathlib.Path(sys.argv[1])); image = tiny_image(store); store.manifest(image);"
         "image_disk(store, image)", str(store.home)],
        check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    return store.find("tiny")


@contextmanager
def process(store: Store, how: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that does ``how`` to the store, and keeps at it."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(how=how), str(store.home)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with child:
        yield child
        child.kill()


def counts(store: Store) -> dict[str, int]:
    folders = {"blobs": store.blobs, "layers": store.unpacked}
    folders |= {name: store.home / name for name in ("disks", "manifests", "pins")}
    return {name: len([one for one in path.glob("*") if one.name != "lock"]) for name, path in folders.items()}


def test_removing_the_last_name_removes_what_it_led_to(store: Store, image: Image) -> None:
    assert counts(store) == {"blobs": 3, "layers": 1, "disks": 1, "manifests": 1, "pins": 1}
    store.tag("second", {"digest": image.digest, "size": store.blob(image.digest).stat().st_size})
    assert remove(store, ["tiny:latest"]) == []
    assert counts(store)["blobs"] == 3
    collected = {one.kind: one for one in remove(store, store.select(image.digest[7:19]))}
    assert set(collected) == {"blobs", "unpacked layers", "disks", "manifests"}
    assert collected["unpacked layers"].size_bytes > 1 << 20
    assert set(counts(store).values()) == {0}
    assert not list((store.home / "tmp").iterdir())


def test_names_and_digests_are_told_apart(store: Store, image: Image) -> None:
    store.tag("second:2", {"digest": image.digest, "size": store.blob(image.digest).stat().st_size})
    assert store.select("tiny") == ["tiny:latest"]
    assert store.select(image.digest) == store.select(image.digest[7:19]) == ["tiny:latest", "second:2"]
    store.tag(image.digest[7:19], {"digest": image.digest, "size": store.blob(image.digest).stat().st_size})
    assert store.select(image.digest[7:19]) == [f"{image.digest[7:19]}:latest"]  # a name comes first
    assert store.find(image.digest[:19]).digest == image.digest
    for word in ("second", image.digest[7:18]):
        with pytest.raises(ImageError, match=f"no image {word}"):
            store.select(word)


def test_what_a_process_uses_is_kept_until_it_ends(store: Store, image: Image) -> None:
    with process(store, USE) as user:
        assert holders(store.pin(image.chain)) == [user.pid]
        with pytest.raises(ImageError, match=f"used by process {user.pid}"):
            remove(store, ["tiny:latest"])
        assert "tiny" in store
        store.untag({"tiny:latest"})  # as a new build of the same name does
        assert {one.kind for one in collect(store)} == {"blobs"}
        assert counts(store) == {"blobs": 0, "layers": 1, "disks": 1, "manifests": 1, "pins": 1}
    assert {one.kind for one in collect(store)} == {"unpacked layers", "disks", "manifests"}
    assert set(counts(store).values()) == {0}


def test_a_broken_image_can_be_removed(store: Store, image: Image) -> None:
    described = {"digest": image.digest, "size": store.blob(image.digest).stat().st_size}
    store.tag("second", described)
    store.blob(image.digest).unlink()
    assert remove(store, ["tiny:latest"]) == []  # the other one is broken too
    with pytest.raises(ImageError, match="missing or broken"):
        collect(store)
    assert {one.kind for one in remove(store, ["second:latest"])} >= {"blobs", "unpacked layers"}
    assert set(counts(store).values()) == {0}


def test_nobody_collects_while_somebody_adds(store: Store, image: Image) -> None:
    with process(store, WRITE) as writer:
        with pytest.raises(Busy, match=f"process {writer.pid}"):
            collect(store)
        assert remove(store, ["tiny:latest"]) == []  # the name goes, its blobs wait for the next one
        assert counts(store)["blobs"] == 3
    assert collect(store)
    assert counts(store)["blobs"] == 0


def test_the_build_cache_is_kept_until_it_is_to_be_forgotten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "file").write_text("x")
    layer = store.add_layer(tmp_path / "step")
    store.cache_layer("a" * 64, layer, seconds=1.5)
    (store.home / "cache" / "kvm.json").write_text("{}")
    (store.home / "mounts" / "pip").mkdir(parents=True)
    (store.home / "downloads").mkdir()
    (store.home / "downloads" / ("b" * 64)).write_bytes(bytes(1 << 20))
    stray = store.add_layer(tmp_path)
    assert [(one.kind, one.count) for one in collect(store, dry_run=True)] == [("blobs", 1)]
    assert [(one.kind, one.count) for one in collect(store)] == [("blobs", 1)]
    assert not store.blob(stray.digest).exists()
    count, size = prune.cache_only(store)
    assert count == 1
    assert size > 1 << 20
    kinds = ["blobs", "cached steps", "cache mounts", "downloads"]
    assert [one.kind for one in collect(store, cache=True)] == kinds
    assert store.cached_layer("a" * 64) is None
    assert [path.name for path in (store.home / "cache").iterdir()] == ["kvm.json"]
    assert not [*(store.home / "mounts").iterdir(), *(store.home / "downloads").iterdir()]


def test_an_honest_store_is_proven(store: Store, image: Image) -> None:
    verdict = verify(store)
    assert verdict.problems == ()
    assert (verdict.images, verdict.blobs, verdict.unpacked, verdict.skipped) == (1, 3, 1, 0)


def change_content(root: Path) -> None:
    (root / "etc/passwd").write_text("root::0:0::/:/bin/sh")


def change_mode(root: Path) -> None:
    (root / "etc/passwd").chmod(0o666)


def change_owner(root: Path) -> None:
    os.chown(root / "etc", 1, 1)


def add_file(root: Path) -> None:
    (root / "bin/backdoor").touch()


def remove_file(root: Path) -> None:
    (root / "srv/index.html").unlink()


def add_attribute(root: Path) -> None:
    os.setxattr(root / "bin/busybox", "user.k", b"v")


def part_names(root: Path) -> None:
    (root / "bin/sh").unlink()
    (root / "bin/sh").symlink_to("other")


@pytest.mark.parametrize(
    "change", [change_content, change_mode, change_owner, add_file, remove_file, add_attribute, part_names]
)
def test_a_changed_file_is_found_and_mended(change: Callable[[Path], None], store: Store, image: Image) -> None:
    (root,) = store.unpacked.iterdir()
    change(root)
    (problem,) = verify(store).problems
    assert problem.where == root
    assert repair(store, (problem,)) == []
    assert verify(store).problems == ()
    again = Store(store.home)
    again.lower_directories(image)
    assert verify(again).problems == ()


def test_broken_blobs_are_found(store: Store, image: Image, tmp_path: Path) -> None:
    path = store.blob(image.layers[0].digest)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    assert any("holds something else" in one.what for one in verify(store).problems)
    path.write_bytes(whole[:-1])
    assert any(f"has {len(whole) - 1} bytes" in one.what for one in verify(store).problems)
    path.unlink()
    (problem,) = verify(store).problems
    assert "is missing" in problem.what
    assert repair(store, (problem,)) == [problem]
    store.blob(image.digest).write_bytes(b"{}")
    assert verify(store).problems
    (store.layout / "index.json").write_text("{")
    assert any("is broken" in one.what for one in verify(store).problems)


def test_a_layer_whose_diff_id_lies_is_found(store: Store, image: Image) -> None:
    lying = Layer(
        diff_id="sha256:" + "0" * 64, digest=image.layers[0].digest, size_bytes=image.layers[0].size_bytes,
        media_type=image.layers[0].media_type,
    )  # fmt: skip
    store.add_image("liar", config=ImageConfig(), layers=(lying,), origin=Origin.BUILT)
    (problem,) = verify(store).problems
    assert "but the image says" in problem.what


def test_a_changed_manifest_is_found(store: Store, image: Image) -> None:
    path = store.home / "manifests" / f"{image.chain}.txt"
    path.write_text(path.read_text().replace("0755", "0777", 1))
    (problem,) = verify(store).problems
    assert repair(store, (problem,)) == []
    assert store.manifest(image).file_count > 5


def lab(store: Store, *words: str, user: int = 0, code: int = 0) -> str:
    done = subprocess.run(
        [*LAB, "image", *words], capture_output=True, check=False, text=True, user=user,
        env={**os.environ, "LAB_HOME": str(store.home)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_the_commands_say_what_they_do(store: Store, image: Image) -> None:
    assert lab(store, "ls", "-q").strip() == image.digest
    assert (
        lab(store, "ls", "--format", "{{.Repository}}|{{.Tag}}|{{json .Size}}") == f"tiny|latest|{image.size_bytes}\n"
    )
    assert json.loads(lab(store, "ls", "--json"))[0]["Digest"] == image.digest
    found = json.loads(lab(store, "inspect", "tiny"))[0]
    assert found["Layers"][0]["DiffID"] == image.layers[0].diff_id
    assert found["Config"]["Cmd"][0] == "httpd"
    assert found["Disk"] > 1 << 20
    assert found["UsedBy"]["Processes"] == []
    assert lab(store, "inspect", "tiny", "--format", "{{.Config.Cmd}}").startswith('["httpd"')
    assert "there is no field .Nothing" in lab(store, "inspect", "tiny", "--format", "{{.Nothing}}", code=2)
    assert image.layers[0].digest[:19] in lab(store, "history", "tiny")
    assert lab(store, "diff", "tiny", "tiny") == ""
    assert lab(store, "verify") == "1 image, 3 blobs, 1 unpacked layer\n"
    with process(store, USE) as user:
        assert json.loads(lab(store, "inspect", "tiny"))[0]["UsedBy"]["Processes"] == [user.pid]
        assert f"used by process {user.pid}" in lab(store, "rm", "tiny", code=1)
    assert lab(store, "rm", "tiny").startswith("untagged tiny:latest\nremoved: ")
    assert lab(store, "prune") == "nothing to remove\n"
    assert "no image tiny" in lab(store, "rm", "tiny", code=1)


def test_who_only_reads_needs_no_root() -> None:
    with tempfile.TemporaryDirectory(prefix="lab-test-") as directory:  # pytest's own are root's alone
        Path(directory).chmod(0o755)
        store = Store.open(Path(directory) / "home")
        store.lower_directories(tiny_image(store))
        for words in (["ls"], ["inspect", "tiny"], ["history", "tiny"], ["diff", "tiny", "tiny"]):
            assert "sudo" not in lab(store, *words, user=65534)
        for form in ("oci-archive", "docker-archive"):
            done = subprocess.run(
                [*LAB, "image", "save", "tiny", "--format", form], capture_output=True, check=True, user=65534,
                env={**os.environ, "LAB_HOME": str(store.home)},
            )  # fmt: skip
            assert b"manifest" in done.stdout
        assert "1 unpacked layers need root" in lab(store, "verify", user=65534)
        assert "is not yours" in lab(store, "export", "tiny", user=65534, code=1)


def test_an_interrupted_disk_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tiny_image(store)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(disk, "_settle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        disk.image_disk(store, image)
    assert not list((store.home / "disks").glob("*.ext4"))
    assert not list((store.home / "tmp").iterdir())
