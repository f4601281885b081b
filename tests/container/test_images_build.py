"""Dockerfiles, built for real on a base of busybox alone: the same assertions for both ways to run a step."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from chroot_runner import ChrootRunner

from lab.commands.building.container_steps import ContainerSteps
from lab.errors import DockerfileError, ImageError, LabError, UsageError
from lab.host.command import run
from lab.images.build import Event, Note, Output, StepFinished, StepRunner, build
from lab.images.process import resolve
from lab.images.store import Image, Origin, Store
from lab.images.tree import Tree
from lab.runtime.launcher.launcher import Launcher

BASE = """
FROM scratch
COPY busybox /bin/
COPY passwd group /etc/
COPY tmp /tmp
RUN ["/bin/busybox", "--install", "-s", "/bin"]
"""


@pytest.fixture(scope="module", params=["chroot", "lab"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepRunner]:
    if request.param == "chroot":
        yield ChrootRunner()
        return
    scratch = tmp_path_factory.mktemp("launcher") / "scratch"
    with Launcher.start(session=f"test-images-{os.getpid()}", scratch=scratch) as launcher:
        yield ContainerSteps(launcher)


@pytest.fixture(scope="module")
def store(runner: StepRunner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that holds ``busybox``."""
    busybox = shutil.which("busybox")
    assert busybox, "apt-get install busybox-static"
    home = tmp_path_factory.mktemp("home")
    store = Store.open(home)
    context = tmp_path_factory.mktemp("base")
    shutil.copy(busybox, context / "busybox")
    (context / "passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n")
    (context / "group").write_text("root:x:0:\nappers:x:8:\nmore:x:9:other,app\n")
    (context / "tmp").mkdir()
    (context / "Dockerfile").write_text(BASE)
    build(context, dockerfile=context / "Dockerfile", tag="busybox", build_args={}, store=store, runner=runner)
    yield store
    assert not list((home / "tmp").iterdir()), "scratch space was left behind"


class Builds:
    """Builds in one context, and keeps what the builder said."""

    def __init__(self, context: Path, store: Store, runner: StepRunner) -> None:
        self.context = context
        self.store = store
        self.runner = runner
        self.events: list[Event] = []

    def __call__(self, text: str, **build_args: str) -> Image:
        self.events.clear()
        dockerfile = self.context.parent / "Dockerfile"
        dockerfile.write_text(text)
        return build(
            self.context, dockerfile=dockerfile, tag="test", build_args=build_args, store=self.store,
            runner=self.runner, progress=self.events.append,
        )  # fmt: skip

    @property
    def cached(self) -> list[bool]:
        return [event.cached for event in self.events if isinstance(event, StepFinished)]

    @property
    def output(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, Output)).decode()

    def tree(self, image: Image) -> Tree:
        return Tree(self.store.lower_directories(image))


@pytest.fixture
def builds(tmp_path: Path, store: Store, runner: StepRunner) -> Builds:
    context = tmp_path / "context"
    context.mkdir()
    return Builds(context, store, runner)


def test_run_changes_the_image_and_its_configuration_says_how(builds: Builds) -> None:
    image = builds(
        "ARG NAME=busybox\nFROM ${NAME}\nARG WHO=world\nENV A=1 B=$WHO\nWORKDIR /srv/$B\nUSER app\n"
        'RUN id; pwd; echo "$A $B $WHO $HOME"; touch /tmp/made || true\nUSER root\n'
        'RUN rm /etc/group && echo hello > /srv/world/file && chmod 4711 /srv/world/file\n'
        'LABEL what="a test"\nEXPOSE 80 8000-8001/tcp\nENTRYPOINT ["/bin/echo"]\nCMD ["hi"]\n'
    )  # fmt: skip
    assert "uid=7(app) gid=8(appers)" in builds.output
    assert "/srv/world\n1 world world /home/app\n" in builds.output
    tree = builds.tree(image)
    assert tree.lookup(b"etc/group") is None
    assert tree.read("/srv/world/file") == b"hello\n"
    entry = tree.lookup(b"srv/world/file")
    assert entry is not None
    assert entry.status.st_mode & 0o7777 == 0o4711
    config = image.config
    assert (config.environment["A"], config.environment["B"]) == ("1", "world")
    assert "WHO" not in config.environment
    assert config.working_directory == "/srv/world"
    assert config.exposed_ports == (80, 8000, 8001)
    assert config.labels == {"what": "a test"}
    assert resolve(image, builds.store.lower_directories(image)).argv == ("/bin/echo", "hi")
    assert image.base is not None
    assert (image.base.name, image.base.origin, image.origin) == ("busybox:latest", Origin.BUILT, Origin.BUILT)
    assert builds.store.find("test") == image


def test_a_step_leaves_no_trace_of_how_it_ran(builds: Builds) -> None:
    image = builds("FROM busybox\nRUN echo x > /proc-not && cat /etc/resolv.conf > /dev/null; true\n")
    top = builds.store.lower_directories(image)[0]
    assert sorted(path.name for path in top.rglob("*") if path.name not in ("proc", "dev", "sys", "etc")) == [
        "proc-not"
    ]


def test_equal_builds_have_equal_digests(builds: Builds, tmp_path: Path) -> None:
    (builds.context / "file").write_text("1")
    text = "FROM busybox\nCOPY file /\nRUN date > /dev/null && mkdir -p /a/b && echo x > /a/b/c\n"
    first = builds(text)
    os.utime(builds.context / "file", (1, 1))
    second = builds(text)
    assert builds.cached == [False, True, True]
    shutil.rmtree(builds.store.home / "cache")
    (builds.store.home / "cache").mkdir()
    third = builds(text)
    assert builds.cached == [False, False, False]
    assert first.digest == second.digest == third.digest


@pytest.mark.parametrize(
    ("change", "cached"),
    [
        (lambda context: (context / "file").write_text("other"), [False, True, False, False]),
        (lambda context: (context / "file").chmod(0o600), [False, True, False, False]),
        (lambda context: (context / "unused").write_text("new"), [False, True, True, True]),
    ],
)
def test_the_cache_knows_content_and_nothing_else(
    builds: Builds, change: Callable[[Path], object], cached: list[bool]
) -> None:
    (builds.context / "file").write_text("one")
    (builds.context / "file").chmod(0o644)
    text = "FROM busybox\nRUN echo first > /first\nCOPY file /\nRUN cat /file > /copy\n"
    builds(text)
    change(builds.context)
    builds(text)
    assert builds.cached == cached


def test_a_variable_that_a_step_sees_is_part_of_its_key(builds: Builds) -> None:
    text = "FROM busybox\nARG A\nRUN echo $A > /a\n"
    assert builds.tree(builds(text, A="1")).read("/a") == b"1\n"
    assert builds.tree(builds(text, A="2")).read("/a") == b"2\n"
    assert builds.cached == [False, False, False]
    builds(text, A="2", B="x")
    assert builds.cached[2]
    assert any(isinstance(event, Note) and "no ARG B" in event.text for event in builds.events)


def fill(context: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(text)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("COPY one /x", "/x"),
        ("COPY one /x/", "/x/one"),
        ("COPY one /tmp", "/tmp/one"),
        ("COPY one two /x/", "/x/one"),
        ("COPY o* /x/", "/x/one"),
        ("COPY sub /x", "/x/one"),
        ("COPY sub/ /x/", "/x/one"),
        ("COPY . /x", "/x/one"),
        ("COPY su?/one x", "/work/x"),
        ("COPY one .", "/work/one"),
        ("COPY one ./", "/work/one"),
        ("COPY one /link/", "/work/one"),
        ("COPY one /link", "/work/one"),
        ("COPY one /file-link", "/work/existing"),
        ("COPY link-to-one /x", "/x"),
        ('COPY ["one", "/with space"]', "/with space"),
        ("ADD one /x", "/x"),
        ("COPY --chown=app --chmod=0751 one /x", "/x"),
    ],
)
def test_where_copy_puts_things(builds: Builds, line: str, path: str) -> None:
    fill(builds.context, {"one": "1", "two": "2", "sub/one": "1"})
    (builds.context / "link-to-one").symlink_to("one")
    setup = "FROM busybox\nWORKDIR /work\nRUN ln -s work /link && touch existing && ln -s work/existing /file-link\n"
    tree = builds.tree(builds(f"{setup}{line}\n"))
    assert tree.read(path) == b"1"
    entry = tree.resolve(path.encode())[1]
    assert entry is not None
    if "--chown" in line:
        assert (entry.status.st_uid, entry.status.st_gid, entry.status.st_mode & 0o7777) == (7, 8, 0o751)
    link = tree.lookup(b"link")
    assert link is not None
    assert link.is_symlink


def test_parents_keep_what_they_are(builds: Builds) -> None:
    fill(builds.context, {"one": "1"})
    image = builds("FROM busybox\nRUN mkdir /d && chmod 1770 /d && chown 7:9 /d\nCOPY one /d/e/one\n")
    tree = builds.tree(image)
    existing, made = tree.lookup(b"d"), tree.lookup(b"d/e")
    assert existing is not None
    assert made is not None
    assert (existing.status.st_mode & 0o7777, existing.status.st_uid, existing.status.st_gid) == (0o1770, 7, 9)
    assert (made.status.st_mode & 0o7777, made.status.st_uid) == (0o755, 0)


def test_dockerignore_hides_files_from_copy(builds: Builds) -> None:
    fill(
        builds.context,
        {
            "keep": "1",
            "drop.log": "2",
            "d/drop.log": "3",
            "d/keep.log": "4",
            ".dockerignore": "**/*.log\n!d/keep.log",
        },
    )
    tree = builds.tree(builds("FROM busybox\nCOPY . /x/\n"))
    assert {entry.path for entry in tree.walk() if entry.path.startswith(b"x/")} == {
        b"x/.dockerignore", b"x/d", b"x/d/keep.log", b"x/keep",
    }  # fmt: skip
    with pytest.raises(DockerfileError, match="there is no drop") as caught:
        builds("FROM busybox\nCOPY drop.log /x\n")
    assert caught.value.hint == ".dockerignore hides it"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_add_unpacks_local_archives(builds: Builds, mode: str) -> None:
    with tarfile.open(builds.context / "archive.bin", mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo("dir/file")
        info.size, info.uid, info.gid, info.mode = 3, 7, 8, 0o640
        archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("dir/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    tree = builds.tree(builds("FROM busybox\nADD archive.bin /x\nCOPY archive.bin /whole\n"))
    entry = tree.lookup(b"x/dir/file")
    assert entry is not None
    assert (entry.status.st_uid, entry.status.st_gid, entry.status.st_mode & 0o7777) == (7, 8, 0o640)
    assert tree.read("/x/dir/link") == tree.read("/etc/passwd")
    assert tree.read("/whole") == (builds.context / "archive.bin").read_bytes()


def test_a_later_entrypoint_drops_the_base_s_command(builds: Builds) -> None:
    builds('FROM busybox\nCMD ["inherited"]\n')
    image = builds.store.find("test")
    builds.store.add_image("with-command", config=image.config, layers=image.layers, origin=Origin.BUILT)
    assert builds('FROM with-command\nENTRYPOINT ["e"]\n').config.command == ()
    assert builds('FROM with-command\nCMD ["mine"]\nENTRYPOINT ["e"]\n').config.command == ("mine",)


@pytest.mark.parametrize(
    ("text", "error", "line", "says"),
    [
        ("FROM busybox\nCOPY missing /\n", DockerfileError, 2, "there is no missing in the build context"),
        ("FROM busybox\nCOPY miss*g /\n", DockerfileError, 2, "nothing matches miss"),
        ("FROM busybox\n\nCOPY ../secret /\n", DockerfileError, 3, "outside the build context"),
        ("FROM busybox\nCOPY escape /\n", DockerfileError, 2, "there is no escape in the build context"),
        ("FROM busybox\nCOPY [a /\n", DockerfileError, 2, "is no pattern"),
        ("FROM busybox\nCOPY one two /x\n", DockerfileError, 2, "needs a directory"),
        ("FROM busybox\nCOPY one /etc/passwd/x\n", DockerfileError, 2, "can't replace"),
        ("FROM busybox\nCOPY sub /etc/passwd\n", DockerfileError, 2, "can't replace"),
        ("FROM busybox\nCOPY --chown=nobody one /\n", DockerfileError, 2, "has no user 'nobody'"),
        ("FROM busybox\nCOPY --chmod=rwx one /\n", DockerfileError, 2, "neither octal nor symbolic"),
        ("FROM busybox\nEXPOSE 70000\n", DockerfileError, 2, "is no port"),
        ("FROM busybox\nEXPOSE 53/icmp\n", DockerfileError, 2, "is no port"),
        ("FROM busybox\nSTOPSIGNAL NONE\n", DockerfileError, 2, "is no signal"),
        ("FROM busybox\nUSER ghost\nRUN id\n", DockerfileError, 3, "has no user 'ghost'"),
        ("FROM ${NONE}\n", DockerfileError, 1, "names no image"),
    ],
)
def test_what_can_t_be_done_names_the_line(
    builds: Builds, text: str, error: type[DockerfileError], line: int, says: str
) -> None:
    fill(builds.context, {"one": "1", "two": "2", "sub/x": "x"})
    (builds.context / "escape").symlink_to("/etc/hostname")
    with pytest.raises(error, match=says) as caught:
        builds(text)
    assert caught.value.line == line
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    ("command", "code", "tail"),
    [
        ("RUN echo out; echo err >&2; exit 3", 3, "out\nerr"),
        ("RUN sh -c 'kill -9 $$'; exit $?", 137, ""),
        ("RUN seq 1000; false", 1, "1000"),
    ],
)
def test_a_failing_step_shows_its_exit_code_and_the_end_of_its_output(
    builds: Builds, command: str, code: int, tail: str
) -> None:
    with pytest.raises(ImageError, match=f"Dockerfile:2: RUN failed with exit code {code}:") as caught:
        builds(f"FROM busybox\n{command}\n")
    assert caught.value.exit_code == 1
    assert caught.value.detail.endswith(tail)
    assert len(caught.value.detail.splitlines()) <= 20


def test_a_base_that_can_t_be_had_names_the_remedies(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.images.transfer.registry.ANSWER_SECONDS", 2.0)
    with pytest.raises(ImageError, match="no base image") as caught:
        builds("FROM registry.invalid/nobody/has-this:1\n")
    for remedy in ("lab build DIR -t", "skopeo inspect", "debian:bookworm-slim"):
        assert remedy in caught.value.hint


def test_usage(builds: Builds, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        build(
            tmp_path / "none",
            dockerfile=tmp_path / "x",
            tag="t",
            build_args={},
            store=builds.store,
            runner=builds.runner,
        )
    with pytest.raises(DockerfileError, match="there is no"):
        build(
            builds.context,
            dockerfile=tmp_path / "x",
            tag="t",
            build_args={},
            store=builds.store,
            runner=builds.runner,
        )
    with pytest.raises(LabError, match="not an image name"):
        build(
            builds.context,
            dockerfile=tmp_path / "x",
            tag="T",
            build_args={},
            store=builds.store,
            runner=builds.runner,
        )


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY big /\n")
    (context / "big").write_bytes(os.urandom(3_000_000))
    home = tmp_path / "home"
    home.mkdir()
    script = (
        f'mount -t tmpfs -o size=2m tmpfs {home} && {{ "$@"; code=$?; find {home}/tmp {home}/layers; exit $code; }}'
    )
    lab = [sys.executable, "-c", "from lab.cli.main import main; main()", "build", str(context)]
    done = run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *lab], timeout_seconds=250, check=False,
        environment={"LAB_HOME": str(home)},
    )  # fmt: skip
    assert done.exit_code == 1
    assert done.stderr.decode().splitlines()[0] == f"lab: no space left under {home}"
    assert b"Traceback" not in done.stderr
    assert done.stdout.decode().splitlines()[-2:] == [f"{home}/tmp", f"{home}/layers"]
