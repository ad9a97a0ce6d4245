"""Models coupled over HELICS: the only part of evgrid that imports it.

``wiring`` connects ports and orders steps; ``adapter`` makes a HELICS federate
of any model; ``helics_io`` moves the vectors; ``runtime`` runs the whole in one process; ``inline`` steps
models without HELICS.
"""

import pyarrow  # noqa: F401  before HELICS, whose C++ library breaks how a later one prints numbers

from evgrid.federation.inline import step_in_line
from evgrid.federation.runtime import FederationReport, Limits, run_federation
from evgrid.federation.wiring import WiringError

__all__ = ["FederationReport", "Limits", "WiringError", "run_federation", "step_in_line"]
