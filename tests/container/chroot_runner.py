"""A RUN step by util-linux alone, so that tests of building images don't depend on lab's own runtime."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.images.runner import StepMount
from lab.model import Process

SCRIPT = """
set -e
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK,redirect_dir=off,metacopy=off" "$TARGET"
cd "$TARGET"
mkdir -p proc dev etc
mount -t proc proc proc
mount --rbind /dev dev
cat /etc/resolv.conf > etc/resolv.conf
exec env -i "$@"
"""


class ChrootRunner:
    """Implements `lab.images.runner.StepRunner`, as far as steps without mounts need it."""

    def run(
        self,
        process: Process,
        *,
        lower_directories: Sequence[Path],
        upper_directory: Path,
        work_directory: Path,
        output: Callable[[bytes], None],
        mounts: Sequence[StepMount] = (),
        network: bool = True,
    ) -> int:
        assert not mounts, "this runner has no mounts"
        assert network, "this runner has the host's network alone"
        target = upper_directory.parent / "merged"
        empty = upper_directory.parent / "empty"
        target.mkdir()
        empty.mkdir()
        entered = [
            "/usr/bin/unshare", f"--root={target}", f"--wd={process.working_directory}",
            f"--setgid={process.gid}", f"--setuid={process.uid}", *process.argv,
        ]  # fmt: skip
        variables = [f"{name}={value}" for name, value in process.environment.items()]
        child = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sh", *variables, *entered],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "LIBMOUNT_FORCE_MOUNT2": "always",  # fsconfig(2) takes 255 bytes a value
                "LOWER": ":".join(map(str, (*lower_directories, empty))),
                "UPPER": str(upper_directory),
                "WORK": str(work_directory),
                "TARGET": str(target),
            },
        )
        assert child.stdout is not None
        while data := os.read(child.stdout.fileno(), 65536):
            output(data)
        child.stdout.close()
        return child.wait()

    def stop(self) -> None:
        """Every step ends by itself."""
