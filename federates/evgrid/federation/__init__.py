"""Models coupled over HELICS: the only part of evgrid that imports it.

``wiring`` decides who gives what to whom and who steps when; ``adapter`` makes a HELICS federate
of any model; ``wire`` moves the vectors; ``runtime`` runs the whole in one process.
"""

import pyarrow  # noqa: F401  before HELICS, whose C++ library breaks how a later one prints numbers

from evgrid.federation.runtime import FederationReport, Limits, run_federation
from evgrid.federation.wiring import WiringError

__all__ = ["FederationReport", "Limits", "WiringError", "run_federation"]
