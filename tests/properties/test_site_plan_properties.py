"""Plans of sites over drawn prices, loads, PV, EVs and outages: never worse than no control, and any tick."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.properties.test_site_properties import HOURS, drawn_home
from tests.support.fleet import HOUR, car
from tests.support.sites import SiteRun, home

SLOTS = 8


def of_slots(low, high):
    return st.lists(st.floats(low, high), min_size=SLOTS, max_size=SLOTS)


@st.composite
def sessions(draw):
    """One EV, twice: the hours at which it is there, and what it drove between."""
    first, second = sorted(draw(st.lists(st.integers(1, SLOTS + 3), min_size=2, max_size=2, unique=True)))
    loss = draw(st.floats(0.0, 0.2))
    kind = {
        "capacity": draw(st.floats(5, 60)), "charge": 7.0, "discharge_kw": draw(st.sampled_from([0.0, 6.0])),
        "soc_floor": 0.1, "target": 0.8, "taper_soc": 0.9, "charge_loss": (0.0, loss, 0.0),
        "discharge_loss": (0.0, loss, 0.0),
    }  # fmt: skip
    soc, driven_kwh = draw(st.floats(0.1, 0.8)), draw(st.floats(0.0, 10.0))
    return [
        car(0.0, first * HOUR, soc, **kind),
        car(second * HOUR, (second + 4) * HOUR, soc, drive_kwh=driven_kwh, **kind),
    ]


@settings(max_examples=12, deadline=None)
@given(
    price=of_slots(-0.5, 0.5), spread=st.floats(0.0, 0.3), load=of_slots(0.0, 5.0), pv=of_slots(0.0, 8.0),
    evs=st.lists(sessions(), max_size=2), battery_kwh=st.floats(1.0, 15.0),
    limits=st.sampled_from([{}, {"export_kw": 2.0}, {"import_kw": 8.0}]),
)  # fmt: skip
def test_never_worse_than_without_control(price, spread, load, pv, evs, battery_kwh, limits):
    """A plan over the whole run, export paid no more than import costs, all steady within slots."""
    hours = list(range(SLOTS))
    with tempfile.TemporaryDirectory() as folder:
        tariff = {"name": "t"}
        for key, less in (("prices", 0.0), ("export_prices", spread)):
            path = Path(folder) / f"{key}.csv"
            rows = [f"{int(hour * HOUR)},{value - less!r}" for hour, value in zip(hours, price, strict=True)]
            path.write_text("\n".join(["time,price", *rows]) + "\n", encoding="utf-8")
            tariff[key] = {"file": str(path), "per": "kWh"}
        plan = {"strategy": "cost", "slot": "1h", "horizon": f"{SLOTS}h", "every": f"{SLOTS}h"}
        cost, usual = (
            SiteRun(
                home(
                    evs, load=(hours, load), pv=(hours, pv), control=control,
                    battery={"capacity_kwh": battery_kwh, "charge_kw": 4.0},
                    interconnection={"approval": "export", **limits},
                ),
                step=HOUR, hours=SLOTS, tariff=tariff,
            )
            for control in (plan, "requests")
        )  # fmt: skip
    assert cost.total("energy_cost") <= usual.total("energy_cost") + 1e-5


PLANNED = [
    {"strategy": "cost", "slot": "30min", "horizon": "3h", "every": "1h"},
    {"strategy": "cost", "slot": "1h", "horizon": "2h", "every": "1h", "reserve_soc": 0.5},
    {"strategy": "peak", "horizon": "3h", "every": "1h"},
]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(one=drawn_home(), control=st.sampled_from(PLANNED))
def test_plans_keep_limits_and_do_not_depend_on_the_tick(one, control):
    one = one | {"control": control}
    if not one["evs"]:
        one["evs"] = [[car(HOURS * 2.0 * HOUR, HOURS * 3.0 * HOUR, 0.5)]]  # one that never comes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prices.csv"
        rows = [f"{int(HOUR * hour)},{price}" for hour, price in enumerate((0.2, -0.1, 0.4, 0.3, 0.1, 0.5))]
        path.write_text("\n".join(["time,price", *rows]) + "\n", encoding="utf-8")
        tariff = {
            "name": "t", "prices": {"file": str(path), "per": "kWh"}, "export_per_kwh": 0.15,
            "demand": {"prices": [{"price_per_kw": 3.0}]},
        }  # fmt: skip
        coarse, fine = (SiteRun(one, step=step, hours=HOURS, tariff=tariff) for step in (900.0, 180.0))
    for name in ("imported_kwh", "exported_kwh", "served_kwh", "ev_in_kwh", "ev_out_kwh", "battery_loss_kwh"):
        assert coarse.total(name) == pytest.approx(fine.total(name), rel=1e-5, abs=1e-5), name
    for name in ("busbar", "battery", "dead"):
        assert abs(fine.sites.audit()[f"site_{name}_kwh"][0]) < 1e-9
    meter, approval = fine.series("power_kw"), one["interconnection"]
    most_out = {"export": approval.get("export_kw", np.inf)}.get(approval["approval"], 0.0)
    assert meter.min() >= -most_out - 1e-9
    breaker_kw = one["breaker_a"] * 0.23 if one["breaker_a"] else np.inf
    most_in = min(breaker_kw, approval.get("import_kw", np.inf))
    if max(one["load"][1]) <= most_in:  # what the site does not control is not its fault
        assert meter.max() <= most_in + 1e-9
