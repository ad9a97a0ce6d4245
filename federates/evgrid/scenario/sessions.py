"""The settings of ``fleet.sessions``: where sessions come from, and with which statistics.

A source is a name (``home``), a name with other parameters (``{source: home, return_h: [18, 3]}``),
or a file (``{file: ...}``, ``{acn: ...}``, ``{elaad: ...}``, ``{nhts: ...}``).

**No parameter below is a measurement of your drivers.** Each default says what it is: *assumed*
where nothing stands behind it but plausibility; else its source.

Times of day are normal, with mean and standard deviation in hours, given that they lie within the
day and in order; distances are lognormal, with mean and standard deviation of the logarithm of
miles. A distance with (3.20, 0.88) has the median 24.5 and the mean 36.1 miles.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from evgrid.scenario.fields import (
    ElementName,
    ExistingFile,
    Settings,
    Share,
    TimeFormat,
    fault,
    faults,
    faults_of,
)

TimeOfDay = tuple[Annotated[float, Field(ge=0, le=24)], Annotated[float, Field(gt=0, le=12)]]
"""Mean and standard deviation, h of the day."""
LogMiles = tuple[Annotated[float, Field(ge=-5, le=8)], Annotated[float, Field(gt=0, le=3)]]
"""Mean and standard deviation of the logarithm of the miles."""


def _ascending(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if any(after[0] <= before[0] for before, after in itertools.pairwise(points)):
        raise fault("the states of charge must ascend")
    return points


PlugIn = (
    Literal["always", "evi_pro"]
    | Annotated[list[tuple[Share, Share]], Field(min_length=1), AfterValidator(_ascending)]
)


class SampledSessions(Settings):
    """What all sampled sources share."""

    plug_in: PlugIn = "always"
    """Whether an EV that arrives plugs in: always; evi_pro: with the probability of charging on a day
    of EVI-Pro (as used by OCHRE; level 1, up to 1.92 kW: 0.9; level 2: 0.2 from 70 kWh, 0.33 from 35 kWh, 0.5
    below); or pairs [state of charge, probability], linear in between."""
    plug_in_below_soc: Share = 0.2
    """State of charge below which it always plugs in (assumed; evi_pro only)."""
    warm_up_days: Annotated[int, Field(ge=1, le=366)] = 7
    """Days sampled before the start, at whose beginning every EV is at its target."""

    @model_validator(mode="after")
    def _below_soc_of_evi_pro(self) -> Self:
        usual = type(self).model_fields["plug_in_below_soc"].default
        if self.plug_in != "evi_pro" and self.plug_in_below_soc != usual:
            raise fault(f"plug_in_below_soc = {self.plug_in_below_soc:g}: is for plug_in = evi_pro")
        return self


class _OutAndBack(SampledSessions):
    """EVs that leave their charger and return to it once a day."""

    departure_h: TimeOfDay
    """Time of the departure, h of the day: mean and standard deviation."""
    return_h: TimeOfDay
    """Time of the return, h of the day: mean and standard deviation."""
    log_miles: LogMiles
    """Mean and standard deviation of the logarithm of the day's miles."""
    weekend_departure_h: TimeOfDay | None = None
    """The same on Saturday and Sunday; left out: as on weekdays."""
    weekend_return_h: TimeOfDay | None = None
    """The same on Saturday and Sunday; left out: as on weekdays."""
    weekend_log_miles: LogMiles | None = None
    """The same on Saturday and Sunday; left out: as on weekdays."""
    driven_weekday: Share = 1.0
    """Probability that the EV is driven on a weekday (assumed); else it stays where it is."""
    driven_weekend: Share = 1.0
    """Probability that the EV is driven on a day of the weekend (assumed)."""
    shortest_trip_h: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Least time between departure and return, h (assumed)."""

    @model_validator(mode="after")
    def _in_order(self) -> _OutAndBack:
        for prefix in ("", "weekend_"):
            leave = getattr(self, f"{prefix}departure_h") or self.departure_h
            back = getattr(self, f"{prefix}return_h") or self.return_h
            if leave[0] + self.shortest_trip_h > back[0]:
                raise fault(f"the mean of {prefix}return_h must be {self.shortest_trip_h:g} h after that of "
                            f"{prefix}departure_h at least")  # fmt: skip
        return self


class HomeSessions(_OutAndBack):
    """At home, from the return to the next departure.

    The defaults are assumptions of the order of US household travel; weekends are as weekdays.
    """

    source: Literal["home"] = "home"
    """The name of this source."""
    departure_h: TimeOfDay = (8.92, 3.24)
    """Departure, h: mean and standard deviation (assumed)."""
    return_h: TimeOfDay = (17.6, 3.4)
    """Return, h: mean and standard deviation (assumed)."""
    log_miles: LogMiles = (3.20, 0.88)
    """Logarithm of the day's miles: mean and standard deviation (assumed; median 24.5, mean 36.1)."""


class DeliveryVanSessions(_OutAndBack):
    """Delivery vans at their depot, out once a working day. All assumed.

    Out at 8:00, back at 16:30, 55 miles in the median, on every weekday and every third day of the weekend.
    """

    source: Literal["delivery_van"] = "delivery_van"
    """The name of this source."""
    departure_h: TimeOfDay = (8.0, 0.75)
    """Departure from the depot, h: mean and standard deviation (assumed)."""
    return_h: TimeOfDay = (16.5, 1.25)
    """Return to the depot, h: mean and standard deviation (assumed)."""
    log_miles: LogMiles = (4.0, 0.4)
    """Logarithm of the day's miles: mean and standard deviation (assumed; median 55, mean 59)."""
    driven_weekend: Share = 0.33
    """Probability of a tour on a day of the weekend (assumed)."""


class SchoolBusSessions(SampledSessions):
    """Electric school buses at their depot: two routes on school days, charged at noon and at night.

    Two routes a weekday with a long stay between, and 25 miles a trip in the mean, are from
    NREL/JA-5400-91260 (270 school buses, Transportation Research Part D 144, 2025). The times of
    day and the spread of the miles are assumed. Weekend trips are left out by default.
    """

    source: Literal["school_bus"] = "school_bus"
    """The name of this source."""
    morning_out_h: TimeOfDay = (6.25, 0.35)
    """Departure for the morning route, h: mean and standard deviation (assumed)."""
    morning_back_h: TimeOfDay = (8.75, 0.4)
    """Return from it, h: mean and standard deviation (assumed)."""
    afternoon_out_h: TimeOfDay = (14.0, 0.4)
    """Departure for the afternoon route, h: mean and standard deviation (assumed)."""
    afternoon_back_h: TimeOfDay = (16.75, 0.5)
    """Return from it, h: mean and standard deviation (assumed)."""
    log_miles: LogMiles = (3.139, 0.4)
    """Logarithm of the miles of a route: mean and standard deviation (mean 25 miles)."""
    driven_weekday: Share = 1.0
    """Probability that a bus drives its routes on a weekday of a school month (assumed)."""
    driven_weekend: Share = 0.0
    """Probability that a bus drives two such routes on a day of the weekend (assumed)."""
    school_months: list[Annotated[int, Field(ge=1, le=12)]] = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
    """Months with school (assumed: all but July); in others the buses stay plugged in."""
    shortest_trip_h: Annotated[float, Field(gt=0, le=2)] = 0.25
    """Least length of a route and of the stay between, h (assumed)."""

    @model_validator(mode="after")
    def _in_order(self) -> SchoolBusSessions:
        means = [h[0] for h in (self.morning_out_h, self.morning_back_h, self.afternoon_out_h,
                                self.afternoon_back_h)]  # fmt: skip
        if any(after < before + self.shortest_trip_h for before, after in itertools.pairwise(means)):
            raise fault("the four times of day must be in order, shortest_trip_h apart at least")
        return self


class RentalSessions(SampledSessions):
    """Rental cars at their station: rented for whole days, plugged in while they wait. All assumed.

    Each day, a car at the station is rented with a probability; a rented one returns on each later
    day with the probability 1/mean_days, so that rentals last geometrically, ``mean_days`` in the mean.
    """

    source: Literal["rental"] = "rental"
    """The name of this source."""
    pick_up_h: TimeOfDay = (11.0, 2.5)
    """Pick-up, h: mean and standard deviation (assumed)."""
    return_h: TimeOfDay = (15.0, 3.0)
    """Return, h: mean and standard deviation (assumed)."""
    mean_days: Annotated[float, Field(ge=1, le=60)] = 3.0
    """Mean length of a rental, days (assumed)."""
    rented_weekday: Share = 0.5
    """Probability that a waiting car is rented on a weekday (assumed)."""
    rented_weekend: Share = 0.5
    """Probability that a waiting car is rented on a day of the weekend (assumed)."""
    log_miles: LogMiles = (4.0, 0.6)
    """Logarithm of the miles of a day of rental: mean and standard deviation (assumed; median 55)."""


class _Visits(SampledSessions):
    """EVs that come to a charger on some days, and charge nowhere else."""

    visits_weekday: Share
    """Probability of a visit on a weekday."""
    visits_weekend: Share
    """Probability of a visit on a day of the weekend."""
    log_miles: LogMiles = (3.20, 0.88)
    """Logarithm of the miles of every day, visit or not: mean and standard deviation (assumed)."""


class WorkplaceSessions(_Visits):
    """At work. An EV charges nowhere else, so it comes with the miles of all days since its last session.

    Arrival and departure are near the one week of ACN-Data at Caltech that the validation uses (weekday
    sessions over 3 h: arrival 10.4 h, 2.5 h; departure 16.8 h, 2.6 h); visits are assumed.
    """

    source: Literal["workplace"] = "workplace"
    """The name of this source."""
    arrival_h: TimeOfDay = (10.4, 2.5)
    """Arrival, h: mean and standard deviation (ACN-Data, one week)."""
    departure_h: TimeOfDay = (16.8, 2.6)
    """Departure, h: mean and standard deviation (ACN-Data, one week)."""
    visits_weekday: Share = 0.8
    """Probability of a day at work, on a weekday (assumed)."""
    visits_weekend: Share = 0.05
    """Probability of a day at work, on a day of the weekend (assumed)."""
    shortest_stay_h: Annotated[float, Field(gt=0, le=4)] = 0.5
    """Least length of a stay, h (assumed)."""

    @model_validator(mode="after")
    def _in_order(self) -> WorkplaceSessions:
        if self.arrival_h[0] + self.shortest_stay_h > self.departure_h[0]:
            raise fault("the mean of departure_h must be shortest_stay_h after that of arrival_h at least")
        return self


class _ShortVisits(_Visits):
    """Visits with a time of arrival and a length."""

    arrival_h: TimeOfDay
    """Arrival, h: mean and standard deviation."""
    log_stay_h: tuple[Annotated[float, Field(ge=-5, le=4)], Annotated[float, Field(gt=0, le=3)]]
    """Mean and standard deviation of the logarithm of the length of the stay, h."""
    longest_stay_h: Annotated[float, Field(gt=0, le=72)] = 24.0
    """Length to which stays are cut, h (assumed)."""


class PublicSessions(_ShortVisits):
    """Public AC charging, for drivers without a charger of their own. All assumed."""

    source: Literal["public"] = "public"
    """The name of this source."""
    arrival_h: TimeOfDay = (14.5, 4.5)
    """Arrival, h: mean and standard deviation (assumed)."""
    log_stay_h: tuple[Annotated[float, Field(ge=-5, le=4)], Annotated[float, Field(gt=0, le=3)]] = (1.1, 0.9)
    """Logarithm of the stay, h: mean and standard deviation (assumed; median 3.0 h)."""
    visits_weekday: Share = 0.5
    """Probability of parking at the charger on a weekday (assumed)."""
    visits_weekend: Share = 0.5
    """Probability of parking at the charger on a day of the weekend (assumed)."""


class DcFastSessions(_ShortVisits):
    """DC fast charging: short stops, more likely the emptier the battery. All assumed."""

    source: Literal["dc_fast"] = "dc_fast"
    """The name of this source."""
    arrival_h: TimeOfDay = (14.0, 4.0)
    """Arrival, h: mean and standard deviation (assumed)."""
    log_stay_h: tuple[Annotated[float, Field(ge=-5, le=4)], Annotated[float, Field(gt=0, le=3)]] = (
        -0.69,
        0.5,
    )
    """Logarithm of the stay, h: mean and standard deviation (assumed; median 30 min)."""
    longest_stay_h: Annotated[float, Field(gt=0, le=72)] = 2.0
    """Length to which stays are cut, h (assumed)."""
    visits_weekday: Share = 1.0
    """Probability of passing the charger on a weekday (assumed)."""
    visits_weekend: Share = 1.0
    """Probability of passing the charger on a day of the weekend (assumed)."""
    plug_in: PlugIn = [(0.2, 1.0), (0.6, 0.0)]
    """Probability of plugging in by state of charge (assumed): certain below 0.2, none above 0.6."""


class SessionFile(Settings):
    """Charging sessions from a table, or frozen by ``evgrid sessions``."""

    file: ExistingFile
    """CSV, Parquet or NetCDF with a row a session: ev, connection, phase, arrival, departure,
    soc_arrival or energy_kwh, capacity_kwh, power limits; or a table frozen by ``evgrid sessions``."""
    time_format: TimeFormat | None = None
    """Form of arrival and departure, such as '%d.%m.%Y %H:%M'; left out: ISO 8601, or s from the start."""


class _ImportedFile(Settings):
    """Recorded sessions of another format."""

    connections: ElementName | list[ElementName] | dict[ElementName, ElementName] | None = None
    """Where the EVSEs (or households) of the file are: one connection point, several over which they are
    dealt in order of their first session, or a mapping; left out: dealt over all connection points."""


class AcnFile(_ImportedFile):
    """Sessions of ACN-Data."""

    acn: ExistingFile
    """JSON file of ACN-Data."""
    charge_kw: Annotated[float, Field(gt=0)] = 6.656
    """Rating of the EVSEs, kW, which the data does not say: 32 A at 208 V."""
    ratings: dict[ElementName, Annotated[float, Field(gt=0)]] = {}
    """Ratings of EVSEs that differ, kW by stationID or spaceID."""


class ElaadFile(_ImportedFile):
    """Sessions of ElaadNL."""

    elaad: ExistingFile
    """CSV file of ElaadNL transactions."""
    times: Literal["local", "utc"] = "local"
    """What the columns named UTC hold: local times, as reported, or UTC."""
    zone: str = "Europe/Amsterdam"
    """Zone of the local times."""
    time_format: TimeFormat | None = None
    """Form of the times, such as '%m/%d/%Y %H:%M'; left out: day/month/year, as documented, or ISO 8601."""


class NhtsFile(_ImportedFile):
    """Charging at home that follows from the trips of the US National Household Travel Survey."""

    nhts: ExistingFile
    """The survey's file of trips, of 2017 (trippub.csv) or 2022 (tripv2pub.csv)."""
    wave: Literal[2017, 2022] | None = None
    """The survey's wave, whose codes differ; left out: told by the columns VEHCASEID or SEQ_TRIPID (2022) and
    TRACC_WLK or TREGR_WLK (2017)."""
    day: Annotated[date, Field(ge=date(1900, 1, 1), lt=date(2200, 1, 1))] | None = None
    """Date on which the surveyed day is put first; left out: the day before the run's first."""
    days: Annotated[int, Field(ge=1, le=3660)] | None = None
    """How often the day is repeated; left out: until the end of the run."""


ImportedFile = AcnFile | ElaadFile | NhtsFile
Source = (
    HomeSessions | WorkplaceSessions | PublicSessions | DcFastSessions | SchoolBusSessions | RentalSessions
    | DeliveryVanSessions | SessionFile | AcnFile | ElaadFile | NhtsFile
)  # fmt: skip

SOURCES: dict[str, type[SampledSessions]] = {
    "home": HomeSessions, "workplace": WorkplaceSessions, "public": PublicSessions,
    "dc_fast": DcFastSessions, "school_bus": SchoolBusSessions, "rental": RentalSessions,
    "delivery_van": DeliveryVanSessions,
}  # fmt: skip
FILES: dict[str, type[Settings]] = {
    "file": SessionFile, "acn": AcnFile, "elaad": ElaadFile, "nhts": NhtsFile,
}  # fmt: skip


def session_source(value: Any, context: Any) -> Settings:
    """The settings of a source as a scenario gives it.

    Raises PydanticCustomError with every fault, each with its path.
    """
    allowed = f"must be one of {', '.join(SOURCES)}, or {{{': ...}, {'.join(FILES)}: ...}}"
    if isinstance(value, Settings):
        return value
    if isinstance(value, str):
        value = {"source": value}
    if not isinstance(value, Mapping):
        raise faults([f"fleet.sessions: {allowed}"])
    kinds = [key for key in FILES if key in value]
    if "source" in value and not kinds:
        found: type[Settings] | None = SOURCES.get(str(value["source"]))
    else:
        found = FILES[kinds[0]] if len(kinds) == 1 else None
    if found is None:
        given = f" = {value['source']}" if "source" in value and not kinds else ""
        raise faults([f"fleet.sessions{given}: {allowed}"])
    try:
        return found.model_validate(value, context=context)
    except ValidationError as error:
        raise faults(faults_of(error, found, "fleet.sessions")) from None
