"""Results that several tests of the report share."""

import pytest
from tests.support.street import street

import evgrid


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Files of two runs of a street, uncontrolled and by the tariff."""
    folder = tmp_path_factory.mktemp("runs")
    for name, aggregators in (("now", {}), ("tou", {"aggregators": {"main": {"strategy": "tou"}}})):
        evgrid.run(street(name=name, **aggregators), folder / f"{name}.nc").close()
    return [folder / "now.nc", folder / "tou.nc"]


@pytest.fixture(scope="session")
def loaded(results):
    """The first of the results, in memory."""
    with evgrid.open_results(results[0]) as result:
        return result.load()
