"""Where FROM gets its image: the local store, a registry, or a recipe of lab's own, in this order.

Which one it was is recorded on the image, because the same name from another origin holds other bits.
"""

from __future__ import annotations

from collections.abc import Callable

from lab.errors import ImageError
from lab.images.progress import Note, Progress
from lab.images.reference import normalise
from lab.images.store import Image, Store

BuildRecipe = Callable[[str, str], Image]
"""Builds a Dockerfile's text, without a context, under a tag."""


def resolve_base(
    name: str, *, store: Store, progress: Progress, build_recipe: BuildRecipe, pull: bool = False
) -> Image:
    """The image ``name``, made or fetched if need be. Raises ImageError that names the three remedies, or the one
    against a certificate or a proxy in the way.

    ``pull`` asks the registry even for what the store has, which is kept when no registry answers.
    """
    wanted = normalise(name)
    if wanted in store and not pull:
        return store.find(wanted)
    from lab.images.debian import recipes
    from lab.images.transfer import registry, trouble

    try:
        return registry.fetch(wanted, store, progress)
    except registry.Unreachable as error:
        reason = str(error)
    if wanted in store:
        progress(Note(text=f"{wanted}: no registry gave it ({reason.rpartition(': ')[2]}); kept the store's"))
        return store.find(wanted)
    recipe = recipes.RECIPES.get(wanted)
    if recipe is None:
        if (found := trouble.find(reason, lasting=True)) is not None:
            raise ImageError(f"no base image {wanted}: {found.what}", hint=found.hint, detail=found.line)
        raise ImageError(
            f"no base image {wanted}: it is not in the store, no registry gave it, and lab has no recipe for it",
            hint=f"build it: lab build DIR -t {wanted}; or check the network: skopeo inspect docker://{wanted}; "
            f"or start from one of {', '.join(sorted(recipes.RECIPES))}",
            detail=reason,
        )
    progress(Note(text=f"{wanted}: no registry gave it ({reason.rpartition(': ')[2]}); using lab's own recipe"))
    return recipe.make(
        wanted,
        store=store,
        progress=progress,
        build_recipe=build_recipe,
        resolve=lambda base: resolve_base(base, store=store, progress=progress, build_recipe=build_recipe),
    )
