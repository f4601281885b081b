"""Which extended attributes a file of an image may carry, and how large they may be. Source: xattr(7)."""

from __future__ import annotations

KEPT_XATTRS = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
LONGEST_NAME_BYTES, LARGEST_VALUE_BYTES = 255, 64 << 10  # XATTR_NAME_MAX, XATTR_SIZE_MAX
USERS = "user."


def keeps_xattr(name: str) -> bool:
    """What an image may carry; overlayfs's own attributes (trusted.*, user.overlay.*) would forge its structure."""
    return name in KEPT_XATTRS or (name.startswith(USERS) and not name.startswith("user.overlay."))


def can_be(name: bytes, value: bytes) -> bool:
    """Whether a file can have it at all, whatever its file system is."""
    fits = len(name) <= LONGEST_NAME_BYTES and len(value) <= LARGEST_VALUE_BYTES
    return fits and b"\0" not in name and name != USERS.encode()
