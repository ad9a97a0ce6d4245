"""Hot spot and insulation ageing of oil-immersed transformers: IEC 60076-7:2018 and IEEE C57.91-2011.

In: load factor K of each transformer (current per rated current, worst phase) and ambient
temperature, each constant over a step. Out: top-oil and hot-spot temperature, relative ageing
rate, loss of life.

**Model** (IEC 60076-7:2018, clause 8.2, differential form). With the load factor K and the ambient
temperature θa,

- top oil: k11 τo dθo/dt = [(1 + K² R)/(1 + R)]^x Δθor + θa - θo
- hot-spot gradient, winding part: k22 τw dΔθh1/dt = k21 K^y Δθhr - Δθh1
- hot-spot gradient, oil part: (τo / k22) dΔθh2/dt = (k21 - 1) K^y Δθhr - Δθh2
- hot spot: θh = θo + Δθh1 - Δθh2

Each is linear in its state, so a step of constant K and θa is advanced by its exact solution
``end + (start - end) exp(-t/τ)``: two steps of 30 s give the same as one of 60 s, and no step is
too long. (The standard's own difference equations are the first-order form of this, good for
steps up to half the smallest time constant.) Only the load depends on the recording interval: K enters with
the power 2x or y, so the mean of a varying K heats less than K itself.

The thermal model of IEEE C57.91-2011, clause 7.2, is the same with k11 = k21 = k22 = 1, x = n,
y = 2m, Δθor the top-oil rise and Δθhr the hottest-spot rise over top oil; its correction of the
oil time constant for n other than 1 is left out.

**Ageing.** Rate V relative to normal ageing (IEC 60076-7, clause 6.3): 2^((θh - 98)/6) for
non-upgraded paper, exp(15000/383 - 15000/(θh + 273)) for thermally upgraded paper, which is also
the ageing acceleration factor FAA of IEEE C57.91, clause 5. Loss of life is the integral of V over
time, by Gauss-Legendre quadrature on the exact hot-spot temperature inside the step. Only the thermal ageing
of the paper is modelled. IEC 60076-7:2018, clause 7, Table 2, allows no hot spot above 160 °C, for
short-time emergency loading (140 °C for long-time; above that, bubbles of gas may break the insulation down
at once). A transformer that gets hotter than ``LAW_UP_TO_C`` has no loss of life here: it is NaN, and a
run's summary says so. Its temperatures are kept.

A load of NaN is a transformer that no source feeds: it has neither load nor no-load losses and
cools to ambient. Left out: oil viscosity with temperature, moisture and oxygen, tap position,
cooling stages that switch, sun.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evgrid.core.jit import njit
from evgrid.core.model import Variable
from evgrid.scenario.devices import TransformerThermal

if TYPE_CHECKING:
    pass

Floats = NDArray[np.float64]

NORMAL_LIFE_H = 180000.0
"""Normal insulation life, h (IEEE C57.91-2011, Table 2: 20.55 years at 110 °C)."""

LAW_UP_TO_C = 160.0
"""Hot spot, °C, up to which a loss of life is reported: the highest that IEC 60076-7:2018, Table 2,
allows.
"""


# ---------------------------------------------------------------------------------------- kernels

TOP_OIL, WINDING, OIL_PART, HIGHEST, LIFE = range(5)
"""Columns of the state: θo (°C), Δθh1 (K), Δθh2 (K); highest hot spot (°C) and loss of life (h of normal
ageing) since the start."""

_RISE, _GRADIENT, _RATIO, _X, _Y, _K21, _UPGRADED = range(7)
_NODES = 4
_PANEL = 0.25  # of the fastest time constant: error of the loss of life below 1e-6 from 200 % to 0


class Tables(NamedTuple):
    """Constants of the transformers and the step for :func:`advance`.

    constants : (trafo, 7), see the source
    decay : (trafo, node + 1, 3) exp(-t/τ) of θo, Δθh1 and Δθh2 at the nodes inside the step and at its end
    weights : (node,) shares of the step, sum 1
    hours : length of the step
    """

    constants: Floats
    decay: Floats
    weights: Floats
    hours: float


@njit
def _rate(hot_spot_c: float, upgraded: bool) -> float:
    """Ageing per normal ageing (IEC 60076-7:2018, equations 2 and 3)."""
    if upgraded:
        return math.exp(15000.0 / 383.0 - 15000.0 / (hot_spot_c + 273.0))
    return math.pow(2.0, (hot_spot_c - 98.0) / 6.0)


@njit
def _ends(load: float, ambient_c: float, p: Floats) -> tuple[float, float, float]:
    """Steady-state θo, Δθh1 and Δθh2 at a constant load and ambient temperature; p: constants."""
    if math.isnan(load):
        return ambient_c, 0.0, 0.0
    oil = ((1.0 + load * load * p[_RATIO]) / (1.0 + p[_RATIO])) ** p[_X] * p[_RISE]
    gradient = abs(load) ** p[_Y] * p[_GRADIENT]
    return ambient_c + oil, p[_K21] * gradient, (p[_K21] - 1.0) * gradient


@njit
def settle(state: Floats, load: Floats, ambient_c: Floats, constants: Floats) -> None:
    """Set the state to the steady state of a load (IEC 60076-7:2018, Annex I: initial conditions).

    state : (member, trafo, 5), written; load : (member, trafo); ambient_c : (member,)
    """
    for m in range(state.shape[0]):
        for t in range(state.shape[1]):
            oil, winding, oil_part = _ends(load[m, t], ambient_c[m], constants[t])
            state[m, t, TOP_OIL], state[m, t, WINDING], state[m, t, OIL_PART] = oil, winding, oil_part


@njit
def advance(tables: Tables, state: Floats, load: Floats, ambient_c: Floats, means: Floats) -> None:
    """Advance all transformers over steps of constant load and ambient temperature, exactly.

    state : (member, trafo, 5), advanced in place
    load : (time, member, trafo), per rated current, NaN where not energised
    ambient_c : (time, member), °C
    means : (time, member, trafo, 2), hot spot and top oil, means over each step, °C, written
    """
    nodes = len(tables.weights)
    steps, members, trafos = load.shape
    for step in range(steps):
        for m in range(members):
            for t in range(trafos):
                p, d, s = tables.constants[t], tables.decay[t], state[m, t]
                oil, winding, part = _ends(load[step, m, t], ambient_c[step, m], p)
                d_oil, d_winding, d_part = s[TOP_OIL] - oil, s[WINDING] - winding, s[OIL_PART] - part
                mean_top, mean_hot, rate = 0.0, 0.0, 0.0
                highest = max(s[HIGHEST], oil + d_oil + winding + d_winding - part - d_part)
                for n in range(nodes):
                    top = oil + d_oil * d[n, TOP_OIL]
                    hot = top + winding + d_winding * d[n, WINDING] - part - d_part * d[n, OIL_PART]
                    mean_top += tables.weights[n] * top
                    mean_hot += tables.weights[n] * hot
                    rate += tables.weights[n] * _rate(hot, p[_UPGRADED] > 0)
                    highest = max(highest, hot)
                s[TOP_OIL] = oil + d_oil * d[nodes, TOP_OIL]
                s[WINDING] = winding + d_winding * d[nodes, WINDING]
                s[OIL_PART] = part + d_part * d[nodes, OIL_PART]
                s[HIGHEST] = max(highest, s[TOP_OIL] + s[WINDING] - s[OIL_PART])
                s[LIFE] += rate * tables.hours
                means[step, m, t, 0], means[step, m, t, 1] = mean_hot, mean_top


def make_tables(trafos: Sequence[TransformerThermal], step_s: float) -> Tables:
    """Tables of the transformers for a step of ``step_s`` seconds."""
    constants = np.array(
        [
            (p.top_oil_rise_k, p.gradient_k, p.loss_ratio, p.oil_exponent, p.winding_exponent, p.k21,
             float(p.paper == "upgraded"))
            for p in trafos
        ]
    ).reshape(-1, 7)  # fmt: skip
    tau = np.array(
        [
            (p.k11 * p.oil_time_constant_min, p.k22 * p.winding_time_constant_min,
             p.oil_time_constant_min / p.k22)
            for p in trafos
        ]
    ).reshape(-1, 3)  # fmt: skip
    minutes = step_s / 60
    panels = max(1, math.ceil(minutes / (_PANEL * tau.min()))) if len(trafos) else 1
    points, shares = np.polynomial.legendre.leggauss(_NODES)
    at = (np.arange(panels)[:, None] + (points + 1) / 2).reshape(-1) / panels
    decay = np.exp(-np.append(at, 1.0)[None, :, None] * minutes / tau[:, None, :])
    return Tables(constants, decay, np.tile(shares / 2, panels) / panels, step_s / 3600)


# ------------------------------------------------------------------------------------------ models


class ThermalState:
    """Top oil, hot spot and loss of life of all transformers of all members, advanced step by step.

    >>> import numpy as np
    >>> state = ThermalState([PRESETS["onan_distribution"]], members=1, step_s=60.0)
    >>> state.settle(np.array([[1.0]]), 20.0)
    >>> state.step(np.array([[1.0]]), 20.0)
    array([[98.]])
    """

    def __init__(self, trafos: Sequence[TransformerThermal], members: int, step_s: float) -> None:
        """Start at 0 °C; call :meth:`settle` before the first step.

        Parameters
        ----------
        trafos
            Constants of each transformer.
        members, step_s
            Number of members; length of a step, s.

        """
        self._tables = make_tables(trafos, step_s)
        self._state = np.zeros((members, len(trafos), 5))
        self._state[..., HIGHEST] = -np.inf
        self._means = np.zeros((1, members, len(trafos), 2))

    @property
    def hot_spot_c(self) -> Floats:
        """(member, trafo), °C: mean over the last step."""
        return self._means[-1, ..., 0]

    @property
    def top_oil_c(self) -> Floats:
        """(member, trafo), °C: mean over the last step."""
        return self._means[-1, ..., 1]

    @property
    def highest_c(self) -> Floats:
        """(member, trafo), °C: highest hot spot since the start."""
        return self._state[..., HIGHEST]

    @property
    def life_h(self) -> Floats:
        """(member, trafo): loss of life since the start, in hours of normal ageing, at any hot spot."""
        return self._state[..., LIFE]

    @property
    def end_hot_spot_c(self) -> Floats:
        """(member, trafo), °C: hot spot at the end of the last step."""
        s = self._state
        return np.asarray(s[..., TOP_OIL] + s[..., WINDING] - s[..., OIL_PART])

    @property
    def end_top_oil_c(self) -> Floats:
        """(member, trafo), °C: top oil at the end of the last step."""
        return self._state[..., TOP_OIL].copy()

    def settle(self, load: Floats, ambient_c: float | Floats) -> None:
        """Start from the steady state of a load, (member, trafo), and an ambient temperature, (member,)."""
        ambient = np.ascontiguousarray(np.broadcast_to(_floats(ambient_c), self._state.shape[:1]))
        settle(self._state, _floats(load), ambient, self._tables.constants)

    def start(self, top_oil_c: float | Floats, winding_k: float | Floats, oil_part_k: float | Floats) -> None:
        """Start from given θo (°C), Δθh1 and Δθh2 (K), (member, trafo) or a number."""
        for column, values in ((TOP_OIL, top_oil_c), (WINDING, winding_k), (OIL_PART, oil_part_k)):
            self._state[..., column] = values

    def step(self, load: Floats, ambient_c: float | Floats) -> Floats:
        """Advance by one step; the mean hot spot over it, (member, trafo), °C.

        load : (member, trafo), per rated current; ambient_c : (member,) or a number, °C
        """
        self.run(_floats(load)[np.newaxis], ambient_c)
        return self.hot_spot_c

    def run(self, load: Floats, ambient_c: float | Floats) -> tuple[Floats, Floats]:
        """Advance over a series; mean hot spot and mean top oil of each step, (time, member, trafo), °C.

        load : (time, member, trafo); ambient_c : (time, member), (time, 1), (member,) or a number
        """
        load = _floats(load)
        ambient = np.ascontiguousarray(np.broadcast_to(_floats(ambient_c), load.shape[:2]))
        self._means = np.empty((*load.shape, 2))
        advance(self._tables, self._state, load, ambient, self._means)
        return self._means[..., 0], self._means[..., 1]


def _floats(values: Any) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float64)


_OUTSIDE = f"; NaN where the hot spot passed {LAW_UP_TO_C:g} °C, where the equations do not hold"

VARIABLES = (
    Variable("trafo_hot_spot_c", ("member", "trafo"), "degC",
             "hot-spot temperature of the transformer, mean of the interval"),
    Variable("trafo_top_oil_c", ("member", "trafo"), "degC",
             "top-oil temperature of the transformer, mean of the interval"),
    Variable("trafo_hot_spot_highest_c", ("member", "trafo"), "degC", "highest hot-spot temperature",
             timed=False),
    Variable("trafo_life_h", ("member", "trafo"), "h", f"loss of life in hours of normal ageing{_OUTSIDE}",
             timed=False),
    Variable("trafo_ageing_factor", ("member", "trafo"), "1",
             f"mean ageing rate per normal ageing{_OUTSIDE}", timed=False),
    Variable("trafo_loss_of_life_percent", ("member", "trafo"), "%",
             f"loss of life per normal life of 180,000 h{_OUTSIDE}", timed=False),
)  # fmt: skip
"""Variables of the transformers' ageing."""


def outcome(state: ThermalState, hours: float) -> dict[str, Floats]:
    """The variables without time after ``hours``, (member, trafo) each.

    Of a transformer whose hot spot passed LAW_UP_TO_C, those of its loss of life are NaN.
    """
    life_h = np.where(state.highest_c > LAW_UP_TO_C, np.nan, state.life_h)
    factor = life_h / hours
    return {
        "trafo_hot_spot_highest_c": state.highest_c,
        "trafo_life_h": life_h,
        "trafo_ageing_factor": factor,
        "trafo_loss_of_life_percent": loss_of_life_percent(factor, hours),
    }


# ----------------------------------------------------------------------------------------- ageing


def ageing_rate(hot_spot_c: ArrayLike, paper: str = "non_upgraded") -> Floats:
    """Ageing rate V per normal ageing (IEC 60076-7:2018, clause 6.3).

    hot_spot_c : any shape, °C. Non-upgraded: 1 at 98 °C, doubling every 6 K. Upgraded: 1 at 110 °C.

    >>> ageing_rate([98.0, 104.0]).tolist()
    [1.0, 2.0]
    """
    hot = np.asarray(hot_spot_c, dtype=np.float64)
    if paper == "upgraded":
        return np.asarray(np.exp(15000.0 / 383.0 - 15000.0 / (hot + 273.0)))
    if paper == "non_upgraded":
        return np.asarray(np.exp2((hot - 98.0) / 6.0))
    raise ValueError(f"paper = {paper}: must be non_upgraded or upgraded")


def ageing_acceleration_factor(hot_spot_c: ArrayLike) -> Floats:
    """FAA of IEEE C57.91-2011, clause 5.2: exp(15000/383 - 15000/(θh + 273)), 1 at 110 °C."""
    return ageing_rate(hot_spot_c, "upgraded")


def equivalent_ageing_factor(rate: ArrayLike, hours: ArrayLike) -> float:
    """FEQA of IEEE C57.91-2011, clause 5.3: mean of the ageing factors, weighted with their hours."""
    return float(np.average(np.asarray(rate, dtype=np.float64), weights=np.asarray(hours, dtype=np.float64)))


def loss_of_life_percent(factor: ArrayLike, hours: float, normal_life_h: float = NORMAL_LIFE_H) -> Floats:
    """Loss of insulation life, %: FEQA t 100 / normal life (IEEE C57.91-2011, clause 5.4).

    A day at a factor of 1 is 24 / 180000 = 0.0133 %.
    """
    return np.asarray(factor, dtype=np.float64) * hours * 100.0 / normal_life_h
