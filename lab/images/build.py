"""THE STORY OF A BUILD: read → find the stages the target needs → build them, side by side → one image.

A stage is `lab.images.stages.stage`'s story. RUN needs a container runtime, which is above this package: the caller
hands in a `StepRunner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lab.errors import DockerfileError, ImageError, UsageError
from lab.host.identity import privilege
from lab.images.dockerfile import ignore, lint
from lab.images.dockerfile.graph import Stages, global_arguments, is_proxy, platform_arguments
from lab.images.dockerfile.instructions import Arg
from lab.images.dockerfile.parse import Dockerfile, parse, read
from lab.images.layers import Layer
from lab.images.progress import Event, Note, Output, Progress, StepFinished, StepStarted, Warned, silent
from lab.images.reference import normalise
from lab.images.runner import StepRunner
from lab.images.stages.cache import Cache, keys_of
from lab.images.stages.copy_sources import CopySource
from lab.images.stages.job import Built, Job, Options
from lab.images.stages.run_step import StepFailed
from lab.images.stages.stage import build_stage
from lab.images.store import Image, Origin, Store
from lab.images.tree import Tree

__all__ = [
    "Event", "Note", "Options", "Output", "Progress", "StepFinished", "StepRunner", "StepStarted", "Warned", "build",
    "silent",
]  # fmt: skip

NO_SPACE = (28, 122)  # ENOSPC, EDQUOT


def build(
    context: Path,
    *,
    dockerfile: Path,
    tag: str,
    build_args: Mapping[str, str],
    store: Store,
    runner: StepRunner,
    progress: Progress = silent,
    options: Options | None = None,
) -> Image:
    """Build ``dockerfile`` with the files of ``context`` and call the result ``tag``.

    Raises DockerfileError for what the user wrote, ImageError for a base that can't be had or a RUN that fails;
    its ``detail`` is then the output's tail. Nothing but cached layers stays of a build that fails.
    """
    normalise(tag)
    if not context.is_dir():
        raise UsageError(f"there is no directory {context}", hint="lab build DIR, with a Dockerfile in it")
    privilege.require(privilege.Need.OWNERS, "building an image, whose files have owners,", "build …")
    try:
        parsed = read(dockerfile)
        lint.check(parsed, progress)
        place = CopySource(Tree([context.resolve()]), "the build context", hidden=ignore.read(context, dockerfile))
        return _build(parsed, place, tag, build_args, store, runner, progress, options or Options(), Origin.BUILT)
    except (DockerfileError, StepFailed) as error:
        raise error.at(dockerfile.name) from error
    except OSError as error:
        if error.errno in NO_SPACE:
            raise ImageError(
                f"no space left under {store.home}", hint="free some, or set LAB_HOME to a larger disk"
            ) from error
        raise


def _build(
    parsed: Dockerfile,
    context: CopySource | None,
    tag: str,
    build_args: Mapping[str, str],
    store: Store,
    runner: StepRunner,
    progress: Progress,
    options: Options,
    origin: Origin,
) -> Image:
    arguments = global_arguments(parsed, build_args, options.target)
    stages = Stages(parsed, arguments)
    target = stages.target(options.target)

    def recipe(text: str, name: str) -> Image:
        """Build one of lab's own recipes that is itself a Dockerfile, without a context."""
        return _build(parse(text), None, name, {}, store, runner, progress, Options(), Origin.RECIPE)

    with store.writing():  # nobody may collect a layer before the image is there that needs it
        job = Job(
            parsed=parsed,
            stages=stages,
            context=context,
            build_args=build_args,
            arguments=arguments,
            options=options,
            store=store,
            runner=runner,
            cache=Cache(store, use=options.use_cache, imported=_imported(store, options, progress)),
            listener=progress,
            build_stage=build_stage,
            build_recipe=recipe,
        )
        built = job.run(target)
        report_unused_arguments(parsed, build_args, progress)
        return _store(built, tag, store, options, origin)


def _store(built: Built, tag: str, store: Store, options: Options, origin: Origin) -> Image:
    config = replace(built.config, labels={**built.config.labels, **options.labels})
    return store.add_image(
        tag, config=config, layers=built.layers, origin=origin, base=built.base, history=built.history
    )


def _imported(store: Store, options: Options, progress: Progress) -> dict[str, Layer]:
    """The layers that the images of ``--cache-from`` know by their keys; one that can't be had is no error."""
    found: dict[str, Layer] = {}
    if not options.cache_from:
        return found
    from lab.images.transfer import registry

    for name in options.cache_from:
        try:
            image = store.find(name) if name in store else registry.fetch(normalise(name), store, progress)
        except registry.Unreachable as error:
            progress(Note(text=f"--cache-from {name} is not used: {error}"))
        else:
            found |= keys_of(store, image)
    return found


def report_unused_arguments(parsed: Dockerfile, build_args: Mapping[str, str], progress: Progress) -> None:
    """Say which ``--build-arg`` the Dockerfile never declares: a misspelt one changes nothing."""
    everywhere = (*parsed.global_arguments, *(one for stage in parsed.stages for one in stage.instructions))
    declared = {name for one in everywhere if isinstance(one, Arg) for name, _ in one.pairs}
    for name in sorted(set(build_args) - declared - set(platform_arguments())):
        if not is_proxy(name) and name != "SOURCE_DATE_EPOCH":
            progress(Note(text=f"--build-arg {name} is not used: the Dockerfile has no ARG {name}"))
