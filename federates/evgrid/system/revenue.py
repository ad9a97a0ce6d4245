"""Revenue of regulation.

Revenues are in the currency of the prices; capacity is in MW or kW as the name says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array


@dataclass(frozen=True, slots=True)
class Revenue:
    """Revenue from being available, and from the energy dispatched."""

    capacity: float
    energy: float

    @property
    def total(self) -> float:
        """Sum of both."""
        return self.capacity + self.energy


def regulation_revenue(
    power_kw: float,
    plugged_h: float,
    capacity_price: float,
    dispatch_ratio: float,
    energy_price: float,
) -> Revenue:
    """Revenue of a vehicle that sells regulation up, by Kempton and Tomić.

    ``revenue = p_cap P t_plug + p_el P t_plug R``: R is the energy dispatched per energy that would be
    dispatched at full power all the time. Costs are left out. 15 kW for 18 h a day of a year, at
    0.04 per kW and hour and 0.10 per kWh with R = 0.1, earn 3942.00 + 985.50 = 4927.50.

    Parameters
    ----------
    power_kw
        Capacity sold, kW.
    plugged_h
        Hours for which it is sold, h.
    capacity_price
        Currency per kW and hour.
    dispatch_ratio
        R, 0 to 1.
    energy_price
        Currency per kWh.

    References
    ----------
    Kempton and Tomić 2005, Journal of Power Sources 144, 268-279, 10.1016/j.jpowsour.2004.12.025.

    """
    if not 0 <= dispatch_ratio <= 1:
        raise ValueError(f"dispatch_ratio = {dispatch_ratio:g}: must be between 0 and 1")
    if power_kw < 0 or plugged_h < 0:
        raise ValueError(f"power_kw = {power_kw:g}, plugged_h = {plugged_h:g}: must be at least 0")
    offered_kwh = power_kw * plugged_h
    return Revenue(capacity_price * offered_kwh, energy_price * offered_kwh * dispatch_ratio)


EARNS_FROM = 0.25
"""Hourly PJM score below which an hour earns nothing (PJM Manual 12)."""
QUALIFIES_FROM = 0.75
"""PJM score of a qualification test that passes (PJM Manual 12)."""
KEEPS_FROM = 0.40
"""Mean PJM score over the last 100 hours below which a resource is disqualified (PJM Manual 12)."""
_KEEPS_HOURS = 100


def pjm_credit(
    capacity_mw: Array | float,
    score: Array | float,
    capability_price: Array | float,
    performance_price: Array | float,
    mileage_ratio: Array | float = 1.0,
) -> Array:
    """PJM's regulation credit of each hour: MW · score · (RMCCP + mileage ratio · RMPCP).

    An hour with a score under 0.25 earns nothing. Arguments broadcast; prices (RMCCP, RMPCP) are in
    currency per MW and hour. 2 MW at 0.9, 20 and 3 with a mileage ratio of 3 earn 52.20.
    """
    score = np.asarray(score, dtype=np.float64)
    price = np.asarray(capability_price) + np.asarray(mileage_ratio) * np.asarray(performance_price)
    return np.where(score >= EARNS_FROM, np.asarray(capacity_mw) * score * price, 0.0)


def pjm_qualifies(score: Array | float) -> NDArray[np.bool_]:
    """Whether a qualification test passes: a score of at least 0.75."""
    return np.asarray(np.asarray(score) >= QUALIFIES_FROM)


def pjm_disqualified(hourly_scores: Array) -> NDArray[np.bool_]:
    """Whether the mean over the last 100 hours is under 0.40, at the end of each hour.

    hourly_scores : (..., hour). Returns (..., hour) bool; False in the first 99 hours.
    """
    scores = np.asarray(hourly_scores, dtype=np.float64)
    result = np.zeros(scores.shape, dtype=np.bool_)
    if scores.shape[-1] >= _KEEPS_HOURS:
        windows = np.lib.stride_tricks.sliding_window_view(scores, _KEEPS_HOURS, axis=-1)
        result[..., _KEEPS_HOURS - 1 :] = windows.mean(axis=-1) < KEEPS_FROM - 1e-12
    return result


def caiso_credit(
    capacity_mw: Array | float,
    capacity_price: Array | float,
    mileage: Array | float,
    accuracy: Array | float,
    mileage_price: Array | float,
    hours: float = 0.25,
) -> Array:
    """CAISO's regulation revenue of each period: capacity · hours · price + mileage · accuracy · price.

    ``mileage`` is that of the signal of one MW (so MW moved per MW of capacity); arguments broadcast.
    """
    capacity = np.asarray(capacity_mw, dtype=np.float64)
    adjusted = np.asarray(mileage) * np.asarray(accuracy)
    return np.asarray(capacity * (hours * np.asarray(capacity_price) + adjusted * np.asarray(mileage_price)))
