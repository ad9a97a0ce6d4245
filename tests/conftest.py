"""What several test folders share."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples every time, on any machine, so that no run of the tests fails on its luck; `make fuzz`
# searches with new ones (EVGRID_RANDOM_EXAMPLES).
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")
if os.environ.get("EVGRID_RANDOM_EXAMPLES"):
    settings.register_profile("random", derandomize=False, deadline=None, print_blob=True)
    settings.load_profile("random")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data that is not part of the project; the test is skipped without it.

    ``EVGRID_SHARED_DATA`` names it; else it is looked for beside the checkout.
    """
    given = os.environ.get("EVGRID_SHARED_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the reference data in {folder} (or EVGRID_SHARED_DATA)")
    return folder


@pytest.fixture
def in_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], Path]:
    """Path under which a shipped scenario or study finds the files of its feeder: its own, or that of a copy
    beside the IEEE 123-node feeder, which is not part of the project; the test is skipped without it.
    """
    shipped = Path(__file__).parents[1] / "scenarios"

    def find(path: Path) -> Path:
        if not path.stem.startswith("ieee123"):
            return path
        feeder = request.getfixturevalue("shared_data") / "opendss" / "ieee" / "123Bus"
        copy = tmp_path / "scenarios"
        shutil.copytree(shipped, copy)
        (copy / feeder.name).symlink_to(feeder)
        return copy / path.relative_to(shipped)

    return find


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's cache."""
    os.environ["EVGRID_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "evgrid-cache")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """SIGINT interrupts the tests and what they start, though whoever started them may ignore it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def scheduler(_own_cache: None) -> Iterator[str]:
    """Address of a scheduler with two workers, for batches of which the workers are not what is tested."""
    from evgrid.runs.batch.cluster import dask_client

    with dask_client(None, 2) as client:
        yield client.scheduler.address


def small_net(three_phase: bool, group: str = "Dyn", shift: float = 30.0, no_load: bool = True) -> Any:
    """A net with a bit of everything that a feeder may hold.

    ::

        grid - B0 ==line== B1 (trafo, 2 in parallel, tap) B2 - B3 - B4 - B5 - B6 -/ - B2
                                                                          |
                                                                          B7 = B8 (switch)
    """
    import pandapower as pp

    net = pp.create_empty_network(f_hz=50)
    b = [pp.create_bus(net, 20.0 if i < 2 else 0.4, name=f"B{i}") for i in range(9)]
    pp.create_ext_grid(net, b[0], vm_pu=1.02, va_degree=10.0)
    pp.create_line_from_parameters(
        net, b[0], b[1], 3.0, 0.2, 0.12, 250.0, 0.3, g_us_per_km=5.0,
        r0_ohm_per_km=0.8, x0_ohm_per_km=0.3, c0_nf_per_km=150.0,
    )  # fmt: skip
    pp.create_transformer_from_parameters(
        net, b[1], b[2], 0.4, 20.0, 0.4, 1.2, 4.0, pfe_kw=1.2 if no_load else 0.0,
        i0_percent=0.3 if no_load else 0.0, shift_degree=shift, vector_group=group, vk0_percent=3.5,
        vkr0_percent=1.0, mag0_percent=100.0 if group == "Dyn" else 1e9, mag0_rx=0.2, si0_hv_partial=0.7,
        tap_side="hv", tap_neutral=0, tap_pos=2, tap_min=-2, tap_max=2, tap_step_percent=2.5,
        tap_step_degree=0.0, tap_changer_type="Ratio", parallel=2, name="T1",
    )  # fmt: skip

    def line(start: int, stop: int, km: float, parallel: int = 1, c_nf: float = 0.0) -> Any:
        return pp.create_line_from_parameters(
            net, b[start], b[stop], km, 0.3, 0.1, c_nf, 0.2, parallel=parallel,
            r0_ohm_per_km=1.2, x0_ohm_per_km=0.4, c0_nf_per_km=c_nf,
        )  # fmt: skip

    for ends in ((2, 3, 0.05), (3, 4, 0.04, 2), (4, 5, 0.06), (5, 6, 0.05)):
        line(*ends)
    ring = line(6, 2, 0.2, c_nf=300.0)
    line(5, 7, 0.05)
    pp.create_switch(net, b[6], ring, "l", closed=False)
    pp.create_switch(net, b[7], b[8], "b", closed=True)
    pp.create_load(net, b[5], 0.03, 0.01, type="wye", name="sym")
    if three_phase:
        pp.create_asymmetric_load(net, b[8], 0.02, 0.0, 0.005, 0.004, 0.0, 0.001, type="wye", name="asym")
        pp.create_asymmetric_sgen(net, b[4], 0.0, 0.01, 0.0, type="wye")
    else:
        pp.create_load(net, b[8], 0.025, 0.005, name="other")
    pp.create_sgen(net, b[4], 0.009, 0.002, type="wye", scaling=0.5)
    pp.create_shunt(net, b[6], -0.01, 0.002)
    return net


@pytest.fixture(name="small_net")
def _small_net() -> Callable[..., Any]:
    """Builds :func:`small_net`."""
    return small_net


@pytest.fixture
def feeder(tmp_path: Path) -> Callable[..., Any]:
    """Loads a network by name, or a pandapower net by way of a file."""
    from evgrid.feeder.networks import load_network
    from evgrid.scenario.feeder import Feeder

    def load(net: Any, solver: str = "power-grid-model") -> Any:
        if not isinstance(net, str):
            import pandapower as pp

            path = tmp_path / "net.json"
            pp.to_json(net, str(path))
            net = str(path)
        return load_network(Feeder.model_validate({"network": net, "solver": solver}))

    return load
