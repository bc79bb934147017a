"""What ESPnet2 adds to a Kaldi data dir (``dump/raw/SET``): ``feats_type`` and ``utt2num_samples``."""

from __future__ import annotations

from pathlib import Path

import soundfile as sf

from wenet_osum.dataset.sources import is_pipe, open_source
from wenet_osum.dataset.tables import Fault, OnFault, Table
from wenet_osum.errors import BadUtterance

DURATION_SLACK = 0.1  # seconds; ESPnet's raw_copy makes sample counts of rounded durations
_PROBES = 16  # recordings whose headers tell the sampling rate of a dir
_MAX_DIGITS = 11  # two months at 16 kHz
_NO_END = 1 << 40  # libsndfile's frame count when the header has none is larger


def holds_audio(path: Path, on_fault: OnFault) -> bool:
    """Whether a data dir is one of audio; features (any ``feats_type`` but ``raw``) are a fault."""
    file = path / "feats_type"
    kind = file.read_bytes().decode("utf-8", "replace").strip() if file.is_file() else "raw"
    if kind in ("raw", "raw_copy"):
        return True
    mend = "give a dir that ESPnet made with --feats_type raw, or the data dir it was made from"
    on_fault(Fault(f"{file}:1", f"feats_type is {kind!r:.80}: features, not audio", mend))
    return False


def seconds_by_samples(
    table: Table, wavs: dict[str, str], whole: bool, on_fault: OnFault
) -> dict[str, float]:
    """Utterance -> seconds, from the counts of ``utt2num_samples`` and the recordings' sampling rate.

    The file does not tell the rate, so the headers of some recordings all over the dir are read. They
    must be of one rate and, where an utterance is a whole recording, have the samples it is said to have.

    Args:
        table: the file; ids that ``wavs`` does not have are passed over, since ESPnet's own filters
            (utterances without text, say) leave them there.
        wavs: utterance -> its recording.
        whole: utterances are whole recordings, not segments.
        on_fault: told of what is wrong; such a line tells no seconds, and with several rates no line does.
    """
    counts: dict[str, int] = {}
    for key, entry in table.items():
        if not entry.value.isdecimal() or len(entry.value) > _MAX_DIGITS or not int(entry.value):
            what = f"{entry.value!r:.80} is no number of samples"
            on_fault(Fault(table.where(key), what, "give a whole number above 0"))
        elif key in wavs:
            counts[key] = int(entry.value)
    # A pipe is not run for its header, and what cannot be read is told by whoever decodes it.
    files = [key for key in counts if not is_pipe(wavs[key])]
    spread = files[:: -(-len(files) // _PROBES) or 1]
    headers = {key: header for key in spread if (header := _header(wavs[key], key))}
    rates = {rate: key for key, (rate, _) in headers.items()}
    if len(rates) > 1:
        (rate, key), (other, another) = sorted(rates.items())[:2]
        what = f"{key} has {rate} samples a second and {another} {other}, so counts tell no seconds"
        on_fault(Fault(str(table.path), what, "give utt2dur, or remove utt2num_samples"))
    if len(rates) != 1:
        return {}
    (rate,) = rates
    for key, (_, frames) in headers.items():
        if whole and frames < _NO_END and abs(counts[key] - frames) > DURATION_SLACK * rate:
            what = f"{key} is said to have {counts.pop(key)} samples and has {frames}"
            on_fault(Fault(table.where(key), what, "make utt2num_samples anew, or remove it"))
    return {key: round(count / rate, 6) for key, count in counts.items()}


def _header(wav: str, key: str) -> tuple[int, int] | None:
    """Sampling rate and frames of a recording; None when it cannot be read."""
    try:
        with open_source(wav, key) as stream, sf.SoundFile(stream) as sound:
            return sound.samplerate, sound.frames
    except (BadUtterance, sf.LibsndfileError, TypeError):  # TypeError: a ".raw" file, which has no header
        return None
