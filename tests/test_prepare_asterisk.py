"""local/prepare_asterisk.py on a miniature of the packages' layout."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum.errors import OsumError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "local"))
import asterisk_text as at
import prepare_asterisk

FILES = ("wav.scp", "text", "utt2spk", "spk2utt", "spk2gender", "utt2lang", "utt2dur")
ENGLISH = {"digits/1": "one", "activated": "Activated.", "silence/1": "(1 second of silence)"}
ITALIAN = {
    "digits/1": "uno",
    "letters/O": "O",
    "letters/dash": "trattino [-]",
    "spazio": "L’aiuto, premere 1.",
    "beep": "un suono beep",
    "tones": "[toni ascendenti]",
    "suo": "Il [suo] messaggio",
    "piena": "La conferenza ? piena.",
    "num": "componi 500 ora",
    "no-wav": "chi parla",
    "corrotto": "file corrotto ora",
    "vuoto": "file senza campioni",
    "lungo": "un file lungo",
    "due": "va bene vm-then-pound: poi premere",
}


def sentences(n: int) -> dict[str, str]:
    return {
        f"s-{i}": f"Plain sentence {'abcdefghijklmnopqrstuvwxyz'[i % 26]}{'xyz'[i // 26]}." for i in range(n)
    }


def write_wav(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(seconds * 8000), dtype=np.int16), 8000)


def make_package(root: Path, lang: str, voice: str, texts: dict[str, str], wavs: list[str], gz: bool) -> Path:
    sounds = root / "usr/share/asterisk/sounds" / voice
    for name in wavs:
        write_wav(sounds / f"{name}.wav", 0.5)
    doc = root / f"usr/share/doc/asterisk-core-sounds-{lang}"
    doc.mkdir(parents=True)
    content = "\ufeff; a comment: ignored\n\n" + "".join(f"{k}: {v}\n" for k, v in texts.items())
    if gz:
        (doc / f"core-sounds-{lang}.txt.gz").write_bytes(gzip.compress(content.encode()))
    else:
        (doc / f"core-sounds-{lang}.txt").write_text(content, encoding="utf-8")
    return sounds


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    english = ENGLISH | sentences(60)
    make_package(root, "en", "en_US_f_Ann", english, list(english), gz=True)
    italian = ITALIAN | sentences(40)  # the same sentences in another language's voice
    names = [n if n != "letters/O" else "letters/o" for n in italian if n != "no-wav"]
    sounds = make_package(root, "it", "it_IT_m_Ugo", italian, [*names, "senza-testo"], gz=False)
    (sounds / "corrotto.wav").write_bytes(b"not a wav")
    write_wav(sounds / "vuoto.wav", 0.0)
    write_wav(sounds / "lungo.wav", 30.5)
    return root


def run(root: Path, output: Path, *more: str) -> None:
    assert prepare_asterisk.main(["--root", str(root), "--output", str(output), *more]) == 0


def read(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines)
    return dict(line.split(" ", 1) for line in lines)


def test_data_dirs_hold_what_the_packages_hold(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "out", "--languages", "en,it")
    merged: dict[str, dict[str, str]] = {name: {} for name in FILES}
    for split in ("train", "dev", "test"):
        part = {name: read(tmp_path / "out" / split / name) for name in FILES}
        keys = set(part["wav.scp"])
        assert keys and all(set(part[n]) == keys for n in ("text", "utt2spk", "utt2lang", "utt2dur"))
        assert {u for us in part["spk2utt"].values() for u in us.split()} == keys
        assert set(part["spk2utt"]) == set(part["spk2gender"]) == set(part["utt2spk"].values())
        for name in FILES:
            merged[name] |= part[name]
    assert len(merged["text"]) == 62 + 44  # English but silence; Italian: 4 of the 14 and the sentences
    assert merged["spk2gender"] == {"en_US_f_Ann": "f", "it_IT_m_Ugo": "m"}
    assert merged["text"]["en_US_f_Ann-activated"] == "activated"
    assert merged["text"]["it_IT_m_Ugo-letters__o"] == "o"
    assert merged["text"]["it_IT_m_Ugo-letters__dash"] == "trattino"
    assert merged["text"]["it_IT_m_Ugo-spazio"] == "l'aiuto premere uno"
    assert merged["utt2lang"]["it_IT_m_Ugo-spazio"] == "it"
    assert merged["utt2dur"]["it_IT_m_Ugo-spazio"] == "0.500"
    wav = Path(merged["wav.scp"]["it_IT_m_Ugo-letters__dash"])
    assert wav.is_absolute() and soundfile.info(str(wav)).samplerate == 8000


def test_everything_left_out_is_counted_and_named(root: Path, tmp_path: Path, capsys) -> None:
    run(root, tmp_path / "out", "--languages", "en,it")
    rows = [line.split("\t") for line in (tmp_path / "out/left_out.tsv").read_text("utf-8").splitlines()]
    assert {name: cause for name, cause, _ in rows} == {
        "en_US_f_Ann/silence/1.wav": at.SILENCE,
        "it_IT_m_Ugo/beep.wav": at.SOUND,
        "it_IT_m_Ugo/tones.wav": at.SOUND,
        "it_IT_m_Ugo/suo.wav": at.BRACKETED,
        "it_IT_m_Ugo/piena.wav": at.LOST_LETTER,
        "it_IT_m_Ugo/num.wav": at.NO_READING,
        "it_IT_m_Ugo/due.wav": at.RUN_TOGETHER,
        "it_IT_m_Ugo/senza-testo.wav": at.NO_TEXT,
        "it_IT_m_Ugo/corrotto.wav": at.UNREADABLE,
        "it_IT_m_Ugo/vuoto.wav": at.EMPTY_AUDIO,
        "it_IT_m_Ugo/lungo.wav": at.TOO_LONG,
        "core-sounds-it.txt: no-wav": at.NO_FILE,
    }
    printed = {
        line.rsplit(None, 2)[0].strip(): line.split()[-2:] for line in capsys.readouterr().out.splitlines()
    }
    assert printed[at.SILENCE] == ["1", "0"]
    assert printed[at.SOUND] == ["0", "2"]
    assert printed[at.NO_FILE] == ["0", "1"]
    assert all(cause in printed for _, cause, _ in rows)


def test_a_sentence_never_crosses_splits_whatever_the_languages(root: Path, tmp_path: Path) -> None:
    where: dict[str, set[str]] = {}
    for languages in ("en", "it", "it,en"):
        run(root, tmp_path / languages, "--languages", languages)
        for split in ("train", "dev", "test"):
            for text in read(tmp_path / languages / split / "text").values():
                where.setdefault(text, set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())
    assert where["activated"] == {"train"}
    run(root, tmp_path / "seed", "--languages", "en", "--seed", "2")
    assert read(tmp_path / "seed/test/text") != read(tmp_path / "en/test/text")


def test_accents_do_not_part_a_sentence_and_words_go_to_train() -> None:
    pairs = [(f"el ultimo {c} numero", f"el último {c} número") for c in "abcdefghijklmnopqrstuvwxyz"]
    splits = [(prepare_asterisk.split_of(a, 1), prepare_asterisk.split_of(b, 1)) for a, b in pairs]
    assert all(a == b for a, b in splits)
    assert {a for a, _ in splits} == {"train", "dev", "test"}
    assert {prepare_asterisk.split_of(c, 1) for c in "abcdefghijklmnopqrstuvwxyz"} == {"train"}


def test_output_is_the_same_byte_for_byte(root: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        run(root, tmp_path / out, "--languages", "en,it")
    made = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(made) == 3 * len(FILES) + 1
    assert all((tmp_path / "a" / p).read_bytes() == (tmp_path / "b" / p).read_bytes() for p in made)


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("Trait d’union: A.M., «Ещё»", "trait d'union a m ещё"),
        ("Veuillez 'composer' l'E\u0301toile…", "veuillez composer l'étoile"),
        ("The users' dix-sept — don't!", "the users dix sept don't"),
        ("[...] ?!", ""),
    ],
)
def test_plain_words(typed: str, plain: str) -> None:
    assert at.plain_words(typed) == plain


def test_spanish_slip_of_ten_is_mended_and_other_doubles_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "core-sounds-es.txt"
    path.write_text("digits/0: cero\ndigits/0: diez\nsi: uno\nsi: dos\nsi: uno\nvacio:\n", encoding="utf-8")
    texts = at.read_texts(path, "es")
    assert texts == {"digits/0": ["cero"], "digits/10": ["diez"], "si": ["uno", "dos"], "vacio": []}
    assert at.spoken_form("x", ["Marque 0, ahora"], at.digit_words(texts)) == ("marque cero ahora", False)
    with pytest.raises(at.LeftOut, match=at.TWO_TEXTS):
        at.spoken_form("si", texts["si"], {})
    with pytest.raises(at.LeftOut, match=at.NO_READING):
        at.spoken_form("x", ["Marque 1"], at.digit_words(texts))  # no digits/1 in this list


def test_bad_input_missing_packages_name_the_command(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OsumError, match="no prompts in es, fr, ru; run: apt-get install") as e:
        run(root, tmp_path / "out")
    assert str(e.value).split()[-6:] == [
        f"asterisk-core-sounds-{lang}{kind}" for kind in ("-wav", "") for lang in ("es", "fr", "ru")
    ]
    (root / "usr/share/doc/asterisk-core-sounds-it/core-sounds-it.txt").unlink()
    with pytest.raises(OsumError, match="no lists of texts .* in it; run: .*dpkg -x"):
        run(root, tmp_path / "out", "--languages", "it")
    assert not (tmp_path / "out").exists()


def test_bad_input_damaged_list_and_unknown_language(root: Path, tmp_path: Path) -> None:
    path = root / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-20], b"plain text", gzip.compress("caffè: ò".encode("latin-1"))):
        path.write_bytes(damaged)
        with pytest.raises(OsumError, match="unreadable list of texts"):
            run(root, tmp_path / "out", "--languages", "en")
    with pytest.raises(OsumError, match="no such language: 'de'"):
        run(root, tmp_path / "out", "--languages", "de")
    assert not (tmp_path / "out").exists()
