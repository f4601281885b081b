"""Builds of several stages, mounts and remote sources, for real: what no comparison with another builder shows."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import preloaded
import pytest
from corpus import BASE, make_base

from lab.commands.building.container_steps import ContainerSteps
from lab.errors import DockerfileError, LabError, UsageError
from lab.images.build import Event, Note, Options, Output, StepFinished, Warned, build
from lab.images.dockerfile.graph import PROXIES
from lab.images.stages.mounts import Offer
from lab.images.store import MANIFEST_TYPE, Image, Origin, Store
from lab.images.transfer.registry import adopt
from lab.images.tree import Tree
from lab.runtime.launcher.launcher import Launcher

LAB = preloaded.LAB


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerSteps]:
    scratch = tmp_path_factory.mktemp("launcher") / "scratch"
    with Launcher.start(session=f"test-stages-{os.getpid()}", scratch=scratch) as launcher:
        yield ContainerSteps(launcher)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_base(folder)
    return folder


class Site:
    """A store of its own with the base in it, and builds in one context."""

    def __init__(self, home: Path, context: Path, base: Path, runner: ContainerSteps) -> None:
        self.store = Store.open(home)
        self.context = context
        self.runner = runner
        self.events: list[Event] = []
        build(base, dockerfile=base / "Dockerfile", tag=BASE, build_args={}, store=self.store, runner=runner)

    def build(self, text: str, options: Options | None = None, **arguments: str) -> Image:
        self.events.clear()
        dockerfile = self.context.parent / "Dockerfile"
        dockerfile.write_text(text)
        return build(
            self.context, dockerfile=dockerfile, tag="test", build_args=arguments, store=self.store,
            runner=self.runner, progress=self.events.append, options=options,
        )  # fmt: skip

    def read(self, image: Image, path: str) -> bytes | None:
        return Tree(self.store.lower_directories(image)).read(path)

    @property
    def cached(self) -> list[bool]:
        return [event.cached for event in self.events if isinstance(event, StepFinished)]


@pytest.fixture
def site(tmp_path: Path, base: Path, runner: ContainerSteps) -> Iterator[Site]:
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("content\n")
    made = Site(tmp_path / "home", context, base, runner)
    yield made
    assert not list((tmp_path / "home" / "tmp").iterdir()), "scratch space was left behind"


def test_independent_stages_are_built_side_by_side(site: Site) -> None:
    wait = "touch /shared/$ME; i=0; until test -e /shared/$OTHER; do i=$((i+1)); test $i -lt 2000; done"
    mount = "--mount=type=cache,target=/shared"
    image = site.build(
        f"FROM corpus AS a\nENV ME=a OTHER=b\nRUN {mount} {wait}; echo a > /a\n"
        f"FROM corpus AS b\nENV ME=b OTHER=a\nRUN {mount} {wait}; echo b > /b\n"
        "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )
    assert (site.read(image, "/a"), site.read(image, "/b")) == (b"a\n", b"b\n")
    assert {event.stage for event in site.events if isinstance(event, StepFinished)} == {"a", "b", "stage-2"}


def test_the_first_error_ends_the_other_stages(site: Site) -> None:
    began = time.monotonic()
    with pytest.raises(LabError, match="Dockerfile:4: RUN failed with exit code 3"):
        site.build(
            "FROM corpus AS slow\nRUN tail -f /dev/null\nFROM corpus AS broken\nRUN exit 3\n"
            "FROM scratch\nCOPY --from=slow /a /\nCOPY --from=broken /b /\n"
        )
    assert time.monotonic() - began < 120, "the other one has no end"
    assert not [thread for thread in threading.enumerate() if thread.name in ("lab-slow", "lab-broken")]


def test_steps_that_change_nothing_may_follow_each_other(site: Site) -> None:
    image = site.build("FROM corpus\nRUN true\nRUN test -e /bin\nRUN echo x > /x\n")
    assert site.read(image, "/x") == b"x\n"
    assert len(image.layers) == 4


def test_a_stage_that_comes_later_can_t_be_used(site: Site) -> None:
    for text in ("FROM later\nFROM corpus AS later\n", "FROM corpus AS x\nCOPY --from=x /a /\n"):
        with pytest.raises(DockerfileError, match="does not come before this one"):
            site.build(text, Options(target="0"))
    with pytest.raises(UsageError, match="there is no such stage"):
        site.build("FROM corpus\n", Options(target="1"))
    with pytest.raises(DockerfileError, match="FROM --platform=linux/s390x is not supported"):
        site.build("FROM --platform=linux/s390x corpus\n")


def test_the_same_tree_has_the_same_digest_on_another_home(
    site: Site, tmp_path: Path, base: Path, runner: ContainerSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "FROM corpus AS a\nRUN mkdir /x && echo $RANDOM > /tmp/no && rm /tmp/no && echo x > /x/y\nFROM corpus\n"
        "COPY --from=a /x /x\nCOPY . /src/\nCOPY <<E /doc\ntext\nE\nLABEL a=b\nHEALTHCHECK CMD true\n"
    )
    first = site.build(text)
    os.utime(site.context / "file", (1, 1))
    other = Site(tmp_path / "other", site.context, base, runner)
    assert other.build(text).digest == first.digest
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    stamped = other.build(text)
    assert stamped.digest != first.digest
    assert all(
        entry.status.st_mtime <= 1_000_000_000
        for entry in Tree(other.store.lower_directories(stamped)[:-1]).walk()
        if not entry.is_directory
    )


def test_the_cache_of_an_image_from_elsewhere(site: Site, tmp_path: Path, base: Path, runner: ContainerSteps) -> None:
    text = "FROM corpus\nRUN echo made here > /made\nCOPY file /\nENV A=1\n"
    made = site.build(text)
    other = Site(tmp_path / "other", site.context, base, runner)
    described = other.context.parent / "layout"
    shutil.copytree(site.store.layout, described)
    entry = {"digest": made.digest, "size": site.store.blob(made.digest).stat().st_size, "mediaType": MANIFEST_TYPE}
    (described / "index.json").write_text(json.dumps({"manifests": [entry]}))
    adopt(described, "elsewhere", other.store, Origin.REGISTRY)
    assert other.build(text, Options(cache_from=("elsewhere",))).digest == made.digest
    assert other.cached == [False, True, True, False]
    other.build(text, Options(cache_from=("registry.invalid/nothing",), use_cache=False))
    assert other.cached == [False, False, False, False]
    assert any(isinstance(event, Note) and "is not used" in event.text for event in other.events)


def test_a_linked_copy_does_not_depend_on_what_is_below(site: Site) -> None:
    text = "FROM corpus\nARG A\nRUN echo $A > /a\nCOPY --link file /linked\nCOPY file /plain\n"
    site.build(text, A="1")
    image = site.build(text, A="2")
    assert site.cached == [False, False, False, True, False]
    assert site.read(image, "/a") == b"2\n"


def test_mounts_leave_nothing_and_secrets_are_nowhere(site: Site, tmp_path: Path) -> None:
    socket_path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        listening.listen()
        secret = b"never-to-be-kept"
        offer = Offer(secrets={"s": secret, "v": secret}, agents={"default": socket_path})
        image = site.build(
            "FROM corpus AS other\nRUN mkdir /d && echo 1 > /d/one\nRUN echo 2 > /d/two && rm /d/one\nFROM corpus\n"
            "RUN --mount=type=bind,from=other,source=/d,target=/d,rw echo 3 > /d/three && ls /d > /listing\n"
            "RUN --mount=type=bind,target=/context,rw echo lost > /context/lost && cat /context/file > /copied\n"
            "RUN --mount=type=secret,id=s,required=true --mount=type=secret,id=v,env=TOKEN "
            '--mount=type=ssh test -S "$SSH_AUTH_SOCK" && test "$TOKEN" = "$(cat /run/secrets/s)" && echo $TOKEN\n'
            "RUN --mount=type=tmpfs,target=/t,size=8k echo fits > /t/a && ! cat /bin/busybox > /t/b 2> /dev/null\n"
            'RUN test -z "$TOKEN$SSH_AUTH_SOCK" && ls / > /root/listing\n',
            Options(offer=offer),
        )
    assert site.read(image, "/listing") == b"three\ntwo\n"
    assert site.read(image, "/copied") == b"content\n"
    assert not (site.context / "lost").exists()
    assert b"context" not in (site.read(image, "/root/listing") or b"")
    assert secret in b"".join(event.data for event in site.events if isinstance(event, Output)), "it was there"
    kept = [path for path in site.store.home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in kept if secret in path.read_bytes()] == []


def test_cache_mounts_are_shared_locked_or_private(site: Site) -> None:
    count = "RUN --mount=type=cache,id=c,target=/c,sharing={} echo >> /c/f && tail -c 9 /c/f | tr '\\n' x > /{}\n"
    for number, (sharing, found) in enumerate([("shared", b"x"), ("locked", b"xx"), ("private", b"xxx")]):
        image = site.build("FROM corpus\n" + count.format(sharing, number), Options(use_cache=False))
        assert site.read(image, f"/{number}") == found
    image = site.build("FROM corpus\nRUN --mount=type=cache,target=/new,mode=0700,uid=7 ls -ld /new > /ls\n")
    assert (site.read(image, "/ls") or b"").startswith(b"drwx------")


def test_warnings_and_an_error_out_of_them(site: Site) -> None:
    site.build("FROM corpus\nCMD serve\n")
    assert [event.rule for event in site.events if isinstance(event, Warned)] == ["JSONArgsRecommended"]
    site.build("# check=skip=JSONArgsRecommended\nFROM corpus\nCMD serve\n")
    assert not any(isinstance(event, Warned) for event in site.events)
    with pytest.raises(DockerfileError, match="Dockerfile:3: JSONArgsRecommended"):
        site.build("# check=error=true\nFROM corpus\nCMD serve\n")


def make_repository(work: Path, bare: Path) -> None:
    """A repository as plain files, which any web server can give out."""
    for path, text in ((work / "top", "top\n"), (work / "sub" / "inner", "inner\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main"]
    for words in (
        ["git", *who, "init", "-q", work], ["git", "-C", work, "add", "."],
        ["git", *who, "-C", work, "commit", "-q", "-m", "one"], ["git", "-C", work, "tag", "v1"],
        ["git", "clone", "-q", "--bare", work, bare], ["git", "-C", bare, "update-server-info"],
    ):  # fmt: skip
        subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on the loopback; it holds a file and a git repository of plain files."""
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "file.txt").write_text("downloaded\n")
    make_repository(tmp_path / "work", folder / "repo.git")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_repositories(site: Site, server: str) -> None:
    image = site.build(
        f"FROM scratch\nADD {server}/repo.git /whole/\nADD {server}/repo.git#v1:sub /sub/\n"
        f"ADD --keep-git-dir {server}/repo.git#main /kept/\n"
    )
    tree = Tree(site.store.lower_directories(image))
    assert (tree.read("/whole/top"), tree.read("/sub/inner")) == (b"top\n", b"inner\n")
    assert tree.lookup(b"whole/.git") is None
    assert tree.lookup(b"kept/.git/HEAD") is not None
    with pytest.raises(DockerfileError, match="the repository has no nowhere"):
        site.build(f"FROM scratch\nADD {server}/repo.git#nowhere /x/\n")


def test_downloads(site: Site, server: str) -> None:
    checksum = "sha256:" + hashlib.sha256(b"downloaded\n").hexdigest()
    image = site.build(f"FROM scratch\nADD --checksum={checksum} --chmod=644 {server}/file.txt /d/\n")
    assert site.read(image, "/d/file.txt") == b"downloaded\n"
    site.build(f"FROM scratch\nADD --checksum={checksum} http://127.0.0.1:1/gone.txt /d/\n")  # kept in the store
    for line, says in (
        (f"--checksum=sha256:{'0' * 64} {server}/file.txt /d/", "has the checksum"),
        ("--checksum=md5:0 a /d/", "is not sha256"),
        (f"{server}/missing.txt /d/", "404"),
        (f"{server} /d/", "has no file name"),
    ):
        with pytest.raises(DockerfileError, match=says):
            site.build(f"FROM scratch\nADD {line}\n")


def test_the_command_line(tmp_path: Path, base: Path) -> None:
    context = tmp_path / "it"
    context.mkdir()
    (context / "Other").write_text("FROM scratch AS one\nCOPY f /\nFROM one\nCOPY none /\n")
    (context / "Other.dockerignore").write_text("g\n")
    (context / "f").write_text("f")
    options = [
        "-f",
        "Other",
        "--target",
        "one",
        "--label",
        "a=b",
        "--iidfile",
        tmp_path / "iid",
        "--progress",
        "plain",
    ]
    environment = {**os.environ, "LAB_HOME": str(tmp_path / "home")}
    done = preloaded.run(
        [*LAB, "build", context, *options], env=environment, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[1/2] FROM scratch AS one\n")
    image = Store.open(tmp_path / "home").find("it")
    assert (tmp_path / "iid").read_text() == image.digest
    assert image.config.labels == {"a": "b"}
    failed = preloaded.run(
        [*LAB, "build", context, "-f", "Other"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert failed.returncode == 2
    assert "Other:4: there is no none " in failed.stderr.splitlines()[0]


def test_a_step_sees_the_host_s_proxies_and_nothing_keeps_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = [case(name) for name in sorted(PROXIES) for case in (str.lower, str.upper)]
    for name in (*proxies, "rsync_proxy"):
        monkeypatch.setenv(name, f"http://{name}.planted.invalid")

    def seen() -> dict[str, str]:
        printed = b"".join(event.data for event in site.events if isinstance(event, Output)).decode()
        pairs = (line.partition("=") for line in printed.splitlines())
        return {name: value for name, _, value in pairs if name.lower().endswith("_proxy")}

    image = site.build("FROM corpus\nRUN env; echo done > /done\n")
    assert seen() == {name: f"http://{name}.planted.invalid" for name in proxies}
    for name in proxies:
        monkeypatch.setenv(name, "http://another.planted.invalid")
    other = {"http_proxy": "http://given.planted.invalid"}
    assert site.build("FROM corpus\nRUN env; echo done > /done\n", **other).digest == image.digest
    assert site.cached[-1], "no key depends on them"
    site.build("FROM corpus\nRUN env; echo more > /done\n", **other)
    assert seen() == {**dict.fromkeys(proxies, "http://another.planted.invalid"), **other}
    documents = (
        site.store.read_json(image.digest),
        site.store.read_json(site.store.read_json(image.digest)["config"]["digest"]),
    )
    assert "proxy" not in json.dumps(documents).lower()
    assert [path.name for path in site.store.lower_directories(image)[0].iterdir()] == ["done"]


def test_a_proxy_that_the_dockerfile_declares_is_an_argument_like_others(site: Site) -> None:
    for number in (1, 2):
        site.build("FROM corpus\nARG http_proxy\nRUN env\n", http_proxy=f"http://{number}.invalid")
        assert not site.cached[-1]
        printed = b"".join(event.data for event in site.events if isinstance(event, Output))
        assert f"http_proxy=http://{number}.invalid\n".encode() in printed
