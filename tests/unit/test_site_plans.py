"""The controls of sites that plan: least cost, and the lowest peak by the demand charge."""

import numpy as np
import pytest
from scipy.optimize import linprog
from tests.oracles.site_cost import Store, least_cost
from tests.support.fleet import HOUR, car
from tests.support.sites import SiteRun, home

GAIN, FALL = 0.9, 0.92
LOSS = {"charge_loss": (0.0, 1 / GAIN - 1, 0.0), "discharge_loss": (0.0, 1 - FALL, 0.0)}
EV = {
    "capacity": 40.0,
    "charge": 7.0,
    "discharge_kw": 6.0,
    "soc_floor": 0.2,
    "target": 0.8,
    "taper_soc": 0.9,
    **LOSS,
}
BATTERY = {"capacity_kwh": 8, "charge_kw": 4, "charge_efficiency": 0.95, "discharge_efficiency": 0.94}
HOURS = np.arange(24.0)
LOAD = 0.4 + 1.6 * np.exp(-((HOURS - 19) ** 2) / 8) + 0.3 * np.cos(HOURS) ** 2
SUN = 5.0 * np.clip(np.sin((HOURS - 6) / 12 * np.pi), 0, 1)
PEAK_HOURS = (HOURS >= 16) & (HOURS < 21)
EVENING = np.where(PEAK_HOURS, 0.54, 0.23)
MARKET = np.where((HOURS >= 10) & (HOURS < 15), -0.06, np.where(PEAK_HOURS, 0.48, 0.21)) + 0.01 * np.sin(
    3 * HOURS
)


def hourly(values):
    return (np.arange(len(values)), values)


@pytest.fixture
def tariff(tmp_path):
    def tariff(price, credit=None, **more):
        found = {"name": "t", **more}
        for key, values in (("prices", price), ("export_prices", credit)):
            if values is not None:
                path = tmp_path / f"{key}.csv"
                rows = [f"{int(HOUR * h)},{value!r}" for h, value in enumerate(np.asarray(values).tolist())]
                path.write_text("\n".join(["time,price", *rows]) + "\n", encoding="utf-8")
                found[key] = {"file": str(path), "per": "kWh"}
        return found

    return tariff


def v2h(battery=True, hours=24, sessions=None, load=LOAD, pv=SUN, **more):
    """A home with PV and an EV that leaves at 7 h and returns with 55 % at 17 h."""
    sessions = sessions or [car(0.0, 7 * HOUR, 0.5, **EV), car(17 * HOUR, 33 * HOUR, 0.55, **EV)]
    control = {"strategy": "cost", "slot": "1h", "horizon": f"{hours}h", "every": f"{hours}h"}
    settings = {"battery": BATTERY} if battery else {}
    return home([sessions], load=hourly(load), pv=hourly(pv), **{"control": control, **settings, **more})


def stores(battery=True):
    """The same as stores; the second session ends beyond the period, when it can still reach its target."""
    found = [
        Store(20.0, 8.0, 32.0, 7.0, 6.0, GAIN, FALL, least=32.0, begin=0, end=7),
        Store(22.0, 8.0, 32.0, 7.0, 6.0, GAIN, FALL, begin=17),
    ]
    if battery:
        found.append(Store(4.0, 0.8, 8.0, 4.0, 4.0, 0.95, 0.94))
    return found


CASES = {
    "net metering": (EVENING, None, {}),
    "feed-in": (EVENING, np.full(24, 0.08), {}),
    "negative prices": (MARKET, MARKET - 0.02, {}),
    "a feed-in above the price": (MARKET, np.full(24, 0.25), {"export_kw": 3.0}),
    "a market, export costs": (MARKET, np.full(24, -0.01), {"import_kw": 8.0}),
    "no export": (MARKET, None, {"approval": "non_export"}),
}


@pytest.mark.parametrize("battery", [False, True], ids=["V2H", "V2H and battery"])
@pytest.mark.parametrize("case", CASES)
def test_cost_is_the_least_over_the_whole_period(tariff, case, battery):
    price, credit, limits = CASES[case]
    export = {"approval": "export", **limits}
    run = SiteRun(
        v2h(battery, interconnection=export), step=HOUR, hours=24, tariff=tariff(price, credit)
    )  # fmt: skip
    sold = price if credit is None else credit
    best = least_cost(
        LOAD, SUN, price, sold, 1.0, stores(battery), export.get("import_kw", 1e3),
        0.0 if limits.get("approval") else export.get("export_kw", 1e3),
    )  # fmt: skip
    assert run.total("energy_cost") == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert run.session("soc_departure")[0] == pytest.approx(0.8, abs=1e-9)


@pytest.mark.parametrize("step", [300.0, 6 * HOUR])
def test_a_plan_does_not_depend_on_the_tick(tariff, step):
    """Plans are made every 2 h, also where that is within a tick; prices hold for six hours."""
    control = {"strategy": "cost", "slot": "30min", "horizon": "6h", "every": "2h"}
    price = np.repeat([0.2, 0.35, -0.05, 0.5], 6)
    run, usual = (
        SiteRun(v2h(control=control), step=each, hours=24, tariff=tariff(price, np.full(24, 0.1)))
        for each in (step, 1800.0)
    )
    for name in (
        "imported_kwh",
        "exported_kwh",
        "battery_loss_kwh",
        "ev_in_kwh",
        "ev_out_kwh",
        "energy_cost",
    ):
        assert run.total(name) == pytest.approx(usual.total(name), rel=1e-6), name


def test_sites_plan_alone_and_among_others(tariff):
    homes = [v2h(load=LOAD * (1 + 0.1 * k), pv=SUN * (k % 3)) for k in range(20)]
    given = tariff(MARKET, MARKET)
    together = SiteRun(*homes, step=HOUR, hours=24, tariff=given)
    for k in (0, 7, 19):
        alone = SiteRun(homes[k], step=HOUR, hours=24, tariff=given)
        assert together.total("energy_cost", k) == pytest.approx(alone.total("energy_cost"), rel=1e-6)


def test_naive_forecast_takes_the_day_before(tariff):
    """Of two days alike naive plans are as good as perfect ones; of days that differ worse."""
    control = {"strategy": "cost", "slot": "1h", "horizon": "24h", "every": "1h"}
    price = np.tile(EVENING, 4)
    given = tariff(price, np.full(96, 0.05))
    sun = (np.tile(SUN, 4), np.concatenate([SUN, 0.1 * SUN, SUN, SUN]))
    costs = {}
    for forecast in ("perfect", "naive"):
        for k, pv in enumerate(sun):
            one = home(
                [], load=hourly(np.tile(LOAD, 4)), pv=hourly(pv), battery=BATTERY,
                control={**control, "forecast": forecast},
            )  # fmt: skip
            costs[forecast, k] = SiteRun(one, step=HOUR, hours=72, tariff=given).total("energy_cost")
    assert costs["naive", 0] == pytest.approx(costs["perfect", 0], rel=1e-9)
    assert costs["naive", 1] > costs["perfect", 1] + 0.01


def test_naive_forecast_expects_the_evs_of_the_day_before(tariff):
    """An EV that comes each day at 17 h: what is planned at noon of the second day waits for it."""
    control = {"strategy": "cost", "slot": "1h", "horizon": "24h", "every": "1h"}
    days = [
        car((24 * d + 17) * HOUR, (24 * d + 31) * HOUR, 0.5, drive_kwh=np.nan if d == 0 else 12.0, **EV)
        for d in range(4)
    ]
    given = tariff(np.tile(EVENING, 4), np.full(96, 0.05))
    costs = [
        SiteRun(
            home([days], load=hourly(np.tile(LOAD, 4)), pv=hourly(np.tile(SUN, 4)), battery=BATTERY,
                 control={**control, "forecast": forecast}),
            step=HOUR, hours=72, tariff=given,
        ).total("energy_cost")
        for forecast in ("perfect", "naive")
    ]  # fmt: skip
    assert costs[1] == pytest.approx(costs[0], rel=1e-6)


def test_a_reserve_is_held_and_a_storm_raises_it(tariff):
    control = {
        "strategy": "cost", "slot": "1h", "horizon": "24h", "every": "1h", "reserve_soc": 0.4,
        "storms": [
            {
                "warning": "2026-01-15T12:00", "begin": "2026-01-15T15:00", "end": "2026-01-15T22:00",
                "soc": 0.9,
            },
        ],
    }  # fmt: skip
    one = home([], load=hourly(LOAD), battery=BATTERY, control=control)
    run = SiteRun(one, step=HOUR, hours=24, tariff=tariff(EVENING))
    soc = run.recorder.series("site_battery_soc")[:, 0]
    assert soc.min() >= 0.4 - 1e-9
    assert soc[14:22].min() == pytest.approx(0.9, abs=1e-9)
    assert soc[11] < 0.9


def test_energy_cost_by_hand(tariff):
    """2 kW from 0.2 and 0.3 currency, then 3 kW given at 0.1: 2 (0.2 + 0.3) - 3 (0.1)."""
    one = home([], load=hourly([2.0, 2.0, 0.0]), pv=hourly([0.0, 0.0, 3.0]))
    run = SiteRun(one, step=900.0, hours=3, tariff=tariff([0.2, 0.3, 0.4], [0.05, 0.05, 0.1]))
    assert run.total("energy_cost") == pytest.approx(0.7, rel=1e-12)


# ---- the lowest peak


def lowest_peak(load, battery, start):
    """The lowest peak of an hourly load with a battery, by an LP of its own, kW."""
    n = len(load)
    # variables: charge, discharge, energy, peak
    cost = np.append(np.zeros(3 * n), 1.0)
    power = np.hstack([np.eye(n), -np.eye(n), np.zeros((n, n)), -np.ones((n, 1))])
    energy = np.hstack([
        -np.eye(n) * battery["charge_efficiency"], np.eye(n) / battery["discharge_efficiency"],
        np.eye(n) - np.eye(n, k=-1), np.zeros((n, 1)),
    ])  # fmt: skip
    first = np.zeros(n)
    first[0] = start
    bounds = [(0, battery["charge_kw"])] * (2 * n) + [
        (0.1 * battery["capacity_kwh"], battery["capacity_kwh"])
    ] * n
    return linprog(cost, power, -load, energy, first, [*bounds, (0, None)], method="highs").fun


def demand(price=10.0, interval="1h"):
    return {"prices": [{"price_per_kw": price}], "interval": interval}


@pytest.mark.parametrize("every", ["24h", "1h"])
def test_peak_by_the_demand_charge_is_the_lowest(tariff, every):
    load = 1.0 + 4.0 * np.exp(-((HOURS - 18) ** 2) / 4) + 2.0 * np.exp(-((HOURS - 8) ** 2) / 2)
    control = {"strategy": "peak", "horizon": "24h", "every": every}
    one = home([], load=hourly(np.append(load, np.ones(24))), battery=BATTERY, control=control)
    run = SiteRun(one, step=HOUR, hours=24, tariff=tariff(EVENING, demand=demand()))
    best = lowest_peak(load, BATTERY, 4.0)
    assert best < load.max() - 1
    assert run.recorder.static["site_peak_kw"][0, 0] == pytest.approx(best, rel=1e-6)
    assert run.total("demand_cost") == pytest.approx(10.0 * best, rel=1e-6)


def test_a_peak_that_is_billed_already_is_used(tariff):
    """The first day's peak can't be avoided: the second day needs no less, and a new month begins anew."""
    load = np.concatenate([np.full(24, 3.0), np.ones(24)])
    load[0] = 9.0
    control = {"strategy": "peak", "horizon": "12h", "every": "1h"}
    one = home([[car(2 * HOUR, 10 * HOUR, 0.3, **EV)]], load=hourly(load), control=control)
    run = SiteRun(
        one,
        step=HOUR,
        hours=48,
        tariff=tariff(np.tile(EVENING, 2), demand=demand()),
        start="2026-01-31T00:00",
    )
    peaks = run.recorder.static["site_peak_kw"][0]
    assert peaks == pytest.approx([9.0, 1.0])
    assert run.series("power_kw")[2] == pytest.approx(9.0)  # the EV charges up to the peak of the month


def test_evs_wait_for_the_lowest_peak(tariff):
    """24 kWh at 0.9 within 10 h, beside 1 kW, or 4 kW in two of the hours: level at 4.267 kW."""
    load = np.ones(24)
    load[4:6] = 4.0
    control = {"strategy": "peak", "horizon": "24h", "every": "1h"}
    one = home(
        [[car(0.0, 10 * HOUR, 0.2, **(EV | {"discharge_kw": 0.0}))]], load=hourly(load), control=control
    )
    run = SiteRun(one, step=HOUR, hours=12, tariff=tariff(EVENING, demand=demand()))
    assert run.recorder.static["site_peak_kw"][0, 0] == pytest.approx((24 / GAIN + 16) / 10, rel=1e-6)
    assert run.session("soc_departure")[0] == pytest.approx(0.8, abs=1e-9)
