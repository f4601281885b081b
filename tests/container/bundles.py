"""One bundle under two runtimes: lab's and runc, the field's reference."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lab
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import Hierarchies, Mode, Unused, make_room

LAB_OCI = Path(lab.__file__).parent / "runtime" / "oci" / "lab-oci"
RUNTIMES = ("lab-oci", "runc")
ALL_RUNTIMES = (*RUNTIMES, "crun")
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
KINDS = ("pid", "network", "ipc", "uts", "mount", "cgroup")
TIMEOUT_SECONDS = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a runtime's ``run`` left behind."""

    exit_code: int
    output: str
    errors: str
    log: str


@dataclass(slots=True, kw_only=True)
class Bundle:
    """A folder with a root and a configuration that tests change before they run it."""

    folder: Path
    value: dict[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "rootfs"

    def script(self, text: str) -> None:
        self.value["process"]["args"] = ["sh", "-c", text]

    def mount(self, destination: str, **fields: object) -> None:
        self.value["mounts"].append({"destination": destination, **fields})

    def write(self, cgroups_path: str) -> None:
        """What the runtime is going to read; the parents of its group are there, and no other test removes them."""
        make_room(cgroups_path.strip("/"))
        self.value["linux"]["cgroupsPath"] = cgroups_path
        (self.folder / "config.json").write_text(json.dumps(self.value))

    def run(self, runtime: str, *words: str, prefix: Sequence[str] = (), check: bool = True) -> Ended:
        """``RUNTIME run``, from nothing to nothing; ``prefix`` are words in front of the command."""
        name = f"t{uuid.uuid4().hex[:8]}"
        self.write(f"/lab/test-{name}/one")
        options = ["--root", self.folder / "state", "--log", self.folder / "runtime.log"]
        try:
            done = subprocess.run(
                [*prefix, *program(runtime), *options, "run", *words, "--bundle", self.folder, name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        finally:
            for tree in (Hierarchies.detect(), Unused.detect()):
                ControlGroup.open(f"lab/test-{name}/one", hierarchies=tree).prune_parents()
        if check:
            assert done.returncode == 0, f"{runtime}: {done.stdout}{done.stderr}"
        log = (self.folder / "runtime.log").read_text()
        return Ended(exit_code=done.returncode, output=done.stdout, errors=done.stderr, log=log)


def configuration(**process: object) -> dict[str, Any]:
    """A small container, as ``runc spec`` writes one, with all namespaces but the user's."""
    sets = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["true"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "capabilities": sets,
            "noNewPrivileges": True,
            **process,
        },
        "root": {"path": "rootfs"},
        "hostname": "inside",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
        ],
        "linux": {"namespaces": [{"type": kind} for kind in KINDS]},
    }


def program(runtime: str) -> list[str]:
    """Its command, which begins a command line. crun (1.8) refuses hosts in hybrid mode: it is shown v1 alone."""
    if runtime == "lab-oci":
        return [str(LAB_OCI)]
    found = Hierarchies.detect()
    if runtime == "crun" and found.mode is Mode.HYBRID:
        hide = f'umount -l "{found.unified}" && exec "$0" "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, runtime]
    return [runtime]


def both(bundle: Bundle, *, prefix: Sequence[str] = ()) -> tuple[Ended, Ended]:
    """The same configuration under lab's runtime and under runc."""
    return bundle.run("lab-oci", prefix=prefix), bundle.run("runc", prefix=prefix)


def installed(runtime: str) -> bool:
    return runtime == "lab-oci" or shutil.which(runtime) is not None
