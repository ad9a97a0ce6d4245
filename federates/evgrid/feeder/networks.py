"""Feeders by name or from a file.

In: ``feeder.network`` of the scenario. Out: a :class:`Network`, which holds the feeder's arrays
(:class:`~evgrid.feeder.grid.Grid`), its connection points and, on demand, the pandapower net
itself. pandapower is imported only where a net has to be read: the arrays of built-in networks
and of files are cached in the user's cache folder.

Modelling choices for ``european_lv`` (IEEE European low-voltage test feeder, 906 LV buses, 55
single-phase households): pandapower's data has reactive powers of phases B and C that are 1000
times too small (pandapower issue 2218) and a zero-sequence magnetising impedance that differs
between its variants; here the reactive powers are corrected and the transformer has no
magnetising branch. The source is ideal, 1.05 pu at 11 kV, and loads are constant power.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import inspect
import random
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evgrid.core.cache_folder import arrays_file, read_arrays, write_arrays
from evgrid.core.model import Connections
from evgrid.errors import NetworkError, ScenarioError
from evgrid.feeder import equivalents, net_file, net_schema
from evgrid.feeder import grid as tables
from evgrid.feeder.equivalents import MAGNETISING_IMPEDANCE_PERCENT, prepare
from evgrid.feeder.grid import Grid, Ints, Names, extract, has_asymmetric_power
from evgrid.feeder.households import Customers, customers_notes, customers_of
from evgrid.feeder.opendss.network import OpenDSS, read_opendss
from evgrid.feeder.topology import Topology, topology
from evgrid.scenario.feeder import NETWORK_FILES, is_network_file, is_opendss

if TYPE_CHECKING:
    from evgrid.feeder.solvers import SolverName
    from evgrid.scenario.feeder import Feeder

_CACHE_FORMAT = 6

MOST_ARGUMENT = 10_000
"""Largest number that a network's function takes: with larger ones it builds for hours."""

_WORD = re.compile(r"\w(?:[\w .-]|(?<=\w)/(?=\d))*", re.ASCII)
"""A word or the name of a standard type (``0.4 MVA 20/0.4 kV``), and no path."""


@dataclass(frozen=True)
class Network:
    """A feeder that a run can use.

    source : name of the feeder in messages
    grid : its arrays
    topology : its connectivity
    households : (load,) number behind each load of ``grid``
    read_net : reads the pandapower net, with equivalents of elements that ``grid`` can't represent
    notes : assumptions made for this scenario, a sentence each
    phases_summary : treatment of the phases, in a few words
    opendss : the circuit of a network from an OpenDSS file; else None
    customers : those behind each load of ``grid``; None: all are households
    """

    source: str
    grid: Grid
    topology: Topology
    households: Ints
    read_net: Callable[[], Any]
    notes: tuple[str, ...] = ()
    phases_summary: str = ""
    opendss: OpenDSS | None = None
    customers: Customers | None = None

    @cached_property
    def net(self) -> Any:
        """The pandapower net; imports pandapower (about 3 s)."""
        return self.read_net()

    @property
    def three_phase(self) -> bool:
        """Whether phases are solved separately."""
        return self.grid.three_phase

    @cached_property
    def connections(self) -> Connections:
        """The connection points, one a load of the net in service."""
        loads = self.grid.loads
        return Connections(
            name=loads.name,
            bus=loads.bus,
            phase=loads.phase,
            trafo=self.topology.trafo[loads.bus],
            households=self.households,
            phases=self.grid.phases,
            nodes=self._nodes,
        )

    @property
    def _nodes(self) -> Names | None:
        """Nodes of EVs at each connection point and phase; None: the phases."""
        if self.opendss is not None:
            circuit = self.opendss.circuit
            return circuit.port_nodes(circuit.chargers)
        delta = self.grid.loads.delta
        if not delta.any():
            return None
        return np.where(delta[:, np.newaxis], ("a-b", "b-c", "c-a"), self.grid.phases)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the feeder's dimensions."""
        return {
            "bus": len(self.grid.buses.name),
            "line": len(self.grid.lines.name),
            "trafo": len(self.grid.trafos.name),
            "shunt": len(self.grid.fixed.shunt_name),
            "connection": len(self.grid.loads.name),
            "generator": len(self.grid.fixed.gen_name),
            "phase": len(self.grid.phases),
        }

    @property
    def bank_names(self) -> Names:
        """Names of the transformers of each one's bank, (trafo,): ``reg1 + reg2 + reg3``, or its own."""
        name, bank = self.grid.trafos.name, self.topology.bank
        units: dict[int, list[str]] = {}
        for own, first in zip(name.tolist(), bank.tolist(), strict=True):
            units.setdefault(first, []).append(own)
        return np.array([" + ".join(units[first]) for first in bank.tolist()], np.str_)

    def with_inverters(self, generators: frozenset[int]) -> Network:
        """The network with generators of ``grid.fixed`` that are inverters with functions of their own."""
        if self.opendss is None:  # all generation is constant power
            return self
        return replace(self, opendss=replace(self.opendss, inverters=generators))

    def coordinates(self) -> dict[str, tuple[str, Any, dict[str, str]]]:
        """The coordinates that the feeder brings to a result: name to (dimension, values, attributes)."""
        g, c = self.grid, self.connections
        phase = np.repeat("abc", len(c))
        if self.three_phase:
            between = np.array(["a-b", "b-c", "c-a", "a-b b-c c-a"])[c.phase]
            phase = np.where(g.loads.delta, between, np.array([*g.phases, "abc"])[c.phase])
        if self.opendss is not None:
            phase = self.opendss.circuit.charger_nodes()
        bank = self.bank_names
        trafo = np.append(bank, "")[c.trafo]
        nodes = {} if self.opendss is None else {
            "bus_nodes": ("bus", self.opendss.circuit.nodes_of_bus(), {"long_name": "nodes of the bus"}),
            "line_nodes": ("line", self.opendss.circuit.nodes_of_line(), {"long_name": "nodes of the line"}),
        }  # fmt: skip
        banks = {} if (bank == g.trafos.name).all() else {
            "trafo_bank": ("trafo", bank, {"long_name": "transformers between the same two buses"}),
        }  # fmt: skip
        return nodes | banks | {
            "bus": ("bus", g.buses.name, {"long_name": "bus"}),
            "line": ("line", g.lines.name, {"long_name": "line"}),
            "trafo": ("trafo", g.trafos.name, {"long_name": "transformer"}),
            "shunt": ("shunt", g.fixed.shunt_name, {"long_name": "shunt"}),
            "connection_bus": (
                "connection", g.buses.name[c.bus], {"long_name": "bus of the connection point"},
            ),
            "connection_phase": (
                "connection", phase, {"long_name": "phase of the connection point, or nodes of its EVs"},
            ),
            "connection_trafo": ("connection", trafo, {"long_name": "transformer or bank next upstream"}),
            "connection_households": (
                "connection", c.households, {"long_name": "households behind the connection point"},
            ),
        }  # fmt: skip

    def generator_coordinates(self) -> dict[str, tuple[str, Any, dict[str, str]]]:
        """The coordinates of the generators, as :meth:`coordinates` has them."""
        fixed = self.grid.fixed
        return {
            "generator": ("generator", fixed.gen_name, {"long_name": "generator"}),
            "generator_bus": (
                "generator", self.grid.buses.name[fixed.gen_bus], {"long_name": "bus of the generator"},
            ),
        }  # fmt: skip


def load_network(settings: Feeder, one_phase_evs: bool = False, charger_v: float | None = None) -> Network:
    """Find the feeder that a scenario names.

    Parameters
    ----------
    settings
        ``network`` is a built-in name or the path of a file of :data:`~evgrid.scenario.feeder.NETWORK_FILES`.
    one_phase_evs
        Whether EVs charge on one phase, for which ``phases: auto`` solves the net in three phases.
    charger_v
        Nominal voltage of chargers, which decides how they are connected in a network from OpenDSS.

    Raises
    ------
    NetworkError
        If there is no such network, it can't be read, or it has elements that can't be represented.
    ScenarioError
        If EVs charge on one phase, ``phases`` is ``auto``, and the net can't be solved in three phases.

    """
    if is_opendss(settings.network):
        return _opendss_network(settings, charger_v)
    build, key, source = find_network(settings.network)
    because_of_evs = False

    def prepared() -> Any:
        return prepare_net(build(), settings, one_phase_evs).net

    def fresh() -> Grid:
        nonlocal because_of_evs
        net = build()
        done = prepare_net(net, settings, one_phase_evs)
        because_of_evs = one_phase_evs and settings.phases == "auto" and not has_asymmetric_power(net)
        return extract(
            done.net,
            source,
            "power-grid-model" if settings.solver == "auto" else settings.solver,
            is_three_phase(done.net, settings, one_phase_evs),
            done.refused,
        )

    recipe = settings.zero_sequence.model_dump_json() if settings.zero_sequence else ""
    by_evs = one_phase_evs and settings.phases == "auto"
    try:
        grid = _cached(repr((key, settings.phases, by_evs, recipe)), fresh)
        customers = customers_of(settings, grid.loads)
        network = Network(source, grid, topology(grid, source), customers.households, prepared)
        if by_evs and not grid.asymmetric:
            because_of_evs = True
            _check_solver(settings.solver, network)
    except NetworkError as error:
        if not because_of_evs:
            raise
        raise _needs_three_phases(source, error) from None
    summary, notes = _phases_summary(settings, grid, one_phase_evs)
    return replace(
        network,
        phases_summary=summary,
        customers=customers,
        notes=(*notes, *_held_note(grid), *customers_notes(settings, customers, grid.loads)),
    )


def _opendss_network(settings: Feeder, charger_v: float | None) -> Network:
    """The network of an OpenDSS file."""
    found = read_opendss(settings.network, charger_v)
    grid, source = found.circuit.grid, str(found.path)

    def no_net() -> Any:
        raise NetworkError(f"{source} is from OpenDSS: feeder.solver must be opendss, not {settings.solver}")

    customers = customers_of(settings, grid.loads)
    return Network(
        source, grid, topology(grid, source), customers.households, no_net, customers=customers,
        notes=(*found.circuit.notes, *customers_notes(settings, customers, grid.loads)),
        phases_summary="three, solved separately", opendss=found,
    )  # fmt: skip


def _check_solver(solver: SolverName, network: Network) -> None:
    """Raises NetworkError naming the elements that a solver can't represent."""
    from evgrid.feeder.solvers import faults_of

    faults = faults_of(network, solver)
    if faults:
        raise NetworkError.of(network.source, faults)


def _needs_three_phases(source: str, error: NetworkError) -> ScenarioError:
    """The error where EVs charge on one phase and a net can't be solved in three."""
    why = [line.strip() for line in str(error).splitlines()]
    reason = why[1] if len(why) > 1 else why[0]
    more = f" (and {len(why) - 2} more faults)" if len(why) > 2 else ""
    return ScenarioError(
        [
            f"feeder.phases = auto: EVs charge on one phase, so {source} is to be solved in three, but it "
            f"can't be: {reason.partition('; give it, or choose')[0]}{more}; give the data, choose "
            "feeder.zero_sequence: {recipe: four_wire}, or chargers and vehicles of three phases "
            "(fleet.charger.phases: 3, a fleet.mix whose types have ac_3p_kw), or ask for single-phase power "
            "spread over three phases (feeder.phases: 1)"
        ]
    )


def _phases_summary(settings: Feeder, grid: Grid, one_phase_evs: bool) -> tuple[str, tuple[str, ...]]:
    """Treatment of the phases, in a few words, and notes on it."""
    if grid.three_phase:
        if settings.phases == "auto" and one_phase_evs and not grid.asymmetric:
            return "three, solved separately because EVs charge on one phase", (
                "feeder.phases = auto: solved in three phases because EVs charge on one phase; at a "
                "connection point of three phases it is the session's, else drawn for each EV from the seed.",
            )
        return "three, solved separately", ()
    spread = ["EVs that charge on one phase"] if one_phase_evs else []
    if grid.asymmetric:
        spread.append(f"loads and generators with phases of their own ({grid.asymmetric})")
    if not spread:
        return "balanced", ()
    return f"balanced (feeder.phases = 1), although there are {' and '.join(spread)}", (
        f"feeder.phases = 1: the power of {' and '.join(spread)} is spread evenly over three phases, so "
        "voltages are less low, and currents less high, than those of the worst phase.",
    )


def _held_note(grid: Grid) -> tuple[str, ...]:
    """The note on generators that hold a voltage."""
    number = int(grid.fixed.holds.sum())
    if not number:
        return ()
    phases = "; in three phases with equal powers, the positive sequence" if grid.three_phase else ""
    return (
        f"{number} of the network's gens hold the voltage of their buses by a reactive power without limits, "
        f"also without active power{phases}.",
    )


def is_three_phase(net: Any, settings: Feeder, one_phase_evs: bool = False) -> bool:
    """Whether a net is solved phase by phase."""
    if settings.phases == "auto":
        return one_phase_evs or has_asymmetric_power(net)
    return settings.phases == 3


def prepare_net(net: Any, settings: Feeder, one_phase_evs: bool = False) -> equivalents.Prepared:
    """A net with equivalents of elements that a Grid can't represent."""
    return prepare(net, is_three_phase(net, settings, one_phase_evs), settings.zero_sequence)


def find_network(name: str) -> tuple[Callable[[], Any], str, str]:
    """Function that builds the pandapower net of a name or file, a key of its content, and its name
    in messages.

    Raises
    ------
    NetworkError
        If there is no such network or file.

    """
    build, key, source = _found(name)
    return (lambda: net_file.checked(build(), source)), key, source


def _found(name: str) -> tuple[Callable[[], Any], str, str]:
    """See :func:`find_network`: the net as it is given, unchecked."""
    if name in BUILT_IN:
        return BUILT_IN[name], name, name
    family, _, member = name.partition(":")
    if family == "pandapower" and member:
        return (lambda: _pandapower_call(member)), name, name
    if family == "simbench" and member:
        return (lambda: simbench_net(member)), f"{name} {simbench_version()}", name
    path = Path(name).expanduser()
    if not is_network_file(name):
        raise NetworkError(_unknown(name))
    read = NETWORK_FILES.find(path.suffix.lower())
    try:
        if not path.is_file():
            raise NetworkError(f"feeder.network = {name}: there is no file {path}")
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        reader = hashlib.sha256(Path(inspect.getfile(read)).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:  # no permission, a NUL in the path
        raise NetworkError(f"feeder.network = {name}: can't be read: {error}") from None
    return (lambda: read(path)), f"{content} {reader}", str(path)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, BUILT_IN, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return (
        f"feeder.network = {name}: unknown network; {hint}"
        f"built-in are {', '.join(BUILT_IN)}, or give pandapower:NAME, simbench:CODE or a "
        f"file ({', '.join(NETWORK_FILES.names())})"
    )


def _pandapower_call(call: str) -> Any:
    """A net of pandapower's module ``networks``: NAME, or NAME?setting=value&setting=value.

    A function that gives several nets in a tuple or list gives its first. Functions that draw at
    random (the Kerber networks) give the same net each time.
    """
    import pandapower.networks

    wrong = f"feeder.network = pandapower:{call}"
    name, _, query = call.partition("?")
    makers = {
        key: value
        for key, value in vars(pandapower.networks).items()
        if callable(value)
        and str(getattr(value, "__module__", "")).startswith("pandapower.networks.")
        and not key.startswith("_")
        and not _asks_for_more(value)
    }
    if name not in makers:
        near = difflib.get_close_matches(name, makers, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise NetworkError(f"{wrong}: pandapower.networks has no network {name}{hint}")
    settings = _arguments(makers[name], query, wrong)
    with warnings.catch_warnings(), _fixed_random_state():
        warnings.simplefilter("ignore")
        try:
            net = makers[name](**settings)
        except Exception as error:  # any error of the function, most often of its arguments
            raise NetworkError(f"{wrong}: {' '.join(str(error).split())}") from error
    if isinstance(net, tuple | list) and net:
        net = net[0]
    if not isinstance(net, pandapower.pandapowerNet):
        raise NetworkError(f"{wrong}: {name} gives no network")
    return net


def _asks_for_more(maker: Callable[..., Any]) -> bool:
    """Whether a function can't be called without arguments: it makes no network but changes or reads one."""
    return any(
        parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        for parameter in inspect.signature(maker).parameters.values()
    )


def _arguments(maker: Callable[..., Any], query: str, wrong: str) -> dict[str, Any]:
    """The text after the ``?`` as arguments of a function, of the types of its defaults.

    Raises
    ------
    NetworkError
        If the function has no such argument, or the value is not valid for it.

    """
    own = {
        key: parameter.default
        for key, parameter in inspect.signature(maker).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    found: dict[str, Any] = {}
    for part in query.split("&") if query else ():
        key, equals, text = part.partition("=")
        if not equals or key not in own:
            allowed = ", ".join(own) if own else "no arguments"
            raise NetworkError(f"{wrong}: there is no argument {key}; it takes {allowed}")
        found[key] = _argument(text, own[key])
        if found[key] is None:
            least = "" if isinstance(own[key], str) else f" like {own[key]}"
            raise NetworkError(
                f"{wrong}: {key} = {text}: must be true, false, a number from -{MOST_ARGUMENT} to "
                f"{MOST_ARGUMENT}, or a word{least}"
            )
    return found


def _argument(text: str, default: Any) -> bool | float | str | None:
    """An argument converted to the type of its default; None if it can't be."""
    if isinstance(default, str):
        return text if _WORD.fullmatch(text) and ".." not in text else None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:  # some take a word in place of a number or a flag
        plain = isinstance(default, bool) and _WORD.fullmatch(text) and ".." not in text
        return text if plain else None
    if isinstance(default, bool) or not abs(number) <= MOST_ARGUMENT:
        return None
    return int(number) if isinstance(default, int | None) and number.is_integer() else number


@contextmanager
def _fixed_random_state() -> Iterator[None]:
    """Random numbers that are the same each time, without effect on those drawn elsewhere."""
    plain, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(numpy_state)  # noqa: NPY002


def simbench_net(code: str) -> Any:
    """A net of simbench, with its profiles.

    Raises
    ------
    NetworkError
        If the package is missing or knows no such code.

    """
    try:
        import simbench
    except ImportError as error:
        raise NetworkError(
            f"feeder.network = simbench:{code}: needs the package simbench; pip install 'evgrid[simbench]'"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return simbench.get_simbench_net(code)
        except Exception as error:  # parsing the code raises various errors
            raise NetworkError(
                f"feeder.network = simbench:{code}: no such code (one is 1-LV-rural1--0-sw): {error}"
            ) from error


def simbench_version() -> str:
    """Version of the package simbench, empty without it."""
    try:
        return importlib.metadata.version("simbench")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _pandapower_network(name: str) -> Any:
    import pandapower.networks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(pandapower.networks, name)()


def _european_lv() -> Any:
    net = _pandapower_network("ieee_european_lv_asymmetric")
    loads = net.asymmetric_load
    loads["q_b_mvar"] *= 1000
    loads["q_c_mvar"] *= 1000
    net.trafo["mag0_percent"] = MAGNETISING_IMPEDANCE_PERCENT
    return net


BUILT_IN: dict[str, Callable[[], Any]] = {
    "european_lv": _european_lv,
    "case33bw": lambda: _pandapower_network("case33bw"),
    "cigre_lv": lambda: _pandapower_network("create_cigre_network_lv"),
    "cigre_mv": lambda: _pandapower_network("create_cigre_network_mv"),
}
"""Networks that need no download."""


# ---- the arrays on disk -------------------------------------------------------------------------


def _cached(key: str, fresh: Callable[[], Grid]) -> Grid:
    """The arrays of a net from the cache folder, or built and then cached there.

    The file's name depends on the net, the version of pandapower, and this module's source. A cache that
    can't be read or written is ignored. Only a net that could be represented is cached, and refusals don't
    depend on the solver.
    """
    sources = [
        hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for path in (__file__, *(str(m.__file__) for m in (tables, equivalents, net_file, net_schema)))
    ]
    path = arrays_file("grid", (key, importlib.metadata.version("pandapower"), sources, _CACHE_FORMAT))
    kept = read_arrays(path)
    if kept is not None:
        with suppress(KeyError, TypeError, ValueError):  # of other names or kinds
            grid: Grid = _unpack(Grid, kept, "")
            return grid
    grid = fresh()
    write_arrays(path, _pack(grid, ""))
    return grid


def _pack(table: Any, prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in fields(table):
        value = getattr(table, field.name)
        if is_dataclass(value):
            flat |= _pack(value, f"{prefix}{field.name}.")
        else:
            flat[prefix + field.name] = np.asarray(value)
    return flat


def _unpack(kind: type[Any], content: Any, prefix: str) -> Any:
    parts = {}
    for field in fields(kind):
        inner = getattr(tables, str(field.type), None)
        if isinstance(inner, type) and is_dataclass(inner):
            parts[field.name] = _unpack(inner, content, f"{prefix}{field.name}.")
        else:
            value = content[prefix + field.name]
            parts[field.name] = value.item() if value.ndim == 0 else value
    return kind(**parts)
