"""lab: one application behind different isolation boundaries, measured.

The vocabulary: what these words mean in pages, messages and records. A module may have a class of the same name for
something of its own (a `Run` is also an instruction of a Dockerfile); there its docstring says what it is.

scenario   an application directory: a Dockerfile, its sources and an optional ``scenario.toml``
image      what a Dockerfile builds: OCI layers in one content-addressed store
backend    one way of isolating: ``process``, ``container``, ``microvm``, ``vm``
instance   one running copy of an image on a backend
session    one lab process with all that it makes: folder, network, cgroups, machines
factor     what is varied besides the backend: a limit, a knob, something of the host
level      one value of a factor
knob       a factor that a backend offers, such as the firmware of a virtual machine
arm        one label of a comparison: a backend, or a backend at chosen levels
block      one round in which every arm is measured once, in an order drawn by lot
metric     one thing measured about instances: boot, memory, cpu, load
quantity   one number of a metric, with a unit: ``boot.total``, ``memory.pss``
probe      one isolation question, asked from inside an instance
sample     one raw observation: value, unit, and everything needed to know where it came from
study      one question that is measured and answered by a page: compare, density, starts, noisy, ladder, surface
lesson     questions to predict, each bound to what a run measured
run        one execution of a study: an append-only folder under ``results/``
"""

from __future__ import annotations

TYPE_CHECKING = False  # every module imports this one, those of `lab-oci` too, which count milliseconds
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.2.0"


def load(path: str) -> Any:
    """A run folder as tidy pandas tables with units, a `lab.analysis.Loaded`: ``lab.load("results/sample").frame``.

    Raises ResultsError when the folder is no run.
    """
    from importlib import import_module  # by name: most modules that import this package must not know the analysis

    return import_module("lab.analysis").load(path)
