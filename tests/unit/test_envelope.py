"""The fleet's limits over a horizon. Expected values are worked by hand, beside each test.

The battery is that of test_fleet_model: 60 kWh, 7.2 kW, lossless, 0.12 SOC an hour, taper from 0.8.
"""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.fleet import HOUR, Run, car, feeder

import evgrid
from evgrid.aggregator.planning.scheduler import batteries_ahead, batteries_of, with_reported
from evgrid.aggregator.strategy import Envelope
from evgrid.core.model import ALL_PHASES
from evgrid.errors import ScenarioError
from evgrid.scenario import scenario_from

AHEAD = {"horizon": "12h", "slot": "1h"}


def waiting(*evs, hours=1, setpoint=0.0, envelope=AHEAD, **fleet):
    """A run in which all EVs wait; its envelope at the end."""
    extra = {"fleet": {"count": 1, "envelope": envelope, **fleet}}
    return Run(*evs, step=900.0, hours=hours, setpoint=setpoint, extra=extra)


def test_an_ev_that_charges_only():
    # At 1 h with SOC 0.5, 18 kWh short of 0.8, which takes 2.5 h; it leaves at 11 h, 10 h from now.
    limits = waiting([car(departure=11 * HOUR, target=0.8)]).model.envelope()
    assert limits["e_max"][0] == pytest.approx([7.2, 14.4] + [18.0] * 10)
    assert limits["e_min"][0] == pytest.approx([0.0] * 7 + [3.6, 10.8, 18.0, 18.0, 18.0])
    assert limits["p_max"][0] == pytest.approx([7.2] * 10 + [0.0, 0.0])
    assert limits["p_min"][0] == pytest.approx(np.zeros(12))
    assert limits["round_trip"][0] == 1.0


def test_an_ev_that_may_discharge():
    # Down to 0.2: 18 kWh. From there 36 kWh to charge, 5 h; the floor is left at 5 h.
    limits = waiting([car(departure=11 * HOUR, target=0.8, discharge_kw=7.2, soc_floor=0.2)]).model.envelope()
    e_min = [-7.2, -14.4, -18.0, -18.0, -18.0, -10.8, -3.6, 3.6, 10.8, 18.0, 18.0, 18.0]
    assert limits["e_min"][0] == pytest.approx(e_min)
    assert limits["p_min"][0] == pytest.approx([-7.2] * 9 + [0.0] * 3)
    assert limits["p_max"][0] == pytest.approx([7.2] * 10 + [0.0, 0.0])
    assert limits["round_trip"][0] == pytest.approx(1.0)


def test_energy_is_at_the_meter_and_a_kwh_given_back_costs_the_round_trip():
    # 0.9 in and 0.8 out: 18 kWh are 20 at the meter; 7.2 kW out are 9 kW at the battery, 10 at the meter.
    losses = {"charge_loss": (0.0, 1 / 0.9 - 1, 0.0), "discharge_loss": (0.0, 0.2, 0.0)}
    limits = waiting(
        [car(departure=11 * HOUR, target=0.8, discharge_kw=7.2, soc_floor=0.2, **losses)]
    ).model.envelope()
    assert limits["e_max"][0][:4] == pytest.approx([7.2, 14.4, 20.0, 20.0])
    assert limits["e_min"][0][:3] == pytest.approx([-10.0, -20.0, -20.0])
    assert limits["round_trip"][0] == pytest.approx(0.72)


def test_the_taper_bounds_the_fastest_charging_and_the_power_of_one_who_must_be_full():
    # FACTS: from SOC 0.5, 0.851836 after 3 h. From the least energy at 9 h on, only the taper is left.
    limits = waiting([car(departure=11 * HOUR)]).model.envelope()
    assert limits["e_max"][0][2] == pytest.approx(60 * (0.851836 - 0.5), abs=1e-4)
    assert limits["e_max"][0][-1] == limits["e_min"][0][-1] == pytest.approx(30.0)
    last = np.flatnonzero(limits["p_max"][0])[-1]
    assert last == 9
    assert limits["p_max"][0][last] < 7.2
    reached = np.diff(limits["e_min"][0])[last - 1]
    assert limits["p_max"][0][last] == pytest.approx(reached)


def test_out_of_reach_the_least_is_the_most():
    limits = waiting([car(departure=3 * HOUR, target=0.8)]).model.envelope()  # 2 h left, 14.4 kWh
    for name in ("e_min", "e_max"):
        assert limits[name][0] == pytest.approx([7.2] + [14.4] * 11)
    for name in ("p_min", "p_max"):
        assert limits[name][0] == pytest.approx([7.2, 7.2] + [0.0] * 10)


def test_one_that_leaves_within_a_slot_and_one_that_is_away():
    limits = waiting(
        [car(departure=2.5 * HOUR, target=0.56)], [car(arrival=5 * HOUR)], [car(departure=0.5 * HOUR)]
    ).model.envelope()  # 3.6 kWh in 1.5 h
    assert limits["e_max"][0] == pytest.approx([3.6] * 12)
    assert limits["e_min"][0] == pytest.approx([0.0] + [3.6] * 11)
    assert limits["p_max"][0] == pytest.approx([3.6, 3.6] + [0.0] * 10)
    for name in ("p_min", "p_max", "e_min", "e_max"):
        assert not limits[name][1:].any()


def test_discharging_needs_willing_drivers_and_what_the_warranty_leaves():
    # The run starts at 12:00, so the envelope at 13:00; drivers let discharge from 14:30 on: half of slot 1.
    ev = [car(departure=23 * HOUR, target=0.5, discharge_kw=7.2, soc_floor=0.2)]
    driver = {"driver": {"window": [14.5, 20]}}
    limits = waiting(ev, permission=driver).model.envelope()
    assert limits["e_min"][0][:5] == pytest.approx([0.0, -3.6, -10.8, -18.0, -18.0])
    assert limits["p_min"][0][:3] == pytest.approx([0.0, -3.6, -7.2])
    limits = waiting(ev, permission={"warranty": {"throughput_kwh": 10.0}}).model.envelope()
    assert limits["e_min"][0][:3] == pytest.approx([-7.2, -10.0, -10.0])
    more = [car(departure=23 * HOUR, target=0.8, discharge_kw=7.2, soc_floor=0.2)]
    limits = waiting(more, permission={"warranty": {"throughput_kwh": 5.0}}).model.envelope()
    assert limits["p_min"][0] == pytest.approx([-5.0] * 12)  # also from a battery that has been charged
    limits = waiting(ev, permission={"warranty": {"hours": 0.5}}).model.envelope()
    assert limits["e_min"][0][:3] == pytest.approx([-3.6, -3.6, -3.6])
    limits = waiting(ev, permission={"vehicle": 0.0}).model.envelope()
    assert (limits["e_min"][0] >= 0).all()


def test_groups_add_up_and_member_alone_is_its_own():
    evs = [
        [car(departure=(6 + i) * HOUR, target=0.7 + i % 3 / 20, discharge_kw=7.2 * (i % 2), soc_floor=0.3)]
        for i in range(6)
    ]  # fmt: skip
    own = waiting(*evs).model.envelope()
    connections = replace(feeder(of=(0, 1, ALL_PHASES)), trafo=np.array([0, 1, 1]))
    for group, rows in (
        ("feeder", [[0, 1, 2, 3, 4, 5]]), ("transformer", [[0, 3], [1, 4, 2, 5]]),
        ("connection", [[0, 3], [1, 4], [2, 5]]),
    ):  # fmt: skip
        extra = {"fleet": {"count": 1, "envelope": {**AHEAD, "every": "30min", "group": group}}}
        run = Run(*evs, step=900.0, hours=1, setpoint=0.0, connections=connections, extra=extra)
        for name, unit in (("p_min", "kw"), ("p_max", "kw"), ("e_min", "kwh"), ("e_max", "kwh")):
            values = run[f"envelope_{name}_{unit}"]
            assert values.shape == ((1, 2, 12) if group == "feeder" else (1, len(rows), 2, 12))
            now = values[..., -1, :].reshape(len(rows), 12)
            expected = [own[name][of].sum(axis=0) for of in rows]
            assert now == pytest.approx(np.array(expected), rel=1e-6, abs=1e-5), (group, name)


STRATEGY = '''
import numpy as np
import evgrid
from evgrid.aggregator.planning.scheduler import batteries_ahead, schedule


class Cheapest(evgrid.Strategy):
    """Every quarter of an hour, the least cost over the envelope; what its first slot says is asked for."""

    uses_envelope = True
    seen = []

    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.asked, self.begin_s = np.zeros(len(context.evs)), -1.0

    def setpoints(self, view):
        ahead = view.envelope
        if ahead is None:
            return np.zeros(len(view.soc))
        if ahead.begin_s != self.begin_s:
            self.seen.append((view.time_s, ahead.begin_s))
            self.begin_s = ahead.begin_s
            rows = np.flatnonzero(view.plugged)
            hour = 20.0 + (ahead.begin_s + ahead.slot_s * np.arange(ahead.p_max.shape[1])) / 3600.0
            price = np.where((hour >= 24) & (hour < 29), 0.1, 0.4)
            planned = schedule(batteries_ahead(ahead, rows), price, ahead.slot_s / 3600.0)
            self.asked[:] = 0.0
            self.asked[rows] = planned.power[:, 0]
        return self.asked
'''


def test_a_strategy_plans_with_it_and_meets_every_departure(tmp_path):
    (tmp_path / "planner_of_envelopes.py").write_text(STRATEGY)
    content = {
        "name": "ahead",
        "time": {"start": "2026-01-15T20:00", "duration": "12h", "step": "5min"},
        "ensemble": {"members": 2, "seed": 3},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "net"}},
        "fleet": {
            "count": 6, "charger": {"phases": 3, "bidirectional": 0.5},
            "envelope": {"horizon": "12h", "every": "30min", "group": "transformer"},
        },
        "aggregators": {"main": {"strategy": "planner_of_envelopes:Cheapest"}},
    }  # fmt: skip
    scenario = scenario_from(content, folder=tmp_path)
    result = evgrid.run(scenario)
    seen = np.array(scenario.aggregators["main"].strategy_class.seen)
    assert seen[:, 0] == pytest.approx(seen[:, 1])
    assert seen[:, 1] == pytest.approx(1800.0 * np.arange(1, 24))
    unserved = result["session_energy_unserved_avoidable_kwh"].values[result["session_complete"].values]
    assert np.nanmax(unserved) < 1e-6
    assert dict(result["envelope_e_min_kwh"].sizes) == {
        "member": 2, "trafo": result.sizes["trafo"], "envelope_time": 24, "lead": 48
    }  # fmt: skip
    assert str(result["envelope_time"].values[0]).startswith("2026-01-15T20:30")
    assert result["lead"].values[:3] == pytest.approx([0.0, 0.25, 0.5])
    assert result["lead"].attrs["units"] == "h"
    # what was drawn in the half hour after an envelope lies within it, EVs that came since aside
    drawn = result["fleet_power_kw"].sum("member").values.reshape(24, 6).sum(axis=1)[1:] / 12
    most = result["envelope_e_max_kwh"].sum(["member", "trafo"]).isel(lead=1).values[:-1]
    least = result["envelope_e_min_kwh"].sum(["member", "trafo"]).isel(lead=1).values[:-1]
    night = slice(10, 23)  # from 2:00 on nobody comes
    assert (drawn[night] <= most[night] + 1e-3).all()
    assert (drawn[night] >= least[night] - 1e-3).all()
    # and it is drawn at night
    cheap = result["fleet_power_kw"].sel(time=slice("2026-01-16T00:00", "2026-01-16T04:55")).sum()
    assert cheap > 0.9 * result["fleet_power_kw"].clip(min=0).sum() - 1e-9


@pytest.mark.parametrize(
    ("fleet", "match"),
    [
        ({"envelope": {"horizon": "50min"}}, r"fleet.envelope: horizon = 3000s: must be a multiple of slot"),
        (
            {"envelope": {"every": "100s"}},
            "fleet.envelope.every = 100s: must be a multiple of time.step = 60s",
        ),
        ({"envelope": {"group": "bus"}}, "fleet.envelope.group"),
        ({"envelope": {"every": "2d"}}, "every = 172800s: must be at most time.duration = 86400s"),
    ],
)
def test_settings_are_refused_with_a_reason(fleet, match):
    with pytest.raises(ScenarioError, match=match):
        scenario_from({"name": "x", "time": {"start": "2026-01-15T12:00"}, "feeder": {"network": "x"},
                       "fleet": {"count": 1, **fleet}})  # fmt: skip


def test_a_strategy_that_plans_with_it_needs_it(tmp_path):
    (tmp_path / "planner_without.py").write_text(STRATEGY)
    content = {"name": "x", "time": {"start": "2026-01-15T12:00"}, "feeder": {"network": "x"},
               "fleet": {"count": 1},
               "aggregators": {"main": {"strategy": "planner_without:Cheapest"}}}  # fmt: skip
    with pytest.raises(ScenarioError, match=r"aggregators.main.strategy = .*: needs fleet.envelope"):
        scenario_from(content, folder=tmp_path)


def test_an_ev_without_a_transformer_upstream_is_in_no_group():
    connections = replace(feeder(of=(0,)), trafo=np.array([-1]))
    extra = {"fleet": {"count": 1, "envelope": {"group": "transformer"}}}
    with pytest.raises(ScenarioError, match="connection L0 has an EV and no transformer upstream"):
        Run([car()], step=900.0, hours=1, setpoint=0.0, connections=connections, extra=extra)


def scheduled(envelope, **settings):
    content = {
        "name": "scheduled",
        "time": {"start": "2026-07-15T16:00", "duration": "20h", "step": "5min"},
        "ensemble": {"members": 1, "seed": 3},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}, "step": "15min"},
        "fleet": {
            "count": 20, "charger": {"phases": 3, "bidirectional": 0.5},
            "vehicle": {"losses": "by_power", "taper_soc": 0.6},
            "envelope": {"horizon": "12h", "every": "15min", "group": "feeder"},
        },
        "tariff": "pge_ev2a",
        "aggregators": {"main": {"strategy": "scheduled", "envelope": envelope, **settings}},
    }  # fmt: skip
    return scenario_from(content)


@pytest.mark.parametrize("settings", [{}, {"discharge": False}, {"limit_kw": 60, "group": "feeder"}])
def test_the_schedule_by_the_envelope_serves_everyone_at_less_cost(settings):
    told, rated = evgrid.run(scheduled(True, **settings)), evgrid.run(scheduled(False, **settings))
    done = told["session_complete"].values
    assert np.nanmax(told["session_energy_unserved_avoidable_kwh"].values[done]) < 1e-6
    given = told["session_energy_discharged_kwh"].values
    assert given.max() == 0.0 if settings.get("discharge") is False else given.max() > 1.0
    # it knows taper and losses by power, which rated values and mean powers don't
    cost = [float(np.nansum(run["session_cost"].values[done])) for run in (told, rated)]
    assert cost[0] < cost[1]


def test_batteries_as_reported_keep_depth_and_horizon():
    ahead = Envelope(
        0.0, 900.0, p_min=np.array([[-8.0, -8.0]]), p_max=np.array([[4.0, 4.0]]),
        e_min=np.array([[-2.0, 0.5]]), e_max=np.array([[1.0, 2.0]]), round_trip=np.array([0.8]),
    )  # fmt: skip
    two = batteries_of(np.zeros(2), np.full(2, 3.0), np.full(2, 3.0), np.full(2, 4.0), 3, 0.25)
    first = with_reported(two, batteries_ahead(ahead, np.array([0])), np.array([0.75]))
    assert first.p_max.tolist() == [[4.0, 4.0, 0.0], two.p_max[1].tolist()]
    assert first.p_min.tolist() == [[-8.0, -8.0, 0.0], two.p_min[1].tolist()]
    assert first.e_max.tolist() == [[0.0, 1.0, 2.0, 2.0], two.e_max[1].tolist()]
    assert first.e_min.tolist() == [[0.0, -0.75, 0.5, 0.5], two.e_min[1].tolist()]
    assert [e.tolist() for e in first.efficiencies] == [[1.0, 0.9], [0.8, 0.9]]
    never = with_reported(two, batteries_ahead(ahead, np.array([0])), np.zeros(1))
    assert never.p_min[0].tolist() == [0.0, 0.0, 0.0]
    assert never.e_min[0].tolist() == [0.0, 0.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("section", "match"),
    [
        ({"fleet.envelope": {"slot": "30min"}}, "envelope: fleet.envelope.slot = 1800s must be the period"),
        ({"time.start": "2026-07-15T16:05"}, "envelope: the run must begin at a multiple of period = 900s"),
    ],
)  # fmt: skip
def test_the_schedule_and_the_envelope_have_the_same_slots(section, match):
    content = scheduled(True).model_dump(mode="json", exclude_none=True)
    content["tariff"] = "pge_ev2a"
    with pytest.raises(evgrid.ScenarioError, match=match):
        scenario_from(content, section)
