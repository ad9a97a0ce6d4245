"""Ageing of EVs that are asked for what 15-min samples of their state of charge don't see."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from tests.oracles.fleet import Session
from tests.oracles.rainflow import loss_by_rainflow, rms_v
from tests.support.drawn_fleets import connections_of, run, scenario_of, single, table

from evgrid.core.model import EVs, MemoryRecorder
from evgrid.fleet import degradation
from evgrid.fleet.extras import ageing_notes
from evgrid.fleet.model import FleetModel
from evgrid.fleet.sessions import Sessions
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from
from evgrid.scenario.system import REGD
from evgrid.system.signals import SyntheticSignal

DAY_S, CAPACITY_KWH, EFFICIENCY = 86400.0, 40.0, 0.95
CHEMISTRIES = ("nmc", "lfp")
NEW = {"age_years": 0.0, "full_cycles_per_year": 0.0}


def day(asked_kw, step_s):
    """A new NMC and a new LFP battery of 40 kWh over a day from SOC 0.5; ``asked_kw``: (tick,) at the grid.

    Returns the batteries, the results of the sessions, and the recorded states of charge, (tick + 1, 2).
    """
    scenario = scenario_of(
        step_s, len(asked_kw),
        fleet={"count": 2, "vehicle": {"degradation": NEW}},
        record={"ev": True},
    )  # fmt: skip
    of = {
        "arrival_s": 0.0, "departure_s": 2 * DAY_S, "soc_arrival": 0.5, "soc_target": 0.8,
        "capacity_kwh": CAPACITY_KWH, "charge_kw": 11.0, "discharge_kw": 11.0, "soc_floor": 0.1,
        "taper_soc": 0.95, "drive_kwh": np.nan,
    }  # fmt: skip
    losses = {"charge_loss": (0.0, 1 / EFFICIENCY - 1, 0.0), "discharge_loss": (0.0, 1 - EFFICIENCY, 0.0)}
    sessions = Sessions(
        ev=np.arange(2, dtype=np.int32), chemistry=np.array(CHEMISTRIES),
        **{name: np.full(2, value) for name, value in of.items()},
        **{name: np.tile(value, (2, 1)) for name, value in losses.items()},
    )  # fmt: skip
    recorder = MemoryRecorder()
    evs = EVs(np.zeros(2, np.int64), np.arange(2), np.zeros(2, np.int8), np.array(["a", "b"]))
    model = FleetModel(scenario, connections_of(2), evs, sessions, recorder, True)
    for tick, kw in enumerate(asked_kw):
        model.step(tick * step_s, {"aggregator/setpoint": np.full(2, kw)})
    model.finish()
    soc = np.concatenate([np.full((1, 2), 0.5), recorder.series("ev_soc")])
    return model._extras.details.ageing, recorder.static, soc


def test_a_day_of_regulation_wears_as_rainflow_of_the_recorded_soc_says():
    """RegD at 4 s, ±10 kW: the law over every cycle of the day, 0.2 % (NMC) and 0.01 % (LFP) of capacity."""
    scenario = scenario_of(4.0, 21600)
    signal = SyntheticSignal(REGD, scenario.clock, [0], 1)
    asked_kw = np.array([10.0 * signal.mean(4.0 * t, 4.0 * t + 4.0)[0] for t in range(21600)])
    asked_kw[asked_kw < 0] *= EFFICIENCY**2  # what comes out of the battery is what went in
    battery, results, soc = day(asked_kw, 4.0)
    got = degradation.cycle_loss(battery)
    assert results["session_degradation_cycle_percent"] == pytest.approx(100 * got)
    assert 0.3 < soc.min() < soc.max() < 0.7
    for chemistry, own, loss in zip(CHEMISTRIES, soc.T, got, strict=True):
        moved = np.abs(np.diff(own, prepend=own[0]))
        trail = list(
            zip(own.tolist(), (moved * moved * 900).tolist(), strict=True)
        )  # C = moved / (4 s / 1 h)
        assert loss == pytest.approx(loss_by_rainflow(chemistry, trail), rel=0.01)
    assert got == pytest.approx([0.0019, 0.00011], rel=0.2)


@pytest.mark.parametrize("minutes", [15, 30, 45, 60])
def test_a_saw_tooth_wears_whatever_its_period(minutes):
    """10 kW up for half of it, as much out of the battery down: 3 % deep at 15 min; worked by hand."""
    depth = 10 * EFFICIENCY * minutes / 60 / 2 / CAPACITY_KWH
    step_s = 450.0
    up = (np.arange(round(DAY_S / step_s)) * step_s) % (60 * minutes) < 30 * minutes
    battery, _, soc = day(np.where(up, 10.0, -10.0 * EFFICIENCY**2), step_s)
    assert np.ptp(soc) == pytest.approx(depth)
    periods = 24 * 60 / minutes
    rms = rms_v(0.5, 0.5 + depth)
    k = 7.348e-3 * (rms - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * depth
    nmc = k * sqrt(2.15 * 2 * depth * periods)
    c_rate = 10 * EFFICIENCY / CAPACITY_KWH
    k = (4.38e-8 + 1.55e-8 * depth + 1.68e-7 * c_rate) * np.exp(2190 / 298.15)
    lfp = k * (depth * periods) ** 0.828
    assert degradation.cycle_loss(battery) == pytest.approx([nmc, lfp], rel=1e-5)


def test_ageing_outside_the_tests_behind_its_law_is_said():
    """BLAST-Lite: NMC tested at 20 to 40 °C and 1 C, LFP at 10 to 45 °C, 0.65 C up and 1 C down."""
    scenario = scenario_of(900.0, 96, fleet={"count": 2, "vehicle": {"degradation": {}}})

    def notes(capacity_kwh, chemistry, **vehicle):
        sessions = table(
            [[Session(0.0, 7200.0, 0.5, 0.8, capacity, 11.0, 11.0)] for capacity in capacity_kwh]
        )
        sessions = replace(sessions, chemistry=np.array(chemistry))
        fleet = scenario_of(
            900.0, 96, fleet={"count": 2, "vehicle": {"degradation": {}, **vehicle}}
        ).fleet  # fmt: skip
        return ageing_notes(fleet, sessions, scenario.clock)

    assert notes([60.0, 60.0], ["nmc", "lfp"]) == ()
    of = "fleet.vehicle.degradation: the law of {} is used outside the tests that it was fitted to: "
    assert notes([60.0, 15.0], ["nmc", "lfp"]) == (
        of.format("lfp") + "charging at up to 0.73 C (tests: 0.65 C)",
    )
    assert notes([10.0, 60.0], ["", "lfp"], temperature={"ambient": 5}) == (
        of.format("nmc") + "cells at 5 °C (tests: 20 to 40 °C), charging at up to 1.1 C (tests: 1 C), "
        "discharging at up to 1.1 C (tests: 1 C)",
        of.format("lfp") + "cells at 5 °C (tests: 10 to 45 °C)",
    )
    assert notes([60.0, 60.0], ["nmc", "nmc"], degradation={"temperature_c": 50}) == (
        of.format("nmc") + "cells at 50 °C (tests: 20 to 40 °C)",
    )
    assert notes([60.0, 60.0], ["nmc", "nmc"], degradation=None) == ()


def test_a_run_says_where_its_batteries_age_outside_those_tests():
    vehicle = {"degradation": {"temperature_c": 50}}
    fleet = {"count": 2, "charger": {"phases": 3}, "vehicle": vehicle}
    scenario = scenario_from(
        {
            "name": "hot", "time": {"start": "2026-01-15T12:00", "duration": "24h", "step": "15min"},
            "feeder": {"network": "case33bw", "base_load": {"source": "none"}}, "fleet": fleet,
        }
    )  # fmt: skip
    assert [note for note in build_world(scenario).notes if "degradation" in note] == [
        "fleet.vehicle.degradation: the law of nmc is used outside the tests that it was fitted to: cells at "
        "50 °C (tests: 20 to 40 °C)"
    ]


def test_the_guard_turns_a_discharge_inside_a_tick():
    """From 0.5 the EV discharges until it has to charge to reach 0.8 by departure: one cycle, at any tick."""
    of_tick = []
    for step_s in (4.0, 900.0, 7200.0):
        session = Session(0.0, 14400.0, 0.5, 0.8, 40.0, 11.0, 11.0)
        model, _ = run(
            scenario_of(
                step_s, round(14400 / step_s),
                fleet={"count": 1, "vehicle": {"degradation": NEW}},
            ),
            connections_of(1), single([[session]]), table([[session]]),
            np.full((round(14400 / step_s), 1), -11.0),
        )[1:]  # fmt: skip
        ageing = model._extras.details.ageing
        of_tick.append(
            (ageing["points"][0], *degradation.cycle_loss(ageing), *degradation.calendar_loss(ageing))
        )
    # 4 h of 11 kW both ways: down for x h and up for 4 h - x by 0.3 more: x = (4 - 12 / 11) / 2
    low = 0.5 - 11 * (4 - 12 / 11) / 2 / 40
    k = [7.348e-3 * (rms_v(low, high) - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * (high - low) for high in (0.5, 0.8)]
    nmc = sqrt(sum(k * k * 2.15 * (high - low) for k, high in zip(k, (0.5, 0.8), strict=True)))
    for points, cycle, calendar in of_tick:
        assert points == 2
        assert cycle == pytest.approx(nmc, rel=1e-5)
        assert calendar == pytest.approx(of_tick[0][2], rel=1e-3)
