"""``--docker HOST``: an engine that runs already is used, and afterwards it is as it was, killed or not.

The engine is one of the tests' own, in namespaces of its own, with an image and a container of somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import contract
import preloaded
import pytest
from comparing import LAB, make_scenario, only_run
from dockering import Engine, opened
from host_state import assert_unchanged, snapshot
from killed import killed_lab
from tiny import tiny_image

from lab.analysis import load
from lab.backends import registry
from lab.backends.dockerhost import DockerHost, allow
from lab.backends.engine import dockerd
from lab.backends.site import Site
from lab.commands.options.brought import Brought
from lab.host.session import engines
from lab.images.store import Image


@pytest.fixture(autouse=True)
def usable(missing: Callable[[str], None]) -> None:
    if lacking := dockerd.lacking():
        missing(f"{lacking} is not installed")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if lacking := dockerd.lacking():
        pytest.skip(lacking)
    with opened() as found:
        assert found("tag", "tiny", "mine:1").code == 0
        assert (
            found(
                "run", "-d", "--name", "others", "--label", f"{engines.LABEL}=another", "tiny", "sleep", "9999"
            ).code
            == 0
        )
        yield found


@pytest.fixture(scope="module")
def kind(engine: Engine) -> type[DockerHost]:
    word = allow(dockerd.address(engine.folder))
    (found,) = Brought.admitted([word]).kinds
    assert issubclass(found, DockerHost)
    assert registry.find(word) is found
    return found


@pytest.fixture(scope="module")
def site(kind: type[DockerHost]) -> Iterator[Site]:
    with Site.open() as found:
        yield found


@pytest.fixture(scope="module")
def image(site: Site, kind: type[DockerHost]) -> Image:
    built = tiny_image(site.store)
    site.backend(kind.name).prepare(built)
    return built


def inventory(engine: Engine) -> str:
    """All that it has, and what state it is in."""
    words = (
        ("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"),
        ("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"),
        ("network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"),
        ("volume", "ls", "--format", "{{.Name}}"),
    )
    return "\n".join("\n".join(sorted(engine(*each).out.splitlines())) for each in words)


def test_output_exit_code_server_limits_and_accounting(
    site: Site, kind: type[DockerHost], image: Image, tmp_path: Path
) -> None:
    contract.check_exit_code_and_output(site, kind.name, image, tmp_path / "seven")
    server = contract.serve(site, kind.name, image, tmp_path / "server")
    contract.check_serves(site, server)
    contract.check_commands(server)
    contract.check_limits(site, kind.name, server)
    contract.check_accounted(server)
    links = server.execute(["ls", "/sys/class/net"]).stdout.decode().split()
    assert sorted(links) == ["eth0", "lab0", "lo"], "the engine's own, and lab's beside it"
    server.stop(grace_seconds=0)
    contract.check_gone(site, server)


def test_the_engine_has_the_image_under_the_sessions_name_alone(
    site: Site, kind: type[DockerHost], image: Image, engine: Engine
) -> None:
    backend = site.backend(kind.name)
    assert isinstance(backend, DockerHost)
    names = backend.hosted.client.image(backend.hosted.load(image))["RepoTags"]
    assert [name.partition(":")[0] for name in names] == [engines.repository(site.session.id)]
    theirs = {engine("images", "--no-trunc", "-q", name).out for name in ("mine:1", image.name)}
    assert len(theirs) == 1, "what had lab's name for it before has it still"


def test_afterwards_it_is_as_it_was(kind: type[DockerHost], engine: Engine, image: Image, tmp_path: Path) -> None:
    """With a container that was forgotten, too."""
    before = inventory(engine)
    with Site.open() as own:
        wanted = contract.request(own, image, "forgotten", "sleep", "600", logs=tmp_path / "logs")
        own.backend(kind.name).launch(wanted)
        assert inventory(engine) != before
    assert inventory(engine) == before


def test_an_image_that_was_there_stays(kind: type[DockerHost], engine: Engine, image: Image) -> None:
    with Site.open() as own:
        own.backend(kind.name).prepare(image)
        assert engine("tag", f"{engines.repository(own.session.id)}:{image.digest[7:19]}", "theirs:2").code == 0
        before = inventory(engine)
        with Site.open() as another:
            another.backend(kind.name).prepare(image)
            assert inventory(engine).count(f"{engines.repository(another.session.id)}:") == 1
        assert inventory(engine) == before
    assert "theirs:2" in inventory(engine)
    assert engine("rmi", "theirs:2").code == 0


def test_a_killed_lab_leaves_nothing_there(
    kind: type[DockerHost], engine: Engine, image: Image, tmp_path: Path
) -> None:
    before = inventory(engine)
    host = snapshot()
    preface = (
        "from lab.backends.dockerhost import allow\n"
        "from lab.commands.options.brought import Brought\n"
        f"Brought.admitted([allow({kind.host!r})])\n"
    )
    with killed_lab(kind.name, tmp_path / "logs", preface):
        assert "lab-" in inventory(engine)
    assert_unchanged(host)
    assert inventory(engine) == before


@pytest.mark.nightly
def test_compared_beside_a_container(engine: Engine, tmp_path: Path) -> None:
    before = inventory(engine)
    scenario = make_scenario(tmp_path / "page")
    words = ["--on", "container,docker", "--docker", dockerd.address(engine.folder), "--blocks", "1"]
    words += ["--metrics", "boot,memory", "--idle", "0.2s", "--out", str(tmp_path / "out")]
    done = preloaded.run(
        [*LAB, "compare", str(scenario), *words], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = load(only_run(tmp_path / "out"))
    assert {arm.backend for arm in loaded.all_arms} == {"container", "docker:host"}
    assert loaded.frame.query("quantity == 'boot.total' and arm == 'docker:host'")["value"].notna().all()
    assert inventory(engine) == before


def test_only_the_option_leads_there(engine: Engine, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = preloaded.run([*LAB, "run", "tiny", *words], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 2, done.stderr
        return done.stderr

    address = dockerd.address(engine.folder)
    other = f"unix://{tmp_path}/none"
    assert "--docker" in said("--on", f"docker:{other}")
    assert "--on docker" in said("--on", "container", "--docker", address)
    assert "-d" in said("-d", "--on", "docker", "--docker", address)
    for host in ("tcp://192.0.2.1:2375", "ssh://me@192.0.2.1", "tcp://127.0.0.1", "nonsense"):
        assert host in said("--on", "docker", "--docker", host)


def test_an_engine_that_does_not_answer_is_a_line(tmp_path: Path) -> None:
    words = ["starts", str(make_scenario(tmp_path / "page")), "--on", "docker", "--docker", str(tmp_path / "none")]
    done = preloaded.run([*LAB, *words], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
