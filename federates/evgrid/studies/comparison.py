"""Studies that compare variants of one scenario, member by member.

In: a scenario and *variants*, named overrides of it (no EVs, uncontrolled, V1G, …). All variants
see the same members: the same households, drivers and sessions (common random numbers), so that
differences are due to the variant. Out: a Dataset of key figures over (variant, member), a table,
a picture.

The runs are a batch (:mod:`evgrid.runs.batch`): in processes of their own on all cores or on a Dask
scheduler, resumable, and a variant that fails is named while the others go on. A study is one class
that extends :class:`Comparison` and defines key figures (:meth:`Comparison.figures`, and
:meth:`Comparison.between` for those that need several variants) and a picture
(:meth:`Comparison.draw`). It may set up the variants itself (:meth:`Comparison.usual_variants`), and
have parts that start from other overrides (:meth:`Comparison.parts`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from evgrid.errors import ResultError, ScenarioError
from evgrid.results import open_results, save_dataset
from evgrid.results.settlement import amount, is_currency
from evgrid.runs.batch import KEPT, Batch, Run, plan, read_index, run_batch
from evgrid.scenario import Scenario, load_scenario
from evgrid.studies.study import Answer, BatchOptions, Option, Progress, Study

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

_ROUNDING = 1e-9
"""Differences below this, in any unit of a key figure, are rounding."""

FORMAT = "evgrid-comparison-1"
"""Written into each study's Dataset."""


class Comparison(Study):
    """Comparison of variants of one scenario."""

    options: ClassVar[tuple[Option, ...]] = (Option("--members", "members", "Members of each variant.", int),)

    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)] | None = None
    """The variants by name; each is overrides of the scenario. Left out: the usual variants of the
    kind of study, if it has any."""
    members: Annotated[int, Field(ge=1)] | None = None
    """Members of each variant; left out: those of the scenario."""

    def figures(self, result: xr.Dataset) -> xr.Dataset:
        """Key figures of a run.

        Variables of the dimension (member,) only are key figures: with ``long_name`` and ``units`` they
        are lines of the table. Others, such as (member, time), are kept for plots. ``result`` may hold a
        part of the members.
        """
        raise NotImplementedError

    def between(self, study: xr.Dataset) -> xr.Dataset:
        """The study's Dataset with the figures that need several variants, such as savings of one
        against another.
        """
        return study

    def draw(self, study: xr.Dataset) -> Figure:
        """The picture that answers the study's question, from its Dataset."""
        raise NotImplementedError

    def usual_variants(self, scenario: Scenario) -> dict[str, dict[str, Any]]:
        """The variants where the study file has none; ``scenario`` is their base.

        Raises
        ------
        ScenarioError
            If the scenario lacks a section that the study needs, or there are no usual variants.

        """
        raise ScenarioError([f"variants: is required in a study of the kind {self.kind}"], self.name)

    def cases(self) -> dict[str, dict[str, Any]]:
        """The variants by name."""
        if self.variants is not None:
            return self.variants
        return self.usual_variants(load_scenario(self.scenario, self.overrides))

    def parts(self) -> dict[str, Comparison]:
        """The comparisons that the study consists of, each run in the sub-folder that names it; "" is the
        study itself, in its own folder.
        """
        return {"": self}

    def plans(self) -> list[Run]:
        """All runs, resolved. Raises ScenarioError with every fault of every one."""
        return [run for part in self.parts().values() for run in plan(part.batch())]

    def answers(self, folder: Path, progress: Progress, options: BatchOptions) -> Iterator[Answer]:
        """See :meth:`evgrid.studies.study.Study.answers`."""
        for name, part in self.parts().items():
            own = folder / name
            with progress(part.name) as advance:
                result = run_comparison(part, own, progress=advance, **options)
            save = partial(save_comparison, part, result, own)
            broken = {f"variant {variant}": reason for variant, reason in failures(result).items()}
            yield Answer(part.name, side_by_side(result), save, broken)

    def batch(self) -> Batch:
        """The runs: a case a variant, in the order of the variants."""
        members = {} if self.members is None else {"ensemble.members": self.members}
        return Batch.model_validate(
            {
                "name": self.name,
                "base": self.scenario,
                "overrides": {**self.overrides, **members},
                "list": list(self.cases().values()),
            }
        )


def run_comparison(
    study: Comparison,
    folder: str | Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> xr.Dataset:
    """Run all variants and compute their key figures.

    Parameters
    ----------
    study
        The comparison.
    folder
        Folder of the runs' results.
    resume, workers, scheduler, progress
        See :func:`evgrid.run_batch`.

    Returns
    -------
    xarray.Dataset
        Variables of :meth:`Comparison.figures` and :meth:`Comparison.between`, with ``variant`` in front.
        A variant of which a run has failed is left out: ``attrs["failed"]`` has its reason, as JSON.

    Raises
    ------
    EvgridError
        If a scenario is at fault, the folder holds runs already and ``resume`` is not given, or no
        variant has finished.
    KeyboardInterrupt
        On Ctrl-C; finished runs are kept.

    """
    import xarray as xr

    folder, variants = Path(folder), study.cases()
    report = run_batch(
        study.batch(), folder, resume=resume, workers=workers, scheduler=scheduler, progress=progress
    )
    if report.stopped:
        raise KeyboardInterrupt(KEPT)
    index = read_index(folder)
    parts, failed = dict[str, "xr.Dataset"](), dict[str, str]()
    for case, variant in enumerate(variants):
        runs = index[index["case"] == case]
        missing = runs[runs["state"] != "finished"]
        if len(missing):
            failed[variant] = str(missing["reason"].iloc[0])
            continue
        chunks = [_figures_of(study, folder / "runs" / f"{run}.nc") for run in runs["id"]]
        parts[variant] = chunks[0] if len(chunks) == 1 else xr.concat(chunks, "member", data_vars="minimal")
    return together(study, parts, failed)


def run_here(study: Comparison, *variants: str) -> xr.Dataset:
    """Like :func:`run_comparison`, one run after the other in this process and without files: for a few small
    ones, as in a notebook. Left out: all variants.

    Raises EvgridError with the first fault.
    """
    from evgrid.runs.simulation import run

    shared = study.batch().overrides
    cases = {name: case for name, case in study.cases().items() if not variants or name in variants}
    return together(
        study,
        {
            name: study.figures(run(load_scenario(study.scenario, {**shared, **case})))
            for name, case in cases.items()
        },
    )


def together(
    study: Comparison, parts: Mapping[str, xr.Dataset], failed: Mapping[str, str] | None = None
) -> xr.Dataset:
    """The study's Dataset, from :meth:`Comparison.figures` of each variant.

    ``failed``: variants that did not finish, with the reason. Raises ResultError if there is no other.
    """
    import xarray as xr

    failed = failed or {}
    if not parts:
        reasons = "; ".join(f"{variant}: {reason}" for variant, reason in failed.items())
        raise ResultError(f"study {study.name}: no variant has finished ({reasons})")
    names = xr.DataArray(list(parts), dims="variant", name="variant", attrs={"long_name": "variant"})
    whole = xr.concat(list(parts.values()), names, data_vars="all", coords="minimal", compat="override",
                      join="outer", combine_attrs="drop_conflicts")  # fmt: skip
    return study.between(whole).assign_attrs(
        format=FORMAT,
        kind=study.kind,
        name=study.name,
        study=study.model_dump_json(),
        failed=json.dumps(failed),
    )


def _figures_of(study: Comparison, path: Path) -> xr.Dataset:
    with open_results(path) as result:
        try:
            return study.figures(result).load()
        except KeyError as error:
            if json.loads(result.attrs.get("recorded", "{}")):
                raise ResultError(
                    f"{path}: {error.args[0]} is not recorded, which the study needs (record of the scenario)"
                ) from error
            raise


def key_figures(study: xr.Dataset) -> list[str]:
    """Names of the Dataset's key figures: a number for each variant and member."""
    return [str(name) for name in study.data_vars if set(study[name].dims) == {"variant", "member"}]


def figures_table(study: xr.Dataset) -> pd.DataFrame:
    """Key figures as a long table: variant, figure, its description and unit, and over the members the
    median, the 5th and 95th percentile, and the mean; NaN counts as missing.
    """
    import pandas as pd

    return pd.DataFrame(
        {
            "variant": str(variant), "figure": name, "text": study[name].attrs["long_name"],
            "unit": study[name].attrs["units"], **_over_members(study[name].sel(variant=variant)),
        }
        for name in key_figures(study)
        for variant in study["variant"].values
    )  # fmt: skip


def side_by_side(study: xr.Dataset) -> pd.DataFrame:
    """Key figures for reading: a row a figure, a column a variant, as text; over several members the
    median and, in brackets, 5 to 95 %; of a bool the number of members for which it is true.
    """
    import pandas as pd

    rows = {}
    for name in key_figures(study):
        text, unit = study[name].attrs["long_name"], study[name].attrs["units"]
        label = text if unit in ("", "1") else f"{text} ({unit})"
        rows[label] = {
            str(variant): _cell(study[name].sel(variant=variant)) for variant in study["variant"].values
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _over_members(values: xr.DataArray) -> dict[str, float]:
    known = values.values[np.isfinite(values.values)].astype(float)
    if not len(known):
        return dict.fromkeys(("median", "low", "high", "mean"), np.nan)
    low, median, high = np.quantile(known, [0.05, 0.5, 0.95]).tolist()
    return {"median": median, "low": low, "high": high, "mean": float(known.mean())}


def _cell(values: xr.DataArray) -> str:
    if values.dtype == bool:
        return f"{int(values.sum())} of {values.size}"
    figure = _over_members(values)
    if np.isnan(figure["median"]):
        return str(values.attrs.get("remark") or "–")
    text = amount if is_currency(values.attrs["units"]) else _number
    middle = text(figure["median"])
    if values.size == 1:
        return middle
    known = int(np.isfinite(values.values).sum())
    of = f", {known} of {values.size} members" if known < values.size else ""
    return f"{middle} ({text(figure['low'])} to {text(figure['high'])}{of})"


def save_comparison(study: Comparison, result: xr.Dataset, folder: str | Path) -> list[Path]:
    """Write ``study.nc``, ``figures.csv`` and ``study.png`` into a folder; returns the files.

    Raises
    ------
    ResultError
        If they can't be written.

    """
    folder = Path(folder)
    files = [folder / name for name in ("study.nc", "figures.csv", "study.png")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_dataset(result, files[0])
        figures_table(result).to_csv(files[1], index=False)
        study.draw(result).savefig(files[2], dpi=130)
    except OSError as error:
        raise ResultError(f"the study can't be written to {folder}: {error}") from error
    return files


def failures(result: xr.Dataset) -> Mapping[str, str]:
    """Variants that did not finish, with the reason."""
    reasons: dict[str, str] = json.loads(result.attrs["failed"])
    return reasons


def _number(value: float) -> str:
    """Three to four significant digits, without an exponent where that is readable; rounding errors
    are 0.
    """
    if abs(value) < _ROUNDING:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2e}"
