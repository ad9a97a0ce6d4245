"""OpenDSS files: what reaches the engine, what is left out, and what is refused."""

from __future__ import annotations

import os

import pytest

from evgrid.errors import NetworkError
from evgrid.feeder.opendss.engine import Engine
from evgrid.feeder.opendss.script import Script

CIRCUIT = "Clear\nNew Circuit.c basekv=0.4 bus1=a\nNew Line.l bus1=a bus2=b length=1 units=km\n"


@pytest.fixture
def written(tmp_path):
    def write(text, name="net.dss"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return path

    return write


def commands(path):
    script = Script()
    return [command.text for command in script.commands(path)], script.left_out


def test_comments_continuations_and_abbreviations(written):
    path = written(
        "clear ! all\n// a remark\n/* show taps\nshell rm */\nnew Line.l bus1=a ! length=3\n"
        "~ bus2=b\n  ~units=km // metric\ncalcv\nLine.l.length=2\n"
    )
    assert commands(path)[0] == [
        "clear", "new Line.l bus1=a", "~ bus2=b", "~ units=km", "calcvoltagebases", "Line.l.length=2",
    ]  # fmt: skip


def test_redirected_files_stand_in_their_place_and_folder(written, tmp_path):
    written("new Line.inner bus1=a bus2=b\nredirect Deeper.DSS\n", "part/lines.dss")
    written("new Load.deep bus1=b\n", "part/deeper.dss")
    path = written("clear\nRedirect part\\Lines.dss\nnew Line.last bus1=b bus2=c\n")
    found = list(Script().commands(path))
    assert [one.text.split()[1] for one in found[1:]] == ["Line.inner", "Load.deep", "Line.last"]
    assert [one.file.parent.name for one in found[1:3]] == ["part", "part"]


def test_after_compile_the_folder_is_that_of_the_file(written):
    written("clear\n", "part/net.dss")
    written("new Line.a bus1=a bus2=b\n", "part/more.dss")
    assert len(commands(written("compile part/net.dss\nredirect more.dss\n"))[0]) == 2


def test_commands_that_solve_or_report_are_left_out_and_counted(written):
    found, left_out = commands(
        written("solve\nShow Voltage LN Nodes\nplot profile\nset showexport=yes\nshow taps\n")
    )
    assert found == []
    assert left_out == {"solve": 1, "show": 2, "plot": 1, "set showexport": 1}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("shell touch x", "the command shell does more than describe a network"),
        ("SHELL touch x", "the command shell does more"),
        ("doscmd touch x", "the command doscmd does more"),
        ("cd ..", "the command cd does more"),
        ("save circuit", "the command save does more"),
        ("dump", "the command dump does more"),
        ("sh x", "the command sh is unknown"),
        ("frobnicate", "the command frobnicate is unknown"),
        ("@cmd x", "'@cmd x' is no command"),
        ('"shell" touch x', "is no command"),
        ("set datapath=/tmp", "the option datapath is no property of a network"),
        ("set datap=/tmp", "the option datap is no property"),
        ("new Generator.g bus1=a usermodel=evil.so", "usermodel is for code that OpenDSS would load"),
        ("new Generator.g bus1=a userm=evil.so", "userm is for code"),
        ("new object=Generator.g bus1=a usermodel=evil.so", "usermodel is for code"),
        ("Generator.g.usermodel=evil.so", "usermodel is for code"),
        ("new PVSystem.p a 1 2 evil.so", "the properties of a pvsystem must be given by name"),
        ("new Storage.s bus1=a DynaDLL=evil.so", "dynadll is for code"),
        ("redirect", "redirect names no file"),
        ("redirect nowhere.dss", "there is no file"),
        ("redirect /dev/zero", "/dev/zero is no regular file"),
        ("redirect net.dss", "redirects to itself"),
        ("new LoadShape.s npts=2000000000 mult=(1 2)", "npts = 2000000000: must be at most 10000000"),
        ("new LoadShape.s npts=3 csvfile=/dev/zero", "/dev/zero is no regular file"),
    ],
)
def test_a_script_can_only_describe_a_network(line, why, written):
    path = written(f"clear\n{line}\n")
    with pytest.raises(NetworkError, match=why) as error:
        commands(path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert "\n" not in str(error.value)


def test_utf_16_is_read(tmp_path):
    path = tmp_path / "net.dss"
    path.write_text("clear\nnew Line.l bus1=a\n", encoding="utf-16")
    assert commands(path)[0] == ["clear", "new Line.l bus1=a"]


def test_code_is_also_refused_on_a_line_that_goes_on(written):
    with pytest.raises(NetworkError, match="line 3: usermodel"):
        commands(written("clear\nnew Generator.g bus1=a\n~ usermodel=evil.so\n"))


def test_a_pipe_is_no_network(tmp_path):
    os.mkfifo(tmp_path / "net.dss")
    with pytest.raises(NetworkError, match="is no regular file"):
        list(Script().commands(tmp_path / "net.dss"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "describes no circuit"),
        (CIRCUIT + "New Lime.x bus1=a\n", r"net\.dss, line 4: OpenDSS error 263: "),
        (CIRCUIT + "New Line.m bus1=a frequenz=2\n", r"net\.dss, line 4: OpenDSS error 110: "),
        (CIRCUIT + "New Line.m bus1=a linecode=none_such\n", r"net\.dss, line 4: OpenDSS error"),
    ],
)
def test_what_the_engine_refuses_has_file_and_line(text, why, written):
    with pytest.raises(NetworkError, match=why) as error:
        Engine(written(text), "net.dss")
    assert "\n" not in str(error.value)


def test_the_engine_writes_no_file_and_stays_in_its_folder(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written(CIRCUIT + "Solve\nExport voltages\nShow losses\n", "there/net.dss")
    Engine(path, "net.dss")
    assert os.getcwd() == str(tmp_path)  # noqa: PTH109
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["net.dss", "there"]
