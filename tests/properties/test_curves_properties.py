"""What holds for any curve, voltage, frequency and tick."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.oracles import inverter_functions as reference

from evgrid.inverter_functions import kernels
from evgrid.scenario.inverter_functions import LocalFunctions, Rating, parameters

voltages = st.one_of(
    st.floats(0.3, 1.3), st.floats(0.9, 1.1), st.sampled_from([0.92, 0.98, 1.0, 1.02, 1.06, 1.08, 1.1])
)
frequencies = st.one_of(st.just(60.0), st.floats(59.5, 60.5), st.floats(56, 63))
ticks = st.sampled_from([0.1, 1.0, 4.0, 10.0, 60.0, 300.0, 900.0])
responses = st.sampled_from([0.0, 0.2, 1.0, 5.0, 10.0, 60.0])


def points(x, y, falling=True):
    """Curves of 2 to 8 points; falling, or rising."""
    return st.integers(2, 8).flatmap(
        lambda n: st.tuples(
            st.lists(x, min_size=n, max_size=n, unique=True).map(sorted),
            st.lists(y, min_size=n, max_size=n).map(lambda values: sorted(values, reverse=falling)),
        ).map(lambda xy: list(zip(*xy, strict=True)))
    )


volts = st.integers(85, 115).map(lambda v: v / 100)
percent = st.integers(0, 100)
signed_percent = st.integers(-95, 95)


def curve(x, y, falling=True):
    return st.fixed_dictionaries({"points": points(x, y, falling), "response_s": responses})


reactive = st.one_of(
    st.just({}),
    st.sampled_from(["ieee_1547_a", "ieee_1547_b", "vde_ar_n_4105"]).map(lambda name: {"volt_var": name}),
    curve(volts, signed_percent).map(lambda c: {"volt_var": c}),
    st.sampled_from(["ieee_1547_a", "ieee_1547_b"]).map(lambda name: {"watt_var": name}),
    curve(signed_percent, signed_percent).map(lambda c: {"watt_var": c}),
    st.builds(
        lambda value, excitation: {"power_factor": {"value": value, "excitation": excitation}},
        st.floats(0.3, 1.0), st.sampled_from(["absorbs", "injects"]),
    ),
)  # fmt: skip


@st.composite
def local_functions(draw, trips=True):
    chosen = dict(draw(reactive))
    chosen["priority"] = draw(st.sampled_from(["watt", "var"]))
    chosen["volt_watt"] = draw(st.one_of(st.none(), st.just("ieee_1547_b"), curve(volts, percent)))
    chosen["charging_limit"] = draw(st.one_of(st.none(), curve(volts, percent, falling=False)))
    chosen["frequency_watt"] = draw(
        st.one_of(
            st.none(), st.just("ieee_1547"), responses.map(lambda r: {"response_s": r, "droop_over": 0.03})
        )
    )
    if trips:
        chosen["trips"] = draw(st.sampled_from([None, "I", "II", "III"]))
        chosen["enter_service"] = draw(
            st.sampled_from(["ieee_1547", {"delay_s": 5, "ramp_s": 7}, {"delay_s": 0, "ramp_s": 0}])
        )
    return LocalFunctions.model_validate(chosen)


roomy = st.sampled_from([Rating(10, 9.5, 9.5), Rating(4.6, 4.4), Rating(8.2, 7.4, 5), Rating(5, 0, 4.8)])
full = st.sampled_from([Rating(10, 10, 10), Rating(4.6, 4.6), Rating(11, 11, 5), Rating(5, 0, 5)])
"""Ratings at which P can use up S: there the limit sqrt(S**2 - P**2) is known to the root of rounding."""
ratings = st.one_of(roomy, full)


@st.composite
def inputs(draw, rating):
    low = -draw(st.sampled_from([0.0, 0.5, 1.0])) * rating.discharge_kw
    high = draw(st.sampled_from([0.0, 0.5, 1.0])) * rating.charge_kw
    voltage = draw(voltages)
    spread = draw(st.sampled_from([0.0, 0.0, 0.02]))
    return SimpleNamespace(
        values=(
            voltage, voltage - spread, voltage + spread, draw(frequencies),
            draw(st.sampled_from([1.0, 1.0, 1.0, 1.0, 0.0])),
            draw(st.one_of(st.floats(-12, 12), st.just(np.inf), st.just(0.0))), low, high,
        )
    )  # fmt: skip


def compare_with_twin(data, functions, rating, prepared, accuracy):
    """``accuracy``: of what comes second, sqrt(S**2 - the square of what has priority); the rest: 1e-12."""
    table = parameters(functions, rating)
    states = np.zeros(1, kernels.STATE)
    par, twin = reference.as_dict(table[0]), reference.as_dict(states[0])
    second = ("p", "p_kw") if functions.priority == "var" else ("q", "q_kvar")
    if functions.power_factor is not None:
        second = ("p", "p_kw", "q", "q_kvar")

    def close(got, expected, name):
        within = accuracy if name in second else 1e-12
        np.testing.assert_allclose(got, expected, rtol=within, atol=within * rating.s_kva, err_msg=name)

    for _ in range(3):
        given_ = data.draw(inputs(rating)).values
        tick = data.draw(ticks)
        if prepared:
            kernels.prepare(table, tick)
        got = kernels.respond(table[0], states[0], *given_, tick)
        expected = reference.respond(par, twin, *given_, tick)
        for one, other, name in zip(got, expected, "pq", strict=True):
            close(one, other, name)
        after = reference.as_dict(states[0])
        for name, value in twin.items():
            close(after[name], value, name)
        low, high = given_[-2:]
        for p, q in (got, (after["p_kw"], after["q_kvar"])):
            assert p**2 + q**2 <= rating.s_kva**2 * (1 + 1e-12)
            assert low - 1e-12 <= p <= high + 1e-12


@settings(max_examples=120, deadline=None)
@given(st.data(), local_functions(), roomy, st.booleans())
def test_twin_and_kernel_agree_and_p_and_q_stay_within_s(data, functions, rating, prepared):
    """Of the root 16 nodes are within 1.1e-9 of S, for any lag from or to at most 96 % of S: its branch point
    is near; against 400 nodes, scanned."""
    compare_with_twin(data, functions, rating, prepared, accuracy=2e-9)


@settings(max_examples=60, deadline=None)
@given(st.data(), local_functions(), full, st.booleans())
def test_twin_and_kernel_agree_where_p_can_use_up_s(data, functions, rating, prepared):
    compare_with_twin(data, functions, rating, prepared, accuracy=1e-7)


@settings(max_examples=80, deadline=None)
@given(local_functions(), ratings, st.data(), st.sampled_from([2, 3, 7]))
def test_the_tick_does_not_matter_while_voltage_and_frequency_are_held(functions, rating, data, parts):
    given_ = data.draw(inputs(rating)).values
    before = data.draw(inputs(rating)).values
    table = parameters(functions, rating)
    whole, split = np.zeros(1, kernels.STATE), np.zeros(1, kernels.STATE)
    for state in (whole, split):
        kernels.respond(table[0], state[0], *before, 60.0)
    expected = np.array(kernels.respond(table[0], whole[0], *given_, 60.0))
    got = (
        sum(np.array(kernels.respond(table[0], split[0], *given_, 60.0 / parts)) for _ in range(parts))
        / parts
    )
    np.testing.assert_allclose(got, expected, atol=1e-10 * rating.s_kva)
    np.testing.assert_allclose(
        [split["p_kw"][0], split["q_kvar"][0]], [whole["p_kw"][0], whole["q_kvar"][0]],
        atol=1e-7 * rating.s_kva,
    )  # fmt: skip


@settings(deadline=None)
@given(points(volts, signed_percent), st.floats(0.8, 1.2), st.floats(0.8, 1.2))
def test_volt_var_draws_more_q_at_higher_voltage(curve_points, one, other):
    row = parameters(LocalFunctions(volt_var={"points": curve_points}), Rating(10, 10, 10))[0]
    low, high = (kernels.on_curve(v, row["reactive_at"], row["reactive_kvar"]) for v in sorted([one, other]))
    assert low <= high + 1e-12
    assert kernels.on_curve(one, row["reactive_at"], row["reactive_kvar"]) == pytest.approx(
        reference.curve(one, row["reactive_at"].tolist(), row["reactive_kvar"].tolist()), abs=1e-12
    )
    for v, q in curve_points:
        assert kernels.on_curve(v, row["reactive_at"], row["reactive_kvar"]) == pytest.approx(-q / 10)


@settings(deadline=None)
@given(st.floats(55, 65), st.floats(55, 65))
def test_droop_draws_more_at_higher_frequency(one, other):
    row = parameters(LocalFunctions(frequency_watt="ieee_1547"), Rating(10, 10, 10))[0]
    low, high = (kernels.droop_target_kw(row, f) for f in sorted([one, other]))
    assert low <= high
    assert low == pytest.approx(reference.droop_kw(reference.as_dict(row), min(one, other)), abs=1e-12)


@settings(deadline=None)
@given(
    st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 5), st.floats(0.1, 100),
    st.floats(-6, 6), st.floats(0, 6),
)  # fmt: skip
@example(2.0, -1.1125369292536007e-308, 3.0, 11.0, 0.0, 1.0)  # leaves the band after an infinite time
def test_the_mean_of_a_clipped_lag_is_its_integral(start, target, rate, seconds, low, width):
    t = (np.arange(20_000) + 0.5) / 20_000 * seconds
    samples = np.clip(target + (start - target) * np.exp(-rate * t), low, low + width)
    got = kernels.lagged_mean(start, target, rate, seconds, low, low + width)
    assert got == pytest.approx(samples.mean(), abs=2e-3)
    assert low - 1e-12 <= got <= low + width + 1e-12


def test_many_chargers_get_what_one_gets():
    rng = np.random.default_rng(5)
    kinds = [
        parameters(LocalFunctions(volt_var="ieee_1547_b", frequency_watt="ieee_1547"), Rating(8, 7.4, 7.4)),
        parameters(None, Rating(11, 11)),
        parameters(LocalFunctions(watt_var="ieee_1547_a", trips="II", priority="var"), Rating(10, 10, 10)),
    ]
    table = np.concatenate(kinds)
    n = 60
    kind_of = rng.integers(0, 3, n).astype(np.int32)
    together, alone = np.zeros(n, kernels.STATE), np.zeros(n, kernels.STATE)
    p, q = np.empty(n), np.empty(n)
    low, high = -table["discharge_kw"][kind_of], table["charge_kw"][kind_of]
    for _ in range(5):
        voltage, frequency = rng.uniform(0.85, 1.12, n), rng.uniform(59, 61, n)
        energised, wanted = (rng.random(n) < 0.9).astype(float), rng.uniform(-8, 8, n)
        kernels.respond_all(
            table, kind_of, together, voltage, voltage - 0.01, voltage + 0.01, frequency, energised, wanted,
            low, high, 4.0, p, q,
        )  # fmt: skip
        for ev in range(n):
            one = kinds[kind_of[ev]].copy()
            got = kernels.respond(
                one[0], alone[ev], voltage[ev], voltage[ev] - 0.01, voltage[ev] + 0.01, frequency[ev],
                energised[ev], wanted[ev], low[ev], high[ev], 4.0,
            )  # fmt: skip
            assert got == pytest.approx((p[ev], q[ev]), abs=1e-12)
