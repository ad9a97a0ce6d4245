"""The detailed step for any sessions, set-points and rules: its twin, energy, and the basic step."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.oracles import fleet as reference
from tests.oracles import inverter_functions as curves_reference
from tests.support.drawn_fleets import (
    connections_of,
    ev_sessions,
    run,
    runs,
    scenario_of,
    setpoints,
    single,
    table,
)

from evgrid.battery.laws import REASONS
from evgrid.fleet import degradation
from evgrid.fleet.kernels.lanes import STATE, columns_of, lay_out
from evgrid.fleet.kernels.one_ev import Seen, follow, make_room_for_one
from evgrid.fleet.kernels.records import FUNCTIONS as EVSE_STATE
from evgrid.fleet.kernels.records import OPTIONS, PHYSICS, Details, Fleet, Tick
from evgrid.inverter_functions import kernels as curves
from evgrid.scenario.inverter_functions import LocalFunctions, Rating, parameters

NEVER = ("vehicle", "interconnection", "warranty", "driver")


def scenario(step, ticks, **fleet):
    return scenario_of(step, ticks, fleet={"count": 1, **fleet})


@settings(max_examples=25, deadline=None)
@given(runs())
def test_with_nothing_asked_the_detailed_step_is_the_basic_one(drawn):
    evs, step, asked = drawn
    if not evs:
        return
    world = connections_of(len(evs)), single(evs), table(evs)
    expected, _, recorder = run(scenario(step, len(asked)), *world, asked)
    powers, _, full = run(scenario(step, len(asked), permission={}), *world, asked)
    assert powers == pytest.approx(expected, rel=1e-12, abs=1e-12)
    for name, values in recorder.static.items():
        assert full.static[name] == pytest.approx(values, rel=1e-12, abs=1e-12, nan_ok=True), name


@settings(max_examples=25, deadline=None)
@given(
    runs(),
    st.one_of(st.none(), st.floats(0, 20)),
    st.one_of(st.none(), st.floats(0, 3)),
    st.sampled_from([0.0, 6.0]),
    st.sampled_from([0.0, 0.5, 4.0]),
    st.one_of(st.none(), st.floats(1e-4, 0.1)),
    st.sampled_from([None, *NEVER]),
    st.sampled_from([None, -5.0, 4.0, 20.0]),
    st.sampled_from([0.0, 0.066]),
)
def test_detailed_step_is_its_plain_python_twin(
    drawn, energy, hours, least, pilot, ramp, never, ambient, standby
):
    evs, step, asked = drawn
    if not evs:
        return
    shares = {"vehicle": {}, "interconnection": {}, "warranty": {"warranty": {"approved": 0.0}},
              "driver": {"driver": {"willing": 0.0}}, None: {}}[never]  # fmt: skip
    if never in ("vehicle", "interconnection"):
        shares = {never: 0.0}
    warranty = {"throughput_kwh": energy, "hours": hours, **shares.pop("warranty", {})}
    settings = scenario(
        step, len(asked), permission={"warranty": warranty, **shares},
        charger={"minimum_current_a": least, "pilot_step_a": pilot, "ramp_kw_per_s": ramp},
        vehicle={
            "temperature": None if ambient is None else {"ambient": ambient}, "standby_kw": standby,
        },
    )  # fmt: skip
    world = connections_of(len(evs)), single(evs), table(evs)
    _, model, recorder = run(settings, *world, asked)
    audit = model.audit()
    gap = audit["grid_energy_kwh"] - audit["battery_energy_kwh"] - audit["loss_kwh"]
    assert gap == pytest.approx(np.zeros(1), abs=1e-9)

    def into_limit(session):
        if ambient == -5.0:
            return 0.0
        return (0.2 + 0.4 * 0.3) * session.capacity_kwh if ambient == 4.0 else np.inf

    rules = reference.Rules(
        throughput_kwh=np.inf if energy is None else energy, hours=np.inf if hours is None else hours,
        least_a=least, pilot_a=pilot, volt=230.0, ramp_kw_per_s=np.inf if ramp is None else ramp,
        standby_kw=standby, into_limit=into_limit,
    )  # fmt: skip
    row = 0
    for i, own in enumerate(evs):
        past = reference.Past()
        for session in own:
            account = reference.Account(session.soc_arrival)
            past.ramped_kw, past.refused_kwh = 0.0, {}
            for tick in range(len(asked)):
                first = max(tick * step, session.arrival_s)
                last = min((tick + 1) * step, session.departure_s)
                if last > first:
                    reference.follow_rules(
                        session, account, past, rules, float(asked[tick, i]), first, last - first, never or ""
                    )
            out = recorder.static
            scale = session.capacity_kwh + (session.charge_kw + session.discharge_kw) * 4
            assert out["session_soc_departure"][row] == pytest.approx(account.soc, abs=1e-12)
            for name, expected in (
                ("session_energy_delivered_kwh", account.drawn_kwh),
                ("session_energy_discharged_kwh", account.given_kwh),
                ("session_loss_kwh", account.loss_kwh),
            ):
                assert out[name][row] == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale), name
            for reason in ("vehicle", "evse", "interconnection", "warranty", "driver", "floor", "departure"):
                counted = out[f"session_discharge_refused_{reason}_kwh"][row]
                expected = past.refused_kwh.get(reason, 0.0)
                assert counted == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale), reason
            row += 1


FUNCTIONS = (
    {"volt_var": "ieee_1547_b", "volt_watt": "ieee_1547_b", "trips": "II"},
    {"volt_var": "ieee_1547_b", "priority": "var"},
    {"watt_var": "ieee_1547_b", "frequency_watt": "ieee_1547"},
    {"charging_limit": {"points": [[0.90, 50], [0.98, 100]], "response_s": 5}},
)


NEARLY_NOTHING = [
    reference.Session(
        arrival_s=0.0, departure_s=1e4, soc_arrival=0.0, soc_target=3e-12, capacity_kwh=5.0, charge_kw=1.0,
        taper_soc=0.5,
    )
]  # fmt: skip


FULL = [
    reference.Session(
        arrival_s=0.0, departure_s=7200.0, soc_arrival=1.0, soc_target=0.0, capacity_kwh=5.0, charge_kw=1.0,
        discharge_kw=1.5, taper_soc=0.5, charge_loss=(0.0, 0.0, 0.0), discharge_loss=(0.0625, 0.0, 0.0),
    )
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@example(FULL, FUNCTIONS[2], 60.0, ((0.0, 1.0, 60.0), (0.0, 1.0, 60.0), (-1e-9, 1.0, 60.25)))
@example(NEARLY_NOTHING, FUNCTIONS[0], 60.0, ((1e-9, 1.0, 60.0),) * 3)  # 3.3e-12 of the battery a minute
@example(NEARLY_NOTHING, FUNCTIONS[0], 60.0, ((3e-10, 1.0, 60.0),) * 3)
@given(
    ev_sessions(), st.sampled_from(FUNCTIONS), st.sampled_from([60.0, 900.0]),
    st.tuples(*[st.tuples(setpoints, st.floats(0.88, 1.12), st.floats(59.5, 60.5))] * 3),
)  # fmt: skip
def test_window_with_local_functions_is_its_plain_python_twin(own, chosen, seconds, ticks):
    for session in own:
        kinds, _ = table([[session]]).kinds()
        given_kw = float(kinds.rows[0]["discharge_kw"])
        session = replace(session, discharge_kw=given_kw, departure_s=1e5)
        most = 1.1 * max(session.charge_kw, session.discharge_kw)
        rating = Rating(most, session.charge_kw, session.discharge_kw)
        curve = parameters(LocalFunctions.model_validate(chosen), rating)
        curves.prepare(curve, seconds)
        options = np.zeros(1, OPTIONS)[0]
        options["throughput_kws"] = options["discharging_s"] = options["ramp_kw_per_s"] = np.inf
        options["volt"], options["functions"] = 230.0, 1
        room = make_room_for_one()
        row, evse = room.row[0], room.own[0]
        row["soc"], row["departure_s"], evse["phases"] = session.soc_arrival, 1e5, 1
        places, state_blocks = lay_out(np.array([0, 1]), np.zeros(1, np.int32), np.zeros(1, bool), 1)
        fleet = Fleet(places, state_blocks, columns_of(STATE, state_blocks), kinds)
        details = Details(
            options, np.zeros(0, PHYSICS), curve, np.zeros(1, np.int32), np.zeros(1, EVSE_STATE),
            degradation.new_state(["nmc"]), degradation.LAWS,
        )  # fmt: skip
        refused = np.zeros(len(REASONS))
        account, past = reference.Account(session.soc_arrival), reference.Past()
        par, state = (
            curves_reference.as_dict(curve[0]),
            curves_reference.as_dict(np.zeros(1, curves.STATE)[0]),
        )
        start = 0.0
        for asked, volt, hertz in ticks:
            seen = {}

            def answer(wished, low, high, span, volt=volt, hertz=hertz, seen=seen, par=par, state=state):
                seen["p"], seen["q"] = curves_reference.respond(
                    par, state, volt, volt, volt, hertz, 1.0, wished, low, high, span
                )
                return seen["p"]

            reference.follow_rules(
                session, account, past, reference.Rules(), asked, start, seconds, answer=answer
            )
            tick = Tick(start, seconds, True, np.array([asked]), np.zeros(3))
            seen_now = Seen(volt, volt, volt, 1.0, hertz)
            _, q_kvars, _ = follow(tick, seen_now, fleet, details, room, refused, start, start + seconds)
            start += seconds
            scale = session.capacity_kwh + most
            assert q_kvars / seconds == pytest.approx(seen["q"], rel=1e-12, abs=1e-12 * most)
            assert row["soc"] == pytest.approx(account.soc, abs=1e-12)
            for name in ("drawn", "given", "loss"):
                expected = getattr(account, f"{name}_kwh")
                assert row[f"{name}_kws"] / 3600 == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale), (
                    name
                )
            for reason, counted in zip(REASONS, refused, strict=True):
                expected = past.refused_kwh.get(reason, 0.0)
                assert counted == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale), reason
