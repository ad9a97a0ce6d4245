"""Settings of time series from files: what a file does not show by itself
(:mod:`evgrid.readers.time_tables`).

Every setting that takes a table of times and values takes these, beside its ``file``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from evgrid.readers.tables import TableForm
from evgrid.readers.time_tables import Reading
from evgrid.scenario.fields import Settings, TimeFormat, TimeZone, fault, one_or_several


def _text(value: Any) -> Any:
    """Numbers of meters as text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Columns(Settings):
    """Columns of a table of time series."""

    time: Annotated[
        tuple[str, ...],
        BeforeValidator(one_or_several, json_schema_input_type=str | tuple[str, ...]),
        Field(min_length=1),
    ] = ("time",)
    """Column of the time; several, such as [Date, Time], are joined by a blank."""
    offset: str | None = None
    """Column of the time's offset from UTC, such as +02:00 or CEST; needs tz."""
    name: str | None = None
    """Long table: column of the series' names, such as those of meters; left out: each series has a
    column."""
    value: str | None = None
    """Long table: column of the values."""

    @model_validator(mode="after")
    def _long(self) -> Self:
        if (self.name is None) != (self.value is None):
            raise fault("give both name and value, of a long table, or neither")
        return self


class TimeSeries(Settings):
    """Form of a file of time series."""

    time_format: TimeFormat | None = None
    """Form of the times, such as '%d.%m.%Y %H:%M'; left out: ISO 8601, or seconds from the run's start."""
    tz: TimeZone | None = None
    """Time zone of the run's local time and of the file, such as Europe/Berlin: the hour that comes twice and
    the one that is skipped are resolved. Left out: the times are the run's own."""
    times: Literal["local", "standard", "utc"] = "local"
    """Clock of the file's times, with tz: local, with summer time; standard, the zone's without; or utc."""
    label: Literal["start", "end"] = "start"
    """Whether a time is the begin or the end of the interval of its value."""
    year: Annotated[int, Field(ge=1900, le=2100)] | None = None
    """Year of the data that stands for that of the run, shifted by whole weeks, so that weekdays agree; left
    out: the data are of the run's own time."""
    gaps: Literal["error", "hold", "interpolate", "same_hour"] | None = None
    """Rule for intervals without a value. error: refused; hold: the value before; interpolate: on the line
    between the values before and after; same_hour: that of the same time on the nearest day before, else
    after. Left out: error where intervals must have one length (energy, tz, a long table, year, label: end),
    else a value holds until the next row."""
    columns: Columns = Columns()
    """Columns of times, and of names and values in a long table."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Sign between the cells of a CSV; left out: comma, semicolon or tab, as the header shows."""
    decimal: Literal[".", ","] | None = None
    """Decimal sign of numbers; the other sign may stand between thousands. Left out: as the numbers show."""
    encoding: Literal["utf-8", "utf-16", "cp1252", "latin-1"] | None = None
    """Encoding of a CSV; left out: UTF-8, or UTF-16 with a byte order mark."""
    header: Annotated[int, Field(ge=1, le=1000)] = 1
    """Line of a CSV, or row of Excel, that names the columns; those above are left out."""
    sheets: tuple[str, ...] = ()
    """Sheets of Excel; left out: all, one below the other."""
    scale: Annotated[float, Field(gt=-1e9, lt=1e9)] = 1.0
    """Factor of all values; negative turns their sign."""

    @model_validator(mode="after")
    def _zoned(self) -> Self:
        if self.tz is None and self.times != "local":
            raise fault(f"times = {self.times}: needs tz, the time zone of the run's local time")
        if self.columns.offset is not None and (self.tz is None or self.times != "local"):
            raise fault("columns.offset: needs tz, the time zone of the run's local time, and times: local")
        return self

    @property
    def reading(self) -> Reading:
        """The form, as the readers take it."""
        columns = self.columns
        form = TableForm(
            self.separator or "", self.decimal or "", self.encoding or "", self.header, self.sheets
        )
        return Reading(
            columns.time, self.time_format, self.tz or "", self.times, columns.offset or "", self.label,
            columns.name or "", columns.value or "", self.year, self.gaps, scale=self.scale, form=form,
        )  # fmt: skip

    @property
    def stated_form(self) -> list[str]:
        """Names of the settings of the form that differ from their defaults."""
        fields = {**TimeSeries.model_fields, **PowerSeries.model_fields, **PowerTable.model_fields}
        return [
            name
            for name in type(self).model_fields
            if name in fields and getattr(self, name) != type(self).model_fields[name].default
        ]

    def check_of_file(self) -> None:
        """Refuse settings of a file where there is none."""
        if self.stated_form:
            names = " and ".join(self.stated_form)
            raise fault(f"{names}: is of a file: give a file, or leave it out")


class PowerSeries(TimeSeries):
    """Form of a file of power or energy over time."""

    unit: Literal["W", "kW", "MW", "Wh", "kWh", "MWh"] | None = None
    """Unit of the values: of power, or of energy in each interval. Left out: that in a column's name, such as
    'Consumption (kWh)', else kW."""

    @property
    def reading(self) -> Reading:
        """The form, as the readers take it."""
        from dataclasses import replace

        return replace(super().reading, unit=self.unit or "")


class PowerTable(PowerSeries):
    """Form of a file of the power or energy of several elements over time."""

    names: dict[str, Annotated[str, BeforeValidator(_text, json_schema_input_type=str | int)]] = {}
    """Names of elements of the network, with those of their columns, or of their meters in a long table:
    {House 7: DE0071}. Elements that are not named here are called in the file as in the network. With it, and
    in a long table, series of others are not used; else they are faults."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        given = [*self.names.values()]
        twice = [name for name in dict.fromkeys(given) if given.count(name) > 1]
        if twice:
            raise fault(f"names: {twice[0]} is given for several elements")
        return self

    @property
    def reading(self) -> Reading:
        """The form, as the readers take it."""
        from dataclasses import replace

        return replace(super().reading, names=tuple(self.names.items()))
