"""Reinforcement: the search is exact, changed networks are those of pandapower, faults are said."""

import itertools
from pathlib import Path

import numpy as np
import pandapower as pp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nets import two_houses

import evgrid
from evgrid.runs.simulation import run_with_report
from evgrid.studies.least_cost_set import search, sets_by_cost
from evgrid.studies.measures import (
    Measure,
    PriceTable,
    cable_measures,
    moved_power,
    rebalancing_measures,
    sections,
    transformer_measures,
    tree_of,
    with_measures,
)
from evgrid.studies.reading import load_study
from evgrid.studies.reinforcement import Case, Reinforcement, _control_cost, candidates_of, keep_powers

STUDIES = Path(__file__).parents[2] / "scenarios" / "studies"

PRICES = {
    "name": "made up", "currency": "EUR", "source": "a test",
    "transformers": [
        {"name": "larger", "kva": 400, "hv_kv": [10, 30], "lv_kv": [0.4, 0.4], "vk_percent": 6,
         "vkr_percent": 1.425, "pfe_kw": 1.35, "i0_percent": 0.3375, "price": 9000},
    ],
    "cables": [
        {"name": "thin", "kv": [0.3, 0.5], "r_ohm_per_km": 0.642, "x_ohm_per_km": 0.083, "c_nf_per_km": 210,
         "max_i_ka": 0.15, "replaces": False, "price_per_km": 60000},
        {"name": "thick", "kv": [0.3, 0.5], "r_ohm_per_km": 0.206, "x_ohm_per_km": 0.08, "c_nf_per_km": 260,
         "max_i_ka": 0.25, "parallel": False, "price_per_km": 80000},
    ],
}  # fmt: skip

TAPS = {"steps": 3, "step_percent": 2.0, "target_pu": 1.02, "deadband_pu": 0.04}

STREET = """
name: street
time: {start: 2026-01-15T12:00, duration: 1h, step: 30min}
ensemble: {seed: 1}
feeder: {network: street.json, base_load: {source: none}}
fleet: {count: 13, sessions: full_power, charger: {power_kw: 22, phases: 3}}
communication: {telemetry: 30min}
"""


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Thirteen chargers of 22 kW at two houses: both cables and the transformer are overloaded."""
    folder = tmp_path_factory.mktemp("street")
    pp.to_json(two_houses(0.0), str(folder / "street.json"))
    (folder / "street.yaml").write_text(STREET)
    study = load_study(
        folder / "street.yaml",
        Reinforcement,
        "reinforcement",
        prices=PRICES,
        limits=["en_50160", "ratings"],
        members=1,
    )
    (run,) = study.plans()
    result, report = run_with_report(run.scenario)
    return Case(study, run.scenario, keep_powers(result, report)), result


def pandapower_violates(measures, case):
    """Whether pandapower's net with the measures, one power flow at full power, violates a limit."""
    net = two_houses(0.0)
    kw = case.power[0][0, 0].sum(axis=1)  # the chargers of each house
    net.load["p_mw"] = kw / 1e3
    for measure in measures:
        if measure.kind == "transformer":
            for name in ("vk_percent", "vkr_percent", "pfe_kw", "i0_percent"):
                net.trafo[name] = getattr(measure.type, name)
            net.trafo["sn_mva"] = measure.type.kva / 1e3
            continue
        line, cable = measure.lines[0], measure.type
        data = {
            name: getattr(cable, name) for name in ("r_ohm_per_km", "x_ohm_per_km", "c_nf_per_km", "max_i_ka")
        }
        if measure.kind == "cable":
            for name, value in data.items():
                net.line.loc[line, name] = value
        else:
            ends = net.line.loc[line, ["from_bus", "to_bus"]]
            pp.create_line_from_parameters(net, *ends, net.line.loc[line, "length_km"], **data)
    pp.runpp(net, numba=False)
    return bool(
        (net.res_line["loading_percent"] > 100).any()
        or (net.res_trafo["loading_percent"] > 100).any()
        or (net.res_bus["vm_pu"] < 0.9).any()
    )


def test_the_least_cost_set_is_that_of_brute_force_with_pandapower(street):
    case, _ = street
    candidates, left_out = candidates_of(case.study, case)
    assert left_out == 0
    assert [m.element for m in candidates] == ["T1", *["LA"] * 2, *["LB"] * 2] or [
        m.element for m in candidates
    ] == ["T1", *["LB"] * 2, *["LA"] * 2]
    assert {m.kind for m in candidates} == {"transformer", "cable", "parallel cable"}
    restores = {}
    for count in range(4):
        for chosen in itertools.combinations(range(len(candidates)), count):
            measures = [candidates[i] for i in chosen]
            if len({m.element for m in measures}) == count:
                restores[chosen] = not pandapower_violates(measures, case)
                assert restores[chosen] == (not case.evaluate(candidates, chosen).any())
    assert len(restores) == 2 * 3 * 3
    costs = [m.investment for m in candidates]
    least = min(sum(costs[i] for i in chosen) for chosen, good in restores.items() if good)
    found = search([m.element for m in candidates], costs, lambda s: case.evaluate(candidates, s), 0, 100)
    assert found.found.cost == pytest.approx(least, rel=1e-12)
    assert restores[tuple(sorted(found.found.chosen))]
    assert 9000 < least < 9000 + 2 * 50 * 80


def test_recorded_powers_solved_again_are_the_run(street):
    case, run = street
    again, failed = case.solve([])
    assert not failed.any()
    for name in ("voltage_pu", "line_loading", "trafo_loading"):
        np.testing.assert_allclose(again[name], run[name], rtol=2e-7)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=7
    )
)  # fmt: skip
def test_sets_come_by_cost_and_each_once(measures):
    elements, costs = [m[0] for m in measures], [float(m[1]) for m in measures]
    found = list(sets_by_cost(elements, costs))
    assert [cost for cost, _ in found] == sorted(cost for cost, _ in found)
    brute = [
        chosen
        for count in range(len(measures) + 1)
        for chosen in itertools.combinations(range(len(measures)), count)
        if len({elements[i] for i in chosen}) == count
    ]
    assert sorted(tuple(sorted(chosen)) for _, chosen in found) == sorted(brute)


def test_a_search_that_ends_early_gives_both_bounds():
    needed = {0, 3, 4}

    def evaluate(chosen):
        return np.array([not needed <= set(chosen), False])

    elements, costs = list("abcde"), [5.0, 1.0, 2.0, 3.0, 4.0]
    whole = search(elements, costs, evaluate, 0, 100)
    assert set(whole.found.chosen) == needed
    assert whole.member_cost.tolist() == [12.0, 0.0]
    early = search(elements, costs, evaluate, 0, 6)
    assert early.found is None
    assert early.bound <= 12.0
    assert set(early.upper.chosen) == needed
    assert len(search(elements, costs, evaluate, 0, 100, dearest=-1.0).examined) == 1
    assert np.isinf(early.member_cost[0])
    assert search(elements, costs, evaluate, 1, 100).found.chosen == ()
    never = search(elements, costs, lambda _: np.array([True]), 0, 100)
    assert never.found is None and np.isinf(never.bound)  # noqa: PT018


def test_sections_have_every_line_once_and_go_outwards(feeder):
    network = feeder("european_lv")
    tree = tree_of(network)
    found = sections(network, tree)
    lines = [line for section in found for line in section]
    assert sorted(lines) == list(range(len(network.grid.lines.name)))
    node = network.topology.node
    feeds = {int(line): child for child, line in enumerate(tree.parent_line) if line >= 0}
    for section in found:
        ends = [feeds[line] for line in section if line in feeds]
        for above, below in itertools.pairwise(ends):
            assert tree.parent[below] == above
    at = node[network.connections.bus[:1]]
    assert tree.downstream[at, 0].all()
    assert tree.downstream[np.unique(node[network.grid.sources.bus]), :].all()


def test_other_phases_lower_the_losses_of_unbalance(feeder):
    network = feeder("european_lv")
    tree, count = tree_of(network), len(network.connections)
    power = np.where(network.connections.phase == 0, 9.0, np.linspace(1.0, 2.0, count))
    prices = PriceTable.model_validate({**PRICES, "rebalancing": {"price": 100}})
    measures = rebalancing_measures(network, tree, power, prices)
    on_path = tree.on_path[tree.on_path.any(axis=1)]
    r = network.grid.lines.r1_ohm[tree.parent_line[tree.on_path.any(axis=1)]]

    def sum_of_squares(phase):
        return sum(float(r @ (on_path @ np.where(phase == x, power, 0.0)) ** 2) for x in range(3))

    values = [sum_of_squares(network.connections.phase)]
    for measure in measures:
        moved, taps = with_measures(network, [measure])
        values.append(sum_of_squares(moved.connections.phase))
        assert measure.investment == 100 * len(measure.phases)
        assert taps == ()
        given = power[:, np.newaxis] * np.eye(3)[network.connections.phase]
        again = moved_power(given[np.newaxis], [measure], network)[0]
        np.testing.assert_array_equal(again, power[:, np.newaxis] * np.eye(3)[moved.connections.phase])
        np.testing.assert_allclose(moved.grid.loads.p_kw.sum(axis=1), network.grid.loads.p_kw.sum(axis=1))
        has = moved.grid.loads.p_kw[np.arange(count), moved.connections.phase]
        np.testing.assert_allclose(has, network.grid.loads.p_kw.sum(axis=1))
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.9 * values[0]


def test_a_transformer_with_taps_is_regulated_and_a_smaller_or_foreign_one_is_no_candidate(feeder):
    network = feeder("european_lv")  # 800 kVA, 11/0.416 kV
    kinds = [
        {**PRICES["transformers"][0], "name": name, "kva": kva, "lv_kv": [0.38, 0.44], **more}
        for name, kva, more in (
            ("small", 630, {}), ("same", 800, {}), ("regulated", 800, {"taps": TAPS}), ("large", 1000, {}),
            ("foreign", 1000, {"hv_kv": [60, 150]}),
        )
    ]  # fmt: skip
    prices = PriceTable.model_validate({**PRICES, "transformers": kinds})
    found = transformer_measures(network, 0, prices, regulated=True)
    assert [m.name for m in found] == ["regulated", "large"]
    assert [m.name for m in transformer_measures(network, 0, prices, regulated=False)] == ["large"]
    changed, (taps,) = with_measures(network, found[:1])
    assert (taps.trafo, taps.target_pu, taps.deadband_pu) == (network.grid.trafos.name[0], 1.02, 0.04)
    assert (changed.grid.trafos.tap_min[0], changed.grid.trafos.tap_max[0]) == (-3, 3)
    assert changed.grid.trafos.tap_step_percent[0] == 2.0
    assert not cable_measures(network, (0,), PriceTable.model_validate({**PRICES, "cables": []}))
    assert isinstance(found[0], Measure)


def test_settings_of_the_study(street):
    """Costs of control by hand: 13 EVs and a year, no interest, over 10 years; risk; candidates; sets."""
    case, _ = street
    cost = {"once": 1000, "per_ev": 100, "per_year": 50, "per_ev_year": 3, "lifetime_years": 5}
    changes = {
        "controls": {"box": {"overrides": {}, "cost": cost}}, "discount_rate": 0, "horizon_years": 10,
        "unserved_per_kwh": 0.5, "most_sections": 1, "most_sets": 2, "members": 40, "risk": 0.06,
        "prices": PRICES,
    }  # fmt: skip
    study = load_study(case.study.scenario, Reinforcement, "reinforcement", **changes)
    kept = case.kept.assign(unserved_kwh=case.kept["unserved_kwh"] + 2.0)  # in an hour, 8760 a year
    own = Case(study, case.scenario, kept)
    by_hand = 2 * (1000 + 13 * 100) + 10 * (50 + 13 * 3) + 10 * 0.5 * 2.0 * 8760
    assert _control_cost(study, "box", own) == pytest.approx(by_hand, rel=1e-12)
    assert _control_cost(study, "uncontrolled", own) == pytest.approx(10 * 0.5 * 2.0 * 8760, rel=1e-12)
    assert study.allowed == 2
    candidates, left_out = candidates_of(study, own)
    assert left_out == 1
    assert len({m.element for m in candidates}) == 2
    assert study.most_sets == 2


def test_a_cable_beside_another_has_both_impedances_in_parallel(feeder):
    network = feeder("european_lv")
    cable = {**PRICES["cables"][0], "parallel": True, "r0_per_r1": 3.0, "x0_per_x1": 2.0}
    prices = PriceTable.model_validate({**PRICES, "cables": [cable]})
    (measure,) = [m for m in cable_measures(network, (5,), prices) if m.kind == "parallel cable"]
    before, after = network.grid.lines, with_measures(network, [measure])[0].grid.lines
    km = before.length_km[5]
    for sequence, new in (("1", 0.642 + 0.083j), ("0", 3 * 0.642 + 2 * 0.083j)):
        old = getattr(before, f"r{sequence}_ohm")[5] + 1j * getattr(before, f"x{sequence}_ohm")[5]
        both = 1 / (1 / old + 1 / (new * km))
        assert getattr(after, f"r{sequence}_ohm")[5] == pytest.approx(both.real, rel=1e-12)
        assert getattr(after, f"x{sequence}_ohm")[5] == pytest.approx(both.imag, rel=1e-12)
    assert after.c1_f[5] - before.c1_f[5] == pytest.approx(210e-9 * km, rel=1e-12)
    old = before.r1_ohm[5] + 1j * before.x1_ohm[5]
    new = (0.642 + 0.083j) * km
    currents = after.rating_ka[5] * np.abs([old, new])[::-1] / abs(old + new)  # in the old and the new one
    assert (currents <= np.array([before.rating_ka[5], 0.15]) * (1 + 1e-12)).all()
    assert np.isclose(currents, [before.rating_ka[5], 0.15]).any()
    others = np.arange(len(before.name)) != 5
    np.testing.assert_array_equal(after.r1_ohm[others], before.r1_ohm[others])


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*reinforcement*.yaml")))
def test_every_shipped_study_is_valid(path, in_place):
    study = load_study(in_place(path), Reinforcement, "reinforcement")
    assert study.prices.currency == "EUR"
    assert len(study.plans()) == 1 + len(study.controls)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"controls": {"v2x": {"overrides": {}}}},
            "controls.v2x.cost = v2x: must be one of the price table's",
        ),
        ({"controls": {"uncontrolled": {"overrides": {}, "cost": "v1g"}}}, "is the scenario as it is"),
        ({"prices": "none.yaml"}, "prices = none.yaml: must be public_estimates or a file"),
        ({"discount_rate": 5}, "discount_rate = 5: must be less than 1"),
        ({"prices": {**PRICES, "currency": "euro"}}, "currency"),
    ],
)
def test_what_is_wrong_with_a_study_is_said(tmp_path, changes, message):
    (tmp_path / "street.yaml").write_text(STREET)
    with pytest.raises(evgrid.ScenarioError, match=message):
        load_study(tmp_path / "street.yaml", Reinforcement, "reinforcement", **changes)


def test_what_can_not_be_solved_again_is_refused(tmp_path):
    pp.to_json(two_houses(0.0), str(tmp_path / "street.json"))
    (tmp_path / "street.yaml").write_text(STREET.replace("fleet:", "record: {step: 1h}\nfleet:"))
    study = load_study(tmp_path / "street.yaml", Reinforcement, "reinforcement")
    with pytest.raises(
        evgrid.ScenarioError, match=r"record.step: means over several power flows: not in a study"
    ):
        study.plans()
