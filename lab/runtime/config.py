"""The OCI runtime configuration, typed (runtime-spec, config.md and config-linux.md).

Only what lab carries out is here. Anything else in a file is refused by its JSON path, never ignored: a
container that is less isolated than its configuration says is worse than none.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.errors import UsageError

VERSION = "1.0.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    type: str  # RLIMIT_NOFILE, …
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessConfig:
    args: tuple[str, ...]
    cwd: str = "/"
    terminal: bool = False
    user: User = field(default_factory=User)
    env: tuple[str, ...] = ()
    capabilities: Capabilities = field(default_factory=Capabilities)
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RootConfig:
    path: str = "rootfs"
    readonly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MountConfig:
    destination: str
    type: str = "none"
    source: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    type: str  # pid, network, mount, ipc, uts, user, cgroup
    path: str = ""  # join this one; a new one when empty


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMapping:
    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryResources:
    limit: int | None = None  # bytes
    swap: int | None = None  # bytes, memory included


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuResources:
    quota: int | None = None  # microseconds
    period: int | None = None  # microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PidsResources:
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    allow: bool
    type: str = "a"  # a, b, c
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    devices: tuple[DeviceRule, ...] = ()
    memory: MemoryResources | None = None
    cpu: CpuResources | None = None
    pids: PidsResources | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeccompArgument:
    index: int
    value: int
    op: str
    value_two: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeccompRule:
    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArgument, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seccomp:
    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    syscalls: tuple[SeccompRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Linux:
    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    cgroups_path: str = ""
    resources: Resources = field(default_factory=Resources)
    sysctl: Mapping[str, str] = field(default_factory=dict)
    seccomp: Seccomp | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One container, as its config.json says. Field names are the specification's, in our spelling."""

    process: ProcessConfig
    oci_version: str = VERSION
    root: RootConfig = field(default_factory=RootConfig)
    hostname: str = ""
    mounts: tuple[MountConfig, ...] = ()
    linux: Linux = field(default_factory=Linux)
    annotations: Mapping[str, str] = field(default_factory=dict)


SPELLING = {"no_new_privileges": "noNewPrivileges", "container_id": "containerID", "host_id": "hostID"}


def camel(name: str) -> str:
    """A field's name in JSON."""
    first, *rest = name.split("_")
    return SPELLING.get(name, first + "".join(word.capitalize() for word in rest))


def to_json(config: Config) -> dict[str, Any]:
    """The configuration as config.json holds it; what is empty or absent is left out."""
    value = _write(config)
    assert isinstance(value, dict)
    return value


def from_json(value: Any) -> Config:
    """Read a parsed config.json. Raises UsageError that names the path of what is wrong or unsupported."""
    config = _read(Config, value, "")
    assert isinstance(config, Config)
    if config.process.terminal:
        raise UsageError("config.json: process.terminal is not supported")
    return config


def _write(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        pairs = ((camel(item.name), _write(getattr(value, item.name)), item) for item in dataclasses.fields(value))
        return {name: written for name, written, item in pairs if _is_wanted(written, item)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [_write(item) for item in value]
    return value


def _is_wanted(written: Any, item: dataclasses.Field[Any]) -> bool:
    required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    return required or (written is not None and written not in ("", [], {}))


def _read(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _read(next(each for each in arguments if each is not types.NoneType), value, path)
    if dataclasses.is_dataclass(kind):
        return _read_object(kind, value, path)
    if origin is tuple:
        _expect(isinstance(value, list), path, "a list")
        return tuple(_read(arguments[0], item, f"{path}[{number}]") for number, item in enumerate(value))
    if origin is Mapping:
        _expect(isinstance(value, dict), path, "an object")
        return {str(name): _read(str, item, f"{path}.{name}") for name, item in value.items()}
    _expect(isinstance(value, kind) and not (kind is int and isinstance(value, bool)), path, WORDS[kind])
    return value


def _read_object(kind: Any, value: Any, path: str) -> Any:
    _expect(isinstance(value, dict), path, "an object")
    hints = typing.get_type_hints(kind)
    known = {camel(item.name): item for item in dataclasses.fields(kind)}
    for name in value:
        if name not in known:
            raise UsageError(f"config.json: {_join(path, name)} is not supported")
    found = {}
    for name, item in known.items():
        if name in value:
            found[item.name] = _read(hints[item.name], value[name], _join(path, name))
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise UsageError(f"config.json: {_join(path, name)} is missing")
    return kind(**found)


WORDS = {str: "a string", int: "an integer", bool: "true or false"}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _expect(condition: bool, path: str, wanted: str) -> None:
    if not condition:
        raise UsageError(f"config.json: {path or 'the whole'} is not {wanted}")
