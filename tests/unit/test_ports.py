"""Ports: named, wired in one direction, and pictured in the documentation."""

import pytest

from evgrid.core.ports import (
    CAUSAL_ORDER,
    PORTS,
    kind_of,
    port,
    ports_published,
    ports_subscribed,
)


@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS)
def test_a_port_is_given_and_taken_by_federates_of_the_causal_order(port):
    assert port.name.startswith(f"{port.publisher}/")
    assert {port.publisher, *port.subscribers} <= set(CAUSAL_ORDER)
    assert port.publisher not in port.subscribers
    assert port.text


def test_every_port_is_found_from_both_ends():
    assert {p.name for f in CAUSAL_ORDER for p in ports_published(f)} == set(PORTS)
    assert {p.name for f in CAUSAL_ORDER for p in ports_subscribed(f)} == set(PORTS)


def test_shapes_and_lengths():
    sizes = {"member": 2, "connection": 5, "phase": 3, "ev": 7}
    assert PORTS["fleet/p"].array_shape(sizes) == (2, 5, 3)
    assert PORTS["fleet/p"].length(sizes) == 30
    assert PORTS["aggregator/setpoint"].length(sizes) == 7


def test_an_aggregators_own_ports():
    asked, drawn = port("aggregator.north/setpoint"), port("fleet/own_p.north")
    assert (asked.publisher, asked.subscribers, asked.transport) == (
        "aggregator.north",
        ("sites", "fleet"),
        "message",
    )
    assert asked.length({"ev": 7, "ev.north": 3}) == 3
    assert (drawn.publisher, drawn.subscribers) == ("fleet", ("aggregator.north",))
    assert kind_of("aggregator.north") == kind_of("aggregator") == "aggregator"
    assert port("fleet/p") is PORTS["fleet/p"]


@pytest.mark.parametrize("name", ["fleet/speed", "aggregator.north/speed", "fleet/speed.north", "nonsense"])
def test_there_is_no_such_port(name):
    with pytest.raises(KeyError):
        port(name)
