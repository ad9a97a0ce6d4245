"""Wiring of ports and order of steps of a federation, before HELICS.

In: the models of a run. Out: the place of each one: its offset inside the tick, its number
of steps, the federates it waits for and its outputs that others take. Everything follows from
``ports.port`` and ``ports.CAUSAL_ORDER``. All faults are collected and raised together.
No HELICS here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evgrid.core.model import Clock, Model
from evgrid.core.ports import CAUSAL_ORDER, Port, kind_of, port
from evgrid.errors import EvgridError

SHORTEST_TICK_S = 1e-6
"""Shortest tick, s: HELICS counts whole nanoseconds, and a tick must leave room for offsets."""

MOST_AGAIN = 1000
"""Most repetitions of a step in a tick, whose turns must fit between two offsets: more is a model that never
converges."""

_LONGEST_OFFSET_S = 1e-3
_PARTS = 16
"""Offsets that fit in a tick: each federate has one of its own, and none the whole tick."""


class WiringError(EvgridError):
    """Models that can't be put together; ``faults`` holds one sentence each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"federation: {count}", *(f"  {fault}" for fault in self.faults)]))


@dataclass(frozen=True, slots=True)
class Place:
    """A model's place in the federation.

    stride : ticks between its steps
    steps : number of its steps, ticks / stride
    offset_s : time of its step inside a tick; larger than that of every federate before it
    waits_for : federates that HELICS must let pass before this one, besides those whose ports
        it takes
    taken : its outputs that another model takes
    again_on : its inputs from the model with which it iterates; new values make it repeat its step
    leads : whether it is the first to step of the two that iterate with each other, who share an offset
    meets : it iterates in every so manieth of its steps: where the other model steps, too
    turn_s : time between two turns of the two inside a tick, which are those of the leader and of the
        other one alternately; 0 where it does not iterate
    """

    model: Model
    stride: int
    steps: int
    offset_s: float
    waits_for: tuple[str, ...]
    taken: frozenset[str]
    again_on: frozenset[str] = frozenset()
    leads: bool = False
    meets: int = 1
    turn_s: float = 0.0


def wire(
    models: Sequence[Model],
    sizes: Mapping[str, int],
    clock: Clock,
    message_delay_s: Mapping[str, float] | float = 0.0,
) -> tuple[Place, ...]:
    """The place of every model, in causal order.

    Raises WiringError with every fault found.
    """
    faults = [
        *_run_faults(models, clock, message_delay_s),
        *_name_faults(models),
        *_output_faults(models),
        *_input_faults(models),
        *_size_faults(models, sizes),
        *(fault for model in models for fault in _period_faults(model, clock)),
    ]
    ordered = list[Model]()
    if not faults:
        ordered = sorted(models, key=lambda model: CAUSAL_ORDER.index(kind_of(model.name)))
        faults = _iteration_faults(ordered)
    if faults:
        raise WiringError(faults)
    names = [model.name for model in ordered]
    strides = [_stride(model, clock) for model in ordered]
    taken = {port for model in ordered for port in model.inputs}
    loop = [model.name for model in ordered if model.iterates]
    loop = loop if len(loop) > 1 else []
    leader = names.index(loop[0]) if loop else len(names)
    slowest = max((stride for name, stride in zip(names, strides, strict=True) if name in loop), default=1)
    return tuple(
        Place(
            model=model,
            stride=stride,
            steps=clock.ticks // stride,
            offset_s=((leader if model.name in loop else position) + 1) * offset_s(clock.step_s),
            waits_for=_waits_for(position, names, strides, bool(loop)),
            taken=frozenset(taken.intersection(model.outputs)),
            again_on=frozenset(
                name for name in model.inputs if model.name in loop and port(name).publisher in loop
            ),
            leads=position == leader,
            meets=slowest // stride if model.name in loop else 1,
            turn_s=turn_s(clock.step_s) if model.name in loop else 0.0,
        )
        for position, (model, stride) in enumerate(zip(ordered, strides, strict=True))
    )


def offset_s(tick_s: float) -> float:
    """Time between two federates inside a tick: 1 ms, or a sixteenth of a tick shorter than 16 ms.

    A whole number of nanoseconds; all federates of ``CAUSAL_ORDER`` fit in a third of a tick, with
    ten aggregators in a whole one.
    """
    return round(min(_LONGEST_OFFSET_S, tick_s / _PARTS) * 1e9) / 1e9


def turn_s(tick_s: float) -> float:
    """Time between two turns of models that iterate with each other: 1 us, or less in short ticks.

    A whole number of nanoseconds.
    """
    return max(round(offset_s(tick_s) / MOST_AGAIN * 1e9), 1) / 1e9


def _waits_for(position: int, names: Sequence[str], strides: Sequence[int], iterate: bool) -> tuple[str, ...]:
    """The federates that one waits for, so that one steps at a time whatever ports they share.

    Without this a model that takes nothing would run ahead to the end of the run. With one period
    it is enough that each waits for the one before it, and the first for the last; with several
    periods 'the one before' changes from tick to tick, so each waits for all, and so where some
    iterate.
    """
    if len(set(strides)) > 1 or iterate:
        return tuple(name for name in names if name != names[position])
    return (names[position - 1],) if len(names) > 1 else ()


def _stride(model: Model, clock: Clock) -> int:
    return round(model.period_s / clock.step_s)


def delay_of(name: str, message_delay_s: Mapping[str, float] | float) -> float:
    """Delay of the messages of a port, s."""
    return message_delay_s.get(name, 0.0) if isinstance(message_delay_s, Mapping) else message_delay_s


def _run_faults(
    models: Sequence[Model], clock: Clock, message_delay_s: Mapping[str, float] | float
) -> list[str]:
    faults = []
    if not models:
        faults.append("there is no model")
    if len(models) >= _PARTS:
        faults.append(f"there are {len(models)} federates: at most {_PARTS - 1} fit in a tick")
    if not (math.isfinite(clock.step_s) and clock.step_s >= SHORTEST_TICK_S):
        faults.append(f"clock.step_s = {clock.step_s:g}: must be at least {SHORTEST_TICK_S:g} s")
    if clock.ticks < 1:
        faults.append(f"clock.ticks = {clock.ticks}: must be at least 1")
    delays = message_delay_s if isinstance(message_delay_s, Mapping) else {"": message_delay_s}
    faults += [
        f"message_delay_s{f' of {name}' if name else ''} = {delay_s:g}: must be 0 or more seconds"
        for name, delay_s in delays.items()
        if not (math.isfinite(delay_s) and delay_s >= 0)
    ]
    return faults


def _name_faults(models: Sequence[Model]) -> list[str]:
    counts = Counter(model.name for model in models)
    order = ", ".join(CAUSAL_ORDER)
    return [
        *(
            f"{name}: unknown federate; known are {order}"
            for name in counts
            if kind_of(name) not in CAUSAL_ORDER
        ),
        *(f"{name}: {n} models have this name; one is allowed" for name, n in counts.items() if n > 1),
    ]


def _output_faults(models: Sequence[Model]) -> list[str]:
    faults = []
    givers: dict[str, list[str]] = {}
    for model in models:
        faults += _repeated(model.name, "outputs", model.outputs)
        for name in dict.fromkeys(model.outputs):
            found = _known(name)
            if found is None:
                faults.append(f"{model.name}.outputs: unknown port {name}")
                continue
            givers.setdefault(name, []).append(model.name)
            if found.publisher != model.name:
                faults.append(f"{model.name}.outputs: {name} belongs to {found.publisher}")
    faults += [
        f"{name}: given by {len(by)} models ({', '.join(by)}); one is allowed"
        for name, by in givers.items()
        if len(by) > 1
    ]
    return faults


def _input_faults(models: Sequence[Model]) -> list[str]:
    faults = []
    outputs = {model.name: set(model.outputs) for model in models}
    for model in models:
        faults += _repeated(model.name, "inputs", model.inputs)
        for name in dict.fromkeys(model.inputs):
            found = _known(name)
            if found is None:
                faults.append(f"{model.name}.inputs: unknown port {name}")
            elif not {model.name, kind_of(model.name)}.intersection(found.subscribers):
                faults.append(f"{model.name}.inputs: {name} is taken by {', '.join(found.subscribers)} only")
            elif found.publisher not in outputs:
                faults.append(
                    f"{model.name}.inputs: {name} comes from {found.publisher}, which is not in the run"
                )
            elif name not in outputs[found.publisher]:
                faults.append(f"{model.name}.inputs: {name} is not among the outputs of {found.publisher}")
    return faults


def _known(name: str) -> Port | None:
    try:
        return port(name)
    except KeyError:
        return None


def _repeated(federate: str, field: str, names: Sequence[str]) -> list[str]:
    return [f"{federate}.{field}: {name} is listed {n} times" for name, n in Counter(names).items() if n > 1]


def _size_faults(models: Sequence[Model], sizes: Mapping[str, int]) -> list[str]:
    used = {
        dim: name
        for model in models
        for name in (*model.inputs, *model.outputs)
        if (found := _known(name)) is not None
        for dim in found.shape
    }
    faults = [
        f"sizes: {dim} is missing; {name} has this dimension"
        for dim, name in used.items()
        if dim not in sizes
    ]
    faults += [
        f"sizes.{dim} = {sizes[dim]}: must be 0 or more" for dim in used if dim in sizes and sizes[dim] < 0
    ]
    return faults


def _iteration_faults(ordered: Sequence[Model]) -> list[str]:
    """Reasons why models, in causal order, can't solve for each other inside a step."""
    loop = [model for model in ordered if model.iterates]
    if len(loop) < 2:
        return []
    names, first = [model.name for model in loop], loop[0]
    span = ordered[ordered.index(first) : ordered.index(loop[-1])]
    if len(loop) > 2:
        return [f"{', '.join(names)} iterate: two models can iterate with each other"]
    faults = [
        f"{model.name}: steps between {names[0]} and {names[-1]}, which iterate"
        for model in span
        if not model.iterates
    ]
    for model in loop:
        others = set(names[1:] if model is first else names[:1])
        if not others.intersection(port(name).publisher for name in model.inputs):
            faults.append(f"{model.name} iterates, but takes nothing from {' or '.join(sorted(others))}")
        times = model.period_s / first.period_s
        if not math.isclose(times, max(round(times), 1), rel_tol=1e-9):
            faults.append(
                f"{model.name}.period_s = {model.period_s:g}: must be a multiple of that of {first.name}, "
                f"{first.period_s:g}, with which it iterates"
            )
    return faults


def _period_faults(model: Model, clock: Clock) -> list[str]:
    if not (clock.step_s >= SHORTEST_TICK_S and clock.ticks >= 1):
        return []
    period, tick = model.period_s, clock.step_s
    stride = round(period / tick) if math.isfinite(period) else 0
    if stride < 1 or not math.isclose(stride * tick, period, rel_tol=1e-9):
        return [f"{model.name}.period_s = {period:g}: must be a multiple of the tick of {tick:g} s"]
    if clock.ticks % stride:
        return [
            f"{model.name}.period_s = {period:g}: the run of {clock.duration_s:g} s "
            "is not a whole number of these periods"
        ]
    return []
