"""Programs in processes of their own that start in milliseconds: forks of one that has imported all."""

import atexit
import ctypes
import multiprocessing
import os
import runpy
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent


def start_program(name: str, *arguments: str):
    """Start a script of this folder; a multiprocessing.Process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["evgrid.federation.host", "tests.federation.conftest"])
    process = context.Process(target=_run, args=(str(SUPPORT / name), arguments), daemon=True)
    process.start()
    return process


def _run(script: str, arguments: tuple[str, ...]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.argv = [script, *arguments]
    code = 1
    try:
        runpy.run_path(script, run_name="__main__")
        code = 0
    finally:  # with the destructors of libraries, which multiprocessing leaves out
        atexit._run_exitfuncs()
        ctypes.CDLL(None).exit(code)
