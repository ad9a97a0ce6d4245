"""Who steps when, and what each one sees."""

import numpy as np
import pytest

from evgrid.federation import run_federation
from evgrid.federation.adapter import grants_in
from evgrid.federation.helics_io import ask_broker, connect, end

pytestmark = pytest.mark.usefixtures("thread_mode")


def test_order_in_a_tick(toy, sizes, clock):
    """
    aggregator --setpoint--> fleet --p--> feeder
         ^                                  |
         +-------------head_p---------------+
    """
    log = []
    aggregator = toy("aggregator", ["feeder/head_p"], ["aggregator/setpoint"], log=log)
    fleet = toy("fleet", ["aggregator/setpoint"], ["fleet/p"], log=log)
    feeder = toy("feeder", ["fleet/p"], ["feeder/head_p"], log=log)
    run_federation([feeder, aggregator, fleet], sizes, clock(4))  # the order given does not matter
    names = ("aggregator", "fleet", "feeder")
    assert log == [f"{name}@{time}" for time in (0, 4, 8, 12) for name in names]
    assert aggregator.seen["feeder/head_p"] == [0, 1, 5, 9]  # the last tick's, first the initial value
    assert fleet.seen["aggregator/setpoint"] == [1, 5, 9, 13]  # this tick's
    assert feeder.seen["fleet/p"] == [1, 5, 9, 13]  # this tick's


def test_initial_value(toy, sizes, clock):
    """feeder --voltage--> fleet: one before the feeder has spoken"""
    fleet = toy("fleet", ["feeder/voltage"])
    run_federation([fleet, toy("feeder", outputs=["feeder/voltage"])], sizes, clock(3))
    assert fleet.seen["feeder/voltage"] == [1.0, 1.0, 5.0]  # initial, 0 s + 1, 4 s + 1


def test_slow_feeder_among_fast_federates(toy, sizes, clock):
    """
    aggregator (4 s) --setpoint--> fleet (4 s) --p--> feeder (12 s) --head_p--> aggregator
    """
    log = []
    aggregator = toy("aggregator", ["feeder/head_p"], ["aggregator/setpoint"], log=log)
    fleet = toy("fleet", ["aggregator/setpoint"], ["fleet/p"], log=log)
    feeder = toy("feeder", ["fleet/p"], ["feeder/head_p"], period_s=12.0, log=log)
    report = run_federation([aggregator, fleet, feeder], sizes, clock(6))
    assert log == [
        *("aggregator@0", "fleet@0", "feeder@0", "aggregator@4", "fleet@4", "aggregator@8", "fleet@8"),
        *("aggregator@12", "fleet@12", "feeder@12", "aggregator@16", "fleet@16", "aggregator@20", "fleet@20"),
    ]
    assert aggregator.seen["feeder/head_p"] == [0, 1, 1, 1, 13, 13]
    assert feeder.seen["fleet/p"] == [1, 13]
    assert report.steps == {"aggregator": 6, "fleet": 6, "feeder": 2}


@pytest.mark.parametrize("stride", [16, 17, 45, 97, 100, 600])
def test_a_period_of_any_number_of_ticks(toy, sizes, clock, stride):
    """
    aggregator --setpoint--> fleet --p--> feeder (slow) --head_p--> aggregator: what is seen, and how often
    """
    ticks = 2 * stride
    aggregator = toy("aggregator", ["feeder/head_p"], ["aggregator/setpoint"])
    fleet = toy("fleet", ["aggregator/setpoint"], ["fleet/p"])
    feeder = toy("feeder", ["fleet/p"], ["feeder/head_p"], period_s=4.0 * stride)
    run_federation([aggregator, fleet, feeder], sizes, clock(ticks))
    assert aggregator.seen["feeder/head_p"] == [0.0, *[1.0] * stride, *[4.0 * stride + 1] * (stride - 1)]
    assert fleet.seen["aggregator/setpoint"] == [4.0 * tick + 1 for tick in range(ticks)]
    assert feeder.seen["fleet/p"] == [1.0, 4.0 * stride + 1]
    assert feeder.times == [0.0, 4.0 * stride]
    assert feeder.finished == 1


@pytest.mark.parametrize("stride", [1, 7, 16, 17, 45, 900, 997, 3600])
def test_a_waiting_federate_is_granted_a_time_every_few_ticks(stride):
    """What has come for it is handed over before it piles up: HELICS goes through the pile at each tick."""
    grants = grants_in(stride)
    assert stride % grants == 0
    assert stride // grants <= 16


def test_models_without_common_ports_step_in_order(toy, sizes, clock):
    """fleet --p--> feeder: nothing comes back, yet the fleet does not run ahead"""
    log = []
    run_federation(
        [
            toy("fleet", outputs=["fleet/p"], log=log),
            toy("feeder", ["fleet/p"], log=log),
            toy("system", log=log),
        ],
        sizes,
        clock(50),
    )
    assert log == [f"{name}@{4 * tick}" for tick in range(50) for name in ("system", "fleet", "feeder")]


def test_many_rates_step_in_order(toy, sizes, clock):
    """five periods, no ports: still one at a time, in order"""
    log = []
    strides = {"system": 3, "aggregator": 2, "sites": 1, "fleet": 4, "feeder": 6}
    run_federation([toy(n, period_s=4.0 * k, log=log) for n, k in strides.items()], sizes, clock(24))
    assert log == [f"{n}@{4 * tick}" for tick in range(24) for n, k in strides.items() if tick % k == 0]


@pytest.mark.parametrize(
    ("delay_s", "expected"),
    [
        (0.0, [1, 5, 9, 13, 17]),
        (0.0005, [1, 5, 9, 13, 17]),
        (2.0, [0, 1, 5, 9, 13]),
        (4.0, [0, 1, 5, 9, 13]),
        (6.0, [0, 0, 1, 5, 9]),
        (100.0, [0, 0, 0, 0, 0]),
    ],
)
def test_message_delay(toy, sizes, clock, delay_s, expected):
    """aggregator --setpoint, delayed--> fleet: in hand at the first tick after the delay"""
    aggregator = toy("aggregator", outputs=["aggregator/setpoint"])
    fleet = toy("fleet", ["aggregator/setpoint"])
    run_federation([aggregator, fleet], sizes, clock(5), message_delay_s=delay_s)
    assert fleet.seen["aggregator/setpoint"] == expected


def test_newest_message_wins(toy, sizes, clock):
    """aggregator (4 s) --setpoint--> fleet (12 s): three messages a step, the last one counts"""
    fleet = toy("fleet", ["aggregator/setpoint"], period_s=12.0)
    run_federation([toy("aggregator", outputs=["aggregator/setpoint"]), fleet], sizes, clock(9))
    assert fleet.seen["aggregator/setpoint"] == [1, 13, 25]


def test_outputs_left_out_hold(toy, sizes, clock):
    """fleet --p, plugged (every second step)--> aggregator; setpoint only once"""
    fleet = toy("fleet", ["aggregator/setpoint"], ["fleet/p", "fleet/plugged"])
    fleet.act = lambda time_s, _: {
        port: fleet.full(port, time_s) for port in fleet.outputs if port == "fleet/p" or time_s % 8 == 0
    }
    aggregator = toy("aggregator", ["fleet/p", "fleet/plugged"], ["aggregator/setpoint"])
    aggregator.act = lambda time_s, _: (
        {"aggregator/setpoint": aggregator.full("aggregator/setpoint", 7.0)} if time_s == 4 else {}
    )
    run_federation([aggregator, fleet], sizes, clock(5))
    assert aggregator.seen["fleet/p"] == [0, 0, 4, 8, 12]
    assert aggregator.seen["fleet/plugged"] == [0, 0, 0, 8, 8]
    assert fleet.seen["aggregator/setpoint"] == [0, 7, 7, 7, 7]


def test_every_bit_arrives(toy, sizes, clock):
    """aggregator --setpoint--> fleet --p--> feeder: a message and a vector"""
    odd = np.array([5e-324, -0.0, np.inf, -np.inf, 1.7976931348623157e308, 0.1, 2**53 + 2, -2.2e-308])
    sizes = {**sizes, "ev": len(odd), "member": 1, "connection": len(odd), "phase": 1}
    seen = {}

    def keep(port):
        def act(_, inputs):
            seen[port] = inputs[port].copy()
            return {"fleet/p": odd.reshape(1, -1, 1)} if port == "aggregator/setpoint" else {}

        return act

    run_federation(
        [
            toy("aggregator", outputs=["aggregator/setpoint"], act=lambda *_: {"aggregator/setpoint": odd}),
            toy("fleet", ["aggregator/setpoint"], ["fleet/p"], act=keep("aggregator/setpoint")),
            toy("feeder", ["fleet/p"], act=keep("fleet/p")),
        ],
        sizes,
        clock(2),
    )
    for values in seen.values():
        assert values.tobytes() == odd.tobytes()
    assert seen["fleet/p"].shape == (1, len(odd), 1)


def test_large_vectors(toy, sizes, clock):
    """fleet --p--> feeder, 300,000 doubles each, and as many in a message"""
    sizes = {**sizes, "connection": 50_000, "ev": 300_000}
    rng = np.random.default_rng(7)
    values = {p: rng.normal(size=s) for p, s in {"setpoint": 300_000, "p": (2, 50_000, 3)}.items()}
    checks = []
    run_federation(
        [
            toy("aggregator", outputs=["aggregator/setpoint"],
                act=lambda *_: {"aggregator/setpoint": values["setpoint"]}),
            toy("fleet", ["aggregator/setpoint"], ["fleet/p"], act=lambda _, inputs: (
                checks.append(np.array_equal(inputs["aggregator/setpoint"], values["setpoint"]))
                or {"fleet/p": values["p"]})),
            toy("feeder", ["fleet/p"], act=lambda _, inputs: (
                checks.append(np.array_equal(inputs["fleet/p"], values["p"])) or {})),
        ],
        sizes,
        clock(3),
    )  # fmt: skip
    assert checks == [True] * 6


def test_inputs_are_read_only_and_shaped(toy, sizes, clock):
    """fleet --p--> feeder"""
    found = []

    def act(_, inputs):
        found.append((inputs["fleet/p"].shape, inputs["fleet/p"].flags.writeable))
        with pytest.raises(TypeError):
            inputs["fleet/p"] = None
        return {}

    run_federation([toy("fleet", outputs=["fleet/p"]), toy("feeder", ["fleet/p"], act=act)], sizes, clock(1))
    assert found == [((2, 3, 3), False)]


def test_a_giver_may_change_its_array_afterwards(toy, sizes, clock):
    """fleet --p--> feeder: what was sent stays sent"""
    array = np.zeros((2, 3, 3))

    def act(time_s, _):
        array[...] = time_s
        return {"fleet/p": array}

    aggregator = toy("aggregator", ["fleet/p"])
    feeder = toy("feeder", ["fleet/p"])
    run_federation([aggregator, toy("fleet", outputs=["fleet/p"], act=act), feeder], sizes, clock(4))
    assert feeder.seen["fleet/p"] == [0, 4, 8, 12]
    assert aggregator.seen["fleet/p"] == [0, 0, 4, 8]


def test_no_ev(toy, sizes, clock):
    """aggregator --setpoint of no EV--> fleet --status of no EV--> aggregator"""
    sizes["ev"] = 0
    aggregator = toy("aggregator", ["fleet/soc"], ["aggregator/setpoint"], sizes=sizes)
    fleet = toy("fleet", ["aggregator/setpoint"], ["fleet/soc"], sizes=sizes)
    run_federation([aggregator, fleet], sizes, clock(3))
    assert fleet.times == [0, 4, 8]


@pytest.mark.parametrize(
    ("step_s", "ticks"),
    [(0.02, 50), (1 / 3, 50), (0.1, 50), (1e-3, 50), (1e-6, 50), (3600.0, 50), (1e6, 60), (86_400.0, 400)],
)
def test_ticks_of_any_length(toy, sizes, clock, step_s, ticks):
    """aggregator --setpoint--> fleet; beyond 104 days a double no longer holds whole nanoseconds"""
    aggregator = toy("aggregator", ["fleet/p"], ["aggregator/setpoint"], period_s=step_s)
    fleet = toy("fleet", ["aggregator/setpoint"], ["fleet/p"], period_s=2 * step_s)
    run_federation([aggregator, fleet], sizes, clock(ticks, step_s))
    assert aggregator.times == [tick * step_s for tick in range(ticks)]
    assert fleet.times == [tick * step_s for tick in range(0, ticks, 2)]
    assert fleet.seen["aggregator/setpoint"] == [time + 1 for time in fleet.times]


def test_one_model_alone(toy, sizes, clock):
    """feeder"""
    feeder = toy("feeder", outputs=["feeder/voltage"])
    run_federation([feeder], sizes, clock(3))
    assert feeder.times == [0, 4, 8]


def test_report_and_progress(toy, sizes, clock):
    """fleet --p--> feeder: finish once each, progress up to the end, times that add up"""
    import time

    done = []
    fleet = toy("fleet", outputs=["fleet/p"], act=lambda *_: time.sleep(0.01) or {})
    feeder = toy("feeder", ["fleet/p"])
    report = run_federation([fleet, feeder], sizes, clock(40), progress=done.append)
    assert (fleet.finished, feeder.finished) == (1, 1)
    assert done == sorted(done)
    assert len(done) > 2
    assert done[-1] == 160
    assert report.ticks == 40
    assert 0.4 < report.stepping_s["fleet"] < report.run_s < report.wall_s
    assert report.coupling_s == pytest.approx(
        report.run_s - sum(report.stepping_s.values()) - sum(report.finishing_s.values())
    )
    assert report.coupling_us_per_tick == pytest.approx(1e6 * report.coupling_s / 40)


def test_a_core_that_is_connected_is_known_to_its_broker():
    """Where it is not, HELICS sleeps 100 ms as the first federate is created."""
    import helics as h

    for number in range(20):
        names = [f"{what}-known-{number}" for what in ("broker", "core")]
        broker = h.helicsCreateBroker("inproc", names[0], "--federates=1 --loglevel=no_print")
        core = h.helicsCreateCore(
            "inproc", names[1], f"--federates=1 --loglevel=no_print --broker={names[0]}"
        )
        try:
            connect(core)
            assert ask_broker(broker, "root", "cores") == names[1:]
        finally:
            end([], core, broker)


def test_units_are_declared_at_both_ends(toy, sizes, clock, monkeypatch):
    """fleet --p in kW--> feeder"""
    import helics as h

    units = []
    for kind in ("GlobalPublication", "Input"):
        name = f"helicsFederateRegister{kind}"
        register = getattr(h, name)
        monkeypatch.setattr(
            h, name, lambda f, n, t, u, register=register: units.append((n, u)) or register(f, n, t, u)
        )
    run_federation([toy("fleet", outputs=["fleet/p"]), toy("feeder", ["fleet/p"])], sizes, clock(1))
    assert units == [("fleet/p", "kW"), ("feeder<-fleet/p", "kW")]
