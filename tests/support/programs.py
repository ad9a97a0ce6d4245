"""Programs in processes of their own that start in milliseconds: forks of one that has imported all."""

import atexit
import ctypes
import multiprocessing
import os
import runpy
import sys
import threading
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from multiprocessing.popen_forkserver import Popen
from pathlib import Path

SUPPORT = Path(__file__).parent
_polling = threading.Lock()


class _Popen(Popen):
    """Reads the exit code of its process once, from whatever thread.

    ``Process.start`` asks for the exit codes of all processes. Where two threads asked at a time, one read
    the code, and the other the end of the pipe, which multiprocessing takes for exit code 255.
    """

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """See ``Popen.poll``."""
        if self.returncode is None and flag != os.WNOHANG:
            wait([self.sentinel])
        with _polling:
            return super().poll()


class _Program(ForkServerProcess):
    _Popen = staticmethod(_Popen)


def start_program(name: str, *arguments: str):
    """Start a script of this folder; a multiprocessing.Process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["evgrid.federation.host", "tests.federation.conftest"])
    process = _Program(target=_run, args=(str(SUPPORT / name), arguments), daemon=True)
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
