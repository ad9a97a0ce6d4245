"""Least cost of a site is never more than the cost without control, whatever prices, load, PV and EVs."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
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
