"""A scenario of a run of a second or two, with EVs on a feeder."""

from evgrid.scenario import scenario_from


def street(overrides=None, **sections):
    """A small street: balanced LV feeder of 15 loads, 6 hours in steps of 5 minutes."""
    content = {
        "name": "street",
        "time": {"start": "2026-07-01T16:00", "duration": "6h", "step": "5min"},
        "ensemble": {"members": 2, "seed": 3},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "net"}},
        "fleet": {"count": 30, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": 0.5}},
        "tariff": "pge_ev2a",
        "communication": {"telemetry": "5min"},
        **sections,
    }
    return scenario_from(content, overrides)
