"""The report over many hosts: `write` is what ``lab hosts`` calls, and whatever else has measured on several."""

from lab.reports.hosts.page import Written, show, write

__all__ = ["Written", "show", "write"]
