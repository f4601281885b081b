"""``docker run`` with lab-oci beside the same with runc: one Docker Engine, one image, the same rounds.

The Engine is the distribution's, started for this alone (`lab.backends.engine.dockerd`); the host's own is left
alone. The clock starts with the command and stops when it has ended and the container is removed: most of it is
Docker's.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.engine import dockerd
from lab.errors import CommandError, LabError
from lab.experiment.selfbench.containers import APPLICATION, Results, interleave, remove_groups, spawn
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import make_room
from lab.host.session.ledger import Resource, ResourceKind
from lab.runtime.oci.install import EXECUTABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.backends.site import Site
    from lab.experiment.watch import Watch

IMAGE = "lab-selfbench"
FOLDERS = {"bin": 0o755, "dev": 0o755, "etc": 0o755, "proc": 0o755, "sys": 0o755, "tmp": 0o1777}
START_SECONDS = 60.0


def measure_docker(site: Site, results: Results, watch: Watch) -> None:
    """Raises LabError where there is no Docker Engine, or it does not start."""
    if missing := dockerd.lacking():
        raise CommandError(f"{missing} is not installed", hint=f"apt-get install {dockerd.PACKAGE}")
    watch.doing("Docker Engine")
    with _engine(site) as folder:
        contenders = {f"docker {runtime}": _runner(folder, runtime) for runtime in ("lab-oci", "runc")}
        found = interleave(
            contenders, results.rounds, results.seed, lambda text: watch.doing(f"Docker Engine: {text}")
        )
    results.add("docker lab-oci", "docker run --runtime lab-oci", found["docker lab-oci"])
    results.add("docker runc", "docker run --runtime runc, on the same image", found["docker runc"])


def _runner(folder: Path, runtime: str) -> Callable[[], float]:
    words = ["run", "--rm", "--network=none", "--runtime", runtime, IMAGE, APPLICATION]
    return lambda: spawn(dockerd.client(folder, *words))


@contextmanager
def _engine(site: Site) -> Iterator[Path]:
    """The folder of an Engine that runs and has the image; nothing is left of it."""
    folder = site.scratch / "docker"
    group = group_of(site.session.id, "docker")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True)
        site.session.record(Resource(kind=ResourceKind.OTHER_CGROUP, name=group_of(site.session.id)))
        stack.callback(remove_groups, group)
        make_room(f"{group}/any")
        process = dockerd.start(folder, cgroup_parent=f"/{group}", runtimes={"lab-oci": str(EXECUTABLE)})
        stack.callback(process.wait)
        stack.callback(process.kill)
        _await(folder, process)
        archive = folder / "image.tar"
        dockerd.pack(archive, FOLDERS, {}, ("true",))
        spawn(dockerd.client(folder, "import", str(archive), IMAGE))
        yield folder


def _await(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the Engine answers. Raises LabError with its last words if it ends, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(dockerd.client(folder, "version"), capture_output=True, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise LabError(f"a Docker Engine does not start here: {' '.join(last)}", hint="lab doctor")
        time.sleep(0.05)
