"""Ordinary machines to try lab on: Debian with systemd and a working KVM, emulated, made once, booted at will."""
