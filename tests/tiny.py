"""A tiny image for tests: static busybox with a shell and a web server, made in a moment, without any download."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lab.images.store import Image, Origin, Store
from lab.model import ImageConfig

NAME = "tiny"
GREETING = "hello from the image\n"


def tiny_image(store: Store) -> Image:
    """The image, in ``store``; made at the first call. Its command serves GREETING on port 8000."""
    if NAME in store:
        return store.find(NAME)
    with store.scratch("tiny") as scratch:
        root = scratch / "root"
        fill(root)
        layer = store.add_layer(root)
    config = ImageConfig(
        environment={"PATH": "/bin"},
        command=("httpd", "-f", "-v", "-p", "8000", "-h", "/srv"),
        exposed_ports=(8000,),
    )
    return store.add_image(NAME, config=config, layers=(layer,), origin=Origin.BUILT)


def fill(root: Path) -> None:
    """Busybox with a link per applet, two users, a page."""
    for folder in ("bin", "etc", "srv", "tmp", "proc", "sys", "dev", "root", "run"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    busybox = shutil.which("busybox")
    assert busybox, "busybox-static is not installed"
    shutil.copy(busybox, root / "bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nalice:x:1000:\n")
    (root / "srv/index.html").write_text(GREETING)
