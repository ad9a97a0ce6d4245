"""Battery ageing, worked by hand from the published laws."""

from math import exp, inf, nan, sqrt

import numpy as np
import pytest

from evgrid.fleet import degradation as ageing

HOUR = 3600.0
DAY = 86400.0
WARM = 298.15


def new(*chemistries):
    return ageing.new_state(list(chemistries))


def test_a_row_of_state_is_whole_cache_lines():
    assert ageing.STATE.itemsize % 64 == 0


def test_anode_potential_is_that_of_the_published_curve():
    # x = 0.39425; the exponential and the tanh about 1.0571 and -0.0117 are saturated (1e-6 off)
    assert ageing.anode_potential_v(0.5) == pytest.approx(0.123304, abs=1e-6)
    assert ageing.anode_potential_v(np.array([0.0, 1.0])) == pytest.approx([0.70, 0.08], abs=0.15)


def test_a_new_battery_has_all_its_capacity():
    state = new("nmc", "lfp")
    np.testing.assert_array_equal(ageing.relative_capacity(state), [1.0, 1.0])
    np.testing.assert_array_equal(ageing.loss_percent(state), [0.0, 0.0])


@pytest.mark.parametrize("days", [1.0, 100.0, 3650.0])
def test_storage_follows_the_power_law(days):
    state = new("nmc", "lfp")
    ageing.rest(state, 0.5, days * DAY, WARM)
    nmc = (7.543 * 3.6974 - 23.75) * 1e6 * exp(-6976 / WARM) * days**0.75
    lfp = 8.37e4 * exp(-5210 / WARM) * exp(-3560 * ageing.anode_potential_v(0.5) / WARM) * days**0.526
    np.testing.assert_allclose(ageing.calendar_loss(state), [nmc, lfp], rtol=1e-12)
    np.testing.assert_array_equal(ageing.cycle_loss(state), 0.0)
    np.testing.assert_allclose(ageing.loss_percent(state), [100 * nmc, 100 * lfp], rtol=1e-12)


@pytest.mark.parametrize("soc", [0.033, 0.256, 0.444, 0.715, 0.987])
def test_tables_hold_the_law_between_their_nodes(soc):
    state = new("nmc", "lfp")
    ageing.rest(state, soc, 365 * DAY, WARM)
    volts = np.interp(soc, np.linspace(0, 1, 21), ageing.OPEN_CIRCUIT_V)
    nmc = (7.543 * volts - 23.75) * 1e6 * exp(-6976 / WARM) * 365**0.75
    lfp = 8.37e4 * exp(-5210 / WARM) * exp(-3560 * ageing.anode_potential_v(soc) / WARM) * 365**0.526
    got = ageing.calendar_loss(state)
    assert got[0] == pytest.approx(nmc, rel=1e-3)
    assert got[1] == pytest.approx(lfp, rel=0.02 if soc < 0.2 else 3e-3)


def test_storage_under_another_stress_goes_on_from_the_loss_reached():
    """Equivalent time: the days that the second stress would have taken to the first loss, and on."""
    state = new("nmc")
    ageing.rest(state, 0.5, 100 * DAY, 308.15)
    ageing.rest(state, 0.5, 50 * DAY, 288.15)
    hot, cool = ((7.543 * 3.6974 - 23.75) * 1e6 * exp(-6976 / k) for k in (308.15, 288.15))
    reached = hot * 100**0.75
    equivalent_days = (reached / cool) ** (1 / 0.75)
    expected = cool * (equivalent_days + 50) ** 0.75
    assert ageing.calendar_loss(state)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cycles", [1, 10, 400])
def test_nmc_cycles_follow_the_square_root_of_charge(cycles):
    """0.45 to 0.5 and back: Vrms² = (a² + ab + b²) / 3 along the straight voltage between."""
    state = new("nmc")
    for _ in range(cycles):
        ageing.advance(state, 0.45, 0.5, HOUR, WARM)
        ageing.advance(state, 0.5, 0.45, HOUR, WARM)
    a, b = 3.6726, 3.6974
    rms = sqrt((a * a + a * b + b * b) / 3)
    beta = 7.348e-3 * (rms - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * 0.05
    expected = beta * sqrt(2 * 0.05 * 2.15 * cycles)
    assert ageing.cycle_loss(state)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("cycles", [1, 10, 400])
def test_lfp_cycles_follow_their_c_rate(cycles):
    """0.2 to 0.8 in 2 h, back in 4 h: half cycles of 0.3 C and of 0.15 C; (6) adds them up."""
    state = new("lfp")
    for _ in range(cycles):
        ageing.advance(state, 0.2, 0.8, 2 * HOUR, 288.15)
        ageing.advance(state, 0.8, 0.2, 4 * HOUR, 288.15)
    warm = exp(2190 / 288.15) + exp(-1.55e5 / 288.15)
    fast, slow = ((4.38e-8 + 1.55e-8 * 0.6 + 1.68e-7 * c) * warm for c in (0.3, 0.15))
    p = 0.828
    expected = (0.3 * cycles * (fast ** (1 / p) + slow ** (1 / p))) ** p
    assert ageing.cycle_loss(state)[0] == pytest.approx(expected, rel=1e-6)


def test_the_two_halves_of_a_cycle_share_their_mean_c_rate_and_temperature_factor():
    """0.9 → 0.4 → 0.6 → 0.4 within the half cycle, 0.2 C up and 0.1 C down, cold up and warm down."""
    state = new("lfp")
    ageing.advance(state, 0.9, 0.4, 5 * HOUR, WARM)
    before = ageing.cycle_loss(state)[0] ** (1 / 0.828)
    ageing.advance(state, 0.4, 0.6, HOUR, 283.15)
    ageing.advance(state, 0.6, 0.4, 2 * HOUR, WARM)
    k = 4.38e-8 + 1.55e-8 * 0.2 + 1.68e-7 * 0.15
    cold, warm = (exp(2190 / t) + exp(-1.55e5 / t) for t in (283.15, WARM))
    added = k ** (1 / 0.828) * 0.1 * (cold ** (1 / 0.828) + warm ** (1 / 0.828))
    assert ageing.cycle_loss(state)[0] == pytest.approx((before + added) ** 0.828, rel=1e-6)


def test_a_pause_on_the_way_is_no_cycle_and_no_lower_c_rate():
    straight, paused = new("nmc", "lfp"), new("nmc", "lfp")
    ageing.advance(straight, 0.2, 0.8, 6 * HOUR, WARM)
    ageing.advance(paused, 0.2, 0.5, 3 * HOUR, WARM)
    ageing.advance(paused, 0.5, 0.5, 9 * HOUR, WARM)
    ageing.rest(paused, 0.5, 9 * HOUR, WARM)
    ageing.advance(paused, 0.5, 0.8, 3 * HOUR, WARM)
    np.testing.assert_allclose(ageing.cycle_loss(paused), ageing.cycle_loss(straight), rtol=1e-12)
    assert (ageing.calendar_loss(paused) > ageing.calendar_loss(straight)).all()


def test_a_ripple_is_counted_inside_the_charge_that_carries_it():
    """0.2 → 0.6 → 0.5 → 0.9: one cycle of 0.1 and a half cycle of 0.7, not three of 0.4, 0.1, 0.4."""
    state = new("nmc")
    for soc_from, soc_to in [(0.2, 0.6), (0.6, 0.5), (0.5, 0.9)]:
        ageing.advance(state, soc_from, soc_to, HOUR, WARM)
    law = ageing.LAWS[0]
    expected = (
        ageing.cycle_share_ev(law, 0.5, 0.6, 2.0, 0.0, 0.2)
        + ageing.cycle_share_ev(law, 0.2, 0.9, 1.0, 0.0, 0.7)
    ) ** 0.5
    assert ageing.cycle_loss(state)[0] == pytest.approx(expected, rel=1e-6)


def test_nothing_happens_in_no_time_without_movement():
    state = new("nmc", "lfp")
    ageing.advance(state, 0.3, 0.7, HOUR, WARM)
    before = state.copy()
    ageing.rest(state, 0.7, 0.0, WARM)
    ageing.advance(state, 0.7, 0.7, 0.0, WARM)
    assert state.tobytes() == before.tobytes()


def test_a_jump_in_no_time_counts_its_throughput_without_a_c_rate():
    state = new("lfp")
    ageing.advance(state, 0.2, 0.8, 0.0, WARM)
    k = (4.38e-8 + 1.55e-8 * 0.6) * (exp(2190 / WARM) + exp(-1.55e5 / WARM))
    assert ageing.cycle_loss(state)[0] == pytest.approx(k * 0.3**0.828, rel=1e-6)
    assert ageing.calendar_loss(state)[0] == 0.0


def test_bringing_an_ev_up_to_a_time_is_resting_and_moving():
    lazy, told = new("nmc", "lfp"), new("nmc", "lfp")
    for row in lazy:
        ageing.bring_to_ev(row, ageing.LAWS, 5 * HOUR, 0.5, WARM, 0.0)
        ageing.bring_to_ev(row, ageing.LAWS, 7 * HOUR, 0.75, WARM, 0.25 * 0.125)  # 0.25 in 2 h: 0.125 C
        ageing.bring_to_ev(row, ageing.LAWS, 9 * HOUR, 0.75, WARM, 0.0)
        ageing.bring_to_ev(row, ageing.LAWS, 9 * HOUR, 0.75, WARM, 0.0)
    ageing.rest(told, 0.5, 5 * HOUR, WARM)
    ageing.advance(told, 0.5, 0.75, 2 * HOUR, WARM)
    ageing.rest(told, 0.75, 2 * HOUR, WARM)
    np.testing.assert_allclose(lazy["calendar"], told["calendar"], rtol=1e-12)
    np.testing.assert_allclose(ageing.cycle_loss(lazy), ageing.cycle_loss(told), rtol=1e-12)
    np.testing.assert_array_equal(lazy["since_s"], 9 * HOUR)


def test_an_ev_that_was_away_drives_rests_and_drives():
    state, told = new("lfp"), new("lfp")
    ageing.away_ev(state[0], ageing.LAWS, 0.8, 0.6, 10 * HOUR, WARM, 0.1)  # 2 h of driving
    ageing.advance(told, 0.8, 0.7, HOUR, WARM)
    ageing.rest(told, 0.7, 8 * HOUR, WARM)
    ageing.advance(told, 0.7, 0.6, HOUR, WARM)
    np.testing.assert_allclose(ageing.calendar_loss(state), ageing.calendar_loss(told), rtol=1e-12)
    np.testing.assert_allclose(ageing.cycle_loss(state), ageing.cycle_loss(told), rtol=1e-6)


def test_the_past_is_the_loss_of_the_same_cycles_lived_through():
    aged, lived = new("nmc"), new("nmc")
    ageing.add_past(aged, 2.0, 0.5, WARM, full_cycles_per_year=50.0, depth=0.5, c_rate=0.25)
    for _ in range(200):  # 100 full cycles are 200 of depth 0.5
        ageing.advance(lived, 0.25, 0.75, 2 * HOUR, WARM)
        ageing.advance(lived, 0.75, 0.25, 2 * HOUR, WARM)
    np.testing.assert_allclose(ageing.cycle_loss(aged), ageing.cycle_loss(lived), rtol=1e-9)
    stored = new("nmc")
    ageing.rest(stored, 0.5, 730 * DAY, WARM)
    np.testing.assert_allclose(ageing.calendar_loss(aged), ageing.calendar_loss(stored), rtol=1e-12)


def test_a_lost_kwh_costs_its_price():
    assert ageing.cost(0.01, 60.0, 139.0) == pytest.approx(83.4)
    assert ageing.cost(0.01, 60.0, 139.0, worthless_at=0.8) == pytest.approx(5 * 83.4)
    np.testing.assert_allclose(ageing.cost([0.01, 0.0], [60.0, 40.0], 139.0), [83.4, 0.0])


def test_the_next_cycle_costs_what_it_adds():
    state = new("nmc", "lfp")
    ageing.add_past(state, 3.0, 0.5, WARM, full_cycles_per_year=60.0)
    before = state.copy()
    got = ageing.cycling_cost_per_kwh(state, 0.5, 0.4, 0.2, WARM, 139.0)
    assert state.tobytes() == before.tobytes()
    loss = -ageing.cycle_loss(state)
    ageing.advance(state, 0.3, 0.7, 2 * HOUR, WARM)
    ageing.advance(state, 0.7, 0.3, 2 * HOUR, WARM)
    loss += ageing.cycle_loss(state)
    np.testing.assert_allclose(got, loss * 60.0 * 139.0 / (0.4 * 60.0), rtol=1e-5)


def test_an_older_battery_loses_less_by_the_same_cycle():
    costs = []
    for years in (0.0, 1.0, 8.0):
        state = new("nmc")
        ageing.add_past(state, years, 0.5, WARM, full_cycles_per_year=60.0)
        costs.append(ageing.cycling_cost_per_kwh(state, 0.5, 0.4, 0.2, WARM, 139.0)[0])
    assert costs[0] > costs[1] > costs[2] > 0.0


@pytest.mark.parametrize("chemistry", ageing.CHEMISTRIES)
def test_a_state_that_is_not_a_number_stays_where_it_is(chemistry):
    """A kernel that is given NaN gives NaN; it neither hangs nor reads elsewhere."""
    state = new(chemistry)
    ageing.rest_ev(state[0], ageing.LAWS, nan, HOUR, WARM)
    ageing.advance_ev(state[0], ageing.LAWS, nan, 0.5, HOUR, WARM)
    ageing.advance_ev(state[0], ageing.LAWS, 0.5, nan, HOUR, WARM)
    assert np.isnan(ageing.relative_capacity(state)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: ageing.new_state(["nmc", "lead"]), r"chemistry\[1\] = 'lead': must be one of nmc, lfp"),
        (lambda s: ageing.rest(s, 1.1, 1.0, WARM), r"soc\[0\] = 1.1: must be between 0 and 1"),
        (lambda s: ageing.rest(s, [0.5, nan], 1.0, WARM), r"soc\[1\] = nan: must be between 0 and 1"),
        (lambda s: ageing.rest(s, 0.5, -1.0, WARM), r"seconds\[0\] = -1.0: must be at least 0 s"),
        (lambda s: ageing.rest(s, 0.5, inf, WARM), r"seconds\[0\] = inf: must be at least 0 s"),
        (lambda s: ageing.rest(s, 0.5, 1.0, 25.0), r"temperature_k\[0\] = 25.0: must be .* 298.15 K"),
        (lambda s: ageing.advance(s, -0.1, 0.5, 1.0, WARM), r"soc_from\[0\] = -0.1: must be"),
        (lambda s: ageing.advance(s, 0.1, 1.5, 1.0, WARM), r"soc_to\[0\] = 1.5: must be"),
        (lambda s: ageing.add_past(s, -1.0, 0.5, WARM), r"years\[0\] = -1.0: must be at least 0"),
        (
            lambda s: ageing.add_past(s, 1.0, 0.5, WARM, 10.0, depth=0.0),
            r"depth\[0\] = 0.0: must be more than 0 and at most 1",
        ),
        (lambda s: ageing.cost(0.1, -60.0, 139.0), r"capacity_kwh = -60.0: must be at least 0 kWh"),
        (lambda s: ageing.cost(0.1, 60.0, [1.0, nan]), r"price_per_kwh\[1\] = nan: must be at least 0"),
        (lambda s: ageing.cost(0.1, 60.0, 139.0, 1.0), "worthless_at = 1.0: must be at least 0 and less"),
        (
            lambda s: ageing.cycling_cost_per_kwh(s, 0.5, 0.4, -1.0, WARM, 139.0),
            r"c_rate\[0\] = -1.0: must be at least 0",
        ),
    ],
)
def test_invalid_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(new("nmc", "lfp"))
