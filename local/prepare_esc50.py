#!/usr/bin/env python3
"""Kaldi dirs of ESC-50: 5 s of one sound each; those of a voice, mouth or nose are used (VED).

    python local/prepare_esc50.py ESC-50-master data/esc50 --subsets all

Layout (the archive of github.com/karolpiczak/ESC-50):

    ESC-50-master/meta/esc50.csv                filename,fold,target,category,esc10,src_file,take
    ESC-50-master/audio/1-187207-A-20.wav       44.1 kHz, named fold-source-take-target

Licence: CC BY-NC 3.0; the 10 classes that esc10 marks, CC BY 3.0 (each clip's author: the archive's LICENSE).

Of the 50 classes four are events that OSUM has a name for: laughing, coughing, crying_baby and sneezing, 40 clips
each. Breathing and snoring come from mouth and nose too, and OSUM has no name for them: they are ``other``, which
is what the list of answers offers a listener. The rest, even drinking, brushing teeth and clapping, are sounds of
things, no vocal events; they are left out. So 240 clips are used, 48 a fold. OSUM's paper does not tell which
classes its accuracy on ESC-50 is over. Nobody speaks in the clips: their text is empty.

Subsets: ``all``, and the five folds of the makers' cross-validation (fragments of one source share a fold).
Counts: 2,000 clips, 400 a fold (README of the archive). The list could be checked against the real one, the audio
could not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corpora import Corpus, Found, Out, Utterance, prepare, read_columns  # beside this script

from wenet_osum.errors import OsumError, run_main

_THING = Out("a sound of things, animals or weather: no vocal event")
FOLDS = ("1", "2", "3", "4", "5")

CORPUS = Corpus(
    name="ESC-50",
    url="https://github.com/karolpiczak/ESC-50",
    licence="CC BY-NC 3.0",
    published={"all": 2000, **{f"fold{n}": 400 for n in FOLDS}},
    labels={
        "event": {
            "laughing": "laugh",
            "coughing": "cough",
            "crying_baby": "cry",
            "sneezing": "sneeze",
            "breathing": "other",
            "snoring": "other",
            # human, but not of the voice
            **dict.fromkeys(("clapping", "footsteps", "brushing_teeth", "drinking_sipping"), _THING),
            # animals
            **dict.fromkeys(("dog", "rooster", "pig", "cow", "frog"), _THING),
            **dict.fromkeys(("cat", "hen", "insects", "sheep", "crow"), _THING),
            # nature and water
            **dict.fromkeys(("rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds"), _THING),
            **dict.fromkeys(("water_drops", "wind", "pouring_water", "toilet_flush", "thunderstorm"), _THING),
            # indoors
            **dict.fromkeys(("door_wood_knock", "mouse_click", "keyboard_typing"), _THING),
            **dict.fromkeys(("door_wood_creaks", "can_opening", "washing_machine"), _THING),
            **dict.fromkeys(("vacuum_cleaner", "clock_alarm", "clock_tick", "glass_breaking"), _THING),
            # outdoors
            **dict.fromkeys(("helicopter", "chainsaw", "siren", "car_horn", "engine"), _THING),
            **dict.fromkeys(("train", "church_bells", "airplane", "fireworks", "hand_saw"), _THING),
        }
    },
)


def collect(root: Path, found: Found) -> None:
    """The clips of all folds, or of one."""
    for where, row in read_columns(root / "meta" / "esc50.csv", ("filename", "fold", "category")):
        if row["fold"] not in FOLDS:
            raise OsumError(
                where, f"fold {row['fold']!r:.80}", f"folds are {', '.join(FOLDS)}: get the file again"
            )
        if found.subset not in ("all", f"fold{row['fold']}"):
            continue
        key = Path(row["filename"]).stem
        event = found.value("event", row["category"], where)
        if isinstance(event, Out):
            found.leave_out(key, event.why)
        else:
            wav = str(root / "audio" / row["filename"])
            found.add(Utterance(key, wav, text="", labels={"event": event}), where)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
