"""Reports, rebuilt from a run folder alone: anywhere, without root, without a hypervisor, without a network."""

from lab.reports.writer import FORMATS, write, write_hidden

__all__ = ["FORMATS", "write", "write_hidden"]
