"""The demand charge is of the tariff's own interval, whatever tick and record; of whom the tariff bills."""

import numpy as np
import pytest

import evgrid
from evgrid.errors import ScenarioError
from evgrid.results.settlement import Rates, settle
from evgrid.scenario import scenario_from

SEASON = {"name": "all", "months": list(range(1, 13)), "periods": [{"name": "p", "price_per_kwh": 0.2}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demand")
    (folder / "s.csv").write_text(
        "ev,connection,arrival,departure,energy_kwh,charge_kw\n"
        "a,Load R1,2026-01-31T23:05,2026-02-01T03:00,12,6\n"
        "b,Load R1,2026-01-31T23:00,2026-02-01T03:00,1,4\n"
        "c,Load R1,2026-02-01T00:50,2026-02-01T03:00,3,6\n"
    )
    return folder


def run(folder, demand=None, step="5min", load="none", **overrides):
    tariff = {"name": "t", "seasons": [SEASON], **({"demand": demand} if demand else {})}
    content = {
        "name": "t",
        "time": {"start": "2026-01-31T22:30", "duration": "4h", "step": step},
        "feeder": {"network": "cigre_lv", "base_load": {"source": load}},
        "fleet": {"sessions": {"file": "s.csv"}, "charger": {"power_kw": 11, "phases": 3}},
        "communication": {"telemetry": step},
        "tariff": tariff,
    }
    return evgrid.run(scenario_from(content, overrides, folder=folder))


JANUARY = 4.0 + 6.0 * 10 / 15
"""23:00 to 23:15: b draws 4 kW all the while, a 6 kW from 23:05 on."""
FEBRUARY = 6.0 + 6.0 * 10 / 15
"""0:45 to 1:00: a draws 6 kW all the while (until 1:05), c 6 kW from 0:50 on."""


@pytest.mark.parametrize(
    ("step", "record"),
    [("1min", "1min"), ("1min", "5min"), ("1min", "15min"), ("5min", "1h"), ("15min", "15min")],
)
def test_the_charge_depends_on_no_tick_and_no_recording_interval(folder, step, record):
    """5 a kW of January's 8 kW and of February's 10 kW."""
    result = run(folder, step=step, **{"record.step": record})
    np.testing.assert_allclose(result["fleet_peak_kw"], [[JANUARY, FEBRUARY]], rtol=1e-9)
    assert settle(result, Rates(demand_charge=5.0)).fleet["demand_charge"].tolist() == pytest.approx(
        [5.0 * (JANUARY + FEBRUARY)]
    )


def test_the_interval_is_the_tariffs(folder):
    prices = [{"months": [1], "price_per_kw": 5}, {"months": [2], "price_per_kw": 1}]
    for minutes, january, february in ((5, 10.0, 12.0), (60, 6.5, 6.0 + 1.0)):
        result = run(folder, {"prices": prices, "interval": f"{minutes}min"})
        charge = settle(result).fleet["demand_charge"].tolist()
        assert charge == pytest.approx([5 * january + february])


def test_the_bill_is_of_the_site_where_the_tariff_says_so(folder):
    """The head of the feeder, load and losses included, is what its record says at the meter's interval."""
    demand = {"prices": [{"price_per_kw": 5}], "of": "feeder"}
    result = run(folder, demand, step="5min", load="net", **{"record.step": "15min"})
    head = result["head_power_kw"].sum("phase").isel(member=0)
    peaks = [float(head.sel(time=head["time"].dt.month == month).max()) for month in (1, 2)]
    np.testing.assert_allclose(result["head_peak_kw"], [peaks], rtol=1e-9)
    assert min(peaks) > 500
    demand["of"] = "transformer"
    by_trafo = run(folder, demand, step="5min", load="net")
    each = by_trafo["trafo_peak_kw"].isel(member=0)
    assert float(each.sum("trafo")[0]) == pytest.approx(
        peaks[0], rel=0.01
    )  # the head has the losses above, too
    assert settle(by_trafo).fleet["demand_charge"].tolist() == pytest.approx([5 * float(each.sum())])


def test_a_meter_of_the_site_goes_by_whole_steps_of_the_feeder(folder):
    demand = {"prices": [{"price_per_kw": 5}], "of": "feeder"}
    with pytest.raises(
        ScenarioError, match=r"tariff.demand.interval = 900s: must be a multiple of feeder.step = 1800"
    ):
        run(folder, demand, **{"feeder.step": "30min"})
    with pytest.raises(ScenarioError, match=r"tariff.demand: interval = 3500s: must divide a day"):
        run(folder, {**demand, "interval": 3500})


def test_a_site_is_billed_in_windows_and_by_a_ratchet_too(folder):
    """10 kW throughout: 5 a kW in both months, 3 in an hour of February, 1 of 20 kW at least."""
    prices = [
        {"price_per_kw": 5},
        {"price_per_kw": 3, "windows": [{"hours": [[0, 1]]}]},
        {"price_per_kw": 1, "ratchet": {"share": 0.5, "before_kw": 40}},
    ]
    site = {"connections": ["Load R1"], "load": {"kw": 10}}
    result = run(folder, {"prices": prices}, step="15min", sites={"shop": site}, fleet=None)
    np.testing.assert_allclose(result["site_peak_kw"], [[10.0, 10.0]])
    np.testing.assert_allclose(result["site_demand_cost"], [2 * 50 + 30 + 2 * 20])


def test_windows_of_the_feeder_and_the_evs(folder):
    """January's EVs are metered before 23:15 only, when b draws 4 kW, and from 23:05 on a 6 kW."""
    window = [{"hours": [["22:30", "23:15"]]}]
    for of, name in (("evs", "fleet"), ("feeder", "head"), ("transformer", "trafo")):
        demand = {"prices": [{"price_per_kw": 2, "windows": window}], "of": of}
        result = run(folder, demand, load="none")
        peak = result[f"{name}_window_peak_kw"]
        assert peak.sizes["window"] == 1
        highest = float(peak.max())
        assert highest == pytest.approx(JANUARY, rel=0 if of == "evs" else 0.02)
        expected = 2 * float(peak.fillna(0.0).clip(min=0.0).sum())
        assert settle(result).fleet["demand_charge"].tolist() == pytest.approx([expected])
