"""The sentencepiece tokenizer that a run trains for itself."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.bin.train_tokenizer import main
from wenet_osum.errors import OsumError
from wenet_osum.tasks import Answer, Word, load_tasks
from wenet_osum.text import SentencepieceTokenizer
from wenet_osum.text.normalize import process_text
from wenet_osum.text.train_sentencepiece import fixed_symbols, time_marks, train_sentencepiece, training_lines

TABLE = load_tasks()
SAMPLES = [
    {
        "key": "1",
        "wav": "1.wav",
        "txt": "Where is the station?",
        "reply": "Over There",
        "align": [[0, 0.1, "station"]],
    },
    {"key": "2", "wav": "2.wav", "txt": "今 天天气很好", "emotion": "happy"},
    {"key": "3", "wav": "3.wav", "txt": "who are you<开始回答>a model", "task": "<TRANSCRIBE><S2TCHAT>"},
    {"key": "4", "wav": "4.wav", "txt": "", "event": "laugh"},
] * 50


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> SentencepieceTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    lines = training_lines(SAMPLES, TABLE, ["en"])
    assert train_sentencepiece(lines, path, 700, fixed_symbols(TABLE, 0.04, 8.0)) == 700
    return SentencepieceTokenizer(path)


def test_ids_and_symbols(model):
    assert [model.symbol_table[s] for s in ("<unk>", "<s>", "</s>", "<pad>")] == [0, 1, 2, 3]
    assert model.eos_id == 2
    assert model.vocab_size() == len(model.symbol_table) == 700
    for mark in (*TABLE.marks(), "<TRANSCRIBE>", "<0.00>", "<0.04>", "<8.00>"):
        assert len(model.encode(mark)) == 1, mark
        assert model.decode(model.encode(mark)) == mark
    assert len(model.encode("<0.02>")) > 1


def test_an_answer_costs_few_tokens(model):
    words = [Word(0, 0.24, "station"), Word(0.24, 0.4, "今")]
    text = TABLE["srwt"].compose(Answer(words=words), time_step=0.04)
    assert model.text2tokens(text)[:3] == ["<0.00>", "station", "<0.24>"]
    assert len(model.encode(text)) == 6
    assert len(model.encode("who are you<throat clearing>")) <= 4


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([*TABLE.marks(), "<0.04>", "<1.20>", "<0.01>", "<", ">", "station", "今天", " "]),
            # U+2581 is sentencepiece's sign for a blank
            st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")),
        )
    ).map("".join)
)
def test_text_comes_back_exactly(model, text):
    text = process_text(text)
    _, ids = model.tokenize(text)
    assert ids == model.encode(text)
    assert model.decode(ids) == text == model.detokenize(ids)[0]


def test_special_ids_write_nothing(model):
    assert model.decode([1, *model.encode("hi there"), 2, 3, 3]) == "hi there"


def test_pickles_without_its_backend(model):
    ids = model.encode("hello")
    assert len(pickle.dumps(model)) < 1000
    assert pickle.loads(pickle.dumps(model)).encode("hello") == ids


def test_training_lines():
    lines = training_lines(SAMPLES, TABLE)
    assert lines[:5] == ["where is the station?", "over there", "station", "今天天气很好", "who are you"]
    assert len(lines) == 6 * 50
    prompts = training_lines(SAMPLES, TABLE, ["en", "zh"])[len(lines) :]
    assert TABLE["asr"].prompt("en", 0) in prompts and TABLE["sap_only"].prompt("zh", 4) in prompts
    assert len(SAMPLES) / 2 < len(prompts) <= len(SAMPLES)


def write_list(path: Path, samples) -> str:
    path.write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples), encoding="utf-8")
    return str(path)


def test_the_command_is_reproducible(tmp_path, capsys):
    data = write_list(tmp_path / "data.list", SAMPLES)
    models = []
    for name in ("a", "b"):
        output = tmp_path / name / "tokenizer.model"
        assert (
            main(["--data_list", data, "--output", str(output), "--vocab_size", "800", "--max_time", "4"])
            == 0
        )
        models.append(output.read_bytes())
        assert [f.name for f in output.parent.iterdir()] == ["tokenizer.model"]
    assert models[0] == models[1]
    assert "pieces" in capsys.readouterr().out
    table = SentencepieceTokenizer(output).symbol_table
    assert "<4.00>" in table and "<4.04>" not in table


def test_the_command_takes_a_ninth_task(tmp_path):
    conf = tmp_path / "ninth.yaml"
    label = "{name: room, atom: ROOM, values: [hall, small room]}"
    conf.write_text(
        f"room: {{tag: <TRANSCRIBE> <ROOM>, prompts: {{en: [Name the room.]}}, label: {label}}}\n"
    )
    data = write_list(tmp_path / "data.list", SAMPLES)
    output = tmp_path / "tokenizer.model"
    assert (
        main(["--data_list", data, "--output", str(output), "--task_conf", str(conf), "--prompts", "en"]) == 0
    )
    assert len(SentencepieceTokenizer(output).encode("<small room><hall><ROOM>")) == 3


def test_a_long_line_is_not_dropped(tmp_path):
    path = tmp_path / "t.model"
    train_sentencepiece(["a" * 5000 + "龘"], path, 300)
    assert "龘" in SentencepieceTokenizer(path).symbol_table


def test_time_marks():
    assert time_marks(0.04, 0.1) == ["<0.00>", "<0.04>", "<0.08>"]
    assert time_marks(0.1, 0.3) == ["<0.00>", "<0.10>", "<0.20>", "<0.30>"]
    assert len(time_marks(0.02, 30)) == 1501


def test_bad_input_training(tmp_path):
    lines = training_lines(SAMPLES, TABLE, ["en", "zh"])
    with pytest.raises(OsumError, match="300 pieces are too few .* use at least (\\d+)") as e:
        train_sentencepiece(lines, tmp_path / "t.model", 300, fixed_symbols(TABLE, 0.04, 8.0))
    assert list(tmp_path.iterdir()) == []
    least = int(str(e.value).split()[-1])
    train_sentencepiece(lines, tmp_path / "t.model", least, fixed_symbols(TABLE, 0.04, 8.0))
    with pytest.raises(OsumError, match="vocab_size: is 0"):
        train_sentencepiece(lines, tmp_path / "t.model", 0)
    with pytest.raises(OsumError, match="no text"):
        train_sentencepiece([], tmp_path / "t.model", 300)
    with pytest.raises(OsumError, match="no task has prompts in 'fr'"):
        training_lines(SAMPLES, TABLE, ["fr"])
    with pytest.raises(OsumError, match="^9: .*<开始回答>"):
        training_lines([{"key": "9", "txt": "hi", "task": "sttc"}], TABLE)
    for step, longest in ((0, 8), (0.015, 8), (0.04, 0), (0.04, float("nan"))):
        with pytest.raises(OsumError, match="time"):
            time_marks(step, longest)


def test_bad_input_list_without_utterances(tmp_path):
    (tmp_path / "empty.list").write_text("\n")
    with pytest.raises(OsumError, match="empty.list: no utterance in it"):
        main(["--data_list", str(tmp_path / "empty.list"), "--output", str(tmp_path / "t.model")])
    assert not (tmp_path / "t.model").exists()
