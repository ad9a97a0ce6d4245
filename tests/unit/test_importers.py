"""Importers: small files in each format, with sessions, reasons and notes worked by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from evgrid.core.model import Connections
from evgrid.errors import ScenarioError
from evgrid.fleet.sessions.importers import read_acn, read_elaad, read_nhts, read_plain, undeliverable
from evgrid.fleet.sessions.table import read_sessions
from evgrid.scenario import scenario_from
from evgrid.scenario.fleet import Vehicle


def stamps(column):
    return [None if pd.isna(value) else str(value) for value in column]


def tallied(report):
    """Reason -> number of rows, after checking that no row was lost."""
    counts = {reason: len(rows) for reason, rows in report.dropped.items()}
    assert report.read == report.kept + sum(counts.values())
    return counts


# --- ACN-Data ---


def acn(session, **changes):
    record = {
        "_id": "x",
        "clusterID": "0039",
        "connectionTime": "Wed, 14 Jul 2021 16:00:00 GMT",
        "disconnectTime": "Wed, 14 Jul 2021 18:00:00 GMT",
        "doneChargingTime": "Wed, 14 Jul 2021 17:30:00 GMT",
        "kWhDelivered": 6.0,
        "sessionID": session,
        "siteID": "0002",
        "spaceID": "CA-1",
        "stationID": "2-39-1-1",
        "timezone": "America/Los_Angeles",
        "userID": None,
        "userInputs": None,
    }
    return record | changes


def acn_file(tmp_path, *records):
    path = tmp_path / "acn.json"
    path.write_text(json.dumps({"_meta": {}, "_items": list(records)}))
    return path


def test_acn_times_energy_and_inputs(tmp_path):
    inputs = [
        {"kWhRequested": 99.0, "requestedDeparture": "Wed, 14 Jul 2021 17:00:00 GMT"},
        {"kWhRequested": 8.5, "requestedDeparture": "Wed, 14 Jul 2021 19:00:00 GMT"},
    ]
    result = read_acn(acn_file(tmp_path, acn("S1", userID="7", userInputs=inputs), acn("S2")))
    first, second = (result.table.iloc[i] for i in range(2))
    assert str(first["arrival"]) == "2021-07-14 09:00:00"  # PDT is UTC - 7 h
    assert str(first["departure"]) == "2021-07-14 11:00:00"
    assert str(first["charged"]) == "2021-07-14 10:30:00"
    assert str(first["arrival_utc"]) == "2021-07-14 16:00:00+00:00"
    assert first["requested_departure"] == pd.Timestamp("2021-07-14T12:00")  # of the last input
    assert first["energy_requested_kwh"] == 8.5
    assert first[["ev", "evse", "space"]].tolist() == ["user-7", "2-39-1-1", "CA-1"]
    assert first["energy_kwh"] == 6.0
    assert first["charge_kw"] == 6.656
    assert second["ev"] == "session-S2"
    assert pd.isna(second["requested_departure"])
    assert math.isnan(second["energy_requested_kwh"])
    assert "without a user, made an EV each" in result.report.notes


def test_acn_a_list_of_records_and_no_end_of_charging(tmp_path):
    path = tmp_path / "acn.json"
    path.write_text(json.dumps([acn("S1", doneChargingTime=None)]))
    assert stamps(read_acn(path).table["charged"]) == [None]


def test_acn_winter_and_the_nights_on_which_clocks_change(tmp_path):
    result = read_acn(
        acn_file(
            tmp_path,
            # winter: PST is UTC - 8 h
            acn(
                "winter",
                connectionTime="Fri, 15 Jan 2021 01:00:00 GMT",
                disconnectTime="Fri, 15 Jan 2021 03:00:00 GMT",
            ),
            # 14 March 2021: 2:00 PST becomes 3:00 PDT; 9:30 to 10:30 UTC is 1 h, 1:30 to 3:30 local
            acn(
                "spring",
                connectionTime="Sun, 14 Mar 2021 09:30:00 GMT",
                disconnectTime="Sun, 14 Mar 2021 10:30:00 GMT",
            ),
            # 7 November 2021: 2:00 PDT becomes 1:00 PST; 8:30 to 10:30 UTC is 2 h, 1:30 to 2:30 local
            acn(
                "autumn",
                connectionTime="Sun, 07 Nov 2021 08:30:00 GMT",
                disconnectTime="Sun, 07 Nov 2021 10:30:00 GMT",
            ),
            # 8:50 to 9:20 UTC is 1:50 to 1:20 on the clock
            acn(
                "back",
                connectionTime="Sun, 07 Nov 2021 08:50:00 GMT",
                disconnectTime="Sun, 07 Nov 2021 09:20:00 GMT",
            ),
        )
    )
    table = result.table.set_index("session")
    assert stamps(table["arrival"]) == ["2021-01-14 17:00:00", "2021-03-14 01:30:00", "2021-11-07 01:30:00"]
    assert stamps(table["departure"]) == ["2021-01-14 19:00:00", "2021-03-14 03:30:00", "2021-11-07 02:30:00"]
    true = (table["departure_utc"] - table["arrival_utc"]).dt.total_seconds() / 3600
    assert true.tolist() == [2, 1, 2]
    (note,) = (rows for text, rows in result.report.notes.items() if "clocks change" in text)
    assert note == ("spring", "autumn")
    assert result.report.dropped == {
        "with departure not after arrival on the local clock, put back in between": ("back",)
    }


def test_acn_two_cars_of_one_user(tmp_path):
    result = read_acn(
        acn_file(
            tmp_path,
            acn("A", userID="7"),
            acn("B", userID="7", stationID="2", connectionTime="Wed, 14 Jul 2021 17:00:00 GMT"),
            acn(
                "C",
                userID="7",
                connectionTime="Wed, 14 Jul 2021 18:00:00 GMT",
                disconnectTime="Wed, 14 Jul 2021 19:00:00 GMT",
            ),
        )
    )
    assert result.table["ev"].tolist() == ["user-7", "user-7-car2", "user-7"]
    assert result.report.notes == {
        "overlapping another session of the same user, made a further EV": ("B",),
    }


def test_acn_overlap_on_the_local_clock_only(tmp_path):
    # One ends at 8:40 UTC (1:40 PDT), the next begins at 9:10 UTC (1:10 PST) of the same user
    first = acn(
        "A",
        userID="7",
        connectionTime="Sun, 07 Nov 2021 06:00:00 GMT",
        disconnectTime="Sun, 07 Nov 2021 08:40:00 GMT",
    )
    second = acn(
        "B",
        userID="7",
        connectionTime="Sun, 07 Nov 2021 09:10:00 GMT",
        disconnectTime="Sun, 07 Nov 2021 12:00:00 GMT",
    )
    result = read_acn(acn_file(tmp_path, first, second))
    assert result.table["ev"].tolist() == ["user-7", "user-7-car2"]
    assert not any("same EVSE" in note for note in result.report.notes)  # one after the other in truth


def test_acn_reasons(tmp_path):
    result = read_acn(
        acn_file(
            tmp_path,
            acn("good"),
            acn("no begin", connectionTime=None),
            acn("iso without a zone", disconnectTime="2021-07-14T18:00:00"),
            acn("no zone in it", disconnectTime="Wed, 14 Jul 2021 18:00:00"),
            acn("reversed", disconnectTime="Wed, 14 Jul 2021 16:00:00 GMT"),
            acn("text", kWhDelivered="6"),
            acn("nothing", kWhDelivered=0),
            acn("null zone", timezone=None),
            acn("odd zone", timezone="Mars/Olympus"),
            acn("nowhere", stationID=None, spaceID=None),
            acn("good"),
            17,
        )
    )
    assert result.table["session"].tolist() == ["good"]
    assert tallied(result.report) == {
        "without a readable connectionTime": 1,
        "without a readable disconnectTime": 2,
        "with disconnectTime not after connectionTime": 1,
        "without a readable kWhDelivered": 1,
        "with no energy delivered": 1,
        "without a known timezone": 2,
        "without stationID and spaceID": 1,
        "with a sessionID seen before": 1,
        "that are no record": 1,
    }
    text = str(result.report)
    assert "read 12 sessions, kept 1, dropped 11" in text
    assert "2 without a readable disconnectTime (iso without a zone, no zone in it)" in text
    assert "1 that are no record (record 12)" in text
    assert "Assumed: EVSEs are rated 6.656 kW, since the data does not say." in text


def test_acn_ratings_by_station_or_space(tmp_path):
    path = acn_file(tmp_path, acn("A"), acn("B", stationID="9", spaceID="fast"), acn("C", stationID="8"))
    result = read_acn(path, charge_kw=7.0, ratings={"fast": 50.0, "8": 3.0, "typo": 1.0})
    assert result.table["charge_kw"].tolist() == [7.0, 50.0, 3.0]
    assert "ratings of typo have no session in the file" in result.report.assumptions


def test_acn_a_rating_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="above 0 kW"):
        read_acn(acn_file(tmp_path), charge_kw=0.0)


def test_acn_more_than_the_battery_takes_before_it_tapers(tmp_path):
    # 100 kWh at the meter x 0.9 = 90 kWh > 0.8 x 60; ends at the taper: 90 / 0.8 = 112.5 kWh
    path = acn_file(
        tmp_path,
        acn("A", kWhDelivered=100.0),
        acn("B", stationID="2", kWhDelivered=53.0),  # 47.7 kWh
        acn("C", stationID="3", kWhDelivered=54.0),  # 48.6 kWh
    )
    result = read_acn(path)
    np.testing.assert_allclose(result.table["capacity_kwh"], [112.5, np.nan, 60.75])
    note = "storing more than 48 kWh, at which the vehicle tapers: given a larger battery"
    assert result.report.notes[note] == ("A", "C")


def test_acn_file_without_sessions_has_typed_columns(tmp_path):
    table = read_acn(acn_file(tmp_path)).table
    assert len(table) == 0
    assert table["arrival"].dtype == "datetime64[ns]"
    assert len(undeliverable(table)) == 0


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"_items": [', "line 1: is no JSON"),
        ('{"items": []}', "must be an object with a list _items, or a list of records"),
        ("7", "must be an object with a list _items, or a list of records"),
    ],
)
def test_acn_file_that_is_no_acn_file(tmp_path, content, fault):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ScenarioError, match=fault):
        read_acn(path)


@pytest.mark.parametrize("reader", [read_acn, read_elaad, read_plain, lambda p: read_nhts(p, "2026-01-15")])
def test_no_such_file(tmp_path, reader):
    with pytest.raises(ScenarioError, match="there is no such file"):
        reader(tmp_path / "none.csv")


# --- deliverable or not ---


def test_undeliverable_by_power_and_stay(tmp_path):
    # 2 h at 6.656 kW: 13.312 kWh
    path = acn_file(tmp_path, acn("fits", kWhDelivered=13.312), acn("not", kWhDelivered=13.4))
    result = undeliverable(read_acn(path).table)
    assert result["session"].tolist() == ["not"]
    assert result["connected_h"].tolist() == [2.0]
    assert result["deliverable_kwh"].tolist() == pytest.approx([13.312])
    assert result["reason"].tolist() == ["13.400 kWh in 2.000 h need 6.70 kW, the EVSE gives 6.656 kW"]
    assert len(undeliverable(read_acn(path).table, charge_kw=7.0)) == 0


def test_undeliverable_counts_the_true_stay(tmp_path):
    # 1 h in truth, 2 h on the clock that was put forward: 10 kWh do not fit into 6.656
    spring = acn(
        "spring",
        connectionTime="Sun, 14 Mar 2021 09:30:00 GMT",
        disconnectTime="Sun, 14 Mar 2021 10:30:00 GMT",
        kWhDelivered=10.0,
    )
    assert undeliverable(read_acn(acn_file(tmp_path, spring)).table)["connected_h"].tolist() == [1.0]


def test_undeliverable_needs_power_and_energy():
    table = pd.DataFrame({"arrival": [0.0], "departure": [3600.0], "energy_kwh": [7.0]})
    assert len(undeliverable(table, 6.0)) == 1
    with pytest.raises(ValueError, match="charge_kw must be given"):
        undeliverable(table)
    with pytest.raises(ValueError, match="charge_kw is not known for 1 of 1 sessions"):
        undeliverable(table.assign(charge_kw=np.nan))
    with pytest.raises(ValueError, match="energy_kwh is not known"):
        undeliverable(table.drop(columns="energy_kwh"), 6.0)


# --- ElaadNL ---

ELAAD = (
    "TransactionId,ChargePoint,Connector,UTCTransactionStart,UTCTransactionStop,StartCard,"
    "ConnectedTime,ChargeTime,TotalEnergy,MaxPower"
)


def elaad_file(tmp_path, *lines, header=ELAAD, encoding="utf-8"):
    path = tmp_path / "elaad.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding=encoding)
    return path


def test_elaad_commas_and_points(tmp_path):
    result = read_elaad(
        elaad_file(tmp_path, "11,P1,2,03/07/2019 08:15,03/07/2019 16:45,card,8.5,2.25,15.75,7.4")
    )
    row = result.table.iloc[0]
    assert row[["session", "ev", "evse"]].tolist() == ["11", "card-card", "P1-2"]
    assert str(row["arrival"]) == "2019-07-03 08:15:00"  # 3 July, as it stands
    assert str(row["departure"]) == "2019-07-03 16:45:00"
    assert row[["energy_kwh", "charge_kw", "charged_h"]].tolist() == [15.75, 7.4, 2.25]
    assert not result.report.notes
    assert result.report.assumptions[0].startswith("the times are local (Europe/Amsterdam), as reported")


def test_elaad_semicolons_decimal_commas_iso_and_a_byte_order_mark(tmp_path):
    lines = ["11;P1;2;2019-07-03 08:15:30;2019-07-03T16:45;;8,49;2,25;15,75;7,4", ""]
    path = elaad_file(tmp_path, *lines, header=ELAAD.replace(",", ";"), encoding="utf-8-sig")
    result = read_elaad(path)
    row = result.table.iloc[0]
    assert str(row["arrival"]) == "2019-07-03 08:15:30"
    assert row[["energy_kwh", "charge_kw", "ev"]].tolist() == [15.75, 7.4, "session-11"]
    assert result.report.read == 1  # blank lines are no rows


def test_elaad_times_in_utc(tmp_path):
    path = elaad_file(
        tmp_path,
        "1,P,1,03/07/2019 08:15,03/07/2019 09:15,a,1,1,3,7.4",
        "2,P,1,03/12/2019 08:15,2019-12-03T09:15Z,a,1,1,3,7.4",
        # 27 October 2019: 1:00 UTC is the second 2:00; 0:50 to 1:10 UTC is 2:50 to 2:10
        "3,P,1,27/10/2019 00:50,27/10/2019 01:10,a,0.33,0.3,1,7.4",
    )
    result = read_elaad(path, times="utc")
    assert stamps(result.table["arrival"]) == ["2019-07-03 10:15:00", "2019-12-03 09:15:00"]
    assert str(result.table["departure_utc"].iloc[1]) == "2019-12-03 09:15:00+00:00"
    assert tallied(result.report) == {
        "with departure not after arrival on the local clock, put back in between": 1
    }


def test_elaad_reasons(tmp_path):
    path = elaad_file(
        tmp_path,
        "1,P,1,13/07/2019 08:15,13/07/2019 09:15,a,1,1,3,7.4",
        "1,P,1,04/07/2019 08:15,04/07/2019 09:15,a,1,1,3,7.4",
        ",P,1,03/07/2019 08:15,03/07/2019 09:15,a,1,1,3,7.4",
        "3,,1,03/07/2019 08:15,03/07/2019 09:15,a,1,1,3,7.4",
        "4,P,1,07/13/2019 08:15,03/07/2019 09:15,a,1,1,3,7.4",
        "5,P,1,03/07/2019 08:15,,a,1,1,3,7.4",
        "6,P,1,03/07/2019 08:15,03/07/2019 08:15,a,1,1,3,7.4",
        "7,P,1,03/07/2019 08:15,03/07/2019 09:15,a,1,1,much,7.4",
        "8,P,1,03/07/2019 08:15,03/07/2019 09:15,a,1,1,0,7.4",
        "9,P,1,2019-07-03T08:15Z,03/07/2019 09:15,a,1,1,3,7.4",
        "10,P,1,03/07/2019 08:15",
    )
    result = read_elaad(path)
    assert result.table["session"].tolist() == ["1"]
    assert tallied(result.report) == {
        "with a TransactionId seen before": 1,
        "without a TransactionId": 1,
        "without a ChargePoint": 1,
        "without a readable UTCTransactionStart": 1,
        "without a readable UTCTransactionStop": 1,
        "with UTCTransactionStop not after UTCTransactionStart": 1,
        "without a readable TotalEnergy": 1,
        "with no energy delivered": 1,
        "with a zone in UTCTransactionStart, where local time is expected": 1,
        "with another number of values than the header": 1,
    }
    assert result.report.dropped["without a readable TotalEnergy"] == ("7, line 9",)
    assert result.report.dropped["with another number of values than the header"] == ("line 12",)


def test_elaad_notes(tmp_path):
    path = elaad_file(
        tmp_path,
        "1,P,1,03/07/2019 08:15,03/07/2019 10:15,a,1.0,1,3,7.4",  # 2 h, not 1
        "2,P,2,03/07/2019 09:15,03/07/2019 10:15,a,1.04,1,3,0",  # card a is still at P-1; 0.04 h is rounding
        "3,P,2,03/07/2019 10:00,03/07/2019 11:15,b,1.25,1,3,",  # P-2 is still taken
        "4,P,3,31/03/2019 02:30,31/03/2019 06:00,c,3.5,1,3,7.4",  # there is no 2:30 on that day
        "5,P,3,27/10/2019 02:30,27/10/2019 06:00,c,3.5,1,3,7.4",  # 2:30 comes twice
    )
    result = read_elaad(path)
    assert result.report.kept == 5
    assert result.table["ev"].tolist() == ["card-a", "card-a-car2", "card-b", "card-c", "card-c"]
    assert result.report.notes == {
        "with a ConnectedTime other than stop - start, which is used": ("1, line 2",),
        "without a MaxPower above 0, left to the scenario's charger": ("2, line 3", "3, line 4"),
        "with a local time that the clocks skip in spring": ("4, line 5",),
        "with a local time that comes twice in autumn": ("5, line 6",),
        "overlapping another session of the same user, made a further EV": ("2",),
        "beginning before the last at the same EVSE has ended": ("3",),
    }
    np.testing.assert_array_equal(result.table["charge_kw"], [7.4, np.nan, np.nan, 7.4, 7.4])


def test_elaad_optional_columns_may_be_missing(tmp_path):
    header = "TransactionID,ChargePointID,ConnectorID,UTCTransactionStart,UTCTransactionStop,TotalEnergy"
    result = read_elaad(elaad_file(tmp_path, "1,P,1,03/07/2019 08:15,03/07/2019 09:15,3", header=header))
    assert result.table[["ev", "evse", "energy_kwh"]].to_numpy().tolist() == [["session-1", "P-1", 3.0]]


def test_elaad_missing_columns(tmp_path):
    path = elaad_file(tmp_path, header="TransactionId,ChargePoint,Connector,UTCTransactionStart,StartCard")
    with pytest.raises(ScenarioError, match="column UTCTransactionStop is missing") as error:
        read_elaad(path)
    assert error.value.faults == [
        "column UTCTransactionStop is missing",
        "column TotalEnergy is missing",
    ]


def test_elaad_faulty_arguments(tmp_path):
    with pytest.raises(ValueError, match="times = gmt: must be local or utc"):
        read_elaad(tmp_path / "x.csv", times="gmt")
    with pytest.raises(ValueError, match="zone = Mars: is no time zone"):
        read_elaad(tmp_path / "x.csv", zone="Mars")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("")
    with pytest.raises(ScenarioError, match="is empty: the first line must name the columns"):
        read_elaad(path)


def test_elaad_month_first_is_refused_unless_stated(tmp_path):
    lines = [
        "1,P,1,07/03/2019 08:15,07/03/2019 09:15,a,1,1,3,7.4",
        "2,P,1,07/13/2019 08:15,07/13/2019 09:15,a,1,1,3,7.4",
    ]
    path = elaad_file(tmp_path, *lines)
    with pytest.raises(
        ScenarioError, match=r"line 3: UTCTransactionStart = 07/13/2019 08:15: is month/day/year"
    ):
        read_elaad(path)
    table = read_elaad(path, time_format="%m/%d/%Y %H:%M").table
    assert stamps(table["arrival"]) == ["2019-07-03 08:15:00", "2019-07-13 08:15:00"]


def test_elaad_numbers_that_can_be_read_in_two_ways_are_dropped(tmp_path):
    line = "{};P;1;03/07/2019 08:15;03/07/2019 09:15;a;1;1;{};7"
    path = elaad_file(tmp_path, line.format(1, "1,234"), header=ELAAD.replace(",", ";"))
    assert tallied(read_elaad(path).report) == {"without a readable TotalEnergy": 1}
    path = elaad_file(
        tmp_path, line.format(1, "1,234"), line.format(2, "15,75"), header=ELAAD.replace(",", ";")
    )
    assert read_elaad(path).table["energy_kwh"].tolist() == [1.234, 15.75]


# --- NHTS ---

NHTS = "HOUSEID,PERSONID,VEHID,TRPTRANS,DRVR_FLG,TRPMILES,STRTTIME,ENDTIME,WHYTO,TDWKND,WTTRDFIN,WHYFROM"
CAR = Vehicle(consumption_kwh_per_mile=0.3, charge_efficiency=0.9, capacity_kwh=60.0)
"""A mile takes 0.3 / 0.9 = 1/3 kWh at the meter; the battery takes 60 / 0.9 = 66.67 kWh."""


def nhts_2017(*arguments, **settings):
    """The file doesn't tell the wave."""
    return read_nhts(*arguments, **settings, wave=2017)


def nhts_file(tmp_path, *lines, header=NHTS):
    path = tmp_path / "trippub.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_nhts_a_commuter_with_an_errand(tmp_path):
    path = nhts_file(
        tmp_path,
        "30000007,01,01,03,01,12.0,0730,0800,03,02,75000.5,01",  # to work
        "30000007,01,01,03,01,15.0,1700,1745,01,02,75001.5,03",  # home
        "30000007,02,01,03,01,3.0,1900,1910,11,02,75002.5,01",  # another driver to a shop
        "30000007,02,01,03,01,3.0,1940,1950,01,02,75003.5,11",  # home
    )
    result = nhts_2017(path, "2026-01-15", CAR)
    table = result.table
    assert table["ev"].tolist() == ["30000007-01"] * 2
    assert table["evse"].tolist() == ["30000007"] * 2
    assert stamps(table["arrival"]) == ["2026-01-15 17:45:00", "2026-01-15 19:50:00"]
    assert stamps(table["departure"]) == ["2026-01-15 19:00:00", "2026-01-16 07:30:00"]
    assert table["miles"].tolist() == [27.0, 6.0]
    np.testing.assert_allclose(table["energy_kwh"], [9.0, 2.0])
    assert table["weekend"].tolist() == [False, False]
    assert table["weight"].tolist() == [75001.5, 75003.5]
    assert (result.report.read, result.report.kept, result.report.made) == (4, 4, 2)
    assert "read 4 trips, kept 4, dropped 0." in str(result.report)
    assert "Made 2 sessions of these trips." in str(result.report)
    assert any("the same day, repeated" in sentence for sentence in result.report.assumptions)


def test_nhts_repeated_days_follow_one_another(tmp_path):
    path = nhts_file(
        tmp_path,
        "1,01,01,04,01,10,0800,0830,03,01,5,01",
        "1,01,01,04,01,10,1800,1830,01,01,5,03",
    )
    table = nhts_2017(path, "2026-02-27", CAR, days=3).table
    assert stamps(table["arrival"]) == ["2026-02-27 18:30:00", "2026-02-28 18:30:00", "2026-03-01 18:30:00"]
    assert stamps(table["departure"]) == ["2026-02-28 08:00:00", "2026-03-01 08:00:00", "2026-03-02 08:00:00"]
    assert table["weekend"].all()


def test_nhts_home_after_midnight(tmp_path):
    path = nhts_file(
        tmp_path,
        "1,01,01,03,01,30,2330,0015,01,02,5,13",  # over midnight
        "1,01,01,03,01,30,2000,2045,13,02,5,01",
        "2,01,01,03,01,9,0130,0200,01,02,5,13",  # begins after midnight, in the survey's day still
        "2,01,01,03,01,9,2200,2230,13,02,5,01",
    )
    table = nhts_2017(path, "2026-01-15", CAR).table
    assert stamps(table["arrival"]) == ["2026-01-16 00:15:00", "2026-01-16 02:00:00"]
    assert stamps(table["departure"]) == ["2026-01-16 20:00:00", "2026-01-16 22:00:00"]
    np.testing.assert_allclose(table["energy_kwh"], [20.0, 6.0])


def test_nhts_a_stay_of_no_length_gives_its_miles_to_the_next(tmp_path):
    path = nhts_file(
        tmp_path,
        "1,01,01,03,01,6,0800,0830,03,02,5,01",
        "1,01,01,03,01,6,1700,1730,01,02,5,03",
        "1,01,01,03,01,3,1730,1740,11,02,5,01",
        "1,01,01,03,01,3,1800,1810,01,02,5,11",
    )
    result = nhts_2017(path, "2026-01-15", CAR)
    assert result.table["miles"].tolist() == [18.0]
    assert result.report.notes == {
        "coming home for no time, whose miles count for the next stay": ("line 3",)
    }


def test_nhts_more_miles_than_the_battery_holds(tmp_path):
    path = nhts_file(
        tmp_path,
        "1,01,01,03,01,150,0800,1000,03,02,5,01",
        "1,01,01,03,01,150,1700,1900,01,02,5,03",
    )
    result = nhts_2017(path, "2026-01-15", CAR)
    np.testing.assert_allclose(result.table["energy_kwh"], [60 / 0.9])  # not 100
    assert any("charged on the road" in note for note in result.report.notes)


def test_nhts_reasons(tmp_path):
    path = nhts_file(
        tmp_path,
        "1,01,-1,01,-1,1,0800,0830,03,02,5,01",  # on foot
        "1,02,01,03,02,12,0730,0800,03,02,5,01",  # passenger
        "1,01,-1,03,01,12,0730,0800,03,02,5,01",  # someone else's car
        "2,01,01,03,01,-9,0730,0800,03,02,5,01",  # miles not known ...
        "2,01,01,03,01,9,1730,1800,01,02,5,03",  # ... so the rest of this day is of no use
        "3,01,01,03,01,9,-9,0800,03,02,5,01",
        "4,01,01,03,01,9,0760,0800,03,02,5,01",
        "5,01,01,03,01,9,0730,2460,03,02,5,01",
        "6,01,01,03,01,9,0730,0800,-7,02,5,01",
        "7,01,01,03,01,9,1000,0900,01,02,5,01",  # ends before it begins, or takes 23 h
        "8,01,01,03,01,9,0730,0800,03,02,5,01",  # stays at work
        "9,01,01,03,01,9,0730,0800,01,02,5,13",  # comes from elsewhere
        "10,01,01,03,01,9,0730,0800,03,02,5,01",
        "10,02,01,03,01,9,0745,0815,01,02,5,03",  # the same vehicle, meanwhile
        "11,01,01,03,01,9,0730,0800,03,-9,5,01",
        "12,01,01,03,01,9,0730,0800,03,02,,01",
        "13,01,01,03,01,9,0500,0530,03,02,5,01",
        "13,01,01,03,01,9,0330,0510,01,02,5,03",  # back ten minutes after the next day's departure
        "14,01,01,03,01,9,0730,0800,03,02,5,-9",
        "15,01,01,03",
    )
    result = nhts_2017(path, "2026-01-15", CAR)
    assert len(result.table) == 0
    assert tallied(result.report) == {
        "by other means than car, SUV, van or pickup": 1,
        "of a passenger": 1,
        "in no vehicle of the household": 1,
        "without a usable TRPMILES": 1,
        "of a vehicle's day of which another trip was dropped": 1,
        "without a usable STRTTIME": 2,
        "without a usable ENDTIME": 1,
        "without a usable WHYTO": 1,
        "without a usable ENDTIME, which is before STRTTIME": 1,
        "of a vehicle's day that does not end at home": 1,
        "of a vehicle's day that does not begin at home": 1,
        "of a vehicle's day whose trips overlap": 2,
        "without a usable TDWKND": 1,
        "without a usable WTTRDFIN": 1,
        "of a vehicle's day that ends after the next has begun": 2,
        "without a usable WHYFROM": 1,
        "with another number of values than the header": 1,
    }


def test_nhts_without_origins_days_begin_at_home(tmp_path):
    lines = ["1,01,01,03,01,6,1700,1730,01,02,5"]
    result = nhts_2017(nhts_file(tmp_path, *lines, header=NHTS[: -len(",WHYFROM")]), "2026-01-15", CAR)
    assert len(result.table) == 1
    assert "days begin at home, since there is no column WHYFROM" in result.report.assumptions


def test_nhts_other_codes(tmp_path):
    # 2 is no car in 2017; a home code of one's own
    path = nhts_file(tmp_path, "1,01,01,02,01,6,1700,1730,02,02,5,01")
    assert len(nhts_2017(path, "2026-01-15", CAR, modes=(1, 2, 3, 4), home=(1, 2)).table) == 1
    assert len(nhts_2017(path, "2026-01-15", CAR).table) == 0


def test_nhts_faulty_file_and_arguments(tmp_path):
    path = nhts_file(tmp_path, header="HOUSEID,PERSONID")
    with pytest.raises(ScenarioError, match="column STRTTIME is missing"):
        nhts_2017(path, "2026-01-15")
    with pytest.raises(ValueError, match="day = 2026-01-15T12:00: must be a date"):
        nhts_2017(path, "2026-01-15T12:00")
    with pytest.raises(ValueError, match="days = 0: must be at least 1"):
        nhts_2017(path, "2026-01-15", days=0)


NHTS_2022 = NHTS.replace("VEHID,", "VEHID,VEHCASEID,SEQ_TRIPID,")
OUT_AND_BACK = (  # car, van, SUV, pickup: 40, 30, 20 and 50 miles a day
    ("01", 20.0), ("02", 15.0), ("03", 10.0), ("04", 25.0),
)  # fmt: skip


def nhts_trips_2022(house, mode, miles):
    start = f"9000000{house},01,01,9000000{house}01,{{}},{mode},01,{miles}"
    return [start.format(1) + ",0730,0800,03,02,1000,01", start.format(2) + ",1700,1730,01,02,1000,03"]


def test_nhts_2022_numbers_its_modes_differently(tmp_path):
    lines = [line for k, (mode, miles) in enumerate(OUT_AND_BACK) for line in nhts_trips_2022(k, mode, miles)]
    path = nhts_file(tmp_path, *lines, header=NHTS_2022)
    car = Vehicle(consumption_kwh_per_mile=0.325, charge_efficiency=0.9, capacity_kwh=60.0)
    result = read_nhts(path, "2026-01-15", car)
    assert (result.report.read, result.report.kept) == (8, 8)
    assert result.table["ev"].nunique() == 4
    # 40, 30, 20, 50 miles x 0.325 / 0.9
    assert result.table["energy_kwh"].tolist() == pytest.approx([14.4444, 10.8333, 7.2222, 18.0556], abs=1e-4)
    assert result.table["energy_kwh"].sum() == pytest.approx(50.556, abs=1e-3)
    assert result.report.assumptions[0] == (
        "wave 2022, recognised by VEHCASEID and SEQ_TRIPID: "
        "kept are trips with TRPTRANS 1 car, 2 van, 3 SUV, 4 pickup"
    )


def test_nhts_wave_is_reported_or_asked_for(tmp_path):
    trip = "1,01,01,06,01,6,1700,1730,01,02,5,01"
    path = nhts_file(tmp_path, trip)
    with pytest.raises(ScenarioError, match="don't show the survey's wave.*state wave: 2017 or wave: 2022"):
        read_nhts(path, "2026-01-15", CAR)
    assert len(read_nhts(path, "2026-01-15", CAR, wave=2017).table) == 1  # a pickup
    assert len(read_nhts(path, "2026-01-15", CAR, wave=2022).table) == 0  # a motorcycle
    path = nhts_file(tmp_path, trip + ",-1", header=NHTS + ",TRACC_WLK")
    report = read_nhts(path, "2026-01-15", CAR).report
    assert report.kept == 1
    assert report.assumptions[0].startswith(
        "wave 2017, recognised by TRACC_WLK: kept are trips with TRPTRANS 3 car, 4 SUV"
    )
    with pytest.raises(ScenarioError, match="wave = 2022: has columns of another .TRACC_WLK"):
        read_nhts(path, "2026-01-15", CAR, wave=2022)
    with pytest.raises(ScenarioError, match="wave = 2009: must be one of 2017, 2022"):
        read_nhts(path, "2026-01-15", CAR, wave=2009)


# --- evgrid's own table ---


def plain_file(tmp_path, *lines):
    path = tmp_path / "plain.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_plain_keeps_good_rows(tmp_path):
    path = plain_file(
        tmp_path,
        "ev,connection,arrival,departure,energy_kwh,power_kw,phase",
        "A,L1,2026-01-15T18:00,2026-01-16T07:00,10,3.6,a",
        "A,L1,2026-01-16T18:00,2026-01-17T07:00,12,,a",
    )
    result = read_plain(path)
    assert result.report.kept == 2
    assert stamps(result.table["departure"]) == ["2026-01-16 07:00:00", "2026-01-17 07:00:00"]
    assert list(result.plain().columns) == [
        "ev", "connection", "arrival", "departure", "energy_kwh", "charge_kw", "phase",
    ]  # fmt: skip
    np.testing.assert_array_equal(result.table["charge_kw"], [3.6, np.nan])


def test_plain_reasons(tmp_path):
    path = plain_file(
        tmp_path,
        "ev,connection,arrival,departure,energy_kwh,soc_arrival,soc_target,phase,member",
        "A,L1,2026-01-15T18:00,2026-01-16T07:00,10,,,a,0",
        "A,L1,2026-01-16T06:00,2026-01-16T09:00,10,,,a,0",  # overlaps
        "A,L2,2026-01-16T16:00,2026-01-16T19:00,10,,,a,0",
        "A,L1,2026-01-16T06:00,2026-01-16T09:00,10,,,a,1",  # another member: good
        ",L1,2026-01-17T06:00,2026-01-17T09:00,10,,,a,0",
        "B,,2026-01-17T06:00,2026-01-17T09:00,10,,,a,0",
        "B,L1,,2026-01-17T09:00,10,,,a,0",
        "B,L1,2026-01-17T06:00Z,2026-01-17T09:00,10,,,a,0",
        "B,L1,2026-01-17T06:00,noon,10,,,a,0",
        "B,L1,2026-01-17T09:00,2026-01-17T09:00,10,,,a,0",
        "B,L1,3600,2026-01-17T09:00,10,,,a,0",
        "B,L1,3600,7200,10,,,a,0",
        "B,L1,2026-01-17T06:00,2026-01-17T09:00,much,,,a,0",
        "B,L1,2026-01-17T06:00,2026-01-17T09:00,-1,,,a,0",
        "B,L1,2026-01-17T06:00,2026-01-17T09:00,,50,,a,0",
        "B,L1,2026-01-17T06:00,2026-01-17T09:00,,,0.9,a,0",
        "B,L1,2026-01-17T06:00,2026-01-17T09:00,1,0.5,0.9,a,0",
        "B,L1,2026-01-17T06:00,2026-01-17T09:00,1,,,d,0",
        "B,L1,2026-01-17T06:00,2026-01-17T09:00,1,,,a,",
    )
    result = read_plain(path)
    assert result.table["member"].tolist() == [0, 1]
    assert tallied(result.report) == {
        "overlapping a session of the same EV further up": 1,
        "at another connection point than the first session of the EV": 1,
        "without ev": 1,
        "without connection": 1,
        "without arrival": 1,
        "without a readable arrival": 1,
        "without a readable departure": 1,
        "with departure not after arrival": 1,
        "with arrival and departure of different kinds": 1,
        "with seconds where others have timestamps, or the reverse": 1,
        "without a readable energy_kwh": 1,
        "with energy_kwh out of bounds": 1,
        "with soc_arrival out of bounds": 1,
        "without energy_kwh and soc_arrival": 1,
        "with soc_arrival, soc_target and energy_kwh, of which two determine the third": 1,
        "with a phase other than a, b, c and abc": 1,
        "without a whole number as member": 1,
    }


def test_plain_seconds_and_parquet(tmp_path):
    frame = pd.DataFrame(
        {"ev": ["A", "B"], "evse": ["x", "x"], "arrival": [0.0, -60.0], "departure": [3600.0, 60.5],
         "soc_arrival": [0.5, None]}
    )  # fmt: skip
    path = tmp_path / "plain.parquet"
    frame.to_parquet(path)
    result = read_plain(path)
    assert result.table[["arrival", "departure"]].to_numpy().tolist() == [[0.0, 3600.0]]
    assert result.report.dropped == {"without energy_kwh and soc_arrival": ("row 2",)}


def test_plain_faulty_columns(tmp_path):
    path = plain_file(tmp_path, "ev,arival,departure,charge_kw,power_kw")
    with pytest.raises(ScenarioError, match="5 faults") as error:
        read_plain(path)
    assert error.value.faults == [
        "column arrival is missing",
        "column connection (or evse) is missing",
        "column soc_arrival or energy_kwh is missing",
        "column arival is unknown; did you mean arrival?",
        "columns charge_kw and power_kw mean the same; give one",
    ]


# --- onto connection points ---


def three_sessions(tmp_path):
    return read_acn(
        acn_file(
            tmp_path,
            acn("A", userID="7", stationID="x"),
            acn("B", userID="8", stationID="y"),
            acn(
                "C",
                userID="7",
                stationID="z",
                connectionTime="Wed, 14 Jul 2021 20:00:00 GMT",
                disconnectTime="Wed, 14 Jul 2021 21:00:00 GMT",
            ),
        )
    )


def test_at_one_point_evs_stay_whole(tmp_path):
    table = three_sessions(tmp_path).at("L1").table
    assert table["connection"].tolist() == ["L1"] * 3
    assert table["ev"].tolist() == ["user-7", "user-8", "user-7"]


def test_at_several_points_an_ev_is_made_one_a_point(tmp_path):
    dealt = three_sessions(tmp_path).at(["L1", "L2"])  # x: L1, y: L2, z: L1 again
    assert dealt.table["connection"].tolist() == ["L1", "L2", "L1"]
    assert dealt.table["ev"].tolist() == ["user-7", "user-8", "user-7"]
    mapped = three_sessions(tmp_path).at({"x": "L1", "y": "L2", "z": "L3"})
    assert mapped.table["ev"].tolist() == ["user-7@L1", "user-8", "user-7@L3"]
    assert mapped.report.notes["EVs at several connection points, made one EV a point"] == ("user-7",)


def test_at_faulty_points(tmp_path):
    imported = three_sessions(tmp_path)
    with pytest.raises(ScenarioError, match="evse z: has no connection point in the mapping"):
        imported.at({"x": "L1", "y": "L2"})
    with pytest.raises(ValueError, match="at least one connection point"):
        imported.at([])
    with pytest.raises(ValueError, match="no connection points"):
        imported.save(tmp_path / "out.csv")


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_what_is_saved_is_a_session_file(tmp_path, name):
    path = three_sessions(tmp_path).at(["L1", "L2"]).save(tmp_path / name)
    scenario = scenario_from(
        {
            "name": "test",
            "time": {"start": "2021-07-14T00:00"},
            "feeder": {"network": "x"},
            "fleet": {"sessions": {"file": str(path)}},
        }
    )
    zero = np.zeros(2, np.int64)
    connections = Connections(
        np.array(["L1", "L2"]), zero, zero.astype(np.int8), zero, zero + 1, tuple("abc")
    )
    evs, sessions = read_sessions(path, scenario, connections)
    assert evs.name.tolist() == ["user-7", "user-8"]
    np.testing.assert_allclose(sessions.arrival_s, np.array([9, 13, 9]) * 3600)  # sorted by EV
    np.testing.assert_allclose(sessions.charge_kw, 6.656)
    # 6 kWh at the meter x 0.9 / 60 kWh
    np.testing.assert_allclose(sessions.soc_target - sessions.soc_arrival, 0.09)
    assert len(read_plain(path).table) == 3
