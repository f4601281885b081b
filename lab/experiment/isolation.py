"""The isolation questions by themselves: one instance per backend, asked everything, and nothing measured.

Without a scenario the image holds nothing but lab's helper, which waits: what is asked about is the boundary, and an
application changes none of the answers but by its limits.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lab.backends.site import Site
from lab.errors import LabError, LaunchError
from lab.experiment.applications import WAIT as WAIT_BESIDE
from lab.experiment.applications import require_success
from lab.experiment.watch import Watch
from lab.images.process import resolve
from lab.images.store import Image, Origin
from lab.inside import build
from lab.instance import Backend, LaunchRequest
from lab.isolation.base import Probe
from lab.isolation.battery import ask_all, ended
from lab.model import Accelerator, ImageConfig, Limits, Process
from lab.results.observation import Observation

LIMITS = Limits(memory_bytes=256 << 20, cpus=1.0, pids=64)
"""So that there are some to be tried; large enough for every backend, small enough to be tried in a second."""

ENDING_SECONDS = 1.0
"""From when it can't be asked any more until its end is known."""
SHARED_BYTES = 1 << 20
DIRECTORIES = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var/tmp")
WAIT = ("/inside", "call", "ppoll", "0", "0", "0", "0")  # nothing to wait for, and no end: until a signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one backend's instance answered, in the registry's order."""

    backend: Backend
    accelerator: Accelerator
    answers: tuple[Observation, ...]


def image_of_nothing(site: Site) -> Image:
    """An image with lab's helper and the directories that a runtime expects; made at the first call."""
    name = f"lab-isolation-{build.digest()}"
    if name in site.store:
        return site.store.find(name)
    with site.store.scratch("isolation") as scratch:
        root = scratch / "root"
        for directory in DIRECTORIES:
            (root / directory).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/inside\n")
        (root / "etc/group").write_text("root:x:0:\n")
        shutil.copy(build.program(), root / "inside")
        (root / "pages").write_bytes(bytes(SHARED_BYTES))  # a file that nobody uses, for who wants to share one
        layer = site.store.add_layer(root)
    return site.store.add_image(
        name, config=ImageConfig(environment={"PATH": "/"}, command=WAIT), layers=(layer,), origin=Origin.BUILT
    )


def ask_backends(
    site: Site,
    backends: Sequence[str],
    watch: Watch,
    *,
    logs: Path,
    chosen: Sequence[Probe] | None = None,
    image: Image | None = None,
    process: Process | None = None,
    limits: Limits = LIMITS,
    ends: bool = False,
) -> Iterator[Asked]:
    """Launch one instance per backend, the thinnest boundary first, and ask it; it is gone when its answers come.

    ``chosen`` are the probes, all unless given. ``process`` is what the ``image`` runs, its own command unless given.
    Of one that ends by itself, as ``ends`` says beforehand or is seen, another copy is asked, which waits. Raises
    LabError when an instance can't be started or fails; a probe that fails is an inconclusive answer.
    """
    image = image or image_of_nothing(site)
    process = process or resolve(image, site.store.lower_directories(image))
    for backend in sorted((site.backend(name) for name in backends), key=lambda each: each.order):
        watch.doing(f"preparing {backend.name}")
        backend.prepare(image)
        directory = logs / backend.name
        directory.mkdir(parents=True, exist_ok=True)
        request = LaunchRequest(
            name=f"asked-{backend.slug}", image=image, process=process, limits=limits, log_directory=directory
        )
        asked = None if ends else _ask(backend, request, watch, chosen)
        if asked is None:
            if not ends:
                watch.note("the application ended by itself: a copy of its image that waits is asked in its place")
            ends = True
            waits = replace(process, argv=WAIT_BESIDE, working_directory="/")
            waiting = replace(request, process=waits, knobs=backend.carrying(request.knobs))
            asked = _ask(backend, waiting, watch, chosen)
            assert asked is not None
        yield asked


def _ask(backend: Backend, request: LaunchRequest, watch: Watch, chosen: Sequence[Probe] | None) -> Asked | None:
    """What one instance answers; None when it ended meanwhile, and was content. Raises LaunchError when it failed."""
    watch.doing(f"{backend.name}: starting")
    with backend.launch(request) as instance:
        watch.doing(f"{backend.name}: asking")
        try:
            again = partial(backend.launch, replace(request, name=f"{request.name}-again"))
            answers, code = tuple(ask_all(instance, backend, chosen=chosen, again=again)), instance.wait(0.0)
        except (LabError, OSError):  # of one that has ended neither /proc nor an agent answers
            answers, code = (), instance.wait(ENDING_SECONDS)
            if code is None:
                raise
        accelerator = instance.accelerator
        try:
            code = None if ended(answers) else code
            require_success(instance, code)
        except LaunchError as error:
            error.hint, error.exit_code = "lab run starts it alone, and shows what it says", 1
            raise
    return None if code is not None else Asked(backend=backend, accelerator=accelerator, answers=answers)
