"""The DC hub that the page on charge points shows runs, and keeps its points and its grid connection."""

import re
from pathlib import Path

import numpy as np

import evgrid
from evgrid.readers.yaml_files import parse_yaml
from evgrid.results.metrics import summary
from evgrid.scenario import scenario_from

ROOT = Path(__file__).parents[2]


def test_the_hub_of_the_page_is_the_one_that_is_shipped_and_runs():
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/how_to/charge_points.md").read_text(), re.DOTALL)
    hub = parse_yaml(blocks[-1])
    assert hub == parse_yaml((ROOT / "scenarios/dc_hub.yaml").read_text())
    result = evgrid.run(scenario_from(hub, {"time.duration": "6h"}))
    assert float(result["points_occupied"].max()) <= 10 + 1e-9
    assert float(result["points_occupied"].max()) > 9  # it is full
    np.testing.assert_allclose(result["plugged"], result["points_occupied"], atol=1.0)
    assert float(result["site_power_kw"].max()) <= 600 + 1e-6
    assert float(result["site_cut_by_import_kwh"].sum()) > 0  # and the limit binds
    waits = result["session_wait_h"].values
    assert 0 < waits.max() <= 20 / 60 + 1e-9
    assert "bev100 50 kW" in str(result.attrs)
    assert "charge points, highest" in dict(summary(result))
