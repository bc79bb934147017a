#!/usr/bin/env python3
"""Make Kaldi dirs of speech of people: the telephone prompts that Debian packages for Asterisk.

``asterisk-core-sounds-XX-wav`` (XX = en, es, fr, it, ru; version 1.6.1) holds the prompts as 8 kHz
mono 16-bit wavs under ``/usr/share/asterisk/sounds/LANG_COUNTRY_GENDER_VOICE/``, and
``asterisk-core-sounds-XX`` their texts, ``/usr/share/doc/asterisk-core-sounds-XX/core-sounds-XX.txt.gz``.
Measured: 2,831 wavs, 131 minutes.

    voice                  files  minutes  used as an utterance
    en_US_f_Allison          568     25.5  540
    es_MX_f_Allison          527     31.0  473
    fr_CA_f_June             561     26.0  499
    it_IT_m_Carlo            599     23.8  550
    ru_RU_f_IvrvoiceRU       576     24.8  547

Licence, from ``/usr/share/doc/*/copyright``: English and Spanish (Allison Smith, 2003-2010) and French
(June Wallack, 2006-2008) CC-BY-SA-3.0; Italian (Carlo Flora, 2012) and Russian (Maxim Topal,
ivrvoice.ru, 2010) CC-BY-3.0.

Labels: the language, and the gender that the folder's name tells (the Russian credits name a
provider, no speaker). With one voice a language and one man among the voices, gender can be read
off the voice or the language: a score in it says nothing about unknown speakers. The Spanish texts
are mostly typed without accents ("contrasena"); they are kept as typed, as are other slips of the
lists that can't be told by rule.

The split goes by sentence: a hash of the seed and of the text without case, punctuation and
accents gives about 15 % of the sentences to test and 10 % to dev, in every language subset the
same. Texts of one word (digits, letters, months) are word lists rather than sentences and all go
to train, since a word that no other recording holds can't be learned. Menus that differ by a few
words are different sentences. With seed 1: train 2,253 utterances (1.42 h), dev 161 (0.15 h), test
195 (0.22 h).

Files that give no utterance (silence, tones, no text, a text not sure to be what is said) are
counted by cause, and named with their texts in ``OUTPUT/left_out.tsv``. The wavs stay where they
are; ``wav.scp`` holds absolute paths.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asterisk_text as at  # beside this script
import soundfile

from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_write

LANGUAGES = ("en", "es", "fr", "it", "ru")
SPLITS = ("train", "dev", "test")
MAX_SECONDS = 30.0  # the window of Whisper, whose shape the encoder has


@dataclass(frozen=True)
class Prompt:
    """One utterance."""

    key: str
    wav: Path
    text: str
    speaker: str
    gender: str
    lang: str
    seconds: float
    split: str


@dataclass
class Language:
    """What a language's packages gave; ``left_out`` holds (file or entry, cause, text as typed)."""

    lang: str
    voices: list[str]
    files: int = 0
    brackets_removed: int = 0
    other_case: int = 0
    prompts: list[Prompt] = field(default_factory=list)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)


def split_of(text: str, seed: int) -> str:
    """The split of a sentence (plain words): the same for all spellings that differ in accents."""
    if " " not in text:
        return "train"
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    digest = hashlib.blake2b(f"{seed}\t{''.join(letters)}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return "test" if share < 0.15 else "dev" if share < 0.25 else "train"


def find_packages(root: Path, languages: Sequence[str]) -> dict[str, tuple[list[Path], Path]]:
    """Language -> its voice folders and its list of texts.

    Raises:
        OsumError: some are not there; one line holds the command that brings all that lack.
    """
    sounds, docs = root / "usr/share/asterisk/sounds", root / "usr/share/doc"
    voices = {
        lang: sorted(p for p in sounds.glob(f"{lang}_*_[fm]_*") if next(p.rglob("*.wav"), None))
        for lang in languages
    }
    lists = {
        lang: sorted(docs.glob(f"asterisk-core-sounds-{lang}/core-sounds-{lang}.txt*")) for lang in languages
    }
    silent = [lang for lang in languages if not voices[lang]]
    textless = [lang for lang in languages if not lists[lang]]
    lacking = [f"asterisk-core-sounds-{lang}-wav" for lang in silent]
    packages = " ".join(lacking + [f"asterisk-core-sounds-{lang}" for lang in textless])
    if silent:
        raise OsumError(str(sounds), f"no prompts in {', '.join(silent)}", f"run: apt-get install {packages}")
    if textless:
        raise OsumError(
            str(docs),
            f"no lists of texts (core-sounds-XX.txt.gz) in {', '.join(textless)}",
            f"run: apt-get install {packages} (where installs leave out /usr/share/doc, as in many"
            " containers: apt-get download these and the -wav ones, dpkg -x each .deb DIR, give --root DIR)",
        )
    return {lang: (voices[lang], lists[lang][0]) for lang in languages}


def audio_seconds(wav: Path) -> float:
    """Duration from the header.

    Raises:
        LeftOut: unreadable, without samples, or too long.
    """
    try:
        info = soundfile.info(str(wav))
    except soundfile.LibsndfileError:
        raise at.LeftOut(at.UNREADABLE) from None
    if info.frames == 0:
        raise at.LeftOut(at.EMPTY_AUDIO)
    if info.duration > MAX_SECONDS:
        raise at.LeftOut(at.TOO_LONG)
    return float(info.duration)


def collect(lang: str, voices: Sequence[Path], text_list: Path, seed: int) -> Language:
    """Every prompt of a language, as an utterance or with the cause why it is none."""
    texts = at.read_texts(text_list, lang)
    digits = at.digit_words(texts)
    result = Language(lang, [voice.name for voice in voices])
    used: set[str] = set()
    for voice in voices:
        wavs = {wav.relative_to(voice).with_suffix("").as_posix(): wav for wav in voice.rglob("*.wav")}
        # Lists and files differ in case here and there: letters/O for the file letters/o.
        spare = {name.lower(): name for name in sorted(texts) if name not in wavs}
        for name, wav in sorted(wavs.items()):
            result.files += 1
            entry = name if name in texts else spare.get(name.lower(), name)
            used.add(entry)
            found = texts.get(entry, [])
            try:
                words, removed = at.spoken_form(name, found, digits)
                seconds = audio_seconds(wav)
            except at.LeftOut as e:
                result.left_out.append((f"{voice.name}/{name}.wav", e.cause, " | ".join(found)))
                continue
            result.brackets_removed += removed
            result.other_case += entry != name
            key = f"{voice.name}-{name.replace('/', '__')}"
            gender = voice.name.split("_")[2]
            result.prompts.append(
                Prompt(key, wav, words, voice.name, gender, lang, seconds, split_of(words, seed))
            )
    result.left_out += [
        (f"{text_list.name}: {name}", at.NO_FILE, " | ".join(texts[name]))
        for name in sorted(set(texts) - used)
    ]
    return result


def write_data_dir(path: Path, prompts: Sequence[Prompt]) -> None:
    """Write a Kaldi dir, sorted as ``LC_ALL=C sort`` does."""
    prompts = sorted(prompts, key=lambda p: p.key)
    speakers = sorted({(p.speaker, p.gender) for p in prompts})
    files = {
        "wav.scp": [(p.key, str(p.wav)) for p in prompts],
        "text": [(p.key, p.text) for p in prompts],
        "utt2spk": [(p.key, p.speaker) for p in prompts],
        "utt2lang": [(p.key, p.lang) for p in prompts],
        "utt2dur": [(p.key, f"{p.seconds:.3f}") for p in prompts],
        "spk2utt": [(s, " ".join(p.key for p in prompts if p.speaker == s)) for s, _ in speakers],
        "spk2gender": speakers,
    }
    for name, rows in files.items():
        with atomic_write(path / name) as f:
            f.writelines(f"{key} {value}\n" for key, value in rows)


def print_row(title: str, cells: Sequence[object]) -> None:
    """A line of the table by language."""
    print(f"{title:<62}" + "".join(f"{cell:>5}" for cell in cells))


def print_report(results: Sequence[Language]) -> None:
    """Tables of what was made, and of what was left out by cause."""
    print(f"{'voice':22}{'files':>6}{'used':>6}" + "".join(f"{s:>7}" for s in SPLITS) + f"{'hours':>8}")
    for result in results:
        for voice in result.voices:
            mine = [p for p in result.prompts if p.speaker == voice]
            out = sum(name.startswith(f"{voice}/") for name, _, _ in result.left_out)
            counts = Counter(p.split for p in mine)
            print(
                f"{voice:22}{len(mine) + out:>6}{len(mine):>6}"
                + "".join(f"{counts[s]:>7}" for s in SPLITS)
                + f"{sum(p.seconds for p in mine) / 3600:>8.3f}"
            )
    prompts = [p for result in results for p in result.prompts]
    for split in SPLITS:
        mine = [p for p in prompts if p.split == split]
        genders = Counter(p.gender for p in mine)
        words = {word for p in mine for word in p.text.split()}
        print(
            f"{split}: {len(mine)} utterances ({genders['f']} female, {genders['m']} male), "
            f"{sum(p.seconds for p in mine) / 3600:.3f} h, {len(words)} different words"
        )
    print_row("left out (each named in left_out.tsv):", [r.lang for r in results])
    for cause in at.CAUSES:
        counts_by_lang = [sum(c == cause for _, c, _ in r.left_out) for r in results]
        if any(counts_by_lang):
            print_row(f"  {cause}", counts_by_lang)
    print_row("used, with a bracket around a sign removed:", [r.brackets_removed for r in results])
    print_row("used, with the name in another case in the list:", [r.other_case for r in results])


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Kaldi dirs from Debian's Asterisk prompts")
    parser.add_argument("--root", default="/", help="where the packages are installed or unpacked")
    parser.add_argument("--output", required=True, help="gets train/, dev/, test/ and left_out.tsv")
    parser.add_argument("--languages", default=",".join(LANGUAGES), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives another split")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    args = get_args(argv)
    languages = sorted(set(args.languages.split(",")))
    for lang in languages:
        if lang not in LANGUAGES:
            raise OsumError(
                "--languages", f"no such language: {lang!r}", f"take some of {','.join(LANGUAGES)}"
            )
    root, output = Path(os.path.abspath(args.root)), Path(args.output)
    packages = find_packages(root, languages)
    results = [collect(lang, *packages[lang], args.seed) for lang in languages]
    prompts = [p for result in results for p in result.prompts]
    for split in SPLITS:
        if not any(p.split == split for p in prompts):
            raise OsumError(
                str(root), f"no sentence falls into {split}", "take more languages or another --seed"
            )
    with atomic_write(output / "left_out.tsv") as f:
        f.writelines("\t".join(row) + "\n" for result in results for row in result.left_out)
    for split in SPLITS:
        write_data_dir(output / split, [p for p in prompts if p.split == split])
    print_report(results)
    return 0


if __name__ == "__main__":
    run_main(main)
