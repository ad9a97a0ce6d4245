"""A week of workplace charging: imported right, and delivered when run uncontrolled."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from evgrid.aggregator.model import AggregatorModel
from evgrid.core.model import ALL_PHASES, Connections, MemoryRecorder, Portfolio
from evgrid.fleet.model import FleetModel
from evgrid.fleet.planned_sessions import planned_sessions_of
from evgrid.fleet.sessions import fleet_tables
from evgrid.fleet.sessions.importers import read_acn, undeliverable
from evgrid.runs.simulation import run_with_report
from evgrid.scenario import scenario_from

HERE = Path(__file__).parent

EFFICIENCY = 0.9
"""Of charging, the scenario's default."""


@pytest.fixture(scope="module", params=["acn_own_week", "acn_week"])
def case(request):
    """What is expected of a week: one that is kept with the tests, and a real one of the reference data."""
    return SimpleNamespace(
        **json.loads((HERE / request.param / "expected.json").read_text()), name=request.param
    )


@pytest.fixture(scope="module")
def week(case, request):
    """The file of the week's records."""
    if case.name == "acn_own_week":
        return HERE / case.name / "input.json"
    return request.getfixturevalue("shared_data") / case.input.split()[0]


def delivered(imported, tmp_path):
    """Run the sessions uncontrolled; kWh delivered to each, beside what was recorded."""
    placed = imported.at("car_park")
    path = placed.save(tmp_path / "sessions.csv")
    scenario = scenario_from(
        {
            "name": "acn-week",
            "time": {"start": "2021-09-05T12:00", "duration": "8d", "step": "5min"},
            "feeder": {"network": "x"},
            "fleet": {"sessions": {"file": str(path)}, "charger": {"phases": 3}},
        }
    )
    one = np.zeros(1, np.int64)
    phase = np.array([ALL_PHASES], np.int8)
    car_park = Connections(np.array(["car_park"]), one, phase, one, one + 1, ("a", "b", "c"))
    evs, sessions = fleet_tables(scenario, car_park)
    assert sessions.left_out == 0
    recorder = MemoryRecorder()
    model = FleetModel(scenario, car_park, evs, sessions, recorder, managed=False)
    drawn_kwh = 0.0
    for tick in range(scenario.clock.ticks):
        drawn_kwh += model.step(tick * 300.0, {})["fleet/p"].sum() * 300.0 / 3600.0
    model.finish()
    result = pd.DataFrame(
        {
            "ev": evs.name[sessions.ev],
            "arrival": scenario.clock.timestamps(sessions.arrival_s),
            "delivered_kwh": recorder.static["session_energy_delivered_kwh"],
        }
    )
    both = placed.table.merge(result, on=["ev", "arrival"], how="left", validate="one_to_one")
    assert both["delivered_kwh"].notna().all()
    assert both["delivered_kwh"].sum() == pytest.approx(drawn_kwh, rel=1e-9)
    return both.set_index("session")


def test_the_week_is_imported_whole(case, week):
    imported = read_acn(week)
    table, report = imported.table, imported.report
    assert (report.read, report.kept, dict(report.dropped)) == (
        case.sessions,
        case.sessions,
        {},
    )
    assert table["energy_kwh"].sum() == pytest.approx(case.energy_kwh, abs=case.energy_tolerance_kwh)
    assert {text: len(rows) for text, rows in report.notes.items()} == {
        "without a user, made an EV each": case.without_user,
        "storing more than 48 kWh, at which the vehicle tapers: given a larger battery": case.larger_battery,
    }
    assert table["charged"].isna().sum() == case.never_done_charging
    assert set(table["timezone"]) == {case.timezone}


def test_local_times_of_known_records(case, week):
    table = read_acn(week).table.set_index("session")
    for session, expected in case.local_times.items():
        for column, value in expected.items():
            found = table.loc[session, column]
            assert pd.isna(found) if value is None else found == type(found)(value), (session, column)


def test_sessions_that_level_2_cannot_deliver_are_listed(case, week):
    listed = undeliverable(read_acn(week, charge_kw=case.level_2_kw).table)
    assert len(listed) == case.undeliverable_at_level_2
    assert listed["energy_kwh"].sum() == pytest.approx(case.undeliverable_energy_kwh, abs=1e-6)
    assert set(listed["space"]) == {case.undeliverable_space}  # all at the fast charger
    assert listed["reason"].str.match(r"[\d.]+ kWh in [\d.]+ h need [\d.]+ kW, the EVSE gives 6.656 kW").all()


def test_every_session_that_can_be_is_delivered(case, week, tmp_path):
    imported = read_acn(week, charge_kw=case.level_2_kw)
    not_within = undeliverable(imported.table)["session"]
    both = delivered(imported, tmp_path)
    can_be = both.drop(index=not_within)
    assert len(can_be) == case.sessions - case.undeliverable_at_level_2
    np.testing.assert_allclose(can_be["delivered_kwh"], can_be["energy_kwh"], rtol=case.delivered_tolerance)
    # The others charge at the rating all along, where the taper of the assumed battery allows it.
    rest = both.loc[not_within]
    bound = undeliverable(imported.table).set_index("session")["deliverable_kwh"]
    assert (rest["delivered_kwh"] <= bound * (1 + 1e-9)).all()
    assert (rest["delivered_kwh"] < rest["energy_kwh"]).all()


def test_with_the_fast_charger_rated_the_whole_week_is_delivered(case, week, tmp_path):
    imported = read_acn(week, ratings={case.undeliverable_space: case.fast_charger_kw})
    assert len(undeliverable(imported.table)) == case.undeliverable_with_fast_charger
    both = delivered(imported, tmp_path)
    np.testing.assert_allclose(both["delivered_kwh"], both["energy_kwh"], rtol=case.delivered_tolerance)
    assert both["delivered_kwh"].sum() == pytest.approx(case.energy_kwh, rel=0.01)


@pytest.mark.parametrize("fast_charger", [True, False])
def test_the_week_runs_on_a_feeder_and_what_can_be_is_delivered(case, week, tmp_path, fast_charger):
    """The whole run: importer, fleet, feeder and federation, uncontrolled at the EVSEs' ratings."""
    ratings = {case.undeliverable_space: case.fast_charger_kw} if fast_charger else {}
    settings = {
        "name": "acn-week",
        "time": {"start": "2021-09-05T12:00", "duration": "8d", "step": "5min"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "net"}},
        "fleet": {
            "sessions": {"acn": str(week), "charge_kw": case.level_2_kw, "ratings": ratings},
            "charger": {"phases": 3},
        },
        "communication": {"telemetry": "5min"},
    }
    result, report = run_with_report(scenario_from(settings))
    assert f"read {case.sessions} sessions, kept {case.sessions}, dropped 0" in "\n".join(report.notes)
    beyond_count = case.undeliverable_with_fast_charger if fast_charger else case.undeliverable_at_level_2
    assert len(report.unreachable) == beyond_count
    for sentence in report.unreachable:
        assert re.fullmatch(r".+: [\d.]+ kWh in [\d.]+ h need [\d.]+ kW, the EVSE gives 6.656 kW", sentence)
    sessions = result[["session_arrival", "session_energy_delivered_kwh"]].to_dataframe()
    recorded = read_acn(week, charge_kw=case.level_2_kw, ratings=ratings).table
    beyond = set(undeliverable(recorded)["session"])
    assert {sentence.rsplit(": ", 1)[0] for sentence in report.unreachable} == beyond
    by_arrival = sessions.sort_values(["session_arrival", "session_energy_delivered_kwh"])
    assert recorded["arrival"].is_unique
    both = recorded.set_index("arrival").join(by_arrival.set_index("session_arrival"))
    can_be = both[~both["session"].isin(beyond)]
    assert len(can_be) == case.sessions - beyond_count
    np.testing.assert_allclose(
        can_be["session_energy_delivered_kwh"], can_be["energy_kwh"], rtol=case.delivered_tolerance
    )
    fleet_kwh = float(result["fleet_power_kw"].sum()) / 12
    assert sessions["session_energy_delivered_kwh"].sum() == pytest.approx(fleet_kwh, rel=1e-9)


LIMIT_KW = 18.0


def limited(imported, path, step_s):
    """Interval means of the car park's power under ``peak_limit``, and the sessions with what they missed."""
    beyond = set(undeliverable(imported.table)["session"])
    placed = imported.at("car_park")
    kept = replace(placed, table=placed.table[~placed.table["session"].isin(beyond)])
    scenario = scenario_from(
        {
            "name": "acn-week",
            "time": {"start": "2021-09-05T12:00", "duration": "8d", "step": step_s},
            "feeder": {"network": "x"},
            "fleet": {"sessions": {"file": str(kept.save(path))}, "charger": {"phases": 3}},
            "aggregators": {"main": {"strategy": "peak_limit", "group": "feeder", "limit_kw": LIMIT_KW}},
            "communication": {"telemetry": step_s},
        }
    )
    one, phase = np.zeros(1, np.int64), np.array([ALL_PHASES], np.int8)
    car_park = Connections(np.array(["car_park"]), one, phase, one, one + 1, ("a", "b", "c"))
    evs, sessions = fleet_tables(scenario, car_park)
    recorder = MemoryRecorder()
    portfolio = Portfolio("main", 0, np.arange(len(evs)), whole=True)
    known = planned_sessions_of(scenario, car_park, evs, sessions)
    models = (
        AggregatorModel(scenario, portfolio, car_park, evs, np.arange(0), recorder, planned=known),
        FleetModel(scenario, car_park, evs, sessions, recorder, managed=True),
    )
    fields = ("plugged", "soc", "p_max", "p_min", "energy_needed", "time_left", "time_needed")
    said = {f"fleet/{field}": np.zeros(len(evs)) for field in fields}
    said |= {"fleet/p": np.zeros((1, 1, 3)), "feeder/head_p": np.zeros((1, 3))}
    power = np.zeros(scenario.clock.ticks)
    for tick in range(scenario.clock.ticks):
        for model in models:
            said |= model.step(tick * step_s, {name: said[name] for name in model.inputs})
        said["feeder/head_p"] = said["fleet/p"].sum(axis=1)
        power[tick] = said["fleet/p"].sum()
    for model in models:
        model.finish()
    return power, sessions, recorder.static


def least_laxity_first(sessions, step_s, ticks):
    """Plain least-laxity-first: each tick the limit goes to those that are there, by their laxity."""
    missing = (sessions.soc_target - sessions.soc_arrival) * sessions.capacity_kwh / EFFICIENCY
    power = np.zeros(ticks)
    for tick in range(ticks):
        begin_s, end_s = tick * step_s, (tick + 1) * step_s
        from_s = np.maximum(sessions.arrival_s, begin_s)
        here = np.flatnonzero((from_s < end_s) & (sessions.departure_s > from_s) & (missing > 1e-9))
        laxity = sessions.departure_s - from_s - missing / sessions.charge_kw * 3600
        for i in here[np.argsort(laxity[here], kind="stable")]:
            share = (min(sessions.departure_s[i], end_s) - from_s[i]) / step_s
            drawn = min(sessions.charge_kw[i] * share, missing[i] * 3600 / step_s, LIMIT_KW - power[tick])
            missing[i] -= drawn * step_s / 3600
            power[tick] += drawn
    return power, missing


@pytest.mark.parametrize("step_s", [pytest.param(60.0, marks=pytest.mark.slow), 300.0, 900.0])
def test_a_limit_is_kept_as_a_mean_where_least_laxity_first_keeps_it(case, week, tmp_path, step_s):
    imported = read_acn(week, charge_kw=case.level_2_kw)
    power, sessions, told = limited(imported, tmp_path / "sessions.csv", step_s)
    assert len(sessions) == case.sessions - case.undeliverable_at_level_2
    reference, missing = least_laxity_first(sessions, step_s, len(power))
    assert missing.max() < 1e-6  # the rule serves everyone within the limit
    assert reference.max() <= LIMIT_KW
    assert told["session_energy_unserved_kwh"].max() < 1e-6
    assert power.max() <= LIMIT_KW * (1 + 1e-9)
    assert power.sum() == pytest.approx(reference.sum(), rel=1e-6)
    assert told["limit_excess_kwh"].sum() == 0.0
