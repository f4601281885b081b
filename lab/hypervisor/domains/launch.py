"""Start a domain from within a network namespace: QEMU's tap is looked up where the calling thread is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lab.host.syscalls import CLONE_NEWNET, setns
from lab.hypervisor.domains.connection import Domain, Hypervisor


def launch(hypervisor: Hypervisor, xml: str, network_namespace: int | None) -> Domain:
    """Start ``xml`` from a thread of its own that has entered ``network_namespace`` and ends afterwards.

    A namespace is a property of a thread (setns(2)); no other thread of lab ever leaves the host's.
    """
    if network_namespace is None:
        return hypervisor.start(xml)

    def enter_and_start() -> Domain:
        setns(network_namespace, CLONE_NEWNET)
        return hypervisor.start(xml)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="launch") as thread:
        return thread.submit(enter_and_start).result()
