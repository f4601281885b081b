"""What a shell is offered where a word is to be completed: names of what there is.

It runs at every press of a key, so it reads names of files where it can and imports nothing heavy.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lab.instance import Backend

KEPT = "_LAB_COMPLETE_KEPT"
"""What comes before the word that bash wants completed, though it belongs to it."""


def join_words(environment: MutableMapping[str, str]) -> None:
    """Undo that bash parts words at = and : (COMP_WORDBREAKS, bash(1)) before it asks: firmware=d is three to it.

    What is offered must then lack what bash has already: of the last word only the end is left, the rest in ``KEPT``.
    """
    joined: list[str] = []
    kept = ""
    is_open = False  # whether the word before was such a break: what follows belongs to it
    for word in environment["COMP_WORDS"].split("\n")[: int(environment["COMP_CWORD"]) + 1]:
        is_break = bool(word) and not word.strip("=:")
        if joined and (is_break or is_open):
            kept = joined[-1] + word * is_break
            joined[-1] += word
        else:
            kept = ""
            joined.append(word)
        is_open = is_break
    joined[-1] = joined[-1].removeprefix(kept)
    environment["COMP_WORDS"], environment["COMP_CWORD"] = "\n".join(joined), str(len(joined) - 1)
    environment[KEPT] = kept


def _typed(incomplete: str) -> str:
    return os.environ.get(KEPT, "") + incomplete


def _offer(words: Iterable[str], incomplete: str) -> list[str]:
    kept, typed = len(_typed("")), _typed(incomplete)
    return sorted(word[kept:] for word in words if word.startswith(typed))


def _offer_in_list(words: Iterable[str], incomplete: str) -> list[str]:
    """The last of several, joined by commas, is completed."""
    before, comma, _ = incomplete.rpartition(",")
    return _offer((before + comma + word for word in words if word not in before.split(",")), incomplete)


def complete_instance(incomplete: str) -> list[str]:
    """Names of detached instances."""
    from lab.host.home import home

    try:
        return _offer((name for name in os.listdir(home() / "instances") if name[0] != "."), incomplete)  # noqa: PTH208
    except OSError:
        return []


def complete_backend(incomplete: str) -> list[str]:
    """Names of backends."""
    return _offer(_backends(), incomplete)


def complete_backends(incomplete: str) -> list[str]:
    """Names of backends, joined by commas."""
    return _offer_in_list(_backends(), incomplete)


def _backends() -> list[str]:
    """Those of the modules that define one, which need not be imported to be read."""
    from pathlib import Path

    import lab

    sources = (Path(lab.__file__).parent / "backends").glob("*.py")
    found = (re.search(r'^    name = "(\w+)"', source.read_text(), re.MULTILINE) for source in sources)
    return [match[1] for match in found if match]


def complete_image(incomplete: str) -> list[str]:
    """Names of images in the store, without the tag that goes without saying."""
    from lab.host.home import home

    try:
        entries = json.loads((home() / "images" / "index.json").read_text())["manifests"]
        names = {entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries}
    except (OSError, ValueError, KeyError):
        return []
    return _offer((name.removesuffix(":latest") for name in names), incomplete)


def complete_scenario(incomplete: str) -> list[str]:
    """Names of the scenarios that come with lab."""
    from pathlib import Path

    from lab.host.installed import shipped

    return _offer((file.parent.name for file in Path(shipped("scenarios")).glob("*/Dockerfile")), incomplete)


def complete_lesson(incomplete: str) -> list[str]:
    """Names of the lessons that come with lab."""
    from pathlib import Path

    import lab

    shipped = Path(lab.__file__).resolve().parent / "classroom" / "lessons"
    return _offer((file.parent.name for file in shipped.glob("*/lesson.toml")), incomplete)


def complete_class(incomplete: str) -> list[str]:
    """Names of the classes that were held."""
    from lab.host.home import home

    return _offer((file.parent.name for file in (home() / "class").glob("*/state.sqlite")), incomplete)


def complete_runnable(incomplete: str) -> list[str]:
    """What `lab run` takes: scenarios and images."""
    return sorted({*complete_scenario(incomplete), *complete_image(incomplete)})


def complete_factor(context: typer.Context, incomplete: str) -> list[str]:
    """Factors of the backends that --on names, each with all its levels, or with examples where any level will do;
    after NAME= its levels, one by one.
    """
    from lab.experiment.factors import known

    there = {one.name.removesuffix("NAME"): one for one in known(_named(context))}
    name, equals, levels = _typed(incomplete).partition("=")
    if equals and name in there:
        before, comma, _ = levels.rpartition(",")
        left = (level for level in there[name].levels if level not in before.split(","))
        return _offer((f"{name}={before}{comma}{level}" for level in left), incomplete)
    every = {name: ",".join(one.levels) or one.example for name, one in there.items()}
    return _offer((name if name[-1] == "." else f"{name}={levels}" for name, levels in every.items()), incomplete)


def complete_knob(context: typer.Context, incomplete: str) -> list[str]:
    """Knobs of the backend that --on names, at each level."""
    knobs = (knob for kind in _named(context) for knob in kind.knobs)
    return _offer({f"{knob.name}={level}" for knob in knobs for level in knob.levels}, incomplete)


def _named(context: typer.Context) -> list[type[Backend]]:
    """The backends of --on, or without it all."""
    from lab.backends.registry import available

    on = str(context.params.get("on") or "").split(",")
    kinds: list[type[Backend]] = list(available())
    return [kind for kind in kinds if kind.name in on] or kinds


def complete_probes(incomplete: str) -> list[str]:
    """Isolation probes, joined by commas."""
    from lab.isolation.registry import probes

    return _offer_in_list((probe.id for probe in probes()), incomplete)


def complete_groups(incomplete: str) -> list[str]:
    """Groups of isolation probes by their first words, since a beginning is enough; joined by commas."""
    from lab.isolation.base import Group

    return _offer_in_list({str(group).partition(" ")[0] for group in Group}, incomplete)
