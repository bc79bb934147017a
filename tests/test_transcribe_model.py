"""``osum transcribe`` with a model, tiny and random: as on a list; every command of docs/transcribe.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import command, write_corpus, write_random_model
from test_readme import shell

from wenet_osum.bin import convert
from wenet_osum.bin import transcribe as program
from wenet_osum.bin.decode_flags import load_answerer, load_model
from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.plan import Item
from wenet_osum.score.report import TASK_ORDER
from wenet_osum.tasks import load_tasks

ROOT = Path(__file__).resolve().parents[1]
TASKS = load_tasks()
RATE = 16000


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What docs/transcribe.md speaks of: osum_model (tiny, random), talk.flac, notes.txt, calls/."""
    folder = tmp_path_factory.mktemp("here")
    write_random_model(folder)
    convert.main(["--from", "train", f"{folder}/final.pt", f"{folder}/osum_model"])
    write_corpus(folder / "calls", 4)
    wave = np.concatenate([load_audio(str(folder / f"calls/u{i:02}.wav")) for i in range(4)] * 19)
    soundfile.write(folder / "talk.flac", wave, RATE)  # 33 s: more than one piece
    (folder / "notes.txt").write_text("no audio")
    return folder


@pytest.mark.integration
def test_a_model_answers_as_it_does_a_list(here: Path, capsys):
    """Files, in batches of two, and the list of them, in one batch."""
    argv = [here / "calls", "--checkpoint", here / "osum_model", "--num_threads", 1, "--task", "ser,asr"]
    assert command(program.main, *argv, "--batch_size", 2) == 0
    found = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    args = program.get_args([str(a) for a in argv])
    loaded = load_model(args)
    encode, names = loaded.tokenizer.encode, ["ser", "asr"]
    index = build_index(here / "calls/data.list", "raw", loaded.table, encode, loaded.conf, names)
    dataset = OsumDataset(index, loaded.table, loaded.tokenizer, loaded.conf, 0, train=False)
    batch = dataset.batch([Item(row, "ser", 0) for row in range(4)])
    answers = load_answerer(args, loaded).answer(batch, names)
    wanted = [[key, name, answers[name][i].text] for i, key in enumerate(batch["keys"]) for name in names]
    assert [[Path(file).stem, task, text] for file, task, text in found] == wanted


def blocks(page: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)


@pytest.mark.slow
@pytest.mark.integration
def test_the_page_is_run(here: Path):
    first, last = blocks((ROOT / "docs/transcribe.md").read_text(encoding="utf-8"))
    one, several, subtitles, folder = first.replace("\\\n", "").splitlines()
    assert len(shell(one, here).splitlines()) == 1
    assert [line.split("\t")[1] for line in shell(several, here).splitlines()] == ["asr", "ser", "sgc"] * 5
    shell(subtitles, here)
    cue = r"\d+\n00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}\n.+\n"
    assert re.fullmatch(rf"({cue}(\n{cue})*)?", (here / "talk.srt").read_text(encoding="utf-8"))
    shell(folder, here)
    assert len(list((here / "answers").glob("u0?.*"))) == 12
    row = json.loads((here / "answers/u00.json").read_text(encoding="utf-8"))
    assert list(row["tasks"]) == list(TASK_ORDER)
    for name, task in row["tasks"].items():
        # The model is random, so its transcripts end where they must; all else is as it should be.
        assert all(p.startswith("cut at ") for p in task["problems"]), task
        assert set(task["labels"]) == {f.name for f in TASKS[name].fields}
        assert all(sum(p.values()) == pytest.approx(1, abs=1e-4) for p in task["probabilities"].values())
    assert shell(last, here) == "status 2\n"
    talk, notes = map(json.loads, (here / "answers.jsonl").read_text(encoding="utf-8").splitlines())
    assert talk["duration"] > 30 and len(talk["tasks"]["asr"]["segments"]) > 1
    assert notes["error"]["what"].startswith("unreadable: not a known audio format")
