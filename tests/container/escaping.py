"""Attempts to escape, and what stops them: each mechanism can be taken out of the default configuration alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from lab.model import Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Capabilities, Config, DeviceRule

SUCCEEDED = "succeeded"
READS = ("open_to_write", "read_some", "list_some")
INCONCLUSIVE = ("stopped: ENOSYS", "stopped: EOPNOTSUPP")
"""This kernel was built without the thing, so there is nothing to show."""

PROGRAM = "/bin/escape"

Layer = Callable[[Config], Config]
Ask = Callable[[Config], str]
"""Runs it and returns what the attempt printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is tried, and what stops it by default: any one of ``layers`` does, so all must go for it to succeed."""

    words: tuple[str, ...]
    layers: Mapping[str, Layer]

    def config(self, *removed: str, all_layers: bool = False) -> Config:
        """The default configuration without the layers named."""
        found = bundle.container_config(Process(argv=(PROGRAM, *self.words)))
        wanted = [self.layers[name] for name in (self.layers if all_layers else removed)]
        for layer in wanted:
            found = layer(found)
        return found

    def with_only(self, layer: str) -> Config:
        """Nothing but this layer between the attempt and its success."""
        return self.config(*(name for name in self.layers if name != layer))


def no_filter(config: Config) -> Config:
    """Without seccomp."""
    return replace(config, linux=replace(config.linux, seccomp=None))


def capability(*names: str) -> Layer:
    """With these capabilities besides Docker's fourteen."""

    def more(config: Config) -> Config:
        held = config.process.capabilities or Capabilities()
        sets = {
            kind: tuple(sorted({*getattr(held, kind), *names})) for kind in ("bounding", "effective", "permitted")
        }
        return replace(config, process=replace(config.process, capabilities=replace(held, **sets)))

    return more


def namespace(kind: str) -> Layer:
    """Sharing the host's."""

    def shared(config: Config) -> Config:
        others = tuple(each for each in config.linux.namespaces if each.type != kind)
        sysctl = {} if kind == "network" else config.linux.sysctl
        mounts = tuple(each for each in config.mounts if kind != "cgroup" or each.type != "cgroup")
        return replace(config, mounts=mounts, linux=replace(config.linux, namespaces=others, sysctl=sysctl))

    return shared


def unmasked(path: str) -> Layer:
    """Without the mask over ``path``."""

    def shown(config: Config) -> Config:
        assert path in config.linux.masked_paths, f"{path} is not masked at all"
        others = tuple(each for each in config.linux.masked_paths if each != path)
        return replace(config, linux=replace(config.linux, masked_paths=others))

    return shown


def unlocked(path: str) -> Layer:
    """With ``path`` writable."""

    def writable(config: Config) -> Config:
        assert path in config.linux.readonly_paths, f"{path} is not read-only at all"
        others = tuple(each for each in config.linux.readonly_paths if each != path)
        return replace(config, linux=replace(config.linux, readonly_paths=others))

    return writable


def writable_mount(destination: str) -> Layer:
    """With the file system on ``destination`` writable."""

    def writable(config: Config) -> Config:
        mounts = tuple(
            replace(each, options=tuple(word for word in each.options if word != "ro"))
            if each.destination == destination
            else each
            for each in config.mounts
        )
        assert mounts != config.mounts, f"{destination} is not read-only at all"
        return replace(config, mounts=mounts)

    return writable


def all_devices(config: Config) -> Config:
    """Without device rules."""
    resources = replace(config.linux.resources, devices=(DeviceRule(allow=True),))
    return replace(config, linux=replace(config.linux, resources=resources))


FILTER: dict[str, Layer] = {"seccomp": no_filter}
ADMIN: dict[str, Layer] = {"CAP_SYS_ADMIN": capability("CAP_SYS_ADMIN")}
PROCESSES: dict[str, Layer] = {"pid namespace": namespace("pid")}
TRACING: dict[str, Layer] = {"CAP_SYS_PTRACE": capability("CAP_SYS_PTRACE")}


def by_call(verb: str, *capabilities: str, words: tuple[str, ...] = ()) -> Attempt:
    """Stopped by the filter, and by the lack of each of these capabilities."""
    return Attempt(words=(verb, *words), layers=FILTER | {name: capability(name) for name in capabilities})


def check(ask: Ask, attempt: Attempt) -> None:
    """Stopped by default; a success with all layers gone; stopped by each layer alone."""
    said = ask(attempt.config())
    assert said.startswith("stopped: "), said
    control = ask(attempt.config(all_layers=True))
    if control in INCONCLUSIVE or (control == "stopped: ENOENT" and attempt.words[0] in READS):
        pytest.skip(f"this kernel has no such thing: {control}")
    assert control == SUCCEEDED, f"the attempt proves nothing: it fails whatever is allowed: {control}"
    for layer in attempt.layers:
        alone = ask(attempt.with_only(layer))
        assert alone.startswith("stopped: "), f"{layer} alone does not stop it: {alone}"
