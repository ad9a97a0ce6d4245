"""z-bus on random feeders, radial or meshed, with loads of both signs, against power-grid-model."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.test_feeder_reduction_properties import grids

from evgrid.feeder.networks import Network
from evgrid.feeder.solvers.power_grid_model import PowerGridModelSolver
from evgrid.feeder.solvers.z_bus_solver import ZBusSolver
from evgrid.feeder.topology import topology


@settings(max_examples=60, deadline=None)
@given(grids(), st.lists(st.floats(-8.0, 8.0), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_it_agrees_with_power_grid_model_and_no_case_depends_on_its_batch(grid, factors, random):
    households = np.ones(len(grid.loads.bus), np.int64)
    network = Network("random", grid, topology(grid, "random"), households, lambda: None)
    scale = np.array(factors)[:, np.newaxis, np.newaxis]
    p, q = grid.loads.p_kw * scale, -0.3 * grid.loads.p_kw * scale
    solver = ZBusSolver(network)
    flow = solver.solve(p, q)
    expected = PowerGridModelSolver(network).solve(p, q)
    for table in flow.tables():
        size = 1e3 if table.endswith(("kw", "kvar", "neutral_a")) else 1.0
        np.testing.assert_allclose(
            getattr(flow, table), getattr(expected, table), rtol=0, atol=1e-8 * size,
            err_msg=table,
        )  # fmt: skip
    order = random.sample(range(len(factors)), len(factors))[: random.randint(1, len(factors))]
    some = solver.solve(p[order], q[order])
    for table in flow.tables():
        assert np.array_equal(getattr(some, table), getattr(flow, table)[order], equal_nan=True)
