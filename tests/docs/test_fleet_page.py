"""The page on the fleet states the statistics as they are in the code."""

from pathlib import Path

import pytest

from evgrid.fleet.sessions.travel import SampledSessions
from evgrid.scenario.sessions import SOURCES
from evgrid.scenario.vehicles import read_mix

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "fleet.md"


def _text(value):
    if isinstance(value, tuple):
        return ", ".join(f"{number:g}" for number in value)
    if isinstance(value, list):
        return "; ".join(_text(tuple(part) if isinstance(part, list | tuple) else part) for part in value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def statistics(source):
    """The table of a source: parameter, default, text."""
    settings = SOURCES.find(source)
    rows = ["| parameter | default | what it is |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        if name == "source" or field.default is None:
            continue
        shared = SampledSessions.model_fields.get(name)
        if shared is not None and shared.default == field.default:
            continue
        rows.append(f"| `{name}` | {_text(field.default)} | {' '.join((field.description or '').split())} |")
    return "\n".join(rows)


def vehicles():
    """The table of the shipped vehicle types."""
    rows = ["| type | share | kWh | 1-phase, 3-phase, DC kW | gives back | chemistry | kWh a mile |"]
    rows.append("|---|---|---|---|---|---|---|")
    for name, kind in read_mix("default").types.items():
        limits = ", ".join(f"{kw:g}" for kw in (kind.ac_1p_kw, kind.ac_3p_kw, kind.dc_kw))
        back = f"up to {kind.discharge_kw:g} kW" if kind.discharge_kw else "yes"
        back = back if kind.bidirectional else "no"
        rows.append(
            f"| {name} | {kind.share:g} | {kind.capacity_kwh:g} | {limits} | {back} | {kind.chemistry} | "
            f"{kind.consumption_kwh_per_mile:g} |"
        )
    return "\n".join(rows)


@pytest.mark.parametrize("source", SOURCES.names())
def test_the_page_states_the_statistics_of(source):
    assert statistics(source) in PAGE.read_text(encoding="utf-8")


def test_the_page_states_the_vehicle_types():
    assert vehicles() in PAGE.read_text(encoding="utf-8")
