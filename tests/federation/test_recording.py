"""What is recorded can be chosen, and what is not is said to be missing: never 0."""

import numpy as np
import pytest

import evgrid
from evgrid.results.limits import limit_set, violations
from evgrid.results.metrics import summary
from evgrid.results.plots import plot_result, plot_voltage_profile
from evgrid.results.recording import unrecorded
from evgrid.scenario import scenario_from

BASE = {
    "name": "chosen",
    "time": {"start": "2026-01-15T18:00", "duration": "1h", "step": "15min"},
    "communication": {"telemetry": "15min"},
    "feeder": {"network": "cigre_lv", "base_load": {"source": "standard"}},
    "fleet": {"count": 6, "charger": {"phases": 3}},
}


def run(output=None, **record):
    return evgrid.run(scenario_from(BASE | {"record": record}), output)


@pytest.fixture(scope="module")
def everything():
    return run()


def test_some_buses_are_those_of_the_whole(everything, tmp_path):
    buses = [str(name) for name in everything["bus"].values[[5, 2, 9]]]
    line = str(everything["line"].values[3])
    with run(tmp_path / "r.nc", buses=buses, lines=[line]) as some:
        assert sorted(some["bus"].values) == sorted(buses)
        np.testing.assert_array_equal(some["voltage_pu"], everything["voltage_pu"].sel(bus=some["bus"]))
        np.testing.assert_array_equal(some["line_loading"], everything["line_loading"].sel(line=[line]))
        np.testing.assert_array_equal(some["voltage_min_pu"], everything["voltage_min_pu"])  # of all buses
        np.testing.assert_array_equal(some["trafo_loading"], everything["trafo_loading"])
        names = everything["bus"].values
        for end in ("line_from_bus", "line_to_bus"):  # positions are those in this result, -1 for none
            whole = names[everything[end].sel(line=line).item()]
            at = some[end].item()
            assert (some["bus"].values[at] if at >= 0 else whole not in buses) in (whole, True)
        assert unrecorded(some, "bus") == f"3 of {len(names)} recorded"
        assert (
            f"bus: 3 of {len(names)} recorded"
            in violations(some, limit_set("ratings")).attrs["not_available"]
        )
        with pytest.raises(evgrid.EvgridError, match="needs all buses: 3 of"):
            plot_voltage_profile(some, None)


def test_nothing_recorded_is_not_recorded_and_not_0(everything):
    none = run(buses="none", lines="none", trafos="none")
    assert not {"voltage_pu", "line_loading", "trafo_loading"} & set(none.variables)
    assert none["bus"].equals(everything["bus"])
    np.testing.assert_array_equal(none["fleet_power_kw"], everything["fleet_power_kw"])
    rows = dict(summary(none))
    assert rows["line loading, highest"] == "not recorded"
    assert rows["transformer loading, highest"] == "not recorded"
    assert rows["voltage, lowest"] == dict(summary(everything))["voltage, lowest"]
    table = violations(none, limit_set("en_50160", "ratings"))
    assert table.empty
    said = " ".join(table.attrs["not_available"])
    assert "line: not recorded" in said
    assert "bus: not recorded" in said
    plot_result(none)


def test_a_name_that_the_network_has_not_is_refused():
    with pytest.raises(
        evgrid.ScenarioError, match="record.lines = nowhere: the network has no such line; it has"
    ):
        run(lines=["nowhere"])
    with pytest.raises(evgrid.ScenarioError, match="record.buses"):
        run(buses="some")


def test_a_file_without_buses_and_lines_is_smaller(tmp_path):
    run(tmp_path / "all.nc").close()
    run(tmp_path / "none.nc", buses="none", lines="none").close()
    assert (tmp_path / "none.nc").stat().st_size < (tmp_path / "all.nc").stat().st_size
