"""Networks from files: what is wrong with one, all at once and in a sentence each; nothing in it is run."""

from __future__ import annotations

import copy
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandapower as pp
import pytest
from click.testing import CliRunner

import evgrid
from evgrid.cli import main
from evgrid.errors import MOST_OF_ONE_FAULT, NetworkError
from evgrid.feeder import net_file, net_schema
from evgrid.feeder.networks import find_network, load_network
from evgrid.scenario.feeder import Feeder


@pytest.fixture(scope="module")
def content(small):
    """The JSON of a small net, its tables as {columns, index, data}."""
    whole = json.loads(pp.to_json(small))
    for value in whole["_object"].values():
        if isinstance(value, dict) and value.get("_class") == "DataFrame":
            value["_object"] = json.loads(value["_object"])
    return json.dumps(whole)


@pytest.fixture(scope="module")
def small():
    """A line from a source to a transformer, a load behind it, a switch."""
    net = pp.create_empty_network()
    a, b, c, d = (
        pp.create_bus(net, kv, name=name) for kv, name in ((20, "A"), (20, "B"), (0.4, "C"), (0.4, "D"))
    )
    pp.create_ext_grid(net, a)
    pp.create_line_from_parameters(net, a, b, 1.0, 0.2, 0.1, 100.0, 0.3, name="cable")
    pp.create_line_from_parameters(net, c, d, 0.1, 0.2, 0.1, 0.0, 0.3, name="lv")
    pp.create_transformer_from_parameters(
        net, b, c, 0.4, 20.0, 0.4, 1.0, 4.0, 1.0, 0.3, shift_degree=150, name="T"
    )
    pp.create_switch(net, a, 0, "l", closed=True)
    pp.create_load(net, d, 0.02, 0.005, name="H")
    pp.create_sgen(net, d, 0.001, 0.0, name="pv")
    pp.create_shunt(net, d, -0.001)
    return net


@pytest.fixture
def written(content, tmp_path):
    """Writes the small net, changed, and gives the path."""

    def write(change=lambda tables: None, text=lambda text: text):
        whole = json.loads(content)
        change(whole["_object"])
        for value in whole["_object"].values():
            if isinstance(value, dict) and isinstance(value.get("_object"), dict):
                value["_object"] = json.dumps(value["_object"])
        path = tmp_path / "net.json"
        path.write_text(text(json.dumps(whole)))
        return path

    return write


def setting(table, column, value, row=0):
    def change(tables):
        cells = tables[table]["_object"]
        if column not in cells["columns"]:
            cells["columns"].append(column)
            for cell in cells["data"]:
                cell.append(None)
        cells["data"][row][cells["columns"].index(column)] = value

    return change


def without(table, column):
    def change(tables):
        cells = tables[table]["_object"]
        at = cells["columns"].index(column)
        for row in (cells["columns"], *cells["data"]):
            del row[at]

    return change


def faults(path):
    with pytest.raises(NetworkError) as caught:
        load_network(Feeder(network=str(path)))
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


ONE = {
    "dangling bus": (setting("load", "bus", 999999), "load 0 'H' has bus = 999999: there is no such bus"),
    "no bus": (setting("load", "bus", None), "load 0 'H' has no bus"),
    "half a bus": (setting("load", "bus", 1.5), "load 0 'H' has bus = 1.5: there is no such bus"),
    "negative length": (
        setting("line", "length_km", -0.5), "line 0 'cable' has length_km = -0.5: "
        "must be a number from 0 to 100000"),
    "negative resistance": (
        setting("line", "r_ohm_per_km", -1), "line 0 'cable' has r_ohm_per_km = -1: "
        "must be a number from 0 to 1e+09"),
    "negative capacitance": (
        setting("line", "c_nf_per_km", -1), "line 0 'cable' has c_nf_per_km = -1: "
        "must be a number from 0 to 1e+09"),
    "text for a number": (
        setting("load", "p_mw", "20 kW"), "load 0 'H' has p_mw = '20 kW': "
        "must be a number from -1e+06 to 1e+06"),
    "true for a number": (
        setting("load", "p_mw", True), "load 0 'H' has p_mw = True: must be a number from -1e+06 to 1e+06"),
    "infinite power": (
        setting("load", "p_mw", float("inf")), "load 0 'H' has p_mw = inf: "
        "must be a number from -1e+06 to 1e+06"),
    "a number of 400 digits": (
        setting("load", "p_mw", 10**400),
        f"load 0 'H' has p_mw = 1{'0' * 39}…: must be a number from -1e+06 to 1e+06"),
    "empty": (setting("load", "p_mw", None), "load 0 'H' has no p_mw"),
    "zero rating": (
        setting("trafo", "sn_mva", 0.0), "trafo 0 'T' has sn_mva = 0: "
        "must be a number above 0, at most 1e+06"),
    "no nominal voltage": (
        setting("bus", "vn_kv", 0.0, row=3), "bus 3 'D' has vn_kv = 0: "
        "must be a number above 0, at most 10000"),
    "half a line": (
        setting("line", "parallel", 0.5), "line 0 'cable' has parallel = 0.5: "
        "must be a whole number from 1 to 10000"),
    "no parallel": (
        setting("line", "parallel", 0), "line 0 'cable' has parallel = 0: "
        "must be a whole number from 1 to 10000"),
    "a loop": (setting("line", "to_bus", 0), "line 0 'cable' has from_bus and to_bus = 0: must differ"),
    "vk below vkr": (
        setting("trafo", "vk_percent", 0.5),
        "trafo 0 'T' can't be represented with the solver power-grid-model: vk_percent = 0.5 "
        "with vkr_percent = 1, must be above 0 and at least vkr_percent"),
    "an unknown side": (setting("trafo", "tap_side", "HV"), "trafo 0 'T' has tap_side = 'HV': "
    "must be hv, lv or empty"),
    "taps out of order": (
        lambda t: (setting("trafo", "tap_min", 2)(t), setting("trafo", "tap_max", -2)(t)),
        "trafo 0 'T' has tap_min = 2 and tap_max = -2: must be in order"),
    "a flag that is text": (
        setting("load", "in_service", "yes"), "load 0 'H' has in_service = 'yes': must be true or false"),
    "an empty flag": (setting("switch", "closed", None), "switch 0 has no closed"),
    "a name that is a list": (
        setting("load", "name", [1]), "load 0 has name = [1]: must be text of at most 200 characters"),
    "a long name": (
        setting("load", "name", "x" * 201),
        f"load 0 '{'x' * 60}' has name = '{'x' * 40}…': must be text of at most 200 characters"),
    "an unknown switch": (setting("switch", "et", "x"), "switch 0 has et = 'x': "
    "must be b, l, t, t3 or empty"),
    "a switch of nothing": (
        setting("switch", "element", 77), "switch 0 has element = 77: there is no such line"),
    "a switch elsewhere": (setting("switch", "bus", 3), "switch 0 is at bus 3: must be at an end of line 0"),
    "a missing column": (without("line", "length_km"), "line 0 'cable' has no length_km (nor have 1 more)"),
    "a missing reference": (without("load", "bus"), "load 0 'H' has no bus"),
    "frequency": (lambda t: t.update(f_hz=-50), "f_hz = -50: must be a number above 0, at most 1000"),
    "an index twice": (
        lambda t: t["bus"]["_object"].update(index=[0, 1, 2, 2]), "bus: the index 2 is there twice"),
    "an index that is text": (
        lambda t: t["line"]["_object"].update(index=[0, "x"]),
        "line: the index 'x' of row 2 must be a whole number from 0 to 2.14748e+09"),
    "an index of 400 digits": (
        lambda t: t["line"]["_object"].update(index=[0, 10**400]),
        f"line: the index 1{'0' * 39}… of row 2 must be a whole number from 0 to 2.14748e+09"),
    "a column twice": (
        lambda t: t["load"]["_object"]["columns"].__setitem__(0, "bus"), "load has the column bus twice"),
    "a short row": (
        lambda t: t["load"]["_object"]["data"][0].pop(), "load: row 1 does not have 12 cells, one a column"),
    "no rows for indices": (
        lambda t: t["load"]["_object"]["data"].clear(), "load has 1 indices for 0 rows"),
    "a table that is none": (lambda t: t.update(bus=[1, 2]), "bus is a list: must be a table"),
    "a format to come": (
        lambda t: t.update(version="99.0.0", format_version="99.0.0"),
        "can't be brought from pandapower's format '99.0.0' to today's: ValueError: "
        "The network format version 99.0.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE)
def test_a_fault_is_one_sentence_that_says_where_and_what_is_allowed(case, written):
    change, sentence = ONE[case]
    found = faults(written(change))
    assert len(found) == 1
    assert found[0].startswith(sentence) if sentence.endswith("99.0.0") else found == [sentence]


def test_all_faults_are_reported_at_once(written):
    def change(tables):
        for one in ("dangling bus", "negative length", "zero rating", "an unknown switch", "frequency"):
            ONE[one][0](tables)

    assert faults(written(change)) == [
        ONE[one][1]
        for one in ("negative length", "zero rating", "an unknown switch", "dangling bus", "frequency")
    ]


def test_of_one_fault_twenty_rows_are_reported(written):
    def change(tables):
        cells = tables["load"]["_object"]
        cells["data"] = [list(cells["data"][0]) for _ in range(1000)]
        cells["index"] = list(range(1000))
        for k in range(1000):
            setting("load", "bus", 50 + k, k)(tables)

    found = faults(written(change))
    assert len(found) == MOST_OF_ONE_FAULT + 1
    assert found[-1] == "and 980 more of this fault"


def test_ranges_do_not_count_out_of_service_but_references_do(written):
    def change(tables):
        setting("load", "in_service", False)(tables)
        setting("load", "p_mw", 1e9)(tables)

    assert len(load_network(Feeder(network=str(written(change)))).connections) == 0
    assert faults(written(lambda t: (change(t), setting("load", "bus", 77)(t)))) == [
        "load 0 'H' has bus = 77: there is no such bus"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (lambda text: text[: len(text) // 2], "the file is no JSON"),
        (lambda text: "", "the file is no JSON"),
        (lambda text: "[1, 2]", "holds no pandapower net but a list"),
        (lambda text: "null", "holds no pandapower net but empty"),
        (lambda text: '{"a": 1}', "holds no pandapower net: it has no table bus"),
        (lambda text: "[" * 100_000 + "]" * 100_000, "is nested too deeply to be read"),
        (lambda text: '{"_object": {"bus": ' + "1" * 10_000 + "}}", "the file is no JSON: Exceeds the limit"),
        (lambda text: "\ud800".encode("utf-16", "surrogatepass").decode("latin-1"), "the file is no JSON"),
    ],
    ids=["truncated", "empty", "list", "null", "no net", "nested", "digits", "encoding"],
)
def test_a_file_that_is_no_net(text, sentence, written):
    (found,) = faults(written(text=text))
    assert found.startswith(sentence)


def test_excel_files_are_checked_alike(small, tmp_path):
    path = tmp_path / "net.xlsx"
    net = copy.deepcopy(small)
    net.load.loc[0, "name"] = " H "
    net.line.loc[0, "max_i_ka"] = np.inf
    pp.to_excel(net, str(path))
    assert load_network(Feeder(network=str(path))).connections.name.tolist() == ["H"]
    net.load.loc[0, "bus"] = 77
    net.line["length_km"] = [-1.0, 0.1]
    pp.to_excel(net, str(path))
    assert faults(path) == [
        "line 0 'cable' has length_km = -1: must be a number from 0 to 100000",
        "load 0 'H' has bus = 77: there is no such bus",
    ]
    path.write_bytes(path.read_bytes()[:3000])
    assert faults(path)[0].startswith("can't be read as an Excel file: BadZipFile")


def test_a_cell_far_away_in_an_excel_file_takes_no_memory(tmp_path):
    from openpyxl import Workbook

    book = Workbook()
    book.active.title = "bus"
    book.active["XFD20000"] = 1  # 328 million cells
    book.save(tmp_path / "net.xlsx")
    found = faults(tmp_path / "net.xlsx")
    assert len(found) == 1


def test_the_memory_that_a_file_takes_is_reported_before_it_is_read(written, monkeypatch, tmp_path):
    monkeypatch.setenv("EVGRID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(net_file, "SMALL_BYTES", 1000)
    path = written()
    size = path.stat().st_size
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 11 * size}))
    (found,) = faults(path)
    assert found.startswith(
        f"has {size / 1e9:.3g} GB, to read which takes about {12 * size / 1e9:.3g} GB of memory"
    )
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 13 * size}))
    assert len(load_network(Feeder(network=str(path))).connections) == 1


def test_an_excel_file_counts_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "net.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * 60_000_000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 500_000_000}))
    assert path.stat().st_size < 100_000
    assert faults(path)[0].startswith("has 0.06 GB, to read which takes about 0.72 GB of memory")


def test_a_negative_length_ends_in_a_sentence_and_so_does_the_account_of_it(written, tmp_path):
    path = written(setting("line", "length_km", -0.5, row=1))
    (tmp_path / "s.yaml").write_text(
        "name: s\ntime: {start: 2026-01-15T12:00, duration: 3min, step: 60s}\n"
        "feeder: {network: net.json, base_load: {source: net}}\nfleet: {count: 1}\n"
    )
    sentence = "line 1 'lv' has length_km = -0.5: must be a number from 0 to 100000"
    for command in (("validate", tmp_path / "s.yaml"), ("feeder", path)):
        done = CliRunner().invoke(main, [str(part) for part in command])
        assert done.exit_code == 1, done.output
        assert done.stderr.splitlines()[-1].strip() == sentence


# ---- names


def test_names_have_no_spaces_at_their_ends(written, tmp_path):
    written(lambda t: (setting("load", "name", "H/2 ")(t), setting("trafo", "name", " T")(t)))
    (tmp_path / "s.csv").write_text(
        'ev,connection,arrival,departure,energy_kwh\nA,"H/2 ",2026-01-15T13:00,2026-01-15T23:00,20\n'
    )
    (tmp_path / "s.yaml").write_text(
        "name: s\ntime: {start: 2026-01-15T12:00, duration: 12h, step: 15min}\n"
        "communication: {telemetry: 15min}\n"
        "feeder: {network: net.json, base_load: {source: net}}\n"
        "fleet: {sessions: {file: s.csv}, charger: {power_kw: 11, phases: 3}}\n"
    )
    result = evgrid.run(tmp_path / "s.yaml")
    assert result["session_energy_delivered_kwh"].values == pytest.approx([20.0])
    assert result["connection"].values[0] == "H/2"
    assert result["trafo"].values.tolist() == ["T"]


def test_names_that_become_the_same_are_distinguished(written):
    def change(tables):
        cells = tables["load"]["_object"]
        cells["data"].append(list(cells["data"][0]))
        cells["index"].append(1)
        setting("load", "name", "H ", row=1)(tables)

    names = load_network(Feeder(network=str(written(change)))).connections.name.tolist()
    assert names == ["H (load 0)", "H (load 1)"]


def test_names_that_are_numbers_are_text(written):
    network = load_network(Feeder(network=str(written(setting("bus", "name", 34.0)))))
    assert network.grid.buses.name[:2].tolist() == ["34", "B"]


@pytest.mark.parametrize(
    ("at", "aggregators"),
    [
        ("at: ' H '", "{}"),
        ("at: ['H ']", "{}"),
        ("at: H", "{a: {strategy: uncontrolled, evs: {connections: ['H ']}}}"),
        ("at: H", "{a: {strategy: uncontrolled, evs: {transformers: [' T']}}}"),
    ],
)
def test_names_in_a_scenario_have_no_spaces_at_their_ends_either(at, aggregators, written, tmp_path):
    written()
    (tmp_path / "s.yaml").write_text(
        "name: s\ntime: {start: 2026-01-15T12:00, duration: 3min, step: 60s}\n"
        "feeder: {network: net.json, base_load: {source: net}}\n"
        f"fleet: {{count: 1, charger: {{phases: 3}}, {at}}}\naggregators: {aggregators}\n"
    )
    done = CliRunner().invoke(main, ["validate", str(tmp_path / "s.yaml")])
    assert done.exit_code == 0, done.output


def test_columns_of_a_load_file_have_no_spaces_at_their_ends(written, tmp_path):
    written()
    rows = "\n".join(f"{minute},1.5" for minute in range(1, 1441))
    (tmp_path / "load.csv").write_text(f"minute, H \n{rows}\n")
    (tmp_path / "s.yaml").write_text(
        "name: s\ntime: {start: 2026-01-15T12:00, duration: 3min, step: 60s}\n"
        "feeder: {network: net.json, base_load: {file: load.csv, generation: nameplate}}\n"
    )
    result = evgrid.run(tmp_path / "s.yaml")
    assert result["base_load_kw"].values.ravel() == pytest.approx(1.5 - 1.0)  # less 1 kW of pv


# ---- code


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that can be imported and says so, and the file that it leaves."""
    (tmp_path / "evil_module.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\nclass Evil: pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "imported"
    sys.modules.pop("evil_module", None)


CODE = {"_module": "evil_module", "_class": "Evil", "_object": "{}"}


@pytest.mark.parametrize(
    "place",
    [
        lambda tables, code: tables.update(x=code),
        lambda tables, code: tables.update(bus=code),
        lambda tables, code: tables.update(controller={"a": [code]}),
        lambda tables, code: tables.update(name=json.dumps(code)),
        lambda tables, code: tables.update(name=json.dumps({"a": json.dumps(code)})),
        lambda tables, code: setting("load", "type", code)(tables),
        lambda tables, code: setting("load", "type", json.dumps(code))(tables),
        lambda tables, code: setting("bus", "geo", json.dumps(json.dumps(code)))(tables),
    ],
    ids=["part", "table", "list", "text", "text in text", "cell", "text in a cell", "geodata"],
)
@pytest.mark.parametrize(
    "module", ["evil_module", "os", "subprocess", "builtins", "", None, "pandapower_evil"]
)
def test_a_network_that_names_code_is_refused_before_anything_is_imported(place, module, trap, written):
    path = written(lambda tables: place(tables, CODE | {"_module": module}))
    with pytest.raises(NetworkError, match="names code: 'Evil' of the module .* and none is run"):
        load_network(Feeder(network=str(path)))
    assert not trap.exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize("sheet", ["controller", "parameters", "bus", "dtypes"])
def test_an_excel_file_that_names_code_is_refused(sheet, trap, small, tmp_path):
    from openpyxl import load_workbook

    path = tmp_path / "net.xlsx"
    pp.to_excel(small, str(path))
    book = load_workbook(path)
    if sheet not in book.sheetnames:
        book.create_sheet(sheet).append([None, "object"])
    book[sheet].append([0, json.dumps(CODE)])
    book.save(path)
    with pytest.raises(NetworkError, match="names code: 'Evil' of the module 'evil_module'"):
        load_network(Feeder(network=str(path)))
    assert not trap.exists()


def test_a_table_can_not_name_another_file(written, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text('{"columns": ["bus"], "index": [0], "data": [[0]]}')
    path = written(lambda tables: tables["load"].update(_object=str(secret)))
    assert faults(path)[0].startswith("load is no JSON")


def test_pandapowers_own_objects_are_not_built(written):
    def change(tables):
        tables["controller"] = {
            "_module": "pandapower.control.controller.const_control",
            "_class": "ConstControl",
            "_object": "{}",
        }

    assert len(load_network(Feeder(network=str(written(change)))).connections) == 1


def test_pickles_are_no_networks(tmp_path):
    (tmp_path / "net.p").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(NetworkError, match="unknown network"):
        load_network(Feeder(network=str(tmp_path / "net.p")))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("sorted_from_json?path=/etc/passwd", "pandapower.networks has no network sorted_from_json"),
        ("sorted_from_json", "pandapower.networks has no network sorted_from_json"),
        ("create_dickert_lv_feeders", "has no network create_dickert_lv_feeders"),
        ("case33bw?skip_checks=true", "there is no argument skip_checks; it takes no arguments"),
        ("case33bw?replace_elements=x", "there is no argument replace_elements"),
        ("case33bw?x", "there is no argument x"),
        (
            "mv_oberrhein?scenario=../../etc",
            r"scenario = \.\./\.\./etc: must be true, false, a number .* or a word",
        ),
        ("mv_oberrhein?scenario=/etc/passwd", "scenario = /etc/passwd: must be"),
        ("create_kerber_dorfnetz?v_os=nan", "v_os = nan: must be"),
        ("create_kerber_landnetz_freileitung_1?n_lines=1000000000", "n_lines = 1000000000: must be .* 10000"),
        ("create_kerber_landnetz_freileitung_1?n_lines=many", "n_lines = many: must be"),
    ],
)
def test_pandapower_takes_network_functions_with_plain_arguments_only(call, message):
    build, _, _ = find_network(f"pandapower:{call}")
    with pytest.raises(NetworkError, match=message):
        build()


def test_arguments_have_the_types_of_the_defaults():
    def net_of(call):
        return find_network(f"pandapower:{call}")[0]()

    assert len(net_of("create_kerber_landnetz_freileitung_1?n_lines=5&p_load_mw=0.004").load) == 5
    assert len(net_of("create_cigre_network_mv?with_der=false").sgen) == 0
    assert len(net_of("create_cigre_network_mv?with_der=pv_wind").sgen) == 9
    call = "create_kerber_landnetz_freileitung_1?n_lines=2&trafotype=0.1 MVA 10/0.4 kV"
    assert net_of(call).trafo.sn_mva.tolist() == [0.1]


# ---- old files and the schema itself


def test_files_are_read_as_pandapower_reads_them():
    name = "mv_oberrhein"
    path = Path(pp.__file__).parent / "networks" / f"{name}.json"
    mine, other = net_file.checked(net_file.read_net(path), name), pp.from_json(str(path))
    for table, rules in net_schema.RULES.items():
        assert mine[table].index.tolist() == other[table].index.tolist()
        for column in set(rules) & set(other[table].columns) - {"name"}:
            if other[table][column].dtype.kind in "iufb":
                given = other[table][column].to_numpy(float)
                assert np.allclose(
                    mine[table][column].to_numpy(float), given, equal_nan=True, rtol=0, atol=0
                ), column


def test_a_rule_says_what_is_allowed_in_words():
    for table, rules in net_schema.RULES.items():
        for column, rule in rules.items():
            assert rule.range.startswith("must be "), (table, column)
            assert not rule.to or rule.to in net_schema.RULES
