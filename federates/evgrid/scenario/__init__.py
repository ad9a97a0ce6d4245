"""A scenario: the definition of a run, from YAML, checked before the run starts.

A scenario is a YAML file with the sections of :class:`Scenario`. It may start from another
(``extends: base.yaml``), and single values may be overridden (``--set fleet.penetration=0.8``).
Both are merged key by key, but a mapping that chooses another kind (``strategy``, ``source``, ``file``
and other files of sessions) and a vehicle mix replace the previous value as a whole. Unknown keys are
errors, and all faults are reported at once, each with its path.
"""

from evgrid.scenario.loading import load_scenario, parse_override, scenario_from
from evgrid.scenario.schema import Scenario

__all__ = ["Scenario", "load_scenario", "parse_override", "scenario_from"]
