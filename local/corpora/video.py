"""The audio of a video clip, as ``wav.scp`` has it."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from wenet_osum.errors import OsumError

_EXTRACTED = (".wav", ".flac")
_VIDEO = (".mp4", ".avi")


def audio_of(folder: Path, stem: str) -> str:
    """A clip's audio: the path of a wav or flac that was extracted beside it, else a command for its video.

    The command is ``ffmpeg ... |``, which gives 16 kHz mono and runs whenever the clip is read; to decode it once
    only, extract ``STEM.wav`` into the same folder. Where there is neither, the path of the video that lacks, of
    which ``Found.add`` tells.

    Args:
        folder: where the clips are.
        stem: a clip's name without its ending.

    Raises:
        OsumError: a video, and no ffmpeg to decode it.
    """
    for suffix in _EXTRACTED:
        if (path := folder / f"{stem}{suffix}").is_file():
            return str(path)
    for suffix in _VIDEO:
        if (path := folder / f"{stem}{suffix}").is_file():
            if shutil.which("ffmpeg") is None:
                mend = "install ffmpeg, or extract a .wav of each clip into that folder"
                raise OsumError(str(path), "no ffmpeg to decode it", mend)
            return (
                f"ffmpeg -nostdin -loglevel error -i {shlex.quote(str(path))} -vn -ac 1 -ar 16000 -f wav - |"
            )
    return str(folder / f"{stem}{_VIDEO[0]}")
