"""Response time, limits, trips and entering service of the local functions, worked by hand."""

from math import exp, inf, log, nan, sqrt

import numpy as np
import pytest

from evgrid.inverter_functions import kernels
from evgrid.scenario.inverter_functions import LocalFunctions, Rating, parameters

LN10 = log(10.0)


class Charger:
    """One charger that is stepped by hand."""

    def __init__(self, s_kva=10.0, charge_kw=10.0, discharge_kw=10.0, prepare=None, **functions):
        self.rating = Rating(s_kva, charge_kw, discharge_kw)
        self.table = parameters(LocalFunctions(**functions), self.rating)
        self.states = np.zeros(1, kernels.STATE)
        if prepare:
            kernels.prepare(self.table, prepare)

    @property
    def state(self):
        return self.states[0]

    def step(self, wanted, voltage=1.0, frequency=60.0, tick=60.0, energised=1.0, low=None, high=None):
        low = -self.rating.discharge_kw if low is None else low
        high = self.rating.charge_kw if high is None else high
        v = (voltage, voltage, voltage) if isinstance(voltage, float) else voltage
        return kernels.respond(self.table[0], self.state, *v, frequency, energised, wanted, low, high, tick)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("tick", [1.0, 4.0, 60.0, 0.25])
@pytest.mark.parametrize(
    ("functions", "response_s", "step", "field", "final"),
    [
        ({"volt_var": "ieee_1547_a"}, 10, {"voltage": 0.90}, "q_kvar", -2.5),
        ({"volt_var": "ieee_1547_b"}, 5, {"voltage": 0.92}, "q_kvar", -4.4),
        ({"volt_var": "ieee_1547_b"}, 5, {"voltage": 1.05}, "q_kvar", 2.2),
        ({"volt_var": {"points": [[0.9, 50], [1.1, -50]], "response_s": "60s"}}, 60,
         {"voltage": 1.1}, "q_kvar", 5.0),
        ({"frequency_watt": "ieee_1547"}, 5, {"frequency": 60.336}, "p_kw", 1.0),
        ({"frequency_watt": "ieee_1547"}, 5, {"frequency": 59.664}, "p_kw", -1.0),
        ({"watt_var": "ieee_1547_b", "priority": "var"}, 10, {"wanted": -7.5}, "q_kvar", 2.2),
    ],
)  # fmt: skip
def test_response_reaches_90_percent_at_its_time(functions, response_s, step, field, final, tick, prepared):
    """The end of each tick lies on the exact curve; the response time is met whatever the tick."""
    charger = Charger(**functions, prepare=tick if prepared else None)
    given = {"wanted": 0.0, **step}
    rate = LN10 / response_s
    for n in range(1, int(max(120 / tick, 2)) + 1):
        p, q = charger.step(tick=tick, **given)
        assert charger.state[field] == pytest.approx(final * (1 - exp(-rate * n * tick)), abs=1e-11)
        mean = final * (1 - (exp(-rate * (n - 1) * tick) - exp(-rate * n * tick)) / (rate * tick))
        assert (p if field == "p_kw" else q) == pytest.approx(mean, abs=1e-11)
    charger = Charger(**functions)
    for _ in range(5):
        charger.step(tick=response_s / 5, **given)
    assert charger.state[field] == pytest.approx(0.9 * final, abs=1e-12)


@pytest.mark.parametrize("tick", [1.0, 4.0, 60.0])
def test_volt_watt_reaches_90_percent_at_its_time(tick):
    # 1.10 pu: export is cut from 10 kW to 0 with 10 s to 90 %
    charger = Charger(volt_watt="ieee_1547_b")
    given = 0.0
    for n in range(1, int(120 / tick) + 1):
        p, _ = charger.step(-10.0, voltage=1.10, tick=tick)
        given -= p * tick
        assert charger.state["p_kw"] == pytest.approx(-10 * exp(-LN10 / 10 * n * tick), abs=1e-11)
    assert given == pytest.approx(10 * (1 - exp(-LN10 * 12)) * 10 / LN10, abs=1e-9)


def test_part_load_export_is_cut_when_the_limit_reaches_it():
    # The limit falls from 10 to 0 kW; 1 kW is reached at 10 s, so of 5 kW: 10 log10(2) s at full power.
    p, _ = Charger(volt_watt="ieee_1547_b").step(-5.0, voltage=1.10, tick=60.0)
    whole = 10 * log(2.0) / LN10
    assert p * 60 == pytest.approx(
        -5 * whole - 5 * (10 / LN10) * (1 - exp(-(60 - whole) * LN10 / 10)), abs=1e-9
    )


def test_charging_limit_is_the_users_and_acts_on_charging_only():
    charger = Charger(charging_limit={"points": [[0.88, 0], [0.92, 100]], "response_s": 0})
    assert charger.step(10.0, voltage=0.90)[0] == pytest.approx(5.0)
    assert charger.step(10.0, voltage=0.95)[0] == 10.0
    assert charger.step(10.0, voltage=0.80)[0] == pytest.approx(0.0, abs=1e-12)
    assert charger.step(-10.0, voltage=0.80)[0] == -10.0


@pytest.mark.parametrize(
    ("priority", "wanted", "p", "q"),
    [
        ("watt", 10.0, 10.0, 0.0),
        ("watt", -8.0, -8.0, -4.4),
        ("watt", 9.6, 9.6, -2.8),  # sqrt(100 - 92.16)
        ("var", 10.0, sqrt(100 - 4.4**2), -4.4),
        ("var", -10.0, -sqrt(100 - 4.4**2), -4.4),
        ("var", 8.0, 8.0, -4.4),
    ],
)
def test_priority(priority, wanted, p, q):
    charger = Charger(volt_var="ieee_1547_b", priority=priority)
    charger.step(wanted, voltage=0.92, tick=600.0)
    assert charger.step(wanted, voltage=0.92, tick=60.0) == pytest.approx((p, q), abs=1e-12)


def test_mean_of_q_under_a_limit_that_binds_midway():
    # Q falls towards -4.4 kvar with 5 s to 90 %, and stops at -2.8 under watt priority.
    reached = log(4.4 / 1.6) * 5 / LN10
    expected = -4.4 * reached + 2.8 * 5 / LN10 - 2.8 * (60 - reached)
    for prepare in (None, 60.0):
        q = Charger(volt_var="ieee_1547_b", prepare=prepare).step(9.6, voltage=0.92, tick=60.0)[1]
        assert q * 60 == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("factor", "wanted", "p", "q"),
    [
        ({"value": 0.8}, 6.0, 6.0, 4.5),
        ({"value": 0.8}, -6.0, -6.0, 4.5),
        ({"value": 0.8, "excitation": "injects"}, 6.0, 6.0, -4.5),
        ({}, 6.0, 6.0, 0.0),
        ({"value": 0.8}, 9.6, 9.6, 2.8),  # watt priority gives up the power factor
    ],
)
def test_power_factor(factor, wanted, p, q):
    assert Charger(power_factor=factor).step(wanted) == pytest.approx((p, q), abs=1e-12)


def test_var_priority_keeps_the_power_factor():
    assert Charger(power_factor={"value": 0.8}, priority="var").step(10.0) == pytest.approx((8.0, 6.0))


def test_frequency_watt_stays_within_the_limits_of_the_moment():
    charger = Charger(frequency_watt="ieee_1547")
    assert charger.step(2.0, frequency=59.0, tick=3600.0, low=0.0, high=3.0)[0] == pytest.approx(0, abs=0.01)
    assert charger.state["p_kw"] == 0.0
    charger.step(2.0, frequency=61.0, tick=3600.0, low=0.0, high=3.0)
    assert charger.state["p_kw"] == 3.0
    # A charger asked for as much as it can falls from what it can.
    charger = Charger(frequency_watt={"response_s": 0})
    assert charger.step(inf, frequency=59.664)[0] == pytest.approx(9.0)
    assert charger.step(inf, frequency=59.664, high=0.0)[0] == pytest.approx(-1.0)


def test_time_beyond_a_threshold_starts_again_once_it_is_back():
    charger = Charger(trips="III")
    charger.step(-5.0, voltage=0.87, tick=20.0)
    charger.step(-5.0, voltage=0.89, tick=0.5)
    assert charger.step(-5.0, voltage=0.87, tick=20.5) == (-5.0, 0.0)
    assert charger.step(-5.0, voltage=0.87, tick=1.0)[0] == pytest.approx(-2.5)
    assert charger.state["mode"] == kernels.OFF


def test_any_phase_trips():
    assert Charger(trips="I").step(5.0, voltage=(1.0, 0.4, 1.1), tick=60.0)[0] * 60 == pytest.approx(5 * 0.16)
    assert Charger(trips="I").step(5.0, voltage=(1.0, 1.0, 1.25), tick=60.0)[0] * 60 == pytest.approx(0.8)


@pytest.mark.parametrize("tick", [1.0, 4.0, 7.0, 60.0, 1200.0])
def test_entering_service_after_300_s_with_a_ramp_of_300_s(tick):
    """8 kW is reached 240 s into the ramp: 8 * 120 kWs of ramp, then 8 kW."""
    charger = Charger(trips="III")
    charger.step(8.0, energised=0.0, tick=60.0)
    drawn, ticks = 0.0, -(-1200 // int(tick))
    for _ in range(ticks):
        drawn += charger.step(8.0, tick=tick)[0] * tick
    assert drawn == pytest.approx(8 * 120 + 8 * (ticks * tick - 540), rel=1e-12)
    assert charger.state["mode"] == kernels.IN_SERVICE


def test_discharge_ramps_too_and_q_keeps_within_s():
    charger = Charger(trips="III", volt_var="ieee_1547_b")
    charger.step(0.0, energised=0.0)
    for _ in range(5):
        assert charger.step(-10.0, voltage=0.95, tick=60.0) == (0.0, 0.0)
    means = [charger.step(-10.0, voltage=0.95, tick=60.0)[0] for _ in range(6)]
    assert means == pytest.approx([-1, -3, -5, -7, -9, -10])
    assert charger.state["q_kvar"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("voltage", "frequency", "healthy"),
    [
        (0.917, 60.0, True), (0.9169, 60.0, False), (1.05, 60.0, True), (1.0501, 60.0, False),
        (1.0, 59.5, True), (1.0, 59.499, False), (1.0, 60.1, True), (1.0, 60.101, False),
    ],
)  # fmt: skip
def test_corners_of_entering_service(voltage, frequency, healthy):
    charger = Charger(trips="III")
    charger.step(8.0, energised=0.0)
    charger.step(8.0, voltage=voltage, frequency=frequency, tick=300.0)
    assert charger.step(8.0, voltage=voltage, frequency=frequency, tick=1.0)[0] == (
        pytest.approx(1 / 60) if healthy else 0.0
    )


def test_the_delay_starts_again_after_a_disturbance():
    charger = Charger(trips="III")
    charger.step(8.0, energised=0.0)
    charger.step(8.0, tick=299.0)
    charger.step(8.0, voltage=1.06, tick=1.0)
    assert charger.step(8.0, tick=300.0) == (0.0, 0.0)
    assert charger.step(8.0, tick=30.0)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("dead", [{"energised": 0.0}, {"voltage": nan}, {"frequency": nan}])
def test_a_dead_connection_point_has_no_power(dead):
    charger = Charger(volt_var="ieee_1547_b", trips="III")
    charger.step(8.0, voltage=0.95)
    assert charger.step(8.0, **dead) == (0.0, 0.0)
    assert charger.state["q_kvar"] == 0.0
    assert charger.step(8.0) == (0.0, 0.0)


def test_unplugging_leaves_the_charger_in_service():
    charger = Charger(volt_var="ieee_1547_b")
    charger.step(0.0, voltage=0.95)
    kernels.unplug(charger.states[0])
    assert charger.state["q_kvar"] == charger.state["reactive_kvar"] == 0.0
    assert charger.step(5.0) == (5.0, 0.0)
