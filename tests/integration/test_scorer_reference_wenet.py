"""WeNet's compute-wer.py and compute-cer.py beside our scorer: the same figures to the printed digit."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from wenet_osum.bin import score
from wenet_osum.decode.results import answer_files, answer_row
from wenet_osum.score.wer import error_rate
from wenet_osum.tasks import load_tasks

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("wenet_dir")]
Run = Callable[..., subprocess.CompletedProcess[str]]
Texts = dict[str, str]

HAN = "今天气很好我们去公园看三体电影吧他说的是一个新手机号码"
WORDS = [
    "play",
    "Yesterday",
    "once",
    "it's",
    "don't",
    "iPhone6",
    "3.5",
    "101",
    "OK",
    "Wi-Fi",
    "e-mail",
    "A",
    "GPS",
]
# Between two tokens: nothing, blanks, marks of both widths, glued to a word or not.
GAPS = [
    "",
    " ",
    " ",
    " ",
    "，",
    "。",
    "！",
    ", ",
    ",",
    "? ",
    "、",
    "《",
    "》",
    "　",
    "…",
    " - ",
    "“",
    "”",
    "．",
]
TAGS = ["<happy>", "<unk>", "<noise>", "<throat clearing>", "<开始回答>", "<0.42>", "<"]
OTHERS = ["ＡＢ", "１２", "é", "naïve", "カラ", "한", "〇", "½", "😀"]


def utterance(rng: random.Random) -> list[str]:
    """Tokens and gaps by turns."""
    tokens = []
    for _ in range(rng.randint(1, 15)):
        kind = rng.random()
        tokens.append(rng.choice(HAN if kind < 0.6 else WORDS if kind < 0.95 else OTHERS))
        tokens.append(rng.choice(GAPS))
    return tokens


def recognised(tokens: list[str], rng: random.Random) -> str:
    """A decoder's answer: tokens wrong, missing, added; another case; other marks; tags; now and then nothing."""
    if rng.random() < 0.05:
        return ""
    heard = []
    for token in tokens:
        kind = rng.random()
        if kind < 0.08:
            heard.append(rng.choice([*HAN, *WORDS]))
        elif kind < 0.14:
            continue
        elif kind < 0.20:
            heard += [token, rng.choice([*HAN, " yes ", *GAPS])]
        elif kind < 0.28:
            heard.append(token.swapcase())
        elif kind < 0.31:
            heard += [token, rng.choice(TAGS)]
        else:
            heard.append(token)
    return "".join(heard) + (rng.choice(TAGS) if rng.random() < 0.3 else "")


def decode_of_200(seed: int, tags_in_refs: bool = False) -> tuple[Texts, Texts]:
    rng = random.Random(seed)
    refs, hyps = {}, {}
    for n in range(200):
        tokens = utterance(rng)
        if tags_in_refs and rng.random() < 0.2:
            tokens.insert(rng.randrange(len(tokens)), rng.choice(TAGS))
        key = f"BAC009S{n:04d}W0{rng.randint(100, 999)}"
        refs[key], hyps[key] = "".join(tokens).strip(), " ".join(recognised(tokens, rng).split())
    return refs, hyps


def write_text(path: Path, texts: Texts) -> Path:
    path.write_text("".join(f"{key} {text}\n" for key, text in texts.items()), encoding="utf-8")
    return path


def printed(stdout: str) -> list[str]:
    """``Overall -> 12.34 % N= C= S= D= I=``: the six figures as they are printed."""
    (line,) = re.findall("^Overall -> .*", stdout, re.M)
    return re.findall(r"[\d.]+", line)


def figures(value: float | None, counts: dict[str, int]) -> list[str]:
    n, s, i, d = (counts[k] for k in ("ref_tokens", "substitutions", "insertions", "deletions"))
    return [f"{value:.2f}", *map(str, (n, n - s - d, s, d, i))]


def test_wenet_and_osum_score_agree_on_a_decode_of_200(tmp_path: Path, wenet_dir: Path, python: Run) -> None:
    """The whole way: answers as ``recognize`` writes them, ``osum score`` on a list as it stands."""
    refs, hyps = decode_of_200(seed=1)
    rows = [{"key": k, "wav": f"{k}.wav", "txt": t} for k, t in refs.items()]
    data = tmp_path / "data.list"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    with answer_files(tmp_path / "decode/asr/llm_greedy") as add:
        for key, answer in hyps.items():
            add(answer_row(key, load_tasks()["asr"], answer))
    score.main(["--data", str(data), "--decode_dir", str(tmp_path / "decode"), "--resamples", "10"])
    ours = json.loads((tmp_path / "decode/scores.json").read_text("utf-8"))["asr"]

    ref, hyp = write_text(tmp_path / "text", refs), tmp_path / "decode/asr/llm_greedy/text"
    out = python(wenet_dir / "tools/compute-wer.py", "--char=1", "--v=1", ref, hyp).stdout
    assert printed(out) == figures(ours["value"], ours["counts"])
    assert 20 < ours["value"] < 80 and ours["counts"]["missing"] == 0
    assert min(ours["counts"][k] for k in ("substitutions", "insertions", "deletions")) > 50


def test_wenet_scores_every_utterance_alike(tmp_path: Path, wenet_dir: Path, python: Run) -> None:
    """Not the sums alone: what ``--v=1`` prints for each."""
    refs, hyps = decode_of_200(seed=2)
    ref, hyp = write_text(tmp_path / "ref", refs), write_text(tmp_path / "hyp", hyps)
    out = python(wenet_dir / "tools/compute-wer.py", "--char=1", "--v=1", ref, hyp).stdout
    theirs = dict(re.findall(r"^utt: (\S+)\n(WER: .*)", out, re.M))
    assert len(theirs) == 200
    rate = error_rate(refs, hyps)
    for u in rate.details:
        own = rate.only([u.key])
        row = figures(own.value or 0.0, own.counts)
        assert re.findall(r"[\d.]+", theirs[u.key]) == row, (refs[u.key], hyps[u.key])


@pytest.mark.parametrize("seed", [3, 4, 5])
@pytest.mark.parametrize(
    ("tool", "flag", "unit"),
    [
        ("compute-wer.py", "--char=1", "mixed"),
        ("compute-wer.py", "--char=0", "word"),
        ("compute-cer.py", "--char=1", "char"),
    ],
)
def test_wenet_tools_and_units_agree(
    tmp_path: Path, wenet_dir: Path, python: Run, tool: str, flag: str, unit: str, seed: int
) -> None:
    refs, hyps = decode_of_200(seed, tags_in_refs=True)
    ref, hyp = write_text(tmp_path / "ref", refs), write_text(tmp_path / "hyp", hyps)
    rate = error_rate(refs, hyps, unit, "wenet")
    assert printed(python(wenet_dir / "tools" / tool, flag, "--v=0", ref, hyp).stdout) == figures(
        rate.value, rate.counts
    )


def test_wenet_leaves_out_what_has_no_hypothesis(tmp_path: Path, wenet_dir: Path, python: Run) -> None:
    """The one difference that stays: a lost answer is an error here, and no smaller denominator."""
    refs, hyps = {"a": "你好 world", "b": "three words here"}, {"a": "你好 word"}
    ref, hyp = write_text(tmp_path / "ref", refs), write_text(tmp_path / "hyp", hyps)
    out = python(wenet_dir / "tools/compute-wer.py", "--char=1", "--v=0", ref, hyp).stdout
    rate = error_rate(refs, hyps)
    assert printed(out) == ["33.33", "3", "2", "1", "0", "0"]
    assert figures(rate.value, rate.counts) == ["66.67", "6", "2", "1", "3", "0"]
    assert printed(out) == figures(rate.only(["a"]).value, rate.only(["a"]).counts)
