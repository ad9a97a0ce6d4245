"""What settings of local functions are accepted, and what they become."""

import re

import numpy as np
import pytest
from pydantic import ValidationError

from evgrid.inverter_functions import kernels
from evgrid.scenario.fields import faults_of
from evgrid.scenario.inverter_functions import LocalFunctions, Rating, VoltVar, parameters

NORMAL = [[0.92, 44], [0.98, 0], [1.02, 0], [1.08, -44]]


def sentences(**settings):
    with pytest.raises(ValidationError) as caught:
        LocalFunctions.model_validate(settings)
    return "\n".join(faults_of(caught.value, LocalFunctions, "local"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"volt_var": {"points": NORMAL[::-1]}},
         r"local.volt_var: points must be in ascending order, but 1.02 follows 1.08"),
        ({"volt_var": {"points": [[0.9, 101], [1.1, 0]]}},
         r"injected reactive power must be between -100 and 100, but is 101 at 0.9"),
        ({"volt_var": {"points": [[0.9, -44], [1.1, 44]]}},
         r"injected reactive power must not rise, but does from -44 at 0.9 to 44 at 1.1"),
        ({"volt_var": {"points": [[0.9, 44], [1.0, 20], [1.0, 0]]}},
         r"points must not jump, but there are two values at 1: 20 and 0"),
        ({"volt_var": {"points": [[1.0, 0]]}}, r"local.volt_var.points: .*at least 2"),
        ({"volt_var": {"points": [[1 + i, 0] for i in range(9)]}}, r"local.volt_var.points: .*at most 8"),
        ({"volt_var": "ieee_1547_c"}, r"local.volt_var = ieee_1547_c: must be 'ieee_1547_a'"),
        ({"volt_var": {"points": NORMAL, "response_s": -1}}, r"local.volt_var.response_s = -1"),
        ({"volt_var": {"points": NORMAL, "response": 1}}, r"did you mean 'response_s'"),
        ({"volt_watt": {"points": [[1.06, 0], [1.1, 100]]}}, r"the limit to export must not rise"),
        ({"volt_watt": {"points": [[1.06, 120], [1.1, 0]]}}, r"limit to export must be between 0 and 100"),
        ({"charging_limit": {"points": [[0.9, 100], [0.95, 0]]}}, r"the limit to charging must not fall"),
        ({"watt_var": {"points": [[0, 0], [120, -44]]}},
         r"active power must be between -100 and 100, but is 120"),
        ({"volt_var": "ieee_1547_b", "power_factor": {"value": 0.95}},
         r"volt_var and power_factor can't act together"),
        ({"volt_var": "ieee_1547_b", "watt_var": "ieee_1547_b"}, r"volt_var and watt_var can't act together"),
        ({"power_factor": {"value": 1.1}}, r"local.power_factor.value = 1.1: must be at most 1"),
        ({"trips": "IV"}, r"local.trips = IV: must be 'I', 'II' or 'III'"),
        ({"trips": {"over_voltage": [[1.03, 1]]}},
         r"trips.over_voltage = 1.03: must be at least the greatest healthy voltage of enter_service, 1.05"),
        ({"trips": {"under_frequency": [[59.8, 1]]}},
         r"trips.under_frequency = 59.8: must be at most the least healthy frequency of enter_service, 59.5"),
        ({"trips": {"under_voltage": [[0.5, -1]]}}, r"clearing times of at least 0, but has \[0.5, -1\]"),
        ({"enter_service": {"voltage_low_pu": 1.1}},
         r"voltage_low_pu = 1.1 must be below voltage_high_pu = 1.05"),
        ({"capable": 1.5}, r"local.capable = 1.5: must be at most 1"),
        ({"voltvar": "ieee_1547_b"}, r"local.voltvar: unknown key; did you mean 'volt_var'"),
    ],
)  # fmt: skip
def test_faults_say_what_is_allowed(settings, sentence):
    assert re.search(sentence, sentences(**settings)), sentences(**settings)


def test_both_misfits_are_reported_at_once():
    found = sentences(
        volt_var="ieee_1547_a", watt_var="ieee_1547_a", trips={"over_voltage": [[1.0, 1]]}
    ).splitlines()
    assert len(found) == 2


@pytest.mark.parametrize(
    ("rating", "sentence"),
    [
        ((0, 0), "s_kva = 0: must be positive"),
        ((5, 7), "charge_kw = 7: must be from 0 to s_kva = 5"),
        ((5, 5, -1), "discharge_kw = -1: must be from 0"),
    ],
)
def test_ratings(rating, sentence):
    with pytest.raises(ValueError, match=sentence):
        Rating(*rating)


def test_injected_becomes_negative():
    row = parameters(LocalFunctions(volt_var=VoltVar(points=NORMAL, response_s="5s")), Rating(10, 10, 10))[0]
    np.testing.assert_allclose(row["reactive_kvar"], [-4.4, 0, 0, 4.4, 4.4, 4.4, 4.4, 4.4])
    np.testing.assert_allclose(row["reactive_at"], [0.92, 0.98, 1.02, 1.08, 1.08, 1.08, 1.08, 1.08])


def test_written_points_are_the_preset():
    written = parameters(LocalFunctions(volt_var={"points": NORMAL, "response_s": 5}), Rating(8, 7, 7))
    assert written == parameters(LocalFunctions(volt_var="ieee_1547_b"), Rating(8, 7, 7))


def test_settings_come_back_from_their_own_text():
    settings = LocalFunctions(volt_var={"points": NORMAL}, trips="III", frequency_watt="ieee_1547")
    assert LocalFunctions.model_validate(settings.model_dump(mode="json")) == settings


def test_categories_at_50_hz_are_scaled():
    row = parameters(LocalFunctions(trips="III", nominal_hz=50), Rating(10, 10))[0]
    np.testing.assert_allclose(row["trip_level"][4:], [51.6666667, 51, 48.75, 47.0833333])
    np.testing.assert_allclose([row["enter_low_hz"], row["enter_high_hz"]], [49.5833333, 50.0833333])


def test_a_charger_without_functions_follows_its_set_point():
    table, state = parameters(None, Rating(10, 10, 10)), np.zeros(1, kernels.STATE)

    def respond(p, energised=1.0, voltage=1.3):
        return kernels.respond(
            table[0], state[0], voltage, voltage, voltage, 65.0, energised, p, -10.0, 10.0, 60.0
        )

    assert respond(-4.0) == (-4.0, 0.0)
    assert respond(np.inf) == (10.0, 0.0)
    assert respond(3.0, energised=0.0) == (0.0, 0.0)
    assert respond(3.0) == (3.0, 0.0)
