"""lab: one application behind different isolation boundaries, measured.

The vocabulary, each word used in one sense throughout the code:

scenario   an application directory: a Dockerfile, its sources and an optional ``scenario.toml``
image      what a Dockerfile builds: OCI layers in one content-addressed store
backend    one way of isolating: ``process``, ``container``, ``microvm``, ``vm``
instance   one running copy of an image on a backend
metric     one thing measured about instances: boot, memory, cpu, load
probe      one isolation question, asked from inside an instance
sample     one raw observation: value, unit, and everything needed to know where it came from
run        one execution of ``lab compare``: an append-only folder under ``results/``
"""

__version__ = "0.1.0"
