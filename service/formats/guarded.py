"""Reading HDF5 and TIFF from strangers in processes of their own (sandbox.py), which may die in our stead."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.formats import sandbox
from service.problems import Problem

Kind = Literal["h5", "tif"]
SECONDS = 20.0
_NAMES = {"h5": "HDF5", "tif": "TIFF"}


class ReaderPool:
    """Some reading processes, started when they are first needed. Any thread may read.

    Args:
        most: bytes of an array.
        processes: at a time.
        seconds: that a file may take.
    """

    def __init__(self, most: int, processes: int = 2, seconds: float = SECONDS) -> None:
        self.most = most
        self.seconds = seconds
        self._idle: queue.LifoQueue[subprocess.Popen[bytes] | None] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(None)

    def read(self, kind: Kind, content: bytes) -> NDArray[Any]:
        """The array in a file.

        Raises:
            Problem: it is not one of this kind, holds something else, or took the reader's life or time.
        """
        process = self._idle.get()
        try:
            if process is None or process.poll() is not None:
                process = self._start()
            about, data = self._ask(process, kind, content)
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
            self._idle.put(None)
            raise
        self._idle.put(process)
        if "error" in about:
            raise Problem(400, f"the {_NAMES[kind]} file was refused: {about['error']}")
        return np.frombuffer(bytearray(data), np.dtype(about["dtype"])).reshape(about["shape"])

    def close(self) -> None:
        """Ends the processes."""
        while not self._idle.empty():
            process = self._idle.get()
            if process is not None:
                process.kill()
                process.wait()
                for stream in (process.stdin, process.stdout):
                    assert stream is not None
                    stream.close()

    def _start(self) -> subprocess.Popen[bytes]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return subprocess.Popen(
            [sys.executable, "-I", str(Path(sandbox.__file__)), str(3 * self.most + sandbox.SPARE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads, "HDF5_PLUGIN_PRELOAD": "::"},
        )

    def _ask(self, process: subprocess.Popen[bytes], kind: Kind, content: bytes) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Timer(self.seconds, process.kill)
        late.start()
        try:
            sandbox.send(process.stdin, {"kind": kind, "most": self.most}, content)  # type: ignore[arg-type]
            answer = sandbox.receive(process.stdout)  # type: ignore[arg-type]
        except OSError:
            answer = None
        finally:
            late.cancel()
        if answer is None:
            raise Problem(
                400,
                f"the {_NAMES[kind]} file could not be read in {self.seconds:g} s, or broke its reader; write it "
                "again, without compression, or send .npy",
            )
        return answer
