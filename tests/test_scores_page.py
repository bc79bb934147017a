"""Every command of docs/scores.md is run, with a stub in the judge's place."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from test_readme import make_data_dir
from test_score_judge import Stub

from wenet_osum.bin.score import main
from wenet_osum.score.files import read_references
from wenet_osum.tasks import load_tasks

PAGE = (Path(__file__).resolve().parents[1] / "docs/scores.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's ``data/test``, decoded perfectly in ``exp/a`` and the other way round in ``exp/b``."""
    make_data_dir(tmp_path / "data/test", 0, 6)
    tasks = load_tasks()
    refs = read_references(tmp_path / "data/test", tasks)
    for name in ("asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc"):
        right = [tasks[name].compose(tasks[name].answer_of(ref)) for ref in refs]
        for run, answers in (("a", right), ("b", right[1:] + right[:1])):
            path = tmp_path / "exp" / run / "decode" / name / "llm_greedy" / "text"
            path.parent.mkdir(parents=True)
            lines = [f"{ref['key']} {text}\n" for ref, text in zip(refs, answers, strict=True)]
            path.write_text("".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, normalizer, against, judge = blocks("bash")
    scores = run(plain)
    assert [(s["counts"]["utterances"], s["counts"]["unparseable"]) for s in scores.values()] == [(6, 0)] * 8
    assert run(normalizer)["asr"]["normalizer"] == "whisper_en"
    compared = run(against)
    accuracy = compared["ser"]["against"]["scores"]["accuracy"]
    assert accuracy["value"] == 100.0 and accuracy["other"] == pytest.approx(100 / 3)
    assert "p" in capsys.readouterr().out
    with Stub() as stub:
        assert run(judge.replace("http://localhost:8000/v1", stub.url))["sttc"]["judge"]["value"] == 8.0
    assert stub.asked[0][1]["model"] == "Qwen2.5-7B-Instruct"
    assert (folder / "exp/a/decode/sttc/llm_greedy/judge.jsonl").is_file()


def run(block: str) -> dict[str, dict[str, object]]:
    (words,) = [shlex.split(line) for line in block.strip().splitlines()]
    assert words[:2] == ["osum", "score"]
    assert main([*words[2:], "--resamples", "50"]) == 0
    return json.loads(Path("exp/a/decode/scores.json").read_text("utf-8"))


def test_python(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(code, {})
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("25.0 None (UtteranceErrors(key='u1', ref_tokens=4, substitutions=1")
    assert second == "[('the', 'a'), ('cat', 'cat'), ('sat', None)]"
    assert third == "0.0"
