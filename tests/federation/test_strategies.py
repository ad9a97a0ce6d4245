"""Every strategy in a coupled run: what it is for, and that it costs no driver a departure."""

from pathlib import Path

import numpy as np
import pytest

import evgrid
from evgrid.results.settlement import Rates, settle
from evgrid.scenario import scenario_from

CALM = {"start": "2026-07-01T16:00", "duration": "16h", "step": "5min"}


def street(strategy, time=CALM, bidirectional=1.0, overrides=None, **sections):
    content = {
        "name": "street",
        "time": time,
        "ensemble": {"members": 2, "seed": 3},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "net"}, "on_divergence": "stop"},
        "fleet": {"count": 30, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": bidirectional}},
        "tariff": "pge_ev2a",
        "aggregators": {"main": strategy},
        "communication": {"telemetry": "5min" if time["step"] == "5min" else "60s"},
        **sections,
    }
    return scenario_from(content, overrides)


def unserved(result):
    return result["session_energy_unserved_kwh"].values[result["session_complete"].values]


@pytest.fixture
def emissions(tmp_path):
    """Rates that are low from one to four in the morning."""
    path = tmp_path / "moer.csv"
    rows = [f"{900 * k},{100 if 36 <= k < 48 else 400 + k}" for k in range(64)]
    path.write_text("\n".join(["time,kg_per_mwh", *rows]))
    return {"emissions": {"file": str(path)}}


EVENT = {"events": [{"name": "heat", "start": "2026-07-01T19:00", "duration": "2h"}]}


@pytest.fixture(scope="module")
def uncontrolled():
    return evgrid.run(street({"strategy": "uncontrolled"}))


def test_emissions_are_lower_and_everyone_is_served(emissions, uncontrolled):
    result = evgrid.run(street({"strategy": "emissions"}, system=emissions))
    rate = result["emission_rate_kg_per_mwh"]
    tons = [float((r["fleet_power_kw"] * rate).sum()) for r in (result, uncontrolled)]
    assert tons[0] < 0.75 * tons[1]
    np.testing.assert_allclose(unserved(result), unserved(uncontrolled), atol=1e-6)


def during(result):
    return result["fleet_power_kw"].sel(time=slice("2026-07-01T19:05", "2026-07-01T20:54"))


def test_an_event_is_answered_but_by_those_who_opt_out(uncontrolled):
    runs = {
        share: evgrid.run(
            street({"strategy": "demand_response", "opt_out": share}, system=EVENT, tariff=None)
        )
        for share in (0.0, 0.5, 1.0)
    }
    drawn = [float(during(r).sum()) for r in runs.values()]
    assert drawn[0] < 0.2 * drawn[2]
    assert drawn[0] < drawn[1] < drawn[2]
    np.testing.assert_allclose(during(runs[1.0]), during(uncontrolled), rtol=0.2, atol=8)
    for result in runs.values():
        np.testing.assert_allclose(unserved(result), unserved(uncontrolled), atol=1e-6)


def test_an_event_may_ask_for_discharge(uncontrolled):
    strategy = {"strategy": "demand_response", "target_kw": -40, "group": "feeder"}
    result = evgrid.run(street(strategy, system=EVENT))
    assert float(during(result).mean()) == pytest.approx(-40, abs=8)
    np.testing.assert_allclose(unserved(result), unserved(uncontrolled), atol=1e-6)


def test_arbitrage_costs_less_than_time_of_use(uncontrolled):
    runs = {name: evgrid.run(street({"strategy": name})) for name in ("tou", "arbitrage")}
    done = uncontrolled["session_complete"].values
    costs = [
        float(r["session_cost"].values[done].sum()) for r in (runs["arbitrage"], runs["tou"], uncontrolled)
    ]
    assert costs[0] < costs[1] < costs[2]
    assert float(runs["arbitrage"]["session_energy_discharged_kwh"].sum()) > 50
    np.testing.assert_allclose(unserved(runs["arbitrage"]), unserved(uncontrolled), atol=1e-6)


def test_peak_shaving_equals_its_older_name():
    for discharge, name in ((True, "v2g_peak_shaving"), (False, "peak_limit")):
        new = evgrid.run(street({"strategy": "peak_shaving", "limit_kw": 120, "discharge": discharge}))
        old = evgrid.run(street({"strategy": name, "limit_kw": 120}))
        np.testing.assert_array_equal(new["fleet_power_kw"], old["fleet_power_kw"])


def test_without_surplus_self_consumption_only_charges_what_it_must(uncontrolled):
    result = evgrid.run(street({"strategy": "pv_self_consumption"}))
    assert float(result["fleet_power_kw"].sum()) < 0.9 * float(uncontrolled["fleet_power_kw"].sum())
    np.testing.assert_allclose(unserved(result), unserved(uncontrolled), atol=1e-6)


def test_self_consumption_gives_back_within_a_limit(uncontrolled):
    settings = {"strategy": "pv_self_consumption", "group": "feeder", "discharge": True, "limit_kw": 900}
    result = evgrid.run(street(settings))
    assert float(result["fleet_power_kw"].min()) < -10
    assert float(result["head_power_kw"].max()) <= 900
    np.testing.assert_allclose(unserved(result), unserved(uncontrolled), atol=1e-6)


FAST = {"start": "2026-01-15T20:00", "duration": "3h", "step": "4s"}
SIGNAL = {"regulation": {"source": "synthetic", "step": 4}}
REGULATION = {"strategy": "regulation", "group": "feeder", "smoothing": "15min"}


def regulating(**overrides):
    settings = {"feeder.step": "60s", "ensemble.members": 2, **overrides}
    return evgrid.run(street(REGULATION, FAST, overrides=settings, system=SIGNAL))


@pytest.fixture(scope="module")
def regulated():
    return regulating()


def test_regulation_follows_the_signal_at_what_it_offered(regulated):
    offered, score = regulated["regulation_capacity_kw"], regulated["regulation_score"]
    assert np.all(offered.values[:, 0] == 0)  # nothing is known yet
    assert np.all(np.isnan(score.values[:, 0]))
    assert np.all(offered.values[:, 1:] > 20)
    assert np.all(score.values[:, 1:] > 0.9)  # of 30 EVs; a large fleet does better
    credit = offered.values / 1000 * score.values * 23
    np.testing.assert_allclose(regulated["regulation_credit"].values[:, 1:], credit[:, 1:])
    assert str(regulated["hour"].values[1]) == "2026-01-15T21:00:00.000000000"


def test_a_regulating_member_alone_equals_itself_in_an_ensemble(regulated):
    alone = regulating(**{"ensemble.members": 1, "ensemble.first": 1})
    for name in ("fleet_power_kw", "regulation_score", "regulation_capacity_kw", "operating_point_kw"):
        np.testing.assert_array_equal(alone[name].values[0], regulated[name].values[1], err_msg=name)


def test_the_settlement_adds_up(regulated, uncontrolled):
    rates = Rates(demand_charge=2.0, wear_per_kwh=0.1, driver_per_kwh=0.05, driver_share=0.5)
    books = settle(regulated, rates)
    fleet = books.fleet
    assert list(fleet.index) == [0, 1]
    credit = np.nansum(regulated["regulation_credit"].values, axis=1)
    np.testing.assert_allclose(fleet["regulation_credit"], credit)
    np.testing.assert_allclose(fleet["driver_payment"], 0.05 * fleet["given_kwh"] + 0.5 * credit)
    np.testing.assert_allclose(fleet["degradation"], 0.1 * fleet["given_kwh"])
    parts = ["energy_cost", "fixed_charge", "demand_charge", "degradation", "driver_payment"]
    np.testing.assert_allclose(fleet["net_cost"], fleet[parts].sum(axis=1) - credit)
    np.testing.assert_allclose(books.evs.groupby("member")["energy_cost"].sum(), fleet["energy_cost"])
    same = settle(uncontrolled, rates, against=uncontrolled).fleet
    np.testing.assert_allclose(same["saved"], 0.0)


@pytest.mark.parametrize(
    ("strategy", "key"),
    [("regulation", "regulation"), ("emissions", "emissions"), ("demand_response", "events")],
)
def test_what_a_strategy_needs_of_the_system(strategy, key):
    with pytest.raises(evgrid.ScenarioError, match=f"main.strategy = {strategy}: needs system.{key}"):
        street({"strategy": strategy})


def test_regulation_needs_a_fast_tick():
    with pytest.raises(evgrid.ScenarioError, match="time.step = 300s must divide an hour and be at most 10s"):
        street(REGULATION, system=SIGNAL)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_fleet_of_5000_holds_its_score_for_a_day():
    path = Path(__file__).parents[2] / "scenarios" / "frequency_regulation.yaml"
    result = evgrid.run(evgrid.load_scenario(path))
    free = evgrid.run(
        evgrid.load_scenario(path, {"aggregators.main": {"strategy": "uncontrolled"}, "time.step": "60s"})
    )
    score = result["regulation_score"].values[0, 1:]
    assert np.all(result["regulation_capacity_kw"].values[0, 1:] > 500)
    assert score.min() >= 0.95
    asked = result["session_energy_requested_kwh"].values[result["session_complete"].values]
    reachable = unserved(free) < 1e-9 * np.maximum(asked, 1.0)
    assert np.all(unserved(result)[reachable] <= 0.01 * asked[reachable] + 1e-9)


def test_what_is_held_and_exchanged(regulated):
    """The signal of 4 s is sent once a tick, so by hour the activation is a sum over recorded minutes."""
    offered, held = regulated["regulation_capacity_kw"].values, regulated["regulation_held_kw"].values
    assert np.all(np.isnan(held[:, 0]))
    assert np.all((held[:, 1:] > 0.9 * offered[:, 1:]) & (held[:, 1:] <= offered[:, 1:]))
    net = (
        (regulated["operating_point_kw"] - regulated["fleet_power_kw"]).values.reshape(2, 3, 60).mean(axis=2)
    )
    exchanged = regulated["regulation_up_kwh"] - regulated["regulation_down_kwh"]
    np.testing.assert_allclose(exchanged.values[:, 1:], net[:, 1:], rtol=1e-3, atol=0.1)


def test_regulation_within_a_limit_keeps_to_it(regulated):
    # what the feeder draws besides is constant here
    limit_kw = float(regulated["base_load_kw"].max()) + 60.0
    result = regulating(**{"aggregators.main.limit_kw": limit_kw})
    assert float(regulated["head_power_kw"].sum("phase").max()) > limit_kw + 20
    losses = float((result["losses_kw"]).max())
    assert float(result["head_power_kw"].sum("phase")[:, 2:].max()) < limit_kw + losses
    offered = result["regulation_capacity_kw"].values[:, 1:]
    assert np.all((offered > 10) & (offered < regulated["regulation_capacity_kw"].values[:, 1:]))
    assert np.all(result["regulation_score"].values[:, 1:] > 0.9)


OWN_SCORER = """
from evgrid.system.scores import Score


class Half:
    period_s = 1800.0

    def score(self, signal, response, step_s):
        halves = int(signal.shape[-1] * step_s / 1800)
        return Score((signal[..., :1] * 0 + [0.2, 0.6] * (halves // 2)), {})
"""


def test_a_scorer_of_ones_own_or_another_market(tmp_path):
    (tmp_path / "half_scorer.py").write_text(OWN_SCORER)
    content = {**REGULATION, "scorer": "half_scorer:Half"}
    base = {"feeder.step": "60s", "ensemble.members": 2, "time.duration": "2h"}
    sections = street(REGULATION, FAST, system=SIGNAL).model_dump(exclude_unset=True, mode="json")
    sections["aggregators"] = {"main": content}
    sections.pop("tariff")
    result = evgrid.run(scenario_from(sections, base, folder=tmp_path))
    np.testing.assert_allclose(result["regulation_score"].values[:, 1], 0.4)
    assert np.isnan(result["regulation_precision"]).all()
    caiso = regulating(**{"aggregators.main.scorer": "caiso", "time.duration": "2h"})
    assert np.all(caiso["regulation_score"].values[:, 1] > 0.9)
    with pytest.raises(
        evgrid.ScenarioError, match="main.scorer = ferc: must be one of caiso, pjm, or your own"
    ):
        street({**REGULATION, "scorer": "ferc"}, FAST, system=SIGNAL)


def test_v1g_regulates_without_giving_back():
    result = regulating(**{"aggregators.main.discharge": False, "ensemble.members": 1})
    assert float(result["session_energy_discharged_kwh"].sum()) == 0
    offered = result["regulation_capacity_kw"].values[0, 1:]
    assert np.all((offered > 0) & (offered <= result["operating_point_kw"].values[0].reshape(3, 60)[1:, 0]))


LOSS = {
    "nominal_hz": 50,
    "frequency": {"source": "lfc", "agc_gain": 7, "base_mw": 1000, "fleet": {"stands_for": 1500},
                  "disturbances": [{"time": "2min", "pu": 0.1}]},
}  # fmt: skip


def lost(strategy, **overrides):
    time = {"start": "2026-01-15T22:00", "duration": "150s", "step": 0.1}
    return evgrid.run(
        street(strategy, time, overrides={"communication.telemetry": "10s", "feeder.step": "30s",
               "ensemble.members": 1, **overrides}, system=LOSS, tariff=None)
    )  # fmt: skip


def test_a_fleet_in_reserve_lifts_the_nadir_and_a_late_one_swings():
    reserve = {"strategy": "reserve", "group": "feeder", "product": "fcr"}
    runs = {
        "without": lost({"strategy": "uncontrolled"}),
        "at once": lost(reserve),
        "late": lost(reserve, **{"communication.delay": "4s"}),
    }
    nadir = {name: float(run["frequency_nadir_hz"][0]) for name, run in runs.items()}
    assert nadir["at once"] - nadir["without"] > 0.1
    # 4 s late it comes after the lowest point, and swings with a gain of 25 against the governor's 20
    assert nadir["late"] < nadir["without"] - 0.1


def test_a_reserve_follows_a_replayed_frequency(tmp_path):
    """Half of FCR is asked for at 49.9 Hz, all of it the other way at 50.3 Hz."""
    hertz = np.repeat([50.0, 49.9, 50.3], 75)
    rows = [f"{4 * k},{value}" for k, value in enumerate(hertz)]
    (tmp_path / "frequency.csv").write_text("\n".join(["time,hz", *rows]))
    result = evgrid.run(
        street(
            {"strategy": "reserve", "group": "feeder", "product": "fcr", "period": "1h"},
            {"start": "2026-01-15T22:00", "duration": "15min", "step": "4s"},
            overrides={"feeder.step": "60s"}, tariff=None,
            system={"nominal_hz": 50, "frequency": {"file": str(tmp_path / "frequency.csv")}},
        )
    )  # fmt: skip
    offered, point = result["capacity_offered_kw"].values, result["operating_point_kw"].values
    given = point - result["fleet_power_kw"].values
    assert np.all(offered[:, 2:] > 20)
    for minutes, share in ((slice(2, 5), 0.0), (slice(6, 10), 0.5), (slice(11, 15), -1.0)):
        np.testing.assert_allclose(given[:, minutes], share * offered[:, minutes], atol=0.01 * offered.max())


def test_with_loss_and_delay_the_score_stands_beside(regulated):
    late = regulating(**{"communication.loss": 0.05, "communication.delay": "4s", "ensemble.members": 1})
    score = late["regulation_score"].values[0, 1:]
    assert np.all(score > 0.8)
    assert np.all(score <= regulated["regulation_score"].values[0, 1:])
