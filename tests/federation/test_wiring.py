"""Every wiring fault, by its message; all of them at once."""

import pytest

from evgrid.errors import EvgridError
from evgrid.federation import WiringError, run_federation
from evgrid.federation.wiring import offset_s, wire


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], r"there is no model"),
        ([("car",)], r"car: unknown federate; known are system, aggregator, sites, fleet, feeder"),
        ([("fleet",), ("fleet",)], r"fleet: 2 models have this name; one is allowed"),
        ([("fleet", ["fleet/speed"])], r"fleet\.inputs: unknown port fleet/speed"),
        ([("fleet", [], ["fleet/speed"])], r"fleet\.outputs: unknown port fleet/speed"),
        ([("feeder", [], ["fleet/p"])], r"feeder\.outputs: fleet/p belongs to fleet"),
        (
            [("fleet", [], ["fleet/p"]), ("feeder", [], ["fleet/p"])],
            r"fleet/p: given by 2 models \(fleet, feeder\); one is allowed",
        ),
        ([("feeder", ["fleet/p"])], r"feeder\.inputs: fleet/p comes from fleet, which is not in the run"),
        (
            [("feeder", ["fleet/p"]), ("fleet",)],
            r"feeder\.inputs: fleet/p is not among the outputs of fleet",
        ),
        (
            [("feeder", ["fleet/soc"]), ("fleet", [], ["fleet/soc"])],
            r"feeder\.inputs: fleet/soc is taken by aggregator only",
        ),
        (
            [("feeder", ["fleet/p", "fleet/p"]), ("fleet", [], ["fleet/p"])],
            r"feeder\.inputs: fleet/p is listed 2 times",
        ),
        ([("fleet", [], ["fleet/p", "fleet/p"])], r"fleet\.outputs: fleet/p is listed 2 times"),
        ([("fleet", [], [], 6.0)], r"fleet\.period_s = 6: must be a multiple of the tick of 4 s"),
        ([("fleet", [], [], 0.0)], r"fleet\.period_s = 0: must be a multiple of the tick of 4 s"),
        ([("fleet", [], [], -4.0)], r"fleet\.period_s = -4: must be a multiple of the tick"),
        ([("fleet", [], [], float("nan"))], r"fleet\.period_s = nan: must be a multiple of the tick"),
        (
            [("fleet", [], [], 12.0)],
            r"fleet\.period_s = 12: the run of 40 s is not a whole number of these periods",
        ),
    ],
)
def test_fault(toy, sizes, clock, models, message):
    with pytest.raises(WiringError, match=message) as caught:
        run_federation([toy(*model) for model in models], sizes, clock(10))
    assert isinstance(caught.value, EvgridError)


def test_all_faults_at_once(toy, sizes, clock):
    del sizes["trafo"]
    sizes["phase"] = -1
    models = [
        toy("fleet", ["aggregator/setpoint"], ["fleet/p"], period_s=5.0),
        toy("feeder", ["fleet/speed"], ["feeder/trafo_p"]),
    ]
    with pytest.raises(WiringError, match=r"federation: 5 faults\n  ") as caught:
        run_federation(models, sizes, clock(10))
    assert caught.value.faults == [
        "fleet.inputs: aggregator/setpoint comes from aggregator, which is not in the run",
        "feeder.inputs: unknown port fleet/speed",
        "sizes: trafo is missing; feeder/trafo_p has this dimension",
        "sizes.phase = -1: must be 0 or more",
        "fleet.period_s = 5: must be a multiple of the tick of 4 s",
    ]


@pytest.mark.parametrize(
    ("ticks", "step_s", "delay_s", "message"),
    [
        (0, 4.0, 0.0, r"clock\.ticks = 0: must be at least 1"),
        (10, 0.0, 0.0, r"clock\.step_s = 0: must be at least 1e-06 s"),
        (10, float("inf"), 0.0, r"clock\.step_s = inf: must be"),
        (10, 4.0, -1.0, r"message_delay_s = -1: must be 0 or more seconds"),
        (10, 4.0, float("nan"), r"message_delay_s = nan: must be 0 or more seconds"),
    ],
)
def test_run_faults(toy, sizes, clock, ticks, step_s, delay_s, message):
    with pytest.raises(WiringError, match=message):
        run_federation([toy("fleet")], sizes, clock(ticks, step_s), message_delay_s=delay_s)


def test_places_follow_causal_order(toy, sizes, clock):
    """feeder (8 s) and fleet (4 s), in whatever order they are given"""
    places = wire([toy("feeder", ["fleet/p"], period_s=8.0), toy("fleet", [], ["fleet/p"])], sizes, clock(10))
    assert [place.model.name for place in places] == ["fleet", "feeder"]
    assert [place.offset_s for place in places] == [0.001, 0.002]
    assert [(place.stride, place.steps) for place in places] == [(1, 10), (2, 5)]
    assert [place.waits_for for place in places] == [("feeder",), ("fleet",)]
    assert places[0].taken == {"fleet/p"}


def test_offsets_fit_in_the_tick():
    for tick_s in (1e-6, 1e-3, 0.02, 1.0, 3600.0):
        assert 0 < 5 * offset_s(tick_s) < tick_s / 2
