"""A tiny root of busybox, a launcher per module, and one way to run a command under lab's runtime or runc's."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import dockering
import pytest
from dockering import Docker, Engine
from escaping import Ask
from roots import fill, open_folder
from running import Output, Ran, Run, Start
from tiny import tiny_image
from usable import unchanged_host

from lab.backends.engine import dockerd
from lab.backends.site import Site
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import Hierarchies, Unused, make_room
from lab.host.clock import Timeline
from lab.images.store import Image
from lab.model import Limits, Process
from lab.runtime import bundle
from lab.runtime.config.model import Config
from lab.runtime.launcher.launcher import Container, Directory, Launcher, Overlay, Spec

NAMES = itertools.count()


@pytest.fixture(scope="session")
def busybox_root() -> Iterator[Path]:
    """A root with nothing but busybox: ``/bin/busybox`` and a link for each applet."""
    with open_folder() as root:
        fill(root)
        yield root


@pytest.fixture(scope="session")
def escape_root() -> Iterator[Path]:
    """Such a root with the program that tries to escape."""
    with open_folder() as root:
        fill(root)
        command = ["gcc", "-static", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
        source = Path(__file__).with_name("escapes.c")
        subprocess.run([*command, "-o", root / "bin" / "escape", source], check=True, timeout=250)
        yield root


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One for a module; the host is after it as it was before it."""
    with unchanged_host("") as opened:
        yield opened


@pytest.fixture(scope="module")
def image(site: Site) -> Image:
    return tiny_image(site.store)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    session = uuid.uuid4().hex[:8]
    with open_folder() as folder, Launcher.start(session, folder / session) as started:
        yield started


@pytest.fixture
def start(launcher: Launcher, busybox_root: Path) -> Iterator[Start]:
    """Start a shell script, or ``argv``, in a container; it is closed at the end of the test."""
    started: list[Container] = []

    def begin(
        script: str = "",
        *,
        argv: tuple[str, ...] | None = None,
        config: Config | None = None,
        limits: Limits | None = None,
        root: Overlay | Directory | None = None,
        stdin: int | None = None,
        **options: object,
    ) -> tuple[Container, Output]:
        config = config or bundle.container_config(Process(argv=argv or ("sh", "-c", script)), limits)
        spec = Spec(
            name=f"c{next(NAMES)}",
            config=config,
            root=root or Overlay(lower=(busybox_root,)),
            **options,  # type: ignore[arg-type]
        )
        output = Output()
        try:
            out = output.descriptor
            container = launcher.launch(spec, stdin=stdin, stdout=out, stderr=out, timeline=Timeline())
        finally:
            output.handed_over()
        started.append(container)
        return container, output

    yield begin
    for container in started:
        container.close()


@pytest.fixture
def run(start: Start) -> Run:
    """Run one to its end; closed and verified before its output is looked at."""

    def complete(script: str = "", **options: object) -> Ran:
        container, output = start(script, **options)
        code = container.wait(120)
        assert code is not None, "it did not end in time"
        container.close()
        return Ran(exit_code=code, output=output.text(), stamps=container.timeline.stamps())

    return complete


@pytest.fixture
def runc_run(busybox_root: Path, tmp_path: Path) -> Run:
    """The same configuration under runc, the field's reference."""
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed")

    def complete(
        script: str = "",
        *,
        config: Config | None = None,
        limits: Limits | None = None,
        root: Path = busybox_root,
        stdin: int = subprocess.DEVNULL,
    ) -> Ran:
        config = config or bundle.container_config(Process(argv=("sh", "-c", script)), limits)
        name = f"lab-test-{uuid.uuid4().hex[:8]}"
        bundle.write(config, tmp_path, root=str(root), cgroups_path=f"/lab/{name}/one")
        make_room(f"lab/{name}/one")
        done = subprocess.run(
            ["runc", "run", "--bundle", tmp_path, name],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=250,
            check=False,
        )
        # runc removes its own group in every hierarchy there is, and leaves the parents it made for it.
        for tree in (Hierarchies.detect(), Unused.detect()):
            ControlGroup.open(f"lab/{name}/one", hierarchies=tree).prune_parents()
        return Ran(exit_code=done.returncode, output=done.stdout, stamps={})

    return complete


@pytest.fixture
def attempt(run: Run, escape_root: Path) -> Ask:
    """An attempt under lab's runtime."""
    return lambda config: run(config=config, root=Overlay(lower=(escape_root,)), init=False).output.strip()


@pytest.fixture
def attempt_under_runc(runc_run: Run, escape_root: Path) -> Ask:
    """An attempt under runc, from the same root."""
    return lambda config: runc_run(config=config, root=escape_root).output.strip()


@pytest.fixture(params=["lab", "runc"])
def either(request: pytest.FixtureRequest) -> Run:
    """The same test under lab's runtime and under runc's: what holds for one must hold for the other."""
    found: Run = request.getfixturevalue("run" if request.param == "lab" else "runc_run")
    return found


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine | None]:
    """A Docker Engine for all tests of a file; None where it is not installed."""
    if dockerd.lacking():
        yield None
        return
    with dockering.opened() as found:
        yield found


@pytest.fixture(params=dockering.RUNTIMES)
def docker(request: pytest.FixtureRequest, engine: Engine | None, missing: Callable[[str], None]) -> Iterator[Docker]:
    """The same test with lab-oci and, by night, with runc: what runc does not pass is not asked of lab-oci."""
    if engine is None:
        missing(f"{dockerd.lacking()}, which is Debian's docker.io")
        return
    found = Docker(engine, request.param)
    yield found
    found.close()
