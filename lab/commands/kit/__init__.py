"""Everything that a room without internet needs, as one file: `lab class kit FILE`, and `./bootstrap --kit FILE`.

It is a tar, so that it can be taken in before there is any package of Python's:

```
kit.json      what it is for: the system, its Python, lab's version; what it holds
SHA256SUMS    of all the rest, for sha256sum --check
wheels/       lab's Python packages, compiled for that system
lab/          lab itself: the files of this clone that git knows, as they are here
blobs/        the images' documents and layers, each called by its SHA-256
index.json    the images' names; what the build cache calls the layers
guest.tar.gz  what machines boot from, with its holes
inside        lab's helper program
```

A kit is as much to be trusted as whoever made it: what is in it runs as root.
"""

from __future__ import annotations

import platform
import sys

FORMAT = 1
DESCRIPTION, SUMS, INDEX = "kit.json", "SHA256SUMS", "index.json"
PACK_SECONDS = 1800.0
WHEELS, CLONE, BLOBS, GUEST, HELPER = "wheels", "lab", "blobs", "guest.tar.gz", "inside"


def system() -> str:
    """What packages are compiled for: ``debian-12-x86_64`` (os-release(5))."""
    release = platform.freedesktop_os_release()
    return f"{release['ID']}-{release.get('VERSION_ID', '')}-{platform.machine()}"


def python() -> str:
    """The interpreter whose packages they are: ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
