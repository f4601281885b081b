"""One plan measured on many hosts: what it says, how hosts are reached, what they answer, what is kept of it.

The engine is dask.distributed: its scheduler runs in the process of ``lab sweep`` (`driver`), a worker on each host
(`worker`), and a worker does nothing but to ask one fixed command of its host (`wire`, `host`).
"""
