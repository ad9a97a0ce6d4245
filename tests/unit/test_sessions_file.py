"""Session files: what they mean, and every sentence about what is wrong with one."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evgrid.core.model import ALL_PHASES, Connections
from evgrid.errors import ScenarioError
from evgrid.fleet.sessions import fleet_tables
from evgrid.fleet.sessions.table import read_sessions
from evgrid.scenario import scenario_from

HEADER = "ev,connection,arrival,departure,soc_arrival"
GOOD = "car1,LOAD1,2026-01-15T18:00,2026-01-16T07:00,0.4"


def feeder(phases=("a", "b", "c"), of=(0, 1, ALL_PHASES)):
    n = len(of)
    index = np.arange(n)
    return Connections(
        np.array([f"LOAD{i + 1}" for i in range(n)]), index, np.array(of, np.int8), index, index, phases
    )


def scenario(path, members=1, first=0, **fleet):
    return scenario_from(
        {
            "name": "test",
            "time": {"start": "2026-01-15T12:00", "duration": "24h"},
            "ensemble": {"members": members, "first": first},
            "feeder": {"network": "x"},
            "fleet": {"sessions": {"file": str(path)}, **fleet},
        }
    )


@pytest.fixture
def read(tmp_path):
    def reader(*lines, connections=None, header=HEADER, **settings):
        path = tmp_path / "sessions.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return fleet_tables(scenario(path, **settings), connections or feeder())

    return reader


def refused(read, sentence, *lines, count=1, **settings):
    with pytest.raises(ScenarioError, match=re.escape(sentence)) as caught:
        read(*lines, **settings)
    assert len(caught.value.faults) == count, caught.value.faults
    assert Path(caught.value.source).name == "sessions.csv"


def test_a_row_with_defaults_from_the_scenario(read):
    evs, sessions = read(GOOD)
    assert (list(evs.name), list(evs.connection), list(evs.phase)) == (["car1"], [0], [0])
    assert sessions.arrival_s[0] == 6 * 3600
    assert sessions.departure_s[0] == 19 * 3600
    assert (sessions.soc_arrival[0], sessions.soc_target[0], sessions.capacity_kwh[0]) == (0.4, 0.9, 60.0)
    assert (sessions.charge_kw[0], sessions.discharge_kw[0], sessions.soc_floor[0]) == (7.4, 0.0, 0.2)
    assert sessions.charge_loss[0] == pytest.approx([0, 1 / 0.9 - 1, 0])
    assert sessions.left_out == 0


def test_every_column(read):
    header = (
        "ev,connection,phase,arrival,departure,soc_arrival,soc_target,capacity_kwh,power_kw,discharge_kw,"
        "soc_floor,charge_efficiency,discharge_efficiency"
    )
    evs, sessions = read("v,LOAD3,b,0.5,7200,0.3,0.7,40,22,11,0.1,0.8,0.75", header=header)
    assert evs.phase[0] == 1
    assert (sessions.arrival_s[0], sessions.departure_s[0]) == (0.5, 7200.0)
    assert (sessions.soc_target[0], sessions.capacity_kwh[0], sessions.charge_kw[0]) == (0.7, 40.0, 22.0)
    assert (sessions.discharge_kw[0], sessions.soc_floor[0]) == (11.0, 0.1)
    assert (sessions.charge_loss[0, 1], sessions.discharge_loss[0, 1]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("energy", "arrival", "target"),
    [("30", 0.8 - 30 * 0.9 / 60, 0.8), ("60", 0.1, 1.0), ("0", 0.8, 0.8)],
)
def test_energy_alone_ends_at_the_taper_if_it_fits(read, energy, arrival, target):
    _, sessions = read(f"v,LOAD1,0,3600,{energy}", header="ev,connection,arrival,departure,energy_kwh")
    assert sessions.soc_arrival[0] == pytest.approx(arrival)
    assert sessions.soc_target[0] == pytest.approx(target)


def test_energy_with_one_state_of_charge(read):
    header = "ev,connection,arrival,departure,energy_kwh,soc_arrival,soc_target"
    _, sessions = read("v,LOAD1,0,3600,20,0.2,", "w,LOAD1,0,3600,20,,0.6", header=header)
    assert sessions.soc_target == pytest.approx([0.5, 0.6])
    assert sessions.soc_arrival == pytest.approx([0.2, 0.3])


def test_sessions_outside_the_run_are_counted_and_one_under_way_is_cut(read):
    _, sessions = read(
        "a,LOAD1,-7200,-10,0.5",
        "b,LOAD1,90000,99999,0.5",
        "c,LOAD1,-3600,7200,0.5",
        "d,LOAD1,80000,90000,0.5",
    )
    assert sessions.left_out == 2
    assert list(sessions.arrival_s) == [0.0, 80000.0]
    assert sessions.departure_s[1] == 90000.0
    assert sessions.soc_arrival[0] == pytest.approx(0.5 + 7.4 * 0.9 / 60)


def test_evs_stand_in_order_of_appearance_and_sessions_in_order_of_arrival(read):
    evs, sessions = read("z,LOAD1,5000,6000,0.5", "y,LOAD2,0,10,0.5", "z,LOAD1,100,5000,0.5")
    assert list(evs.name) == ["z", "y"]
    assert list(sessions.ev) == [0, 0, 1]
    assert list(sessions.arrival_s) == [100.0, 5000.0, 0.0]


def test_without_a_member_column_every_member_has_all(read):
    evs, sessions = read(GOOD, members=3)
    assert list(evs.member) == [0, 1, 2]
    assert list(sessions.ev) == [0, 1, 2]


def test_member_column_and_members_elsewhere_are_passed_over(read):
    evs, sessions = read("v,LOAD1,0,10,0.5,16", "v,LOAD2,0,10,0.6,17", "w,LOAD2,0,10,0.7,17",
                         header=HEADER + ",member", members=2, first=17)  # fmt: skip
    assert list(evs.member) == [0, 0]
    assert list(sessions.soc_arrival) == [0.6, 0.7]
    assert sessions.left_out == 0


def test_random_phase_at_three_phases_is_that_of_the_member_alone(read):
    lines = [f"v{i},LOAD3,0,10,0.5" for i in range(30)]
    together = read(*lines, members=2)[0]
    alone = read(*lines, first=1)[0]
    assert np.array_equal(together.phase[30:], alone.phase)
    assert set(alone.phase) == {0, 1, 2}


def test_three_phase_charger_and_balanced_feeder(read):
    header = HEADER + ",phase"
    assert read("v,LOAD3,0,10,0.5,ABC", header=header)[0].phase[0] == ALL_PHASES
    assert read("v,LOAD3,0,10,0.5,", header=header, charger={"phases": 3})[0].phase[0] == ALL_PHASES
    balanced = feeder(("abc",), (ALL_PHASES,) * 3)
    assert read("v,LOAD1,0,10,0.5,b", header=header, connections=balanced)[0].phase[0] == ALL_PHASES


def test_parquet_with_timestamps_and_missing_values(tmp_path):
    path = tmp_path / "sessions.parquet"
    pd.DataFrame(
        {
            "ev": ["v", "w"], "connection": ["LOAD1", "LOAD2"],
            "arrival": pd.to_datetime(["2026-01-15T13:00", "2026-01-15T14:00"]),
            "departure": pd.to_datetime(["2026-01-15T15:00", "2026-01-15T16:00"]),
            "soc_arrival": [0.4, np.nan], "energy_kwh": [np.nan, 10.0],
        }
    ).to_parquet(path)  # fmt: skip
    _, sessions = fleet_tables(scenario(path), feeder())
    assert list(sessions.arrival_s) == [3600.0, 7200.0]
    assert sessions.soc_arrival == pytest.approx([0.4, 0.65])


def test_faults_of_a_parquet_file_name_the_row(tmp_path):
    path = tmp_path / "sessions.parquet"
    stamps = pd.to_datetime(["2026-01-15T13:00"]).tz_localize("UTC")
    frame = pd.DataFrame(
        {"ev": ["v"], "connection": ["LOAD1"], "arrival": stamps, "departure": [9e4], "soc_arrival": 0.5}
    )
    frame.to_parquet(path)
    with pytest.raises(ScenarioError, match=r"row 1: arrival = .*: must be local time without a zone"):
        fleet_tables(scenario(path), feeder())
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ScenarioError, match=r"can't be read as Parquet"):
        fleet_tables(scenario(path), feeder())


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("v,LOAD11,0,10,0.5",
         "line 3: connection = LOAD11: the feeder has no such connection point; did you mean LOAD1?"),
        ("v,kitchen,0,10,0.5",
         "line 3: connection = kitchen: the feeder has no such connection point; it has LOAD1, "
         "LOAD2, LOAD3"),
        ("v,,0,10,0.5", "line 3: connection is empty: every session needs one"),
        (",LOAD1,0,10,0.5", "line 3: ev is empty: every session needs the name of its EV"),
        ("v,LOAD1,10,10,0.5", "line 3: departure = 10: must be after the arrival, 10"),
        ("v,LOAD1,0,10,1.5", "line 3: soc_arrival = 1.5: must be at least 0 and at most 1"),
        ("v,LOAD1,0,10,-0.5", "line 3: soc_arrival = -0.5: must be at least 0 and at most 1"),
        ("v,LOAD1,0,10,half", "line 3: soc_arrival = half: must be a number"),
        ("v,LOAD1,0,10,", "line 3: soc_arrival and energy_kwh are empty: give one of them"),
        ("v,LOAD1,noon,10,0.5",
         "line 3: arrival = noon: must be a time such as 2026-01-15T18:30, or seconds from the start"),
        ("v,LOAD1,,10,0.5", "line 3: arrival is empty: every session needs one"),
        ("v,LOAD1,2026-01-15T18:00Z,90000,0.5",
         "line 3: arrival = 2026-01-15T18:00Z: must be local time without a zone"),
        ("v,LOAD1,2026-01-15T18:00+01:00,90000,0.5",
         "line 3: arrival = 2026-01-15T18:00+01:00: must be local time without a zone"),
        ("car1,LOAD2,0,10,0.5",
         "line 3: connection = LOAD2: EV car1 is at LOAD1 on line 2; an EV has one connection"),
        ("car1,LOAD1,2026-01-15T20:00,2026-01-16T09:00,0.5",
         "line 3: arrival = 2026-01-15T20:00: EV car1 is still plugged in from line 2; its sessions "
         "must not overlap"),
        ("v,LOAD1,0,10", "line 3: has 4 values: must have 5 as the header"),
    ],
)  # fmt: skip
def test_faults_of_a_row(read, line, sentence):
    refused(read, sentence, GOOD, line)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("charge_kw", "-7", "charge_kw = -7: must be above 0"),
        ("power_kw", "0", "power_kw = 0: must be above 0"),
        ("discharge_kw", "-1", "discharge_kw = -1: must be at least 0"),
        ("capacity_kwh", "0", "capacity_kwh = 0: must be above 0"),
        ("capacity_kwh", "inf", "capacity_kwh = inf: must be a number"),
        ("soc_target", "1.2", "soc_target = 1.2: must be at least 0 and at most 1"),
        ("soc_floor", "-0.1", "soc_floor = -0.1: must be at least 0 and at most 1"),
        ("charge_efficiency", "1.1", "charge_efficiency = 1.1: must be above 0 and at most 1"),
        ("discharge_efficiency", "0", "discharge_efficiency = 0: must be above 0 and at most 1"),
        ("energy_kwh", "-3", "energy_kwh = -3: must be at least 0"),
        ("energy_kwh", "50",
         "energy_kwh = 50: the battery takes at most 40 kWh at the meter (0.6 of 60 kWh, efficiency 0.9)"),
        ("phase", "d", "phase = d: must be a, b, c or abc"),
        ("phase", "b", "phase = b: connection LOAD1 has phase a only"),
        ("member", "-1", "member = -1: must be at least 0"),
        ("member", "1.5", "member = 1.5: must be a whole number"),
        ("member", "", "member is empty: give every session a member, or drop the column"),
    ],
)  # fmt: skip
def test_faults_of_an_optional_column(read, column, value, sentence):
    refused(read, f"line 2: {sentence}", f"{GOOD},{value}", header=f"{HEADER},{column}")


def test_three_figures_of_energy_are_one_too_many(read):
    refused(read, "line 2: give two of soc_arrival, soc_target and energy_kwh: two determine the third",
            f"{GOOD},0.8,10", header=HEADER + ",soc_target,energy_kwh")  # fmt: skip


def test_chemistry_is_given_or_that_of_the_shipped_type_or_of_the_scenario(read):
    header = HEADER + ",vehicle,chemistry"
    lines = ("u,LOAD1,0,10,0.5,delivery_van,", "v,LOAD1,0,10,0.5,delivery_van,NMC", "w,LOAD1,0,10,0.5,mine,",
             "x,LOAD1,0,10,0.5,mine,lfp", "y,LOAD1,0,10,0.5,,", "z,LOAD1,0,10,0.5,bev250,")  # fmt: skip
    sessions = read(*lines, header=header)[1]
    assert list(sessions.chemistry) == ["lfp", "nmc", "nmc", "lfp", "nmc", "nmc"]
    sessions = read(*lines, header=header, vehicle={"chemistry": "lfp"})[1]
    assert list(sessions.chemistry) == ["lfp", "nmc", "lfp", "lfp", "lfp", "nmc"]
    refused(read, "line 2: chemistry = lead: must be nmc or lfp", "v,LOAD1,0,10,0.5,,lead", header=header)
    refused(read, "line 3: chemistry differs from line 2: EV v has one battery",
            "v,LOAD1,0,10,0.5,,nmc", "v,LOAD1,20,30,0.5,,lfp", header=header)  # fmt: skip


def test_an_ev_has_one_charger(read):
    refused(read, "line 3: phase differs from line 2: EV v has one charger",
            "v,LOAD3,0,10,0.5,a", "v,LOAD3,20,30,0.5,b", header=HEADER + ",phase")  # fmt: skip


def test_a_three_phase_charger_has_one_phase_where_its_connection_has_one(read):
    far = GOOD.replace("LOAD1", "LOAD3").replace("car1", "car2")
    evs, sessions = read(GOOD, far, charger={"phases": 3, "power_kw": 11})
    assert evs.phase.tolist() == [0, ALL_PHASES]
    assert sessions.charge_kw.tolist() == pytest.approx([11 / 3, 11])
    assert "1 of 2 EVs are at connection points of one phase" in sessions.notes[-1]


def test_a_dc_charger_needs_three_phases(read):
    refused(read, "line 2: fleet.charger.current = dc: connection LOAD1 has phase a only; must be ac there",
            GOOD, charger={"phases": 3, "current": "dc", "power_kw": 50})  # fmt: skip


def test_a_session_without_a_power_at_a_dc_charger_draws_what_its_inlet_takes(read):
    _, sessions = read(
        GOOD.replace("LOAD1", "LOAD3"), charger={"phases": 3, "current": "dc", "power_kw": 150}
    )
    assert sessions.charge_kw.tolist() == [100.0]
    assert sessions.notes == (
        "fleet.vehicle.dc_kw = 100: 1 sessions without a power of their own draw at most 100 kW of the "
        "charger's 150 kW.",
    )


def test_sessions_under_way_at_the_start_are_noted(read):
    # 60 kWh, efficiency 0.9, 7.4 kW from 10:00 to 12:00: 13.32 kWh into the battery, before its taper
    early = GOOD.replace("2026-01-15T18:00", "2026-01-15T10:00")
    _, sessions = read(early, GOOD.replace("car1", "car2"))
    assert sessions.soc_arrival[0] == pytest.approx(0.4 + 13.32 / 60)
    assert sessions.notes[0].startswith(
        "1 of 2 sessions began before the start of the run: they are taken to"
    )
    assert "(13.3 kWh into the batteries, which the result does not count)" in sessions.notes[0]


def test_a_session_inside_an_earlier_one_overlaps_though_another_lies_between(read):
    refused(read, "its sessions must not overlap", "v,LOAD1,0,1000,0.5", "v,LOAD1,100,200,0.5",
            "v,LOAD1,300,400,0.5", count=2)  # fmt: skip


def test_all_faults_are_reported_at_once_in_order_of_the_lines(read):
    with pytest.raises(ScenarioError) as caught:
        read("v,LOAD9,0,10,2", "", "w,LOAD1,9,5,0.5")
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["line 2", "line 2", "line 4"]


def test_faults_of_the_header(read):
    refused(read, "column departure is missing", "v,LOAD1,0,0.5", header="ev,connection,arrival,soc_arrival")
    refused(read, "column soc_arrival or energy_kwh is missing", "v,LOAD1,0,1",
            header="ev,connection,arrival,departure")  # fmt: skip
    refused(read, "column soc_arival is unknown; did you mean soc_arrival?", "v,LOAD1,0,1,0.5,0.5",
            header=HEADER + ",soc_arival")  # fmt: skip
    refused(
        read, "column colour is unknown; allowed are ev, connection", GOOD + ",red", header=HEADER + ",colour"
    )
    refused(read, "column ev is there twice", GOOD + ",v", header=HEADER + ",ev")
    refused(read, "columns charge_kw and power_kw mean the same; give one", GOOD + ",7,7",
            header=HEADER + ",charge_kw,power_kw")  # fmt: skip


def test_a_file_without_sessions(read, tmp_path):
    refused(read, "holds no sessions")
    refused(read, "is empty: the first line must name the columns", header="")
    path = tmp_path / "sessions.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ScenarioError, match="column arrival is missing"):
        read_sessions(path, scenario(path), feeder())


OFFSETS = ["+01", "+01:00", "+0100", "Z", " +02:00", " CET"]


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_zone_in_any_form_is_reported_for_each_line(read, offset):
    lines = [
        f"e{k},LOAD1,2026-01-15 18:00:00{offset if k % 2 else ''},2026-01-16 07:00:00+01,0.4"
        for k in range(4)
    ]
    with pytest.raises(ScenarioError) as caught:
        read(*lines)
    assert [fault.split(" =")[0] for fault in caught.value.faults] == [
        "line 2: departure", "line 3: arrival", "line 3: departure", "line 4: departure", "line 5: arrival",
        "line 5: departure",
    ]  # fmt: skip
    assert all(fault.endswith(": must be local time without a zone") for fault in caught.value.faults)


def test_semicolons_and_decimal_commas(read):
    header = "ev;connection;arrival;departure;energy_kwh"
    _, sessions = read("u;LOAD1;2026-01-15 17:35;2026-01-16 07:49;19,85", header=header)
    # 19.85 kWh x 0.9 / 60 kWh below the taper at 0.8
    assert sessions.soc_target[0] - sessions.soc_arrival[0] == pytest.approx(19.85 * 0.9 / 60)
    refused(read, "line 2: energy_kwh = 1,234: must be a number with one sign for decimals only",
            "u;LOAD1;2026-01-15 17:35;2026-01-16 07:49;1,234", header=header)  # fmt: skip


@pytest.mark.parametrize("form", ["%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d/%m/%y %H:%M"])
def test_dates_in_a_stated_form(tmp_path, form):
    path = tmp_path / "sessions.csv"
    times = [pd.Timestamp(text).strftime(form) for text in ("2026-01-15T18:00", "2026-01-16T07:00")]
    path.write_text(f"{HEADER}\nv,LOAD1,{times[0]},{times[1]},0.4\n")
    whole = scenario(path).model_dump(mode="json")
    whole["fleet"]["sessions"] = {"file": str(path), "time_format": form}
    _, sessions = fleet_tables(scenario_from(whole), feeder())
    assert (sessions.arrival_s[0], sessions.departure_s[0]) == (6 * 3600.0, 19 * 3600.0)
    with pytest.raises(ScenarioError, match="is not ISO 8601.*state the form of the times") as caught:
        fleet_tables(scenario(path), feeder())
    assert len(caught.value.faults) == 1


def test_a_million_faults_are_twenty_lines(read):
    with pytest.raises(ScenarioError) as caught:
        read(*["v,nowhere,x,y,5"] * 5000)
    assert len(caught.value.faults) < 100
    assert caught.value.faults[-1].endswith("more such lines")
