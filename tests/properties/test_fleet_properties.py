"""What must hold for any sessions, set-points and ticks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import fleet as reference
from tests.support.drawn_fleets import connections_of, run, runs, scenario_of, single, table

from evgrid.core.model import EVs
from evgrid.fleet.sessions import fleet_tables


@settings(max_examples=150, deadline=None)
@given(runs())
def test_energy_is_conserved_and_limits_and_departures_are_kept(drawn):
    evs, step, asked = drawn
    if not evs:
        return
    scenario = scenario_of(step, len(asked))
    sessions = table(evs)
    powers, model, recorder = run(scenario, connections_of(len(evs)), single(evs), sessions, asked)
    out = recorder.static
    soc = out["session_soc_departure"]
    moved = (
        out["session_energy_delivered_kwh"] + out["session_energy_discharged_kwh"] + out["session_loss_kwh"]
    )
    gap = (
        out["session_energy_delivered_kwh"] - out["session_energy_discharged_kwh"]
        - out["session_battery_energy_kwh"] - out["session_loss_kwh"]
    )  # fmt: skip
    assert np.all(np.abs(gap) <= 1e-9 * np.maximum(moved, 1e-3))
    audit = model.audit()
    total = audit["grid_energy_kwh"] - audit["battery_energy_kwh"] - audit["loss_kwh"]
    assert np.all(np.abs(total) <= 1e-9 * np.maximum(moved.sum(), 1e-3))

    assert np.all((soc >= 0) & (soc <= 1))
    assert np.all(soc <= np.maximum(sessions.soc_target, sessions.soc_arrival))
    assert np.all(soc >= np.minimum(sessions.soc_floor, sessions.soc_arrival))
    per_ev = powers.sum(axis=(1, 3))
    for i, own in enumerate(evs):
        assert np.all(per_ev[:, i] <= max(s.charge_kw for s in own) * (1 + 1e-12))
        assert np.all(per_ev[:, i] >= -max(s.discharge_kw for s in own) * (1 + 1e-12))

    flat = [s for own in evs for s in own]
    reachable = np.array(
        [reference.seconds_to_target(s, s.soc_arrival) <= s.departure_s - s.arrival_s for s in flat]
    )
    over = sessions.departure_s <= scenario.clock.duration_s
    assert np.all(soc[reachable & over] >= sessions.soc_target[reachable & over] - 1e-11)
    late = out["session_energy_unserved_kwh"][reachable & over]
    assert np.all(late <= 1e-7)


@settings(max_examples=150, deadline=None)
@given(runs())
def test_kernel_is_its_plain_python_twin(drawn):
    evs, step, asked = drawn
    if not evs:
        return
    scenario = scenario_of(step, len(asked))
    powers, _, recorder = run(scenario, connections_of(len(evs)), single(evs), table(evs), asked)
    row = 0
    for i, own in enumerate(evs):
        expected, accounts = reference.simulate(
            own, lambda tick, i=i: float(asked[tick, i]), step, len(asked)
        )
        scale = max(s.charge_kw + s.discharge_kw for s in own)
        assert powers[:, 0, i].sum(axis=1) == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale)
        for account in accounts:
            assert recorder.static["session_soc_departure"][row] == pytest.approx(account.soc, abs=1e-12)
            for name, value in (
                ("session_energy_delivered_kwh", account.drawn_kwh),
                ("session_energy_discharged_kwh", account.given_kwh),
                ("session_loss_kwh", account.loss_kwh),
            ):
                assert recorder.static[name][row] == pytest.approx(value, rel=1e-12, abs=1e-12 * scale)
            row += 1


@settings(max_examples=60, deadline=None)
@given(runs())
def test_the_tick_does_not_matter(drawn):
    evs, _, asked = drawn
    if not evs:
        return
    hourly = asked[:: len(asked) // 4]
    results = []
    for step in (3600.0, 900.0, 60.0):
        ticks = round(4 * 3600 / step)
        _, _, recorder = run(
            scenario_of(step, ticks), connections_of(len(evs)), single(evs), table(evs),
            np.repeat(hourly, ticks // 4, axis=0),
        )  # fmt: skip
        results.append(recorder.static)
    for name in ("session_energy_delivered_kwh", "session_energy_discharged_kwh", "session_soc_departure"):
        for finer in results[1:]:
            assert finer[name] == pytest.approx(results[0][name], rel=1e-9, abs=1e-8), name


def home(step=900.0, members=1, first=0, count=12, ticks=96, **fleet):
    fleet = {"count": count, "charger": {"bidirectional": 0.5}, **fleet}
    return scenario_of(step, ticks, members, first, fleet=fleet)


def test_sampled_fleet_has_the_same_sessions_and_energies_at_ticks_of_1_5_and_15_minutes():
    connections = connections_of(7)
    reference_run = None
    for step in (60.0, 300.0, 900.0):
        scenario = home(step, members=3, ticks=round(86400 / step))
        evs, sessions = fleet_tables(scenario, connections)
        asked = np.repeat(np.random.default_rng(0).uniform(-9, 9, (96, len(evs))), round(900 / step), axis=0)
        powers, _, recorder = run(scenario, connections, evs, sessions, asked)
        quarter = powers.reshape(96, -1, *powers.shape[1:]).mean(axis=1)
        now = (sessions.arrival_s, sessions.departure_s, recorder.static, quarter)
        if reference_run is None:
            reference_run = now
            continue
        assert np.array_equal(now[0], reference_run[0])
        assert np.array_equal(now[1], reference_run[1])
        for name in (
            "session_energy_delivered_kwh",
            "session_energy_discharged_kwh",
            "session_soc_departure",
        ):
            assert now[2][name] == pytest.approx(reference_run[2][name], rel=1e-9, abs=1e-9)
        assert now[3] == pytest.approx(reference_run[3], abs=1e-8)


@pytest.mark.parametrize("managed", [False, True])
def test_a_member_alone_equals_the_same_member_in_an_ensemble_bit_for_bit(managed):
    connections = connections_of(5)

    def one(scenario):
        evs, sessions = fleet_tables(scenario, connections)
        asked = None
        if managed:  # by member number and rank, so that the same EV is asked the same
            rng = np.random.default_rng(1)
            by_member = rng.uniform(-9, 9, (20, 96, 12))
            numbers = np.array(scenario.members)
            asked = np.concatenate([by_member[m] for m in numbers], axis=1)
        return run(scenario, connections, evs, sessions, asked), evs, sessions

    (together, _, recorder), evs, sessions = one(home(members=4, first=14))
    (alone, _, recorder_alone), _, sessions_alone = one(home(members=1, first=17))
    assert np.array_equal(together[:, 3], alone[:, 0])
    mine = evs.member[sessions.ev] == 3
    assert np.array_equal(sessions.arrival_s[mine], sessions_alone.arrival_s)
    for name, values in recorder.static.items():
        own = values[mine] if len(values) == len(sessions) else values[3:4]  # of a session, or of a member
        assert np.array_equal(own, recorder_alone.static[name], equal_nan=True), name
    assert np.array_equal(
        recorder.series("fleet_power_kw")[:, 3], recorder_alone.series("fleet_power_kw")[:, 0]
    )


@settings(max_examples=30, deadline=None)
@given(runs(), st.randoms(use_true_random=False))
def test_permuting_evs_changes_nothing_but_their_order(drawn, random):
    evs, step, asked = drawn
    if not evs:
        return
    order = list(range(len(evs)))
    random.shuffle(order)
    scenario, connections = scenario_of(step, len(asked)), connections_of(len(evs))
    powers, _, _ = run(scenario, connections, single(evs), table(evs), asked)
    shuffled = single(evs)
    shuffled = EVs(shuffled.member, np.array(order), shuffled.phase, shuffled.name)
    again, _, _ = run(scenario, connections, shuffled, table([evs[i] for i in order]), asked[:, order].copy())
    assert np.array_equal(powers, again)
