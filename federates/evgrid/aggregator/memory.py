"""What a strategy keeps beyond a run: arrays in a file (.npz), of the run as a whole, of each EV or of each
member.

Arrays of EVs and members are saved with their names, and found again by them: a run with some of the members
takes what is theirs. An array of the run as a whole, such as a policy's weights, must have the strategy's
own shape.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from evgrid.core.netcdf import replacing
from evgrid.errors import StrategyError

if TYPE_CHECKING:
    from evgrid.aggregator.strategy import Context, Strategy

Owner = Literal["run", "ev", "member"]
"""What an array belongs to: the run as a whole, or along its first axis the EVs or the members."""

_EV, _EV_MEMBER, _MEMBER = "ev_name", "ev_member", "member"
_RESERVED = {_EV, _EV_MEMBER, _MEMBER}


def save(strategy: Strategy, path: Path) -> None:
    """Write what a strategy keeps into a file, atomically.

    Raises StrategyError if it keeps nothing, has no such array, or the file can't be written.
    """
    evs, numbers = strategy.context.evs, np.array(strategy.context.numbers)
    content = {name: _own(strategy, name) for name in _kept(strategy)}
    if "ev" in strategy.keeps.values():
        content |= {_EV: evs.name, _EV_MEMBER: numbers[evs.member]}
    if "member" in strategy.keeps.values():
        content[_MEMBER] = numbers
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **content)
    except OSError as error:
        raise StrategyError(f"{path} can't be written: {error.strerror or error}") from error


def load(strategy: Strategy, path: Path) -> None:
    """Set what a strategy keeps to the content of a file.

    Raises StrategyError if there is no such file, or it lacks an array, an EV or a member of the run, or has
    an array of another shape. The strategy is unchanged then.
    """
    content = _read(path)
    found = {name: _of_run(strategy, name, content, path) for name in _kept(strategy)}
    for name, values in found.items():
        setattr(strategy, name, values)


def _kept(strategy: Strategy) -> list[str]:
    cls = type(strategy)
    if not cls.keeps:
        raise StrategyError(f"{cls.__name__} keeps nothing beyond a run: its keeps names no arrays")
    for name, owner in cls.keeps.items():
        if owner not in ("run", "ev", "member") or name in _RESERVED:
            raise StrategyError(
                f"{cls.__name__}.keeps[{name!r}] = {owner!r}: must be run, ev or member, and not be called "
                f"{', '.join(sorted(_RESERVED))}"
            )
    return list(cls.keeps)


def _own(strategy: Strategy, name: str) -> NDArray[Any]:
    """An array of a strategy."""
    who, owner, context = type(strategy).__name__, strategy.keeps[name], strategy.context
    values = np.asarray(getattr(strategy, name, None))
    if values.dtype.kind not in "biuf":
        raise StrategyError(f"{who}.{name}: must be an array of numbers, as {who}.keeps names it")
    rows = {"ev": len(context.evs), "member": context.members}.get(owner)
    if rows is not None and values.shape[:1] != (rows,):
        raise StrategyError(
            f"{who}.{name} has the shape {values.shape}: must have {rows} rows, one a {owner}"
        )
    return values


def _of_run(strategy: Strategy, name: str, content: dict[str, NDArray[Any]], path: Path) -> NDArray[Any]:
    """An array of a file, in the order of the run."""
    own, owner = _own(strategy, name), strategy.keeps[name]
    labels = {"run": (), "ev": (_EV, _EV_MEMBER), "member": (_MEMBER,)}[owner]
    for needed in (name, *labels):
        if needed not in content:
            raise StrategyError(f"{path} has no {needed}, which {type(strategy).__name__} needs")
    values = content[name]
    if owner != "run":
        there = [content[label] for label in labels]
        if values.ndim == 0 or any(label.shape != (len(values),) for label in there):
            raise StrategyError(f"{path}: {name} and {', '.join(labels)} have different lengths")
        row = {key: at for at, key in enumerate(zip(*(label.tolist() for label in there), strict=True))}
        keys = _keys(strategy.context, owner)
        missing = [key for key in keys if key not in row]
        if missing:
            number = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            first = missing[0]
            what = f"EV {first[0]} of member {first[1]}" if owner == "ev" else f"member {first[0]}"
            raise StrategyError(f"{path} is of another scenario: {name} has no {what}{number}")
        values = values[np.array([row[key] for key in keys], np.int64)]
    if values.shape != own.shape or values.dtype.kind not in "biuf":
        raise StrategyError(
            f"{path}: {name} has the shape {values.shape} ({values.dtype}), the strategy's is {own.shape}"
        )
    return values.astype(own.dtype)


def _keys(context: Context, owner: Owner) -> list[tuple[Any, ...]]:
    numbers = np.array(context.numbers)
    if owner == "member":
        return [(number,) for number in numbers.tolist()]
    return list(zip(context.evs.name.tolist(), numbers[context.evs.member].tolist(), strict=True))


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise StrategyError(f"there is no file {path}") from None
    except OSError as error:
        raise StrategyError(f"{path} can't be read: {error.strerror or error}") from error
    except (ValueError, AttributeError, EOFError, zipfile.BadZipFile):
        raise StrategyError(f"{path} is no file of arrays (.npz), or is damaged") from None
