"""Settings of the federation: which federates are programs of the user's own, and where they join."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from evgrid.scenario.fields import Duration, Settings, fault

CORE_TYPE = "zmq"
"""Type of HELICS' cores and broker in every deployment but that of one process. Of those that were tried it
alone neither keeps a processor busy while it waits (zmqss) nor bounds the length of a message (tcpss)."""

_ADDRESS = re.compile(r"tcp://(?P<host>[^/:\s]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})")


def address_of(text: str) -> tuple[str, int]:
    """Host and port of an address ``tcp://HOST:PORT``.

    Raises ValueError, with what is allowed, for text that is none.
    """
    found = _ADDRESS.fullmatch(text)
    port = int(found["port"]) if found else 0
    if found is None or not 1 <= port <= 65500:
        raise ValueError(f"{text}: must be tcp://HOST:PORT, with a port from 1 to 65500")
    return found["host"].strip("[]"), port


def _address(text: str) -> str:
    try:
        address_of(text)
    except ValueError as error:
        raise fault(str(error)) from None
    return text


class FederationSettings(Settings):
    """Federates that other programs run, and how they join."""

    external: tuple[str, ...] = ()
    """Federates that are not evgrid's: some of system, aggregator or aggregator.NAME, sites, fleet, feeder.
    Each is a HELICS federate of this name that keeps to the sheet which ``evgrid ports`` prints."""
    broker: Annotated[str, AfterValidator(_address)] | None = None
    """Address at which HELICS' broker listens, such as tcp://127.0.0.1:23500; the next two ports are taken,
    too, and one more for each federate. Left out: free ones of this machine, which are printed."""
    wait: Annotated[Duration, Field(gt=0)] = 60.0
    """Time for which the run waits until all federates have joined."""
