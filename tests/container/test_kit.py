"""A kit: what it is made of is there again in another home, without a network; what is broken is refused.

The guest is a file with a hole here, and Python's packages are none; by night it is the whole, without a network.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import tiny_image

from lab.commands.kit import make as making
from lab.commands.kit import take as taking
from lab.errors import ImageError, LabError
from lab.experiment.scenarios.scenario import load
from lab.host.command import run
from lab.hypervisor.guest.artefacts import folder_of
from lab.images.build import build
from lab.images.store import Image, Store
from lab.images.transfer import registry
from lab.inside.build import program

ROOT = Path(__file__).parents[2]
DISK_BYTES = 1 << 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``kit.tar``, of ``hello``: two stages, the first of which is in no image."""
    folder = tmp_path_factory.mktemp("kit")
    scenario, home = folder / "hello", folder / "home"
    scenario.mkdir()
    base = tiny_image(Store.open(home)).name
    (scenario / "Dockerfile").write_text(
        f"FROM {base} AS first\nRUN echo hello > /made\nFROM {base}\nCOPY --from=first /made /made\n"
    )
    helper = program()  # which a fresh home would have compiled anew
    shutil.copytree(helper.parent, home / "inside" / helper.parent.name)
    folder_of(home).mkdir(parents=True)
    with (folder_of(home) / "disk").open("wb") as disk:
        disk.write(b"begin")
        disk.truncate(DISK_BYTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(home))
        patch.setattr(making, "prepare_guest", lambda home, design: None)
        patch.setattr(making, "_wheels", lambda target, scratch: target.mkdir())
        made = making.make(folder / "kit.tar", [load(str(scenario))])
    assert made["images"] == ["hello:latest", base]
    assert {path.name for path in folder.iterdir()} == {"hello", "home", "kit.tar"}
    return folder


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another home, in which no step is run, nothing compiled and nothing fetched."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it is not there")

    monkeypatch.setenv("LAB_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(registry, "fetch", never)
    monkeypatch.setattr("lab.host.compiler.compiled", never)
    return tmp_path / "other"


class NoStep:
    def __getattr__(self, name: str) -> Callable[..., object]:
        raise AssertionError(f"a step is run: {name}")


def built(scenario: Path, store: Store) -> Image:
    words = {"dockerfile": scenario / "Dockerfile", "tag": "hello", "build_args": {}, "store": store}
    return build(scenario, runner=NoStep(), **words)  # type: ignore[arg-type]


def test_all_of_it_is_there_in_another_home(folder: Path, other: Path) -> None:
    for _ in range(2):  # what is there already stays as it is
        taking.take(folder / "kit.tar")
        store, was = Store.open(), Store.view(folder / "home")
        assert built(folder / "hello", store).digest == was.find("hello").digest
        disk = folder_of(other) / "disk"
        assert (disk.stat().st_size, disk.stat().st_blocks * 512 < 1 << 20) == (DISK_BYTES, True)
        assert disk.open("rb").read(6) == b"begin\0"
        (helper,) = (other / "inside").glob("*/inside")
        assert run([helper], timeout_seconds=250, check=False).exit_code == 2
        assert not list((other / "tmp").iterdir())


def test_it_brings_this_clone_without_what_git_does_not_know(folder: Path, tmp_path: Path) -> None:
    run(["tar", "-xf", folder / "kit.tar", "-C", tmp_path, "lab", "SHA256SUMS"], timeout_seconds=250)
    assert (tmp_path / "lab/bootstrap").stat().st_mode & 0o111
    assert (tmp_path / "lab/lab/commands/kit/take.py").read_bytes() == Path(taking.__file__).read_bytes()
    assert not (tmp_path / "lab/.venv").exists()
    sums = run(["sha256sum", "--check", "--ignore-missing", "SHA256SUMS"], timeout_seconds=250, directory=tmp_path)
    assert b"lab/README.md: OK" in sums.stdout


@pytest.mark.parametrize(
    ("part", "content", "error"),
    [
        ("kit.json", b"[]", LabError),
        ("kit.json", b'{"format": 1, "lab": "0.0.1"}', LabError),
        ("index.json", b'{"images": [{}], "cache": {}}', LabError),
        ("index.json", b'{"images": [], "cache": {"' + b"a" * 64 + b'": {"diff_id": 1}}}', LabError),
        ("guest.tar.gz", b"\x1f\x8b", ImageError),
        ("inside", b"#!/bin/sh\n", ImageError),
        ("blobs", b"another", ImageError),
    ],
)
def test_what_is_broken_or_forged_is_refused(
    folder: Path, other: Path, tmp_path: Path, part: str, content: bytes, error: type[LabError]
) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    run(["tar", "-xf", folder / "kit.tar", "-C", parts, "--exclude=lab"], timeout_seconds=250)
    forged = next((parts / part).iterdir()) if part == "blobs" else parts / part
    forged.write_bytes(content)
    names = sorted(path.name for path in parts.iterdir())
    run(["tar", "-cf", tmp_path / "forged.tar", "-C", parts, *names], timeout_seconds=250)
    with pytest.raises(error):
        taking.take(tmp_path / "forged.tar")
    assert not (other / "guest").exists() or not list((other / "guest").iterdir())
    assert not list((other / "tmp").iterdir()) if other.exists() else True


def test_half_a_kit_is_refused(folder: Path, other: Path, tmp_path: Path) -> None:
    whole = (folder / "kit.tar").read_bytes()
    for size in (0, 100, 3000, len(whole) // 2):
        (tmp_path / "half.tar").write_bytes(whole[:size])
        with pytest.raises(LabError):
            taking.take(tmp_path / "half.tar")


def test_a_place_where_nothing_can_be_written_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="can't be written"):
        making._write(tmp_path, tmp_path / "absent/kit.tar", [])


def test_what_git_does_not_know_is_nobodys_but_the_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bootstrap", "key.json"):
        (tmp_path / name).write_text("")
    for words in (("init", "--quiet"), ("add", "bootstrap")):
        run(["git", "-C", tmp_path, *words], timeout_seconds=250)
    monkeypatch.setattr(making, "ROOT", tmp_path)
    assert making._tracked() == [tmp_path / "bootstrap"]
    (tmp_path / "bootstrap").unlink()
    run(["git", "-C", tmp_path, "rm", "--quiet", "--cached", "bootstrap"], timeout_seconds=250)
    with pytest.raises(LabError):
        making._tracked()


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_without_a_network_from_the_file_alone(tmp_path: Path) -> None:
    """As somebody in a room without internet types it, with nothing of this clone's nor of pip's."""
    made = run([shutil.which("lab") or "lab", "class", "kit", tmp_path / "kit.tar"], timeout_seconds=1200)
    assert made.stdout
    with tarfile.open(tmp_path / "kit.tar") as archive:
        assert any(name.startswith("wheels/libvirt_python") for name in archive.getnames())
    run(["tar", "-xf", tmp_path / "kit.tar", "-C", tmp_path, "lab"], timeout_seconds=250)
    script = (
        "ip link set lo up; ./bootstrap --kit ../kit.tar lab run -m 300m web-app -- python3 -c 'print(41 + 1)' && "
        "./bootstrap lab run -m 300m --on microvm web-app -- python3 -c 'print(42 + 1)'"
    )
    (tmp_path / "user").mkdir()
    homes = {"HOME": str(tmp_path / "user"), "LAB_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", script],
        cwd=tmp_path / "lab",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **homes},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["42", "43"]), done.stderr
