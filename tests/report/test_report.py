"""The report of a run and of two side by side: its content, its size, and what is not known."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.street import street

import evgrid
from evgrid.errors import ResultError
from evgrid.report import page_of, write_report
from evgrid.report.cases import Case, figures_of, labels_of
from evgrid.report.extremes import extremes, frame_starts
from evgrid.report.feeder_map import map_data, spare_kw
from evgrid.report.judged import Judged
from evgrid.report.key_figures import KeyFigure, figure_text, key_figures, limits_of, readable
from evgrid.report.layout import layout
from evgrid.report.page import MOST_BYTES, html_of
from evgrid.report.runs import page_of_runs
from evgrid.report.setups import difference, setup_of

EVIL = "<script>alert('B')</script>"


def texts(page):
    """All texts of a page."""
    found = [page.title, *page.answer]
    for section in page.sections:
        for block in section.blocks:
            if block.kind == "table":
                found += [block.caption, *block.columns, *(cell for row in block.rows for cell in row)]
            elif block.kind == "bullets":
                found += block.entries
            elif block.kind in ("text", "code"):
                found.append(block.text)
    return "\n".join(found)


def renamed(path, folder, **changes):
    """A copy of a result with some values replaced, as another program might write it."""
    with xr.open_dataset(path) as result:
        copy = result.load().assign(changes).assign_attrs(result.attrs)
    target = folder / "changed.nc"
    copy.to_netcdf(target)
    return target


def test_a_report_of_a_run_answers_first_and_is_one_small_file_that_requests_nothing(results, tmp_path):
    path = write_report(results[:1], tmp_path / "r.html")
    html = path.read_text()
    assert len(html) < MOST_BYTES
    assert not re.findall(
        r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", re.sub(r"<script.*?</script>", "", html, flags=re.S)
    )
    assert "default-src 'none'" in html
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "What was asked and assumed", "Key figures", "Map of the feeder", "Over time",
        "Elements nearest to their limits", "Violations of limits", "Costs, and who pays",
        "Spread over the members", "How sure this is", "Settings and versions",
    ]  # fmt: skip
    assert html.index('class="answer"') < html.index("<h2>")


def test_the_answer_agrees_with_the_table_of_violations(results):
    with evgrid.open_results(results[0]) as result:
        judged = Judged(Case("now", results[0], result), ("en_50160", "ratings"), 8)
        strict = Judged(Case("now", results[0], result), ("vuf",), 8)
    page = page_of(results[:1], ("en_50160", "ratings"))
    if judged.violations.empty:
        assert "All limits of the grid that could be checked are kept in all 2 members" in page.answer[0]
    else:
        row = judged.violations.iloc[0]
        assert f"violated in {judged.violations['member'].nunique()} of 2 members" in page.answer[0]
        assert str(row["name"]) in page.answer[0]
    assert strict.not_checked == ["unbalance (EN 50160): the result has no voltage_unbalance"]
    with pytest.raises(ValueError, match="limits = nope: must be one of"):
        page_of(results[:1], ("nope",))


def test_two_results_stand_side_by_side_with_what_changed(results):
    page = page_of(results)
    assert page.subtitle == "Comparison of 2 runs"
    assert page.answer[0].startswith("From now to tou (medians of the members): ")
    assert all(sentence.startswith(("now: ", "tou: ")) for sentence in page.answer[1:])
    assert "The share of a week is judged only on the 6 h that were run." in page.answer[1]
    figures = page.sections[1].blocks[0]
    assert figures.columns == ["", "now", "tou"]
    said = texts(page)
    assert "Settings that differ." in said
    assert 'strategy"' not in said
    cost = dict(zip([row[0] for row in figures.rows], figures.rows, strict=True))[
        "cost of charging, net (USD)"
    ]
    with evgrid.open_results(results[1]) as result:
        bills = evgrid_cost(result)
    assert cost[2].startswith(f"{np.median(bills):,.2f} ")


def evgrid_cost(result):
    """Cost of each member: energy, and the tariff's base charge of each connection with an EV."""
    scenario = json.loads(result.attrs["scenario"])
    per_day = scenario["tariff"]["fixed_per_day"] * 6 / 24
    return [
        float(result["session_cost"].values[result["session_member"].values == m].sum())
        + per_day * len(np.unique(result["ev_connection"].values[result["ev_member"].values == m]))
        for m in result["member"].values
    ]


def test_what_users_name_is_only_a_name(results, tmp_path):
    with evgrid.open_results(results[0]) as result:
        names = result["bus"].values.copy()
        lines = result["line"].values.copy()
    names[3], lines[2] = EVIL, "<img src=x onerror=alert(1)>"
    path = renamed(results[0], tmp_path)
    with xr.open_dataset(path) as result:
        other = result.load().assign_coords(bus=names, line=lines)
    other.attrs = dict(result.attrs) | {"name": EVIL, "notes": json.dumps([EVIL])}
    html = html_of(page_of_runs([Case(EVIL, Path(f"{EVIL}.nc"), other)]))
    assert EVIL not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;alert(&#39;B&#39;)&lt;/script&gt;" in html


def test_without_ratings_loading_is_not_checked_and_never_0_percent(results, tmp_path):
    with evgrid.open_results(results[0]) as result:
        nothing = {
            name: result[name].copy(data=np.full(result[name].shape, np.nan))
            for name in ("line_rated_ka", "line_loading", "trafo_rated_kva", "trafo_loading")
        }
        lines, trafos = result.sizes["line"], result.sizes["trafo"]
    page = page_of([renamed(results[0], tmp_path, **nothing)])
    said = texts(page)
    assert f"Not checked: rating of lines: not checked: no rating of {lines} of {lines} lines" in said
    assert f"no rating of {trafos} of {trafos} trafos" in said
    assert "loading: not checked, as no line or transformer has a rating" in said
    assert not re.search(r"loading[^\n]*\n0(\.0)? ?%", said)
    assert not re.search(r"\n(rating of|loading).*\n0 %", said)


def test_extremes_are_those_of_the_whole_array_by_element_and_interval(results, monkeypatch):
    with evgrid.open_results(results[0]) as opened:
        result = opened.load()
    values = result["voltage_pu"].transpose("member", "time", "bus", "phase").values
    starts = frame_starts(result, 10)
    assert len(starts) <= 10
    for bytes_of_a_block in (64 * 2**20, 5 * values[:, 0].nbytes):
        monkeypatch.setattr("evgrid.report.extremes._BLOCK_BYTES", bytes_of_a_block)
        for highest in (False, True):
            found = extremes(result, "voltage_pu", highest, starts)
            best = (np.max if highest else np.min)(values, axis=(0, 1, 3))
            np.testing.assert_array_equal(found.worst, best)
            for bus in range(result.sizes["bus"]):
                m = int(np.flatnonzero(result["member"].values == found.member[bus])[0])
                t = int(np.flatnonzero(result["time"].values == found.time[bus])[0])
                assert best[bus] in values[m, t, bus]
            ends = np.append(starts[1:], values.shape[1])
            for frame, (start, end) in enumerate(zip(starts, ends, strict=True)):
                part = (np.max if highest else np.min)(values[:, start:end], axis=(0, 1, 3))
                np.testing.assert_array_equal(found.frames[frame], part)
            series = (np.max if highest else np.min)(values, axis=(2, 3))
            np.testing.assert_array_equal(found.series, series)


def chain():
    """Head - A - B over two lines, of 100 and 50 kVA; a dead bus C.

    ::

        H ==100 kVA, 60 %== A ==50 kVA, 10 %== B    C
    """
    ka = np.array([100.0, 50.0]) / (np.sqrt(3) * 0.4 * 1000)
    return xr.Dataset(
        {
            "bus_x": ("bus", np.full(4, np.nan)), "bus_y": ("bus", np.full(4, np.nan)),
            "bus_at_source": ("bus", [1, 0, 0, 0]), "bus_nominal_kv": ("bus", np.full(4, 0.4)),
            "bus_node": ("bus", [0, 1, 2, 3]),
            "line_from_bus": ("line", [0, 1]), "line_to_bus": ("line", [1, 2]),
            "line_closed": ("line", [1, 1]), "line_rated_ka": ("line", ka),
        },
        {"bus": list("HABC"), "line": ["1", "2"], "trafo": np.array([], str)},
    )  # fmt: skip


def test_spare_power_is_the_least_on_the_way_to_the_head():
    spare, why = spare_kw(chain(), {"line": np.array([[60.0, 10.0], [60.0, 90.0]])})
    assert why == ""
    np.testing.assert_allclose(spare, [[np.nan, 40.0, 40.0, np.nan], [np.nan, 40.0, 5.0, np.nan]])
    unrated = chain()
    unrated["line_rated_ka"][0] = np.nan
    assert spare_kw(unrated, {"line": np.array([[np.nan, 10.0]])}) == (None, "as no branch has a rating")


def test_without_coordinates_the_feeder_is_a_tree_of_branches_from_the_head():
    found = layout(chain())
    assert found.drawn
    assert found.x.tolist() == [0, 1, 2, 0]
    assert len(set(zip(found.x, found.y, strict=True))) == 4
    known = chain().assign(
        bus_x=("bus", [0.0, 500.0, 900.0, np.nan]), bus_y=("bus", [0.0, 30.0, 10.0, np.nan])
    )
    assert layout(known).note == (
        "The network's own coordinates. 1 of 4 buses have none and are drawn at their neighbours."
    )


def test_the_map_of_1000_buses_and_all_intervals_fits_the_budget(results):
    from evgrid.report.feeder_map import BUDGET_BYTES, FRAMES, frames_that_fit

    small = xr.Dataset(coords={"bus": np.arange(1000), "line": np.arange(999), "trafo": np.arange(1)})
    many = xr.Dataset(coords={"bus": np.arange(40_000), "line": np.arange(40_000)})
    assert frames_that_fit([small]) == FRAMES
    assert 1 <= frames_that_fit([many]) < 10
    assert frames_that_fit([small, small]) * 2 * 5000 * 2 * 4 / 3 <= BUDGET_BYTES
    with evgrid.open_results(results[0]) as result:
        data = map_data(result, 3)
    assert len(data.labels) == 1 + len(data.extremes["line_loading"].frames) <= 4
    assert data.labels[0] == "whole run"


def test_a_run_without_evs_and_one_member_says_what_is_not_known(tmp_path):
    scenario = street(name="plain", fleet=None, tariff=None, ensemble={"members": 1})
    with evgrid.run(scenario, tmp_path / "plain.nc"):
        pass
    said = texts(page_of([tmp_path / "plain.nc"]))
    assert "Not calculated: the run has no EVs." in said
    assert "One member was run: how far other drivers, homes and days would differ is not known." in said


OF_FEEDER = ("head_", "losses_", "voltage_", "trafo_", "line_", "violations")
SERIES = ("head_power_kw", "losses_kw", "voltage_min_pu", "voltage_max_pu", "voltage_pu", "line_loading",
          "trafo_loading")  # fmt: skip


def without(result, member, names=SERIES, start=0):
    """A copy of a result in which series of a member are not known from an interval on."""
    copy = result.copy()
    known = np.ones((copy.sizes["member"], copy.sizes["time"]), bool)
    known[member, start:] = False
    for name in names:
        copy[name] = result[name].where(xr.DataArray(known, dims=("member", "time")))
    return copy


@settings(max_examples=10, deadline=None)
@given(
    member=st.integers(0, 1), start=st.integers(0, 20),
    names=st.lists(st.sampled_from(SERIES[:4]), min_size=1, max_size=4, unique=True),
)  # fmt: skip
def test_values_that_are_not_known_leave_out_their_member_and_no_other(loaded, member, start, names):
    whole = {f.name: f.values for f in key_figures(loaded)}
    found = {f.name: f for f in key_figures(without(loaded, member, names, start))}
    of_feeder = [name for name in whole if name in found and name.startswith(OF_FEEDER)]
    assert len(of_feeder) >= 7
    for name in of_feeder:
        assert np.isfinite(whole[name]).all()
        assert np.isnan(found[name].values[member])
        assert found[name].values[1 - member] == pytest.approx(whole[name][1 - member], rel=1e-12)
        assert "1 of 2 members" in figure_text(found[name])
    for name in set(whole) - set(of_feeder):
        np.testing.assert_array_equal(found[name].values, whole[name])


def test_loading_missing_of_one_element_is_not_known_of_that_member_alone(loaded):
    result = loaded.copy(deep=True)
    result["line_loading"].loc[{"member": result["member"][1], "line": result["line"][0]}] = np.nan
    found = {f.name: f.values for f in key_figures(result)}
    assert np.isnan(found["line_loading_percent"]).tolist() == [False, True]
    assert np.isnan(found["violations"]).tolist() == [False, True]
    assert np.isfinite(found["trafo_loading_percent"]).all()
    result["line_loading"].loc[{"line": result["line"][0]}] = np.nan  # as of a line without a rating
    assert np.isfinite({f.name: f.values for f in key_figures(result)}["line_loading_percent"]).all()


def test_members_that_were_given_up_are_named_first_and_count_nowhere(loaded):
    result = without(loaded, 1, start=4)
    step_s = (result["time"].values[1] - result["time"].values[0]) / np.timedelta64(1, "s")
    result["member_failed_s"] = ("member", [np.nan, 4 * step_s])
    label = str(result["member"].values[1])
    stamp = pd.Timestamp(result["time"].values[4])
    why = f"member {label} at {stamp}: did not converge."
    result.attrs = dict(loaded.attrs) | {"failed_members": json.dumps({label: why})}
    page = page_of_runs([Case("now", Path("now.nc"), result)], ("en_50160", "ratings"))
    assert "in the 1 of 2 members known in the whole period" in page.answer[0] or "violated" in page.answer[0]
    assert page.answer[1] == (
        f"1 of 2 members were given up, so their figures of the whole period are not known: {why}"
    )
    result.attrs["failed_members"] = "{}"
    page = page_of_runs([Case("now", Path("now.nc"), result)])
    assert page.answer[1].endswith(f"not known: member {label} at {stamp:%Y-%m-%d %H:%M}.")
    assert re.search(r"of 1 member violate", texts(page))


def test_where_nothing_is_known_nothing_is_0_or_kept(loaded):
    result = without(without(loaded, 0), 1)
    found = key_figures(result)
    assert {figure_text(f) for f in found if f.name.startswith(OF_FEEDER)} == {"not known"}
    page = page_of_runs([Case("now", Path("now.nc"), result)])
    assert page.answer[0] == "Whether the limits of the grid are kept is not known."
    assert "Values of 2 of 2 members are missing" in page.answer[1]
    said = texts(page)
    assert "All limits" not in said
    assert "\nlosses\nnot known" in said
    assert "\nhead power, highest\nnot known" in said
    assert "Not known: values are missing." in said


def test_without_an_ended_session_nothing_was_charged_in_full(loaded):
    result = loaded.assign_coords(session_complete=xr.zeros_like(loaded["session_complete"]))
    answer = page_of_runs([Case("now", Path("now.nc"), result)]).answer
    assert answer[-1] == "No session of an EV ended in the period."
    assert not any("asked for" in sentence for sentence in answer)
    for name in ("requested", "unserved"):  # as of EVs that arrive full
        result[f"session_energy_{name}_kwh"] = xr.zeros_like(loaded["session_cost"])
    ended = result["session_complete"].copy(data=np.arange(result.sizes["session"]) < 2)
    answer = page_of_runs([Case("now", Path("now.nc"), result.assign(session_complete=ended))]).answer
    assert answer[-1] == "2 sessions of EVs ended in the period, none of which asked for energy."


def test_a_write_that_fails_leaves_the_page_that_was_there(results, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("good")
    write = Path.write_text

    def full(self, text, *args, **kwargs):
        write(self, text[:100], *args, **kwargs)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr("evgrid.report.page.html_of", lambda page: "x" * 1000)
    with pytest.raises(ResultError, match="can't be written to .*: No space left on device"):
        write_report(results[:1], path)
    assert path.read_text() == "good"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_runs_of_another_period_members_limits_or_network_do_not_compare(results, loaded, tmp_path):
    from click.testing import CliRunner

    from evgrid.cli import main

    def sentences(other):
        cases = [Case("now", Path("now.nc"), loaded), Case("other", Path("other.nc"), other)]
        return difference([setup_of(c.result, limits_of(c.result), c.result.sizes["member"]) for c in cases])

    assert sentences(loaded) == []
    scenario = json.loads(loaded.attrs["scenario"])
    start = f"{pd.Timestamp(loaded['time'].values[0]):%Y-%m-%d %H:%M}"
    half = loaded.isel(time=slice(36))
    assert sentences(half) == [
        f"These runs differ in period: 6 h from {start} and 3 h from {start}; their figures do not compare."
    ]
    assert "differ in members: 2 members and 1 member;" in sentences(loaded.isel(member=[0]))[0]
    assert "differ in limits: " in sentences(loaded.assign_attrs(frequency_hz=60.0))[0]
    other = scenario | {"feeder": scenario["feeder"] | {"network": "/x/other.json"}}
    assert "; their" in (said := sentences(loaded.assign_attrs(scenario=json.dumps(other)))[0])
    assert "differ in network: " in said
    assert " and other.json;" in said
    other = scenario | {"time": scenario["time"] | {"step": scenario["time"]["step"] / 2}}
    assert (
        "differ in step: 300 s and 150 s, recorded every 300 s;"
        in (sentences(loaded.assign_attrs(scenario=json.dumps(other)))[0])
    )
    half.to_netcdf(tmp_path / "half.nc")
    done = CliRunner().invoke(main, ["compare", str(results[0]), str(tmp_path / "half.nc")])
    assert sentences(half)[0] in done.output
    assert sentences(half)[0] in page_of([results[0], tmp_path / "half.nc"]).answer
    assert "differ" not in CliRunner().invoke(main, ["compare", *map(str, results)]).output


def test_bad_requests_are_one_sentence(results, tmp_path, monkeypatch):
    with pytest.raises(ResultError, match=r"it is a page, use r\.html"):
        write_report(results, Path("r.pdf"))
    (tmp_path / "no.nc").write_text("no")
    with pytest.raises(ResultError):
        page_of([tmp_path / "no.nc"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ResultError, match=r"needs Bokeh: pip install evgrid\[report\]"):
        page_of(results)


def test_compare_has_a_column_a_case_and_writes_what_pandas_reads(results, tmp_path):
    from click.testing import CliRunner

    from evgrid.cli import main

    outputs = [tmp_path / f"t{suffix}" for suffix in (".csv", ".xlsx", ".tex")]
    options = [text for path in outputs for text in ("-o", str(path))]
    done = CliRunner().invoke(main, ["compare", *map(str, results), *options])
    assert done.exit_code == 0, done.output
    assert "highest power at the head (kW)" in done.output
    numbers = pd.read_csv(outputs[0]).set_index(["case", "figure"])
    with evgrid.open_results(results[1]) as result:
        peaks = result["head_power_kw"].sum("phase").max("time").values
        lowest = float(result["voltage_pu"].min())
    assert numbers.loc[("tou", "head_peak_kw"), "highest"] == pytest.approx(peaks.max())
    assert numbers.loc[("tou", "head_peak_kw"), "median"] == pytest.approx(np.median(peaks))
    assert numbers.loc[("tou", "voltage_lowest_pu"), "lowest"] == pytest.approx(lowest, rel=1e-6)
    sheets = pd.read_excel(outputs[1], sheet_name=None, index_col=0)
    assert list(sheets["side by side"].columns) == ["now", "tou"]
    assert sheets["numbers"].shape[0] == len(numbers)
    assert r"\toprule" in outputs[2].read_text()
    refused = CliRunner().invoke(main, ["compare", str(results[0]), "-o", "t.doc"])
    assert refused.exit_code == 1
    assert "its name must end in .csv, .xlsx, .tex" in refused.output


def figures(*values, name="f", unit="kW", remark=""):
    return [KeyFigure(name, "power", unit, np.array(values, float), remark)]


def test_key_figures_as_text_and_many_cases_have_a_row_each():
    assert figure_text(figures(1234.56)[0]) == "1,235"
    assert figure_text(figures(1.0, 2.0, 3.0)[0]) == "2 (1.1 to 2.9)"
    assert figure_text(figures(1.0, np.nan)[0]) == "1, 1 of 2 members"
    assert figure_text(figures(np.nan, remark="not checked: no rating of 3 of 3 lines")[0]) == (
        "not checked: no rating of 3 of 3 lines"
    )
    assert figure_text(figures(-0.001, unit="EUR")[0]) == "0.00"
    few, many = ({f"case {i}": figures(i) for i in range(n)} for n in (2, 9))
    assert readable(few).shape == (1, 2)
    assert readable(many).shape == (9, 1)


def test_labels_differ():
    paths = [Path("a.nc"), Path("b.nc"), Path("x/b.nc")]
    assert labels_of(["one", "two"], paths[:2]) == ["one", "two"]
    assert labels_of(["one", "one"], paths[:2]) == ["a", "b"]
    assert labels_of(["one", "one"], paths[1:]) == ["b (1)", "b (2)"]


def test_each_case_of_a_batch_is_compared_and_chunks_of_its_members_are_joined(
    results, tmp_path, monkeypatch
):
    folder = tmp_path / "batch"
    (folder / "runs").mkdir(parents=True)
    ids = ("a", "b", "c")
    for number, path in zip(ids, (results[0], results[0], results[1]), strict=True):
        shutil.copy(path, folder / "runs" / f"{number}.nc")
    index = pd.DataFrame(
        {"id": ids, "case": [0, 0, 1], "case_name": ["now", "now", "tou"], "first": [0, 2, 0],
         "state": ["finished"] * 3},
    )  # fmt: skip
    monkeypatch.setattr("evgrid.report.cases.read_index", lambda path: index)
    steps = []
    found = figures_of([folder], progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    assert list(found) == ["now", "tou"]
    once = figures_of(results)
    for name, times in (("now", 2), ("tou", 1)):
        for joined, single in zip(found[name], once[name], strict=True):
            np.testing.assert_array_equal(joined.values, np.tile(single.values, times))
    monkeypatch.setattr("evgrid.report.cases.read_index", lambda path: index.assign(state="failed"))
    with pytest.raises(ResultError, match="no run of the batch is finished"):
        figures_of([folder])


def test_where_the_feeder_was_another_program_its_limits_are_not_checked(results):
    with evgrid.open_results(results[0]) as opened:
        result = opened.load()
    gone = ("bus", "line", "trafo", "shunt", "phase")
    own = [
        n for n in result.data_vars if str(n).startswith(("voltage", "head", "base", "losses", "member_f"))
    ]
    alone = result.drop_vars(own).drop_dims([dim for dim in gone if dim in result.dims])
    scenario = json.loads(result.attrs["scenario"]) | {"federation": {"external": ["feeder"]}}
    alone.attrs = dict(result.attrs) | {"scenario": json.dumps(scenario)}
    page = page_of_runs([Case("alone", Path("alone.nc"), alone)])
    assert page.answer[0] == "The feeder was another program, so its limits are not checked."
    assert "Other programs were in place of feeder: what they computed is not recorded." in texts(page)
    assert "Power of the EVs" in html_of(page)
