"""Reports, rebuilt from a run folder alone: anywhere, without root, without a hypervisor, without a network."""

from lab.reports.writer import FORMATS, write

__all__ = ["FORMATS", "write"]
