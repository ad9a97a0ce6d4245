"""Random streams: every draw of a run comes from a stream of its own.

A stream is addressed by the scenario's seed, the number of the member, the purpose, and, where
needed, the day and the attempt. So member 17 draws the same numbers on its own, in an ensemble
of a thousand or on another machine, and an additional draw changes nothing elsewhere.
"""

from __future__ import annotations

from enum import IntEnum, unique

import numpy as np


@unique
class Purpose(IntEnum):
    """Purpose of a stream. The numbers are part of every result's reproducibility: never reuse one."""

    DEPLOYMENT = 1
    """Order in which households get an EV."""
    EV = 2
    """Attributes of each EV."""
    TRAVEL_TIMES = 3
    """Departures and arrivals of a day."""
    DISTANCE = 4
    """Distances of a day."""
    BASE_LOAD = 5
    """Diversity of the base load."""
    MESSAGE_LOSS = 6
    """Loss of messages."""
    PERMISSION = 7
    """Permissions to discharge, and EVSEs with local functions."""
    LINK_LATENCY = 8
    """Latency of each EVSE's link."""
    LINK_OUTAGE = 9
    """Outages of each EVSE's link: number, beginnings, durations."""
    REGULATION = 20
    """The synthetic regulation signal of a day."""
    VEHICLE = 30
    """Vehicle type of each EV."""
    USE = 31
    """Whether an EV is driven, arrives or is rented on a day."""
    PLUG_IN = 32
    """Whether an EV that arrives plugs in."""
    STAY = 33
    """Durations of sessions of a day."""
    OPT_OUT = 40
    """EVs that opt out of a demand-response event."""
    AGGREGATOR = 41
    """EVs of an aggregator with a share."""
    FORECAST = 42
    """Errors of a plan's forecasts."""
    SIGNAL = 43
    """Randomised starts and durations of the events of a signal."""
    OUTAGE = 50
    """Outages of a year: number, elements, begins and durations."""
    RETURN = 51
    """Time after which each EV's EVSE enters service when supply returns."""
    HEAT_PUMP = 61
    """Order in which households get an added heat pump."""
    PV = 62
    """Order in which households get added PV."""
    SITE = 60
    """Connection points of groups of sites."""


def stream(seed: int, member: int, purpose: Purpose, day: int = 0, attempt: int = 0) -> np.random.Generator:
    """The random stream of one purpose in one member.

    Parameters
    ----------
    seed
        ``scenario.ensemble.seed``.
    member
        Number of the member as in ``scenario.members``, not its position in this run.
    purpose
        Purpose of the draw.
    day
        Number of the day for daily draws, at least 0 (``datetime.date.toordinal``).
    attempt
        Counts the repetitions where draws are rejected and drawn again.

    """
    key = (member, int(purpose), day, attempt)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
