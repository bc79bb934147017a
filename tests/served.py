"""``osum serve`` as a process, on a tiny random model."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from helpers import RATE, write_corpus, write_random_model

from wenet_osum.bin import convert
from wenet_osum.dataset.audio import load_audio
from wenet_osum.registry import load_models

ROOT = Path(__file__).resolve().parents[1]


def write_model(folder: Path) -> None:
    """``osum_model``, and to hear: ``calls/``, ``talk.flac`` and ``talk.mp3`` of 33 s, ``stereo.wav``."""
    load_models()
    write_random_model(folder)
    convert.main(["--from", "train", f"{folder}/final.pt", f"{folder}/osum_model"])
    write_corpus(folder / "calls", 4)
    wave = np.concatenate([load_audio(str(folder / f"calls/u{i:02}.wav")) for i in range(4)] * 19)
    soundfile.write(folder / "talk.flac", wave, RATE)  # more than one piece
    soundfile.write(folder / "talk.mp3", wave, RATE)
    soundfile.write(folder / "stereo.wav", np.stack([wave, -wave], 1)[: 3 * RATE], 22050)


class Server:
    """A process of ``osum serve``.

    Attributes:
        url: without a slash at its end. log: what it said on standard error.
    """

    def __init__(self, folder: Path, *flags: str, **environ: str):
        environment = {**os.environ, **environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "wenet_osum.bin.serve",
            "osum_model",
            "--port",
            "0",
            "--num_threads",
            "1",
        ]
        self.process = subprocess.Popen(
            [*command, *flags],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.log: list[str] = []
        self.url, self._ready = "", threading.Event()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        assert self._ready.wait(120) and self.url, self.log

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"listening on (\S+)", line):
                self.url = found[1].replace("0.0.0.0", "127.0.0.1")
            if " ready: " in line:
                self._ready.set()
        self._ready.set()  # it ended

    def end(self, signal: int) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(signal)
        status = self.process.wait(60)
        self._reading.join(10)
        return status


@contextlib.contextmanager
def served(folder: Path, *flags: str, **environ: str) -> Iterator[Server]:
    server = Server(folder, *flags, **environ)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(60)
