"""Reading the files of a user's data: tables, JSON, numbers, times, and their faults.

==============  =================================================================================
``files``       a file as bytes, text or JSON: regular files only, up to a stated size
``tables``      CSV, Excel, Parquet and NetCDF as one kind of table; separator, decimal sign, encoding
``times``       local times: ISO 8601, a form that the scenario states, or seconds from the start
``time_tables`` time series over the run's clock: units, zones, labels, gaps, wide and long tables
``series``      a single one of them, which covers the run
``signals``     signals from outside, by what is known when
``openadr``     events of OpenADR 3
``ieee2030_5``  controls and curves of IEEE 2030.5
``faults``      the faults of a file as sentences, at most twenty rows of one kind
==============  =================================================================================

Every reader of evgrid uses these. Nothing is guessed from values: an ambiguous cell is a fault that says how
to resolve it.
"""

from evgrid.readers.faults import Faults, capped, shown
from evgrid.readers.files import read_json, read_text
from evgrid.readers.tables import Table, read_table
from evgrid.readers.times import read_times, utc_times

__all__ = [
    "Faults",
    "Table",
    "capped",
    "read_json",
    "read_table",
    "read_text",
    "read_times",
    "shown",
    "utc_times",
]
