"""The section ``aggregators`` of a scenario: strategies and their EVs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, model_validator

from evgrid.core.registry import Registry
from evgrid.errors import ScenarioError
from evgrid.scenario.fields import (
    Duration,
    ElementName,
    ExistingFile,
    OutputFile,
    Settings,
    fault,
    faults,
    faults_of,
)

if TYPE_CHECKING:
    from evgrid.aggregator.strategy import Strategy


class Selection(Settings):
    """The EVs of an aggregator: those that match all given criteria."""

    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the EVs, drawn; aggregators that differ only in the share draw from the same EVs, and none
    twice."""
    connections: tuple[ElementName, ...] | None = None
    """Connection points at which the EVs charge."""
    transformers: tuple[ElementName, ...] | None = None
    """Transformers next upstream of them; one of a bank stands for all of the bank."""
    vehicles: tuple[ElementName, ...] | None = None
    """Vehicle types."""
    upstream: bool | None = None
    """Whether the EVs are upstream of the modelled feeder."""

    @model_validator(mode="after")
    def _says_something(self) -> Selection:
        given = self.model_dump(exclude_none=True)
        if not given or () in given.values():
            raise fault(f"give one of {', '.join(type(self).model_fields)}, and no empty list")
        return self

    @property
    def besides_share(self) -> str:
        """All criteria but the share, as text; equal for selections that differ only in the share."""
        return self.model_dump_json(exclude={"share"})


class OwnCommunication(Settings):
    """The link between an aggregator and its chargers; keys left out are the scenario's."""

    delay: Annotated[Duration, Field(ge=0)] | None = None
    """Delay of a set-point."""
    telemetry: Annotated[Duration, Field(gt=0)] | None = None
    """Period at which it receives the chargers' reports, at least a tick."""
    loss: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of an EV's set-points that are lost."""


def selection_faults(aggregators: Mapping[str, StrategySettings]) -> list[str]:
    """Faults in the ``evs`` of aggregators that do not depend on the fleet, a sentence each."""
    rest = [name for name, settings in aggregators.items() if settings.evs is None]
    found = []
    if len(rest) > 1:
        found.append(
            f"aggregators: {', '.join(rest)} do not say which evs they have: one may, which takes the rest"
        )
    for names in alike(aggregators).values():
        total = sum(aggregators[name].evs.share for name in names)  # type: ignore[union-attr,misc]
        if total > 1.0 + 1e-9:
            found.append(
                f"aggregators: the evs.share of {', '.join(names)} add up to {total:g}: must be at most 1"
            )
    return found


def alike(aggregators: Mapping[str, StrategySettings]) -> dict[str, list[str]]:
    """Names of the aggregators that draw shares from the same EVs."""
    groups: dict[str, list[str]] = {}
    for name, settings in aggregators.items():
        if settings.evs is not None and settings.evs.share is not None:
            groups.setdefault(settings.evs.besides_share, []).append(name)
    return groups


STRATEGIES = Registry(
    {
        "arbitrage": "evgrid.aggregator.strategies.scheduled:Arbitrage",
        "demand_response": "evgrid.aggregator.strategies.signals:DemandResponse",
        "emissions": "evgrid.aggregator.strategies.signals:Emissions",
        "peak_limit": "evgrid.aggregator.strategies.peak_shaving:PeakLimit",
        "peak_shaving": "evgrid.aggregator.strategies.peak_shaving:PeakShaving",
        "pv_self_consumption": "evgrid.aggregator.strategies.self_consumption:SelfConsumption",
        "regulation": "evgrid.aggregator.strategies.regulation:Regulation",
        "reserve": "evgrid.aggregator.strategies.reserve:Reserve",
        "scheduled": "evgrid.aggregator.strategies.scheduled:Scheduled",
        "tou": "evgrid.aggregator.strategies.time_of_use:TimeOfUse",
        "uncontrolled": "evgrid.aggregator.strategies.uncontrolled:Uncontrolled",
        "v2g_peak_shaving": "evgrid.aggregator.strategies.peak_shaving:V2GPeakShaving",
        "voltage_support": "evgrid.aggregator.strategies.voltage_support:VoltageSupport",
    },
    base="evgrid.aggregator.strategy:Strategy",
)
"""The charging strategies."""


class StrategySettings(Settings):
    """Settings of an aggregator; a strategy with settings of its own extends it."""

    strategy: str
    """Name of a built-in strategy, or my_module:MyStrategy."""
    group: Literal["transformer", "feeder"] = "transformer"
    """Grouping of the EVs: by the transformer next upstream (those between the same two buses are one group),
    or the whole feeder."""
    evs: Selection | None = None
    """Its EVs, such as {share: 0.4}; left out: those that no other aggregator has."""
    communication: OwnCommunication | None = None
    """Its own link to the chargers; left out: the scenario's."""
    _class: type[Strategy] | None = PrivateAttr(None)

    @property
    def strategy_class(self) -> type[Strategy]:
        """The class of the strategy: the one that these settings were checked for."""
        return self._class or STRATEGIES.find(self.strategy)

    @property
    def user_classes(self) -> tuple[type, ...]:
        """The user's own classes that these settings name."""
        return (self.strategy_class,) if ":" in self.strategy else ()


class StateSettings(StrategySettings):
    """Base of the settings of a strategy that keeps arrays beyond a run; see ``Strategy.keeps``."""

    state: ExistingFile | None = None
    """File (.npz) with the arrays to begin with, as a run has saved them; left out: the strategy's own."""
    save_state: OutputFile | None = None
    """File (.npz) into which they are written when the run has ended; left out: none."""


def strategy_settings(given: Any, context: Mapping[str, Any], path: str) -> StrategySettings:
    """Check an aggregator's settings against those of the strategy that it names.

    Raises ScenarioError with every fault, each beginning with ``path``.
    """
    if isinstance(given, StrategySettings):
        return given
    if not isinstance(given, Mapping):
        raise ScenarioError([f"{path}: must be a mapping such as {{strategy: tou}}"])
    if not isinstance(given.get("strategy"), str):
        raise ScenarioError([f"{path}.strategy: is required"])
    try:
        cls = STRATEGIES.find(given["strategy"], context.get("folder"))
    except ValueError as error:
        raise ScenarioError([f"{path}.strategy = {given['strategy']}: {error}"]) from error
    try:
        settings: StrategySettings = cls.Settings.model_validate(given, context=dict(context))
    except ValidationError as error:
        raise ScenarioError(faults_of(error, cls.Settings, path)) from None
    fields = cls.Settings.model_fields
    if found := [
        f"{path}.{name}: has no meaning with the strategy {given['strategy']}"
        for name in cls.ignores
        if getattr(settings, name) != fields[name].default
    ]:
        raise ScenarioError(found)
    settings._class = cls
    return settings


def aggregators_of(value: Any, info: ValidationInfo) -> Any:
    """Check each aggregator's settings against those of the strategy that it names."""
    if not isinstance(value, Mapping):
        raise fault("must be a mapping of names to aggregators, such as {main: {strategy: tou}}")
    checked, found = {}, []
    for name, given in value.items():
        if given is None:  # an override that removes an aggregator
            continue
        if not (isinstance(name, str) and name.isidentifier()):
            found.append(f"aggregators: {name} can't be a name: must be a word of letters, digits and _")
            continue
        try:
            checked[name] = strategy_settings(given, info.context or {}, f"aggregators.{name}")
        except ScenarioError as error:
            found += error.faults
    if found:
        raise faults(found)
    return checked
