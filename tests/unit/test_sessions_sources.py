"""Sampled sources, vehicle mixes, imported files in scenarios, and snapshots."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from evgrid.battery.laws import LEAST_SOC
from evgrid.core.model import ALL_PHASES, Connections
from evgrid.errors import ScenarioError
from evgrid.fleet.sessions import COLUMNS, fleet_tables
from evgrid.fleet.sessions.snapshot import is_snapshot, write_snapshot
from evgrid.scenario import Scenario, scenario_from
from evgrid.scenario.sessions import SOURCES
from evgrid.scenario.vehicles import charge_limit_kw, read_mix

TRAVELLING = [name for name in SOURCES.names() if name != "full_power"]
DC = {"current": "dc", "phases": 3, "power_kw": 150}


def scenario(start="2026-01-15T12:00", duration="96h", step="60s", members=1, first=0, seed=7, **fleet):
    if fleet.get("sessions") == "dc_fast":
        fleet.setdefault("charger", DC)
    return scenario_from(
        {
            "name": "test",
            "time": {"start": start, "duration": duration, "step": step},
            "ensemble": {"members": members, "first": first, "seed": seed},
            "feeder": {"network": "x"},
            "fleet": fleet,
        }
    )


def feeder(phases=("a", "b", "c"), of=(0, 1, 2, ALL_PHASES, ALL_PHASES)):
    n = len(of)
    index = np.arange(n)
    names = np.array([f"L{i}" for i in range(n)])
    return Connections(names, index, np.array(of, np.int8), index * 0, index * 0 + 9, phases)


def tables(connections=None, **settings):
    return fleet_tables(scenario(**settings), connections or feeder())


def assert_same(first, second, but=("ev",)):
    for name in COLUMNS:
        if name not in but:
            assert np.array_equal(getattr(first, name), getattr(second, name)), name


def refused(match, **settings):
    with pytest.raises(ScenarioError, match=match):
        tables(**settings)


# --- what holds for every source ---


@pytest.mark.parametrize("source", TRAVELLING)
def test_a_member_alone_any_step_and_fewer_evs_give_the_same_sessions(source):
    mix = {} if source in ("school_bus", "delivery_van") else {"mix": "default"}
    given = {"sessions": source, "count": 30, **mix}
    evs, sessions = tables(members=3, first=4, **given)
    assert len(sessions) > 20
    alone_evs, alone = tables(first=6, **given)
    own = evs.member[sessions.ev] == 2
    assert_same(sessions.take(own), alone)
    assert np.array_equal(evs.connection[evs.member == 2], alone_evs.connection)
    assert not np.array_equal(sessions.arrival_s[evs.member[sessions.ev] == 1][:5], alone.arrival_s[:5])
    assert_same(alone, tables(first=6, step="15min", **given)[1], but=())
    few_evs, few = tables(first=6, **given | {"count": 9})
    assert_same(alone.take(alone.ev < 9), few, but=())
    assert np.array_equal(alone_evs.phase[:9], few_evs.phase)


@pytest.mark.parametrize("source", TRAVELLING)
def test_sessions_follow_one_another_and_carry_the_state_of_charge(source):
    _, sessions = tables(sessions=source, count=40, duration="240h")
    assert np.all(sessions.departure_s > sessions.arrival_s)
    assert np.all((sessions.arrival_s >= 0) & (sessions.arrival_s < 240 * 3600))
    same = np.flatnonzero(sessions.ev[1:] == sessions.ev[:-1])
    assert len(same) > 20
    assert np.all(sessions.arrival_s[same + 1] >= sessions.departure_s[same])
    assert np.all(sessions.drive_kwh >= 0)
    assert sessions.soc_arrival.min() >= LEAST_SOC
    # An EV that reached its target leaves with it, less the drive; none arrives with more than that.
    most = np.maximum(0.9 - sessions.drive_kwh / sessions.capacity_kwh, LEAST_SOC)
    later = same + 1
    assert np.all(sessions.soc_arrival[later] <= most[later] + 1e-9)
    long = (sessions.departure_s - sessions.arrival_s)[same] * sessions.charge_kw[same] * 0.9 / 3600 > 2 * (
        sessions.capacity_kwh[same]
    )
    if source in ("home", "rental", "delivery_van"):
        assert long.any()
    assert sessions.soc_arrival[later][long] == pytest.approx(most[later][long], abs=1e-9)


def test_longer_runs_hold_the_sessions_of_shorter_ones():
    for source in TRAVELLING:
        short, long = (tables(sessions=source, count=20, duration=d)[1] for d in ("48h", "120h"))
        assert_same(long.take(long.arrival_s < 48 * 3600), short, but=())


def test_sources_keep_to_weekdays_and_hours():
    # Monday 2026-01-12 to Sunday
    week = {"start": "2026-01-12T00:00", "duration": "168h"}

    def arrivals(source, count=300, **settings):
        sessions = tables(sessions={"source": source, **settings}, count=count, **week)[1]
        return sessions.take(sessions.arrival_s > 0)

    bus = arrivals("school_bus")
    assert len(bus) == 300 * 5 * 2
    assert np.all(bus.arrival_s < 5 * 86400)
    assert bus.drive_kwh.mean() == pytest.approx(25 * 1.21, rel=0.03)
    noon = (bus.arrival_s / 3600 % 24) < 12
    assert noon.mean() == 0.5
    july = tables(sessions="school_bus", count=5, start="2026-07-06T00:00", duration="48h")[1]
    assert list(july.arrival_s) == [0.0] * 5
    assert np.all(july.departure_s > 2 * 86400)
    work = arrivals("workplace", visits_weekend=0.0)
    assert np.all(work.arrival_s < 5 * 86400)
    assert len(work) / 1500 == pytest.approx(0.8, abs=0.05)
    van = arrivals("delivery_van")
    weekend = van.arrival_s >= 5 * 86400
    assert weekend.sum() / 600 == pytest.approx(0.33, abs=0.08)
    assert (~weekend).sum() == 1500


def test_full_power_is_the_rating_of_every_charger_all_the_time_whatever_the_vehicle_takes():
    evs, sessions = tables(sessions="full_power", count=8, charger=DC, members=2, mix="default")
    assert len(sessions) == len(evs.member) == 16
    assert sessions.arrival_s.tolist() == [0.0] * 16
    assert np.all(sessions.departure_s > 96 * 3600)
    assert sessions.charge_kw.tolist() == [150.0] * 16  # above the 100 kW of fleet.vehicle.dc_kw
    needed = (sessions.soc_target - sessions.soc_arrival) * sessions.capacity_kwh
    assert np.all(needed > 150 * 8784)  # not full within a year
    mixed = {"power_kw": 11, "phases": 3, "ratings": {11: 0.5, 22: 0.5}}
    assert set(tables(sessions="full_power", count=30, charger=mixed)[1].charge_kw) >= {11.0, 22.0}


def test_rentals_are_as_long_as_stated():
    sessions = tables(sessions="rental", count=2000, duration="1440h")[1]
    same = np.flatnonzero(sessions.ev[1:] == sessions.ev[:-1])
    rented = sessions.arrival_s[same + 1] - sessions.departure_s[same]
    assert rented.mean() / 86400 == pytest.approx(3 + 4 / 24, abs=0.1)


def test_dc_fast_is_used_by_the_emptier():
    sessions = tables(sessions="dc_fast", count=500, duration="240h", vehicle={"dc_kw": 120})[1]
    assert set(sessions.charge_kw) == {120.0}
    first = sessions.arrival_s > 0
    assert sessions.soc_arrival[first].max() < 0.6
    stay = (sessions.departure_s - sessions.arrival_s)[first] / 3600
    assert stay.max() <= 2.0 + 1e-9
    assert np.median(stay) == pytest.approx(0.5, rel=0.1)


def test_plugging_in_as_evi_pro_makes_fewer_and_longer_charges():
    always = tables(sessions="home", count=400, duration="240h")[1]
    chosen = tables(sessions={"source": "home", "plug_in": "evi_pro"}, count=400, duration="240h")[1]
    share = len(chosen) / len(always)
    assert 0.3 < share < 0.6  # 0.33 a day for 60 kWh, and always below 0.2
    assert chosen.drive_kwh.mean() > 1.7 * always.drive_kwh.mean()
    never = tables(sessions={"source": "home", "plug_in": [[0, 0]]}, count=10)[1]
    assert len(never) == 0


def test_a_warm_up_forgets_where_it_began():
    given = {"source": "home", "plug_in": "evi_pro"}
    means = [
        tables(sessions={**given, "warm_up_days": days}, count=3000, duration="24h")[1].soc_arrival.mean()
        for days in (1, 14, 28)
    ]
    assert abs(means[1] - means[2]) < 0.02
    assert means[0] > means[2] + 0.05


# --- stated distributions, 100,000 sessions ---


def marginals(times, gap, points=400_001):
    """CDFs of two normal times of day, given 0 <= first, first + gap <= second < 24, by quadrature."""
    (m1, s1), (m2, s2) = times
    x = np.linspace(0.0, 24.0, points)

    def cdf(density):
        total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
        return lambda at: np.interp(at, x, total / total[-1])

    first = stats.norm.pdf(x, m1, s1) * np.maximum(
        stats.norm.cdf(24, m2, s2) - stats.norm.cdf(np.minimum(x + gap, 24), m2, s2), 0
    )
    second = stats.norm.pdf(x, m2, s2) * np.maximum(
        stats.norm.cdf(x - gap, m1, s1) - stats.norm.cdf(0, m1, s1), 0
    )
    return cdf(first), cdf(second)


def test_100_000_sessions_at_home_have_the_stated_distributions():
    given = scenario(start="2026-01-15T00:00", duration="120h", count=25_000)
    settings = given.fleet.sessions
    _, sessions = fleet_tables(given, feeder())
    fresh = sessions.take(sessions.arrival_s > 0)
    fresh = fresh.take(np.arange(100_000))
    leave, back = marginals([settings.departure_h, settings.return_h], settings.shortest_trip_h)
    assert stats.kstest(fresh.arrival_s / 3600 % 24, back).pvalue > 0.01
    assert stats.kstest(fresh.departure_s / 3600 % 24, leave).pvalue > 0.01
    miles = fresh.drive_kwh / given.fleet.vehicle.consumption_kwh_per_mile
    mean, deviation = settings.log_miles
    assert stats.kstest(np.log(miles), stats.norm(mean, deviation).cdf).pvalue > 0.01


def test_100_000_sessions_at_work_have_the_stated_distributions():
    given = scenario(start="2026-01-12T00:00", duration="120h", count=26_000, sessions="workplace")
    settings = given.fleet.sessions
    _, sessions = fleet_tables(given, feeder())
    fresh = sessions.take(np.arange(100_000))
    arrive, leave = marginals([settings.arrival_h, settings.departure_h], settings.shortest_stay_h)
    assert stats.kstest(fresh.arrival_s / 3600 % 24, arrive).pvalue > 0.01
    assert stats.kstest(fresh.departure_s / 3600 % 24, leave).pvalue > 0.01


def test_100_000_days_of_who_works_every_day_have_the_stated_miles():
    daily = {"source": "workplace", "visits_weekday": 1.0, "visits_weekend": 1.0}
    given = scenario(start="2026-01-12T00:00", duration="120h", count=20_000, sessions=daily)
    _, sessions = fleet_tables(given, feeder())
    miles = sessions.drive_kwh[:100_000] / given.fleet.vehicle.consumption_kwh_per_mile
    assert len(miles) == 100_000
    assert stats.kstest(np.log(miles), stats.norm(*given.fleet.sessions.log_miles).cdf).pvalue > 0.01


def test_100_000_public_stays_have_the_stated_distributions():
    # A visit is left out while the EV is still there from the last. Visits on one day of ten are so far apart
    # that hardly any is (those would come early in the day), and hour and stay are as stated.
    given = scenario(start="2026-01-12T00:00", duration="240h", count=104_000,
                     sessions={"source": "public", "longest_stay_h": 72, "visits_weekday": 0.1,
                               "visits_weekend": 0.1, "warm_up_days": 1})  # fmt: skip
    settings = given.fleet.sessions
    _, sessions = fleet_tables(given, feeder())
    fresh = sessions.take(np.flatnonzero(sessions.arrival_s > 0)).take(np.arange(100_000))
    mean, deviation = settings.arrival_h
    a, b = (0 - mean) / deviation, (24 - mean) / deviation
    hour = fresh.arrival_s / 3600 % 24
    assert stats.kstest(hour, stats.truncnorm(a, b, mean, deviation).cdf).pvalue > 0.01
    stay = np.log((fresh.departure_s - fresh.arrival_s) / 3600)
    short = stats.norm(*settings.log_stay_h)
    assert stats.kstest(stay, lambda x: short.cdf(x) / short.cdf(np.log(72))).pvalue > 0.01


def test_100_000_dc_fast_stops_have_the_stated_distributions():
    # Who comes is by state of charge; when and for how long is not. Stays are not cut at 2 h here.
    given = scenario(start="2026-01-12T00:00", duration="96h", count=90_000,
                     charger=DC, sessions={"source": "dc_fast", "longest_stay_h": 72})  # fmt: skip
    settings = given.fleet.sessions
    _, sessions = fleet_tables(given, feeder())
    fresh = sessions.take(np.flatnonzero(sessions.arrival_s > 0)).take(np.arange(100_000))
    mean, deviation = settings.arrival_h
    a, b = (0 - mean) / deviation, (24 - mean) / deviation
    hour = fresh.arrival_s / 3600 % 24
    assert stats.kstest(hour, stats.truncnorm(a, b, mean, deviation).cdf).pvalue > 0.01
    stay = np.log((fresh.departure_s - fresh.arrival_s) / 3600)
    assert stats.kstest(stay, stats.norm(*settings.log_stay_h).cdf).pvalue > 0.01


def ordered_marginals(times, gap, points=24_001):
    """CDFs of normal times of day in order, each ``gap`` after the one before, by quadrature on a grid."""
    x = np.linspace(0.0, 24.0, points)
    shift = round(gap / x[1])
    densities = [stats.norm.pdf(x, *time) for time in times]

    def before(density):  # integral up to x - gap
        total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
        return np.concatenate([np.zeros(shift), total[: points - shift]])

    earlier, later = [np.ones(points)], [np.ones(points)]
    for density in densities[:-1]:
        earlier.append(before(density * earlier[-1]))
    for density in densities[:0:-1]:
        later.insert(0, before((density * later[0])[::-1])[::-1])
    result = []
    for density, low, high in zip(densities, earlier, later, strict=True):
        joint = density * low * high
        total = np.concatenate([[0.0], np.cumsum((joint[1:] + joint[:-1]) / 2)])
        result.append(lambda at, total=total: np.interp(at, x, total / total[-1]))
    return result


def test_100_000_stays_of_school_buses_have_the_stated_distributions():
    given = scenario(start="2026-01-12T00:00", duration="120h", count=12_000, sessions="school_bus")
    settings = given.fleet.sessions
    _, sessions = fleet_tables(given, feeder())
    fresh = sessions.take(np.flatnonzero(sessions.arrival_s > 0)).take(np.arange(100_000))
    noon = fresh.arrival_s % 86400 < fresh.departure_s % 86400
    out, back, out_again, back_again = ordered_marginals(
        [settings.morning_out_h, settings.morning_back_h, settings.afternoon_out_h,
         settings.afternoon_back_h], settings.shortest_trip_h)  # fmt: skip
    for at, mask, cdf in (
        (fresh.arrival_s, noon, back), (fresh.departure_s, noon, out_again),
        (fresh.arrival_s, ~noon, back_again), (fresh.departure_s, ~noon, out),
    ):  # fmt: skip
        assert stats.kstest(at[mask] / 3600 % 24, cdf).pvalue > 0.01
    per_mile = given.fleet.vehicle_mix.types["school_bus"].consumption_kwh_per_mile
    miles = fresh.drive_kwh / per_mile
    assert stats.kstest(np.log(miles), stats.norm(*settings.log_miles).cdf).pvalue > 0.01


def test_100_000_stays_of_delivery_vans_have_the_stated_distributions():
    given = scenario(start="2026-01-12T00:00", duration="120h", count=26_000, sessions="delivery_van")
    settings = given.fleet.sessions
    _, sessions = fleet_tables(given, feeder())
    fresh = sessions.take(np.flatnonzero((sessions.arrival_s > 0) & (sessions.arrival_s < 4 * 86400)))
    fresh = fresh.take(np.arange(100_000))
    leave, back = marginals([settings.departure_h, settings.return_h], settings.shortest_trip_h)
    assert stats.kstest(fresh.arrival_s / 3600 % 24, back).pvalue > 0.01
    assert stats.kstest(fresh.departure_s / 3600 % 24, leave).pvalue > 0.01
    per_mile = given.fleet.vehicle_mix.types["delivery_van"].consumption_kwh_per_mile
    miles = fresh.drive_kwh / per_mile
    assert stats.kstest(np.log(miles), stats.norm(*settings.log_miles).cdf).pvalue > 0.01


def test_100_000_waits_of_rental_cars_have_the_stated_distributions():
    given = scenario(start="2026-01-12T00:00", duration="480h", count=55_000, sessions="rental")
    settings = given.fleet.sessions
    _, sessions = fleet_tables(given, feeder())
    fresh = sessions.take(np.flatnonzero((sessions.arrival_s > 0) & (sessions.arrival_s < 10 * 86400)))
    fresh = fresh.take(np.arange(100_000))
    for at, (mean, deviation) in (
        (fresh.arrival_s, settings.return_h), (fresh.departure_s, settings.pick_up_h),
    ):  # fmt: skip
        a, b = (0 - mean) / deviation, (24 - mean) / deviation
        assert stats.kstest(at / 3600 % 24, stats.truncnorm(a, b, mean, deviation).cdf).pvalue > 0.01
    # Nights at the station are geometric, with the probability of being rented on a day.
    chance = settings.rented_weekday
    nights = (fresh.departure_s // 86400 - fresh.arrival_s // 86400).astype(int)
    seen = np.bincount(np.minimum(nights, 8), minlength=9)
    expected = chance * (1 - chance) ** np.arange(8)
    expected[-1] = 1 - expected[:-1].sum()
    assert seen[0] == 0
    assert stats.chisquare(seen[1:], expected * seen.sum()).pvalue > 0.01


# --- vehicles ---


def test_the_shipped_mix():
    mix = read_mix("default")
    assert sum(kind.share for kind in mix.types.values()) == pytest.approx(1)
    assert all(kind.source for kind in mix.types.values())
    mean = sum(kind.share * kind.capacity_kwh for kind in mix.types.values())
    assert mean == pytest.approx(60.0, abs=0.1)
    assert mix.types["phev50"].capacity_kwh == 50 * 0.325


def test_the_limit_of_a_vehicle_at_a_charger():
    types = read_mix("default").types
    car, plug_in = types["bev250"], types["phev50"]
    assert charge_limit_kw(car, 7.4, 1, False) == 7.4
    assert charge_limit_kw(car, 22, 1, False) == 11.5
    assert charge_limit_kw(car, 22, 3, False) == 11.0
    assert charge_limit_kw(car, 350, 3, True) == 150
    assert charge_limit_kw(plug_in, 9, 3, False) == 3.0  # a third of the EVSE
    assert charge_limit_kw(plug_in, 22, 3, False) == 3.6


def test_types_are_drawn_by_their_shares_and_limit_their_sessions():
    evs, sessions = tables(count=6000, mix="default", duration="24h", at=["L3", "L4"],
                           charger={"phases": 3, "power_kw": 22, "bidirectional": 1})  # fmt: skip
    assert set(evs.connection) == {3, 4}
    mix = read_mix("default")
    first = np.unique(sessions.ev, return_index=True)[1]
    names, counts = np.unique(sessions.vehicle[first], return_counts=True)
    for name, count in zip(names, counts, strict=True):
        kind, own = mix.types[name], sessions.vehicle == name
        assert count / len(first) == pytest.approx(kind.share, abs=0.02)
        assert set(sessions.capacity_kwh[own]) == {kind.capacity_kwh}
        assert set(sessions.charge_kw[own]) == {charge_limit_kw(kind, 22, 3, False)}
        assert np.all((sessions.discharge_kw[own] > 0) == kind.bidirectional)
        assert np.all((evs.phase[sessions.ev[own]] == ALL_PHASES) == (kind.ac_3p_kw > 0))
    assert set(sessions.discharge_kw[sessions.vehicle == "light_truck"]) == {22 / 3}


def test_chargers_of_several_ratings_are_drawn_by_their_shares():
    charger = {"ratings": {3.7: 0.25, 7.4: 0.75}, "bidirectional": 1.0}
    _, sessions = tables(count=2000, charger=charger, sessions="home")
    of_ev = {}
    for ev, kw in zip(sessions.ev, sessions.charge_kw, strict=True):
        assert of_ev.setdefault(ev, kw) == kw  # an EV keeps its charger
    low = np.mean([kw == 3.7 for kw in of_ev.values()])
    assert set(of_ev.values()) == {3.7, 7.4}
    assert stats.binomtest(round(low * len(of_ev)), len(of_ev), 0.25).pvalue > 0.01
    assert np.array_equal(sessions.discharge_kw, sessions.charge_kw)
    _, some = tables(count=50, charger=charger, sessions="home")
    first = {ev: kw for ev, kw in of_ev.items() if ev < 50}
    assert dict(zip(some.ev, some.charge_kw, strict=True)) == first
    with_mix = tables(count=300, charger=charger, mix={"bev250": 0.5, "phev50": 0.5})[1]
    assert set(zip(with_mix.vehicle, with_mix.charge_kw, strict=True)) == {
        ("bev250", 3.7), ("bev250", 7.4), ("phev50", 3.6),
    }  # fmt: skip
    refused("ratings: one of the shares must be greater than 0", count=1, charger={"ratings": {3.7: 0}})


def test_dc_chargers_take_vehicles_with_a_dc_inlet_only():
    evs, sessions = tables(sessions="dc_fast", count=500, mix="default", duration="240h")
    assert set(sessions.vehicle) == {"bev100", "bev250", "light_truck"}
    assert set(evs.phase) == {ALL_PHASES}
    assert set(evs.connection) == {3, 4}
    assert set(sessions.charge_kw[sessions.vehicle == "bev100"]) == {50.0}


def test_a_mix_of_ones_own(tmp_path):
    (tmp_path / "mix.yaml").write_text(
        "types: {tiny: {capacity_kwh: 10, ac_1p_kw: 2, ac_3p_kw: 0, consumption_kwh_per_mile: 0.2, share: 1}}"
    )
    sessions = tables(count=5, mix={"file": str(tmp_path / "mix.yaml")})[1]
    assert set(sessions.vehicle) == {"tiny"}
    assert set(sessions.charge_kw) == {2.0}
    sessions = tables(count=50, mix={"bev250": 0.5, "school_bus": 0.5})[1]
    assert set(sessions.vehicle) == {"bev250", "school_bus"}


MIX = """type, share, capacity_kwh, ac_1p_kw, ac_3p_kw, bidirectional, chemistry, consumption_kwh_per_mile
tiny, 0.25, 10, 2, 0, , , 0.2
van, 0.75, 80, 7.4, 11, true, lfp, 0.5
"""


def test_a_mix_as_a_csv_table(tmp_path):
    (tmp_path / "mine.csv").write_text(MIX)
    mix = read_mix({"file": "mine.csv"}, tmp_path)
    assert (mix.name, list(mix.types)) == ("mine", ["tiny", "van"])
    tiny, van = mix.types.values()
    assert (tiny.share, tiny.capacity_kwh, tiny.bidirectional, tiny.chemistry, tiny.dc_kw) == (
        0.25, 10.0, False, None, 0.0
    )  # fmt: skip
    assert (van.share, van.ac_3p_kw, van.bidirectional, van.chemistry) == (0.75, 11.0, True, "lfp")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("van,", "tiny,"), "mine.csv line 3: type tiny is there twice"),
        (("tiny,", ","), "mine.csv line 2: type is missing"),
        (("0.5\n", "0.5, 7\n"), "mine.csv line 3: has 9 values: must have 8 as the header"),
        ((" 80,", " heavy,"), r"mine.csv line 3: capacity_kwh = heavy: must be a number"),
        (("chemistry", "kind"), r"fleet.mix.types.van.kind: unknown key; allowed are capacity_kwh"),
        (("0.75", "0.7"), "the shares of the types add up to 0.95: must be 1"),
    ],
)
def test_what_is_wrong_with_a_csv_table_of_types_is_said(tmp_path, change, match):
    (tmp_path / "mine.csv").write_text(MIX.replace(*change))
    with pytest.raises(ScenarioError, match=match):
        read_mix({"file": "mine.csv"}, tmp_path)


def test_a_resolved_scenario_with_mix_and_source_loads_again():
    given = scenario(count=5, mix="default", sessions={"source": "home", "return_h": [18, 2]})
    again = Scenario.model_validate(json.loads(given.model_dump_json(exclude_none=True)))
    assert again == given
    over = scenario_from(json.loads(given.model_dump_json(exclude_none=True)), {"fleet.mix": {"bev100": 1.0}})
    assert list(over.fleet.mix.types) == ["bev100"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"count": 5, "mix": {"bev": 1.0}}, r"fleet.mix.bev: no such type; shipped are phev20"),
        ({"count": 5, "mix": {"bev250": 0.5}}, r"shares of the types add up to 0.5: must be 1"),
        ({"count": 5, "mix": "mine"}, r"mix = mine: must be"),
        ({"count": 5, "mix": {"file": "none.yaml"}}, r"fleet.mix.file: there is no file"),
        ({"count": 5, "mix": "default", "vehicle": {"capacity_kwh": 70}}, r"capacity_kwh has no meaning"),
        ({"count": 5, "mix": {"phev20": 1}, "charger": DC}, r"no type of mix shares has a DC inlet"),
        ({"count": 5, "charger": {"current": "dc"}}, r"charger.phases must be 3 with charger.current = dc"),
        ({"count": 5, "sessions": "dc_fast", "charger": {}}, r"dc_fast needs charger: \{current: dc"),
        ({"count": 5, "sessions": "hme"}, r"fleet.sessions = hme: must be one of"),
        ({"count": 5, "sessions": 7}, r"fleet.sessions: must be one of"),
        ({"penetration": 0.5, "sessions": "public"}, r"count \(EVs\), and no penetration"),
        ({"count": 5, "sessions": {"source": "home", "retrn_h": [1, 2]}}, r"did you mean 'return_h'"),
        ({"count": 5, "sessions": {"source": "home", "return_h": [30, 2]}}, r"return_h.0 = 30"),
        ({"count": 5, "sessions": {"source": "home", "return_h": [8, 2]}}, r"mean of return_h must be 1 h"),
        ({"count": 5, "sessions": {"source": "workplace", "arrival_h": [18, 1]}}, r"of departure_h must"),
        ({"count": 5, "sessions": {"source": "school_bus", "morning_out_h": [9, 1]}}, r"four times of day"),
        ({"count": 5, "sessions": {"source": "home", "plug_in": [[0.5, 1], [0.2, 0]]}}, r"must ascend"),
        ({"count": 5, "at": "L9"}, r"point L9"),
        ({"count": 5, "at": "L0", "charger": {"phases": 3}}, r"phases = 3: connection L0 has phase a only"),
        ({"count": 5, "at": "L0", "charger": DC}, r"connection L0 has phase a only; must be ac"),
        ({"count": 5, "sessions": {"file": __file__}}, r"count has no meaning with a session file"),
        ({"mix": "default", "sessions": {"file": __file__}}, r"mix has no meaning with a session file"),
        ({"sessions": {"acn": __file__, "file": __file__}}, r"fleet.sessions: must be one of"),
        ({"sessions": {"acn": "none.json"}}, r"fleet.sessions.acn = none.json: there is no file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(settings, match):
    refused(match, **settings)


def test_chargers_at_a_pattern_of_names():
    """L0 and L1 by a pattern, as where they are named."""
    named, pattern = ({"count": 5, "sessions": "public", "at": at} for at in (["L0", "L1"], "l[01]"))
    places = [set(tables(**given)[0].connection.tolist()) for given in (named, pattern)]
    assert places[0] == places[1] == {0, 1}
    refused(r"fleet.at: the feeder has no connection point X\*; it has L0", count=5, at=["L0", "X*"])


def test_three_phase_chargers_need_a_three_phase_point():
    with pytest.raises(ScenarioError, match=r"feeder has no three-phase connection point"):
        tables(feeder(of=(0, 1, 2)), sessions="public", count=3, charger={"phases": 3})


# --- recorded files in scenarios ---


def acn(tmp_path):
    def record(number, kwh, hours, user=None, begin=15):
        day = "Thu, 15 Jan 2026" if begin + hours < 24 else "Fri, 16 Jan 2026"
        return {
            "sessionID": f"s{number}", "stationID": f"st{number}", "spaceID": f"sp{number}", "userID": user,
            "connectionTime": f"Thu, 15 Jan 2026 {begin:02d}:00:00 GMT",
            "disconnectTime": f"{day} {(begin + hours) % 24:02d}:00:00 GMT",
            "kWhDelivered": kwh, "timezone": "Europe/London", "userInputs": None, "doneChargingTime": None,
        }  # fmt: skip

    path = tmp_path / "acn.json"
    records = [record(1, 5, 4, "u1"), record(2, 20, 2), record(3, 3, 2, "u1", 20), record(4, 0, 1)]
    path.write_text(json.dumps({"_items": records}))
    return path


def test_acn_in_a_scenario_says_what_was_read_dropped_and_why(tmp_path):
    evs, sessions = tables(sessions={"acn": str(acn(tmp_path))}, charger={"phases": 3}, duration="24h")
    assert len(sessions) == 3
    assert "read 4 sessions, kept 3, dropped 1: 1 with no energy delivered (s4)" in sessions.notes[0]
    assert sessions.unreachable == ("s2: 20.000 kWh in 2.000 h need 10.00 kW, the EVSE gives 6.656 kW",)
    assert list(sessions.arrival_s / 3600) == [3.0, 8.0, 3.0]  # u1 at two points: an EV at each
    assert set(evs.connection) <= {3, 4}
    assert np.all(np.isnan(sessions.drive_kwh))
    one = tables(sessions={"acn": str(acn(tmp_path)), "connections": "L0", "charge_kw": 11}, duration="24h")
    assert list(one[0].name) == ["user-u1", "session-s2"]
    assert one[1].unreachable == ()
    mapped = {"acn": str(acn(tmp_path)), "connections": {"st1": "L0"}}
    refused(r"evse st2: has no connection point in the mapping", sessions=mapped)


def test_elaad_and_nhts_in_a_scenario(tmp_path):
    elaad = tmp_path / "elaad.csv"
    elaad.write_text(
        "TransactionId;ChargePoint;Connector;UTCTransactionStart;UTCTransactionStop;StartCard;ConnectedTime;"
        "ChargeTime;TotalEnergy;MaxPower\n1;p;1;15/01/2026 13:00;15/01/2026 17:00;c;4,0;2,0;12,5;7,0\n"
        "2;p;1;nonsense;15/01/2026 17:00;c;4,0;2,0;12,5;7,0\n"
    )
    sessions = tables(sessions={"elaad": str(elaad)})[1]
    assert list(sessions.arrival_s) == [3600.0]
    assert list(sessions.charge_kw) == [7.0]
    assert "read 2 sessions, kept 1" in sessions.notes[0]
    refused(r"fleet.sessions.zone = Nowhere", sessions={"elaad": str(elaad), "zone": "Nowhere"})
    nhts = tmp_path / "trippub.csv"
    nhts.write_text(
        "HOUSEID,PERSONID,VEHID,TRPTRANS,DRVR_FLG,TRPMILES,STRTTIME,ENDTIME,WHYTO,TDWKND,WTTRDFIN\n"
        "1,1,1,3,1,10,0800,0830,3,2,1\n1,1,1,3,1,10,1700,1730,1,2,1\n2,1,1,11,1,5,0900,0930,1,2,1\n"
    )
    sessions = tables(sessions={"nhts": str(nhts), "wave": 2017}, duration="48h")[1]
    assert list(sessions.arrival_s / 3600) == [5.5, 29.5]
    assert "read 3 trips, kept 2" in sessions.notes[0]
    elaad.write_text(elaad.read_text().splitlines()[0] + "\n")
    refused(r"holds no sessions that can be used", sessions={"elaad": str(elaad)})


# --- snapshots ---


@pytest.mark.parametrize("source", ["home", "rental", "dc_fast"])
def test_a_snapshot_comes_back_exactly(tmp_path, source):
    given = scenario(sessions=source, count=25, members=3, first=2, mix="default")
    evs, sessions = fleet_tables(given, feeder())
    path = write_snapshot(tmp_path / "deep" / "table.parquet", given, feeder(), evs, sessions)
    assert is_snapshot(path)
    replay = {"sessions": {"file": str(path)}}
    again_evs, again = tables(members=3, first=2, **replay)
    assert_same(sessions, again, but=())
    for name in ("member", "connection", "phase", "name"):
        assert np.array_equal(getattr(evs, name), getattr(again_evs, name)), name
    assert "snapshot of the sessions of test, seed 7" in again.notes[0]
    one_evs, one = tables(first=3, **replay)
    assert_same(sessions.take(evs.member[sessions.ev] == 1), one)
    assert len(one_evs) == 25
    later = tables(members=3, first=2, start="2026-01-16T12:00", duration="24h", **replay)[1]
    kept = (sessions.departure_s > 86400) & (sessions.arrival_s < 2 * 86400)
    assert len(later) == kept.sum()
    refused(r"has no EVs of member 5 and 2 more", members=4, first=4, **replay)
    with pytest.raises(ScenarioError, match=r"connection L3.*: the feeder has no such connection point"):
        tables(feeder(of=(0, 1, 2)), members=3, first=2, **replay)
    wrong = feeder(of=(1, 0, 0, 0, 0))
    with pytest.raises(ScenarioError, match=r"has phase . only"):
        tables(wrong, members=3, first=2, **replay)


def test_the_chemistry_of_a_type_is_drawn_written_and_kept(tmp_path):
    given = scenario(count=60, mix={"bev250": 0.5, "delivery_van": 0.5})
    evs, sessions = fleet_tables(given, feeder())
    assert set(zip(sessions.vehicle, sessions.chemistry, strict=True)) == {
        ("bev250", "nmc"), ("delivery_van", "lfp")
    }  # fmt: skip
    kind = {"capacity_kwh": 40, "ac_1p_kw": 7, "ac_3p_kw": 0, "consumption_kwh_per_mile": 0.3}
    types = {"mine": {**kind, "share": 0.5, "chemistry": "lfp"}, "other": {**kind, "share": 0.5}}
    given = scenario(count=60, mix={"types": types})
    evs, sessions = fleet_tables(given, feeder())
    assert set(zip(sessions.vehicle, sessions.chemistry, strict=True)) == {("mine", "lfp"), ("other", "nmc")}
    path = write_snapshot(tmp_path / "t.parquet", given, feeder(), evs, sessions)
    assert_same(sessions, tables(sessions={"file": str(path)})[1], but=())
    assert set(tables(count=2, vehicle={"chemistry": "lfp"})[1].chemistry) == {"lfp"}
    # a snapshot that was written before it held the chemistry: that of the shipped type, or of the scenario
    table = pq.read_table(path)
    pq.write_table(table.drop(["chemistry"]), path)
    old = tables(sessions={"file": str(path)}, vehicle={"chemistry": "lfp"})[1]
    assert set(old.chemistry) == {"lfp"}


def test_a_snapshot_of_a_balanced_feeder_lacks_phases(tmp_path):
    given, balanced = scenario(count=3), feeder(("abc",), (ALL_PHASES,) * 5)
    path = write_snapshot(tmp_path / "t.parquet", given, balanced, *fleet_tables(given, balanced))
    refused(r"was written on a balanced feeder", sessions={"file": str(path)})
    with pytest.raises(ScenarioError, match=r"t.csv: the name of a snapshot must end in .parquet"):
        write_snapshot(tmp_path / "t.csv", given, balanced, *fleet_tables(given, balanced))
