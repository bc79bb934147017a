"""A small ctypes binding of espeak-ng: text in, samples and the synthesiser's own events out.

The library and its data come from the pip package ``espeakng-loader``; nothing has to be installed on the
system. espeak-ng reads its voices from its data folder, so `Espeak` works on a private copy of the few data
files it needs, to which the corpus adds its own voice variants.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import espeakng_loader
import numpy as np

_DATA_FILES = (
    "phondata",
    "phonindex",
    "phontab",
    "intonations",
    "en_dict",
    "cmn_dict",
    "lang/gmw/en-US",
    "lang/sit/cmn",
)
_SYNCHRONOUS = 2
_PHONEME_EVENTS = 1 | 1 << 15  # the second bit: report a failure, do not exit the process
_UTF8 = 1
_EVENT_WORD = 1
_EVENT_PHONEME = 7
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Event(NamedTuple):
    """One event. kind: "word" or "phoneme"; sample: its place in the audio; position: 1-based character of
    the text; name: the phoneme ("" for a silence and for words)."""

    kind: str
    sample: int
    position: int
    name: str


def copy_data(target: Path, variants: Mapping[str, str]) -> None:
    """Write the espeak-ng data that the corpus needs, and `variants` (name -> text of the variant file), to
    target."""
    source = Path(espeakng_loader.get_data_path())
    for name in _DATA_FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    folder = target / "voices" / "!v"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in variants.items():
        (folder / name).write_text(text, encoding="utf-8")


class Espeak:
    """espeak-ng with the data of one folder. The library has one global state: make one object a process."""

    def __init__(self, data: Path) -> None:
        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        self.sample_rate = self._lib.espeak_Initialize(_SYNCHRONOUS, 500, str(data).encode(), _PHONEME_EVENTS)
        if self.sample_rate <= 0:
            raise RuntimeError(f"{data}: espeak-ng cannot start from this data folder")
        self._chunks: list[np.ndarray] = []
        self._events: list[Event] = []
        self._callback = _CALLBACK(self._receive)  # kept: ctypes does not hold a reference of its own
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(
        self, wav: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]
    ) -> int:
        if wav and count > 0:
            self._chunks.append(np.ctypeslib.as_array(wav, (count,)).copy())
        index = 0
        while events[index].type != 0:
            event = events[index]
            if event.type == _EVENT_WORD:
                self._events.append(Event("word", event.sample, event.text_position, ""))
            elif event.type == _EVENT_PHONEME:
                name = event.id.string.decode("utf-8", "replace")
                self._events.append(Event("phoneme", event.sample, event.text_position, name))
            index += 1
        return 0

    def say(
        self,
        text: str,
        voice: str,
        *,
        rate: int,
        pitch: int,
        pitch_range: int,
        word_gap: int = 0,
        seed: int = 0,
    ) -> tuple[np.ndarray, list[Event]]:
        """Synthesise `text` with espeak's own scales: rate in words a minute, pitch and range 0..99, word_gap
        in 10 ms.

        Returns float32 samples (n,) in -1..1 at `sample_rate`, and the events in time order.
        Raises RuntimeError for a voice that is not there.
        """
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice}")
        for number, value in (
            (_RATE, rate),
            (_VOLUME, 100),
            (_PITCH, pitch),
            (_RANGE, pitch_range),
            (_WORD_GAP, word_gap),
        ):
            self._lib.espeak_SetParameter(number, value, 0)
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._chunks, self._events = [], []
        raw = text.encode()
        self._lib.espeak_Synth(raw, ctypes.c_size_t(len(raw) + 1), 0, 1, 0, _UTF8, None, None)
        self._lib.espeak_Synchronize()
        samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        return samples.astype(np.float32) / 32768.0, self._events
