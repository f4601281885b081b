"""Samples become tables, intervals and findings. Reads run folders only; needs neither root nor a hypervisor."""

from lab.analysis.compare import ratios
from lab.analysis.findings import Finding, Kind, Severity, findings
from lab.analysis.loaded import Loaded, load
from lab.analysis.summary import summary

__all__ = ["Finding", "Kind", "Loaded", "Severity", "findings", "load", "ratios", "summary"]
