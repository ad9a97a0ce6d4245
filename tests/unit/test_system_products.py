"""Products: activation at the corners of each rule, delivery, energy held."""

import numpy as np
import pytest
from pydantic import ValidationError

from evgrid.scenario.products import PRODUCTS, Product
from evgrid.system.products import activation, held_energy_kwh, one_way, slowest_delivery
from evgrid.system.scores import find_scorer


@pytest.mark.parametrize(
    ("name", "frequency_hz", "expected"),
    [
        ("fcr", 50.0, 0.0), ("fcr", 49.99, 0.0), ("fcr", 49.98, 0.1), ("fcr", 49.9, 0.5), ("fcr", 49.8, 1.0),
        ("fcr", 49.5, 1.0), ("fcr", 50.1, -0.5), ("fcr", 50.2, -1.0), ("fcr", 51.0, -1.0),
        ("fcr_n", 49.95, 0.5), ("fcr_n", 49.9, 1.0), ("fcr_n", 50.05, -0.5), ("fcr_n", 50.2, -1.0),
        ("fcr_d_up", 49.9, 0.0), ("fcr_d_up", 49.7, 0.5), ("fcr_d_up", 49.5, 1.0), ("fcr_d_up", 49.0, 1.0),
        ("fcr_d_up", 50.3, 0.0), ("fcr_d_down", 50.1, 0.0), ("fcr_d_down", 50.3, -0.5),
        ("fcr_d_down", 50.5, -1.0), ("fcr_d_down", 49.5, 0.0),
        ("dynamic_containment", 49.985, 0.0), ("dynamic_containment", 49.8, 0.05),
        ("dynamic_containment", 49.65, 0.525), ("dynamic_containment", 49.5, 1.0),
        ("dynamic_containment", 50.2, -0.05), ("dynamic_containment", 50.5, -1.0),
    ],
)  # fmt: skip
def test_activation(name, frequency_hz, expected):
    assert activation(PRODUCTS[name], frequency_hz) == pytest.approx(expected, abs=1e-9)


def test_activation_of_arrays_and_nan():
    found = activation(PRODUCTS["fcr"], np.array([[49.9, 50.0], [50.1, np.nan]]))
    np.testing.assert_allclose(found, [[0.5, 0.0], [-0.5, np.nan]], atol=1e-9)


def test_activation_needs_a_droop_product():
    with pytest.raises(ValueError, match="product afrr follows a signal"):
        activation(PRODUCTS["afrr"], 50.0)


def test_one_way():
    wanted = np.array([-2.0, -0.5, 0.5, 2.0])
    assert one_way(PRODUCTS["fcr_d_up"], wanted).tolist() == [0.0, 0.0, 0.5, 1.0]
    assert one_way(PRODUCTS["fcr"], wanted).tolist() == [-1.0, -0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "after_s", "share"),
    [("fcr", 30.0, 1.0), ("fcr_d_up", 7.5, 0.86), ("dynamic_containment", 1.0, 1.0), ("afrr", 300.0, 1.0)],
)
def test_slowest_delivery_meets_the_response_time(name, after_s, share):
    step_s = 0.5
    delivered = slowest_delivery(PRODUCTS[name], np.ones((2, 1000)), step_s, np.array([0.0, 0.5]))
    assert delivered[0, round(after_s / step_s) - 1] == pytest.approx(share)
    assert delivered[0, round(after_s / step_s) - 2] < share - 1e-6
    assert delivered[1, 0] > 0.5
    assert delivered.max() <= 1.0


def test_delivery_at_once_is_what_is_wanted():
    wanted = np.array([0.3, -1.0, 1.0])
    np.testing.assert_array_equal(slowest_delivery(PRODUCTS["pjm_regd"], wanted, 2.0), wanted)


def test_energy_held():
    assert held_energy_kwh(PRODUCTS["fcr"], 1000.0) == 250.0
    assert held_energy_kwh(PRODUCTS["dynamic_containment"], np.array([4.0])).tolist() == [1.0]


def test_every_product_says_where_its_rule_stands_and_its_scorer_exists():
    for name, product in PRODUCTS.items():
        assert product.name == name
        assert product.source
        if product.scorer:
            assert find_scorer(product.scorer).period_s > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"driver": "frequency"}, "a product driven by frequency must have one"),
        ({"driver": "signal", "curve": [(0, 0), (0.1, 1)]}, "one driven by a signal must not"),
        ({"driver": "frequency", "curve": [(0.1, 0), (0.1, 1)]}, "deviations must rise"),
        ({"driver": "frequency", "curve": [(0.1, 1), (0.2, 0.5)]}, "shares must not fall"),
    ],
)
def test_products_at_fault(given, message):
    with pytest.raises(ValidationError, match=message):
        Product(name="x", title="x", **given)
