"""Weather files that a test writes: EPW and PVGIS."""

import numpy as np
import pandas as pd


def hours(year, count=8760):
    return pd.date_range(f"{year}-01-01", periods=count, freq="h")


def code(index):
    """A temperature that tells the hours of a year apart within some days."""
    return (np.asarray(index) % 101) * 0.5


def write_epw(path, year=2003, change=None):
    """An EPW of UTC+1, whose hour k has the temperature code(k); ``change``: of its table of hours."""
    index = hours(year)
    frame = pd.DataFrame({"ghi": 300, "dni": 400, "dhi": 100, "t": code(np.arange(len(index)))}, index=index)
    if change is not None:
        frame = change(frame)
    lines = ["LOCATION,Nowhere,-,DEU,IWEC,000000,52.52,13.40,1.0,40.0"]
    lines += [f"{name},0" for name in ("DESIGN", "TYPICAL", "GROUND", "HOLIDAYS", "COMMENTS 1", "COMMENTS 2")]
    lines.append("DATA PERIODS,1,1,Data,Sunday, 1/ 1,12/31")
    for when, row in zip(frame.index, frame.itertuples(), strict=True):
        cells = [when.year, when.month, when.day, when.hour + 1, 60, "?9", row.t, 1.0, 50, 101300, 9999, 9999]
        cells += [315, row.ghi, row.dni, row.dhi, 999999, 999999, 999999, 9999, 180, 3.0, 5, 5, 9999, 99999]
        lines.append(",".join(map(str, [*cells, 9, 999999999, 10, 0.1, 0, 88, 0.2, 0, 0])))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_pvgis(path, year=2005, typical=True, count=8760, minute=0, change=None):
    """A PVGIS file in UTC, whose hour k has the temperature code(k); ``change``: of its rows."""
    lines = [
        "Latitude (decimal degrees): 45.000",
        "Longitude (decimal degrees): 8.000",
        "Elevation (m): 250.0",
    ]
    if typical:
        lines += ["Irradiance Time Offset (h): 0.1761", "month,year", *(f"{m},{year}" for m in range(1, 13))]
        lines.append("time(UTC),T2m,RH,G(h),Gb(n),Gd(h),IR(h),WS10m,WD10m,SP")
    else:
        lines += ["Radiation database:\tPVGIS-SARAH3", "", "time,Gb(n),Gd(h),G(h),H_sun,T2m,WS10m,Int"]
    rows = [
        (when + pd.Timedelta(minute, "min")).strftime("%Y%m%d:%H%M")
        + (f",{t},50,300,400,100,300,3,180,99000" if typical else f",400,100,300,20,{t},3,0.0")
        for when, t in zip(hours(year, count), code(np.arange(count)), strict=True)
    ]
    lines += rows if change is None else change(rows)
    path.write_text("\r\n".join([*lines, "", "T2m: temperature"]) + "\r\n", encoding="utf-8")
    return path
