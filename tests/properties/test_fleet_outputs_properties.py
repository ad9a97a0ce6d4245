"""What the fleet tells of any session: status, reserve, envelope; and what its links let through."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.oracles import fleet as reference
from tests.support.drawn_fleets import connections_of, run, runs, scenario_of, single, table

from evgrid.aggregator.planning.scheduler import batteries_ahead, schedule
from evgrid.aggregator.strategy import Envelope
from evgrid.core.model import MemoryRecorder
from evgrid.fleet.kernels.lanes import STATE
from evgrid.fleet.kernels.records import PHYSICS
from evgrid.fleet.link import receive
from evgrid.fleet.model import FleetModel

LIMITS = ("p_min", "p_max", "e_min", "e_max")
SLOTS = 12


def after_an_hour(evs, asked, **fleet):
    """The model of a run of an hour, and its envelope over three hours."""
    scenario = scenario_of(
        900.0, 4, fleet={"count": 1, "envelope": {"horizon": "3h", "slot": "15min"}, **fleet}
    )
    world = connections_of(len(evs)), single(evs), table(evs)
    _, model, recorder = run(scenario, *world, asked)
    return model, model.envelope(), recorder


def here_at(evs, now_s):
    """Row in the sessions and the session of each EV that is plugged in, None for those away."""
    row, found = 0, []
    for own in evs:
        here = [(row + i, s) for i, s in enumerate(own) if s.arrival_s < now_s < s.departure_s]
        found.append(here[0] if here else None)
        row += len(own)
    return found


def kept(model, name):
    """What a fleet remembers of each EV, (ev,)."""
    state = model._fleet.state
    row, blocks = (STATE, state) if name in STATE.names else (PHYSICS, model._extras.details.physics)
    return model._fleet.places.by_ev(row, blocks, state)[name]


@settings(max_examples=60, deadline=None)
@given(
    runs(),
    st.sampled_from([None, "driver", "vehicle"]),
    st.one_of(st.none(), st.floats(0, 20)),
    st.sampled_from([None, (13.2, 14.4), (14.5, 12.9), (5, 6)]),
)
def test_envelope_is_its_plain_python_twin(drawn, never, energy, window):
    evs, _, asked = drawn
    assume(evs)
    asked = np.resize(asked, (4, len(evs)))
    shares = {None: {}, "driver": {"driver": {"willing": 0.0}}, "vehicle": {"vehicle": 0.0}}[never]
    if window is not None:
        shares = {**shares, "driver": {**shares.get("driver", {}), "window": window}}
    permission = {**shares, "warranty": {"throughput_kwh": energy}}
    model, limits, recorder = after_an_hour(evs, asked, permission=permission)
    rows = recorder.static
    for ev, found in enumerate(here_at(evs, 3600.0)):
        if found is None:
            assert not any(limits[name][ev].any() for name in LIMITS)
            continue
        row, session = found
        soc, spare_kwh = rows["session_soc_departure"][row], np.inf
        if energy is not None:
            spare_kwh = energy - kept(model, "out_kws")[ev] / 3600.0
        willing = np.ones(SLOTS)
        if window is not None:
            edges = 13.0 + np.arange(SLOTS * 900) / 3600.0  # second by second
            inside = (
                (edges >= window[0]) & (edges < window[1])
                if window[0] < window[1]
                else (edges >= window[0]) | (edges < window[1])
            )
            willing = inside.reshape(SLOTS, 900).mean(axis=1)
        twin = reference.envelope(
            session, soc, bool(kept(model, "guarded")[ev]), 3600.0, 900.0, willing.tolist(),
            never is not None, spare_kwh,
        )  # fmt: skip
        for name in LIMITS:
            assert limits[name][ev] == pytest.approx(twin[name], rel=1e-12, abs=1e-11), name


@settings(max_examples=60, deadline=None)
@given(runs())
def test_the_latest_and_the_fastest_charging_stay_within_the_limits_of_power(drawn):
    evs, _, asked = drawn
    assume(evs)
    _, limits, _ = after_an_hour(evs, np.resize(asked, (4, len(evs))))
    p_min, p_max = limits["p_min"], limits["p_max"]
    e_min = np.pad(limits["e_min"], [(0, 0), (1, 0)])
    e_max = np.pad(limits["e_max"], [(0, 0), (1, 0)])
    assert (limits["e_min"] <= limits["e_max"] + 1e-9).all()
    assert (p_min <= p_max + 1e-9).all()
    for path in (e_min, e_max):
        power = np.diff(path, axis=1) / 0.25
        assert (power <= p_max + 1e-9).all()
    most = np.maximum(e_max[:, 1:] - e_min[:, :-1], 0.0) / 0.25
    assert (p_max <= most + 1e-9).all()
    must = np.maximum(e_min[:, 1:] - e_max[:, :-1], 0.0) / 0.25
    assert np.maximum(p_min, 0.0) == pytest.approx(must, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(runs(), st.sampled_from(["e_min", "e_max"]))
def test_who_is_asked_for_the_least_or_the_most_goes_along_the_envelope(drawn, limit):
    evs, _, asked = drawn
    assume(evs)
    asked = np.resize(asked, (4, len(evs)))
    scenario = scenario_of(900.0, 16, fleet={"count": 1, "envelope": {"horizon": "3h", "slot": "15min"}})
    recorder = MemoryRecorder()
    world = connections_of(len(evs)), single(evs), table(evs)
    model = FleetModel(scenario, *world, recorder, True)
    for tick in range(4):
        model.step(900.0 * tick, {"aggregator/setpoint": asked[tick]})
    limits, here = model.envelope()[limit], here_at(evs, 3600.0)
    soc = np.array([kept(model, "soc")])
    there = []
    for tick in range(4, 16):
        ask = np.full(len(evs), -np.inf if limit == "e_min" else np.inf)
        model.step(900.0 * tick, {"aggregator/setpoint": ask})
        soc = np.vstack([soc, kept(model, "soc")])
        there.append(kept(model, "session"))
    model.finish()
    for ev, found in enumerate(here):
        if found is None:
            continue
        row, session = found
        gone = np.array([at[ev] != row for at in there])
        reached = np.where(gone, recorder.static["session_soc_departure"][row], soc[1:, ev])
        begin = reference.meter_energy(session, soc[0, ev])
        went = [begin - reference.meter_energy(session, at) for at in reached]
        assert limits[ev] == pytest.approx(went, rel=1e-9, abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(runs())
def test_the_scheduler_takes_it_and_always_finds_a_schedule(drawn):
    evs, _, asked = drawn
    assume(evs)
    _, limits, _ = after_an_hour(evs, np.resize(asked, (4, len(evs))))
    envelope = Envelope(3600.0, 900.0, *(limits[name] for name in (*LIMITS, "round_trip")))
    batteries = batteries_ahead(envelope, np.arange(len(evs)))
    assert batteries.e_min.shape == (len(evs), SLOTS + 1)
    price = np.where(np.arange(SLOTS) % 5 < 2, 0.4, 0.1)
    planned = schedule(batteries, price, 0.25)
    giving = batteries.efficiencies[1][:, None]
    final = (planned.charge - planned.discharge / giving).sum(axis=1) * 0.25
    assert (final >= limits["e_min"][:, -1] - 1e-5).all()
    assert (final <= limits["e_max"][:, -1] + 1e-5).all()


@settings(max_examples=60, deadline=None)
@given(runs(), st.sampled_from([None, "driver"]), st.sampled_from([900.0, 1800.0]))
def test_status_and_reserve_are_their_plain_python_twins(drawn, never, horizon_s):
    evs, _, asked = drawn
    assume(evs)
    permission = {} if never is None else {"driver": {"willing": 0.0}}
    asked = np.resize(asked, (4, len(evs)))
    scenario = scenario_of(
        900.0, 4, fleet={"count": 1, "reserve_horizon": horizon_s, "permission": permission}
    )
    recorder = MemoryRecorder()
    world = connections_of(len(evs)), single(evs), table(evs)
    model = FleetModel(scenario, *world, recorder, True)
    for tick in range(4):
        outputs = model.step(900.0 * tick, {"aggregator/setpoint": asked[tick]})
    guarded, power_kw = kept(model, "guarded"), model._out.ev_power_kw.copy()
    offers = model.flexibility()
    reports = {name: outputs[f"fleet/{name}"].copy() for name in reference.status(evs[0][0], 0.5, False, 0.0)}
    model.finish()
    for ev, found in enumerate(here_at(evs, 3600.0)):
        if found is None:
            assert not any(values[ev] for values in (*reports.values(), *offers.values()))
            continue
        row, session = found
        soc = recorder.static["session_soc_departure"][row]
        twin = reference.status(session, soc, bool(guarded[ev]), 3600.0)
        if never:
            twin["p_min"] = 0.0
        for name, value in twin.items():
            assert reports[name][ev] == pytest.approx(value, rel=1e-12, abs=1e-11), name
        offer = reference.flexibility(
            session, soc, bool(guarded[ev]), 3600.0, horizon_s, power_kw[ev], never is not None
        )
        for name, value in offer.items():
            assert offers[name][ev] == pytest.approx(value, rel=1e-12, abs=1e-11), name


spans = st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 30)), max_size=4)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(spans, min_size=1, max_size=3),
    st.lists(st.one_of(st.none(), st.floats(-7, 7)), min_size=10, max_size=10),
    st.sampled_from([5.0, 25.0, 60.0, np.inf]),
    st.sampled_from([np.nan, np.inf, 0.0, 3.7]),
)
def test_links_are_their_plain_python_twin(outages, sent, timeout_s, fallback_kw):
    outages = [sorted((begin, begin + length) for begin, length in own) for own in outages]
    count = len(outages)
    begin, end = (np.array([o[i] for own in outages for o in own]) for i in (0, 1))
    last = np.cumsum([len(own) for own in outages])
    following = np.concatenate([[0], last[:-1]]).astype(np.int64)
    held, heard, command = np.zeros(count), np.zeros(count), np.zeros(count)
    came = []
    for tick, value in enumerate(sent):
        time_s = 10.0 * tick
        arriving = np.full(count, np.nan if value is None else value)
        came += [] if value is None else [(time_s, value)]
        receive(
            time_s, arriving, begin, end, following, last.astype(np.int64), held, heard, timeout_s,
            np.full(count, fallback_kw), command,
        )  # fmt: skip
        for ev, own in enumerate(outages):
            assert command[ev] == reference.command(came, own, time_s, timeout_s, fallback_kw)
