"""What vehicles lose by power, and how warm their cells are: constants and time series of the fleet.

Losses are coefficients a (kW), b, c (1/kW) of ``a + b Pb + c Pb**2`` at battery power Pb.
"""

from __future__ import annotations

from dataclasses import replace
from math import atan, cos, exp, hypot, pi

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Clock
from evgrid.core.units import DAY_S
from evgrid.fleet.sessions.sessions import BIDIRECTIONAL, Sessions
from evgrid.readers.series import read_series
from evgrid.scenario.ambient import RULES, Sinusoid, TemperatureFile, start_hour
from evgrid.scenario.fleet import Temperature

ONE_PHASE = (0.2559, 0.0807, 0.0)
THREE_PHASE = (0.3290, 0.0411, 3.2e-3)
"""Losses of on-board chargers on one and on three phases: least squares (relative, none negative) through
the registration-weighted mean efficiency of eight EVs at 6, 8, 10, 12, 14, 16 A: 75.6, 79.3, 82.4, 83.5,
85.5, 86.2 % on one phase, 87.7, 88.2, 90.3, 90.3, 90.3, 90.3 % on three. The fit is within 0.8 points."""


def with_losses_by_power(sessions: Sessions, three_phases: NDArray[np.bool_]) -> Sessions:
    """The sessions with quadratic losses; ``three_phases``, (session,): whether each charges on them."""
    charge, discharge = np.empty_like(sessions.charge_loss), np.empty_like(sessions.discharge_loss)
    bidirectional = sessions.discharge_kw > 0
    charge[:] = np.where(three_phases[:, None], THREE_PHASE, ONE_PHASE)
    charge[bidirectional] = BIDIRECTIONAL
    discharge[:] = BIDIRECTIONAL
    return replace(sessions, charge_loss=charge, discharge_loss=discharge)


class IdleCell:
    """Cell temperature of a car that stands idle: the ambient through a first-order lag, °C.

    Constant and sinusoidal ambients have gone on for ever; one from a file was at its first value
    before the run.
    """

    def __init__(self, settings: Temperature, clock: Clock) -> None:
        self._tau_s, self._ambient = settings.time_constant, settings.ambient
        self._series = None
        if isinstance(self._ambient, TemperatureFile):
            file = self._ambient
            self._series = read_series(file.file, clock, RULES, file.column, file.reading)
            self._now_s, self._now_c = 0.0, float(self._series.mean(0.0, clock.step_s))
        self._start_h = start_hour(clock)

    def at(self, time_s: float) -> float:
        """Temperature at ``time_s``, °C; from a file, times must not fall."""
        if isinstance(self._ambient, Sinusoid):
            omega = 2.0 * pi / DAY_S
            lag = omega * self._tau_s
            phase = omega * time_s + 2.0 * pi * (self._start_h - self._ambient.warmest_h) / 24.0
            swing = self._ambient.amplitude_c / hypot(1.0, lag)
            return float(self._ambient.mean_c + swing * cos(phase - atan(lag)))
        if self._series is not None:
            if time_s > self._now_s:
                mean = float(self._series.mean(self._now_s, time_s))
                self._now_c = mean + (self._now_c - mean) * exp(-(time_s - self._now_s) / self._tau_s)
                self._now_s = time_s
            return self._now_c
        assert isinstance(self._ambient, int | float)
        return float(self._ambient)
