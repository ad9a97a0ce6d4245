"""The full pass for any sessions, set-points and rules: its twin, energy, and the plain pass."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.fleet import reference

_spec = importlib.util.spec_from_file_location("plain", Path(__file__).with_name("test_fleet_properties.py"))
plain = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain)

NEVER = ("vehicle", "interconnection", "warranty", "driver")


def scenario(step, ticks, **fleet):
    return plain.scenario_of(step, ticks, fleet={"count": 1, **fleet})


@settings(max_examples=25, deadline=None)
@given(plain.runs())
def test_with_nothing_asked_the_full_pass_is_the_plain_one(drawn):
    evs, step, asked = drawn
    if not evs:
        return
    world = plain.connections_of(len(evs)), plain.single(evs), plain.table(evs)
    expected, _, recorder = plain.run(scenario(step, len(asked)), *world, asked)
    powers, _, full = plain.run(scenario(step, len(asked), permission={}), *world, asked)
    assert powers == pytest.approx(expected, rel=1e-12, abs=1e-12)
    for name, values in recorder.static.items():
        assert full.static[name] == pytest.approx(values, rel=1e-12, abs=1e-12, nan_ok=True), name


@settings(max_examples=25, deadline=None)
@given(
    plain.runs(),
    st.one_of(st.none(), st.floats(0, 20)),
    st.one_of(st.none(), st.floats(0, 3)),
    st.sampled_from([0.0, 6.0]),
    st.sampled_from([0.0, 0.5, 4.0]),
    st.one_of(st.none(), st.floats(1e-4, 0.1)),
    st.sampled_from([None, *NEVER]),
    st.sampled_from([None, -5.0, 4.0, 20.0]),
)
def test_full_pass_is_its_plain_python_twin(drawn, energy, hours, least, pilot, ramp, never, ambient):
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
        vehicle={"temperature": None if ambient is None else {"ambient": ambient}},
    )  # fmt: skip
    world = plain.connections_of(len(evs)), plain.single(evs), plain.table(evs)
    _, model, recorder = plain.run(settings, *world, asked)
    audit = model.audit()
    gap = audit["grid_energy_kwh"] - audit["battery_energy_kwh"] - audit["loss_kwh"]
    assert gap == pytest.approx(np.zeros(1), abs=1e-9)

    def into_limit(session):
        if ambient == -5.0:
            return 0.0
        return (0.2 + 0.4 * 0.3) * session.capacity_kwh if ambient == 4.0 else np.inf

    rules = reference.Rules(
        np.inf if energy is None else energy, np.inf if hours is None else hours, least, pilot, 230.0,
        np.inf if ramp is None else ramp, 0.0, into_limit,
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
            assert out["session_soc_departure"][row] == pytest.approx(account.soc, abs=1e-11)
            assert out["session_energy_delivered_kwh"][row] == pytest.approx(account.drawn_kwh, abs=1e-9)
            assert out["session_energy_discharged_kwh"][row] == pytest.approx(account.given_kwh, abs=1e-9)
            assert out["session_loss_kwh"][row] == pytest.approx(account.loss_kwh, abs=1e-9)
            for reason in ("vehicle", "evse", "interconnection", "warranty", "driver", "floor", "departure"):
                counted = out[f"session_discharge_refused_{reason}_kwh"][row]
                assert counted == pytest.approx(past.refused_kwh.get(reason, 0.0), rel=1e-5, abs=1e-5), reason
            row += 1
