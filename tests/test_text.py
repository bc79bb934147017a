"""Text form and tokenizers other than our trained sentencepiece model (tests/test_tokenizer.py)."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.errors import OsumError
from wenet_osum.text import CharTokenizer, HuggingFaceTokenizer, SentencepieceTokenizer, init_tokenizer
from wenet_osum.text.normalize import is_cjk, join_words, process_text, split_words

any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    "raw, form",
    [
        ("Hello World 你 好 <HAPPY>", "hello world你好<happy>"),
        ("<0.00> 新 <0.2> <0.20> Year <0.4>", "<0.00>新<0.2><0.20>year<0.4>"),
        ("  two   spaces\t", "two spaces"),
        ("你好 ， 世界", "你好，世界"),
        ("It's 5 o'clock.", "it's 5 o'clock."),
        ("", ""),
    ],
)
def test_process_text(raw, form):
    assert process_text(raw) == form


@settings(deadline=None)
@given(any_text)
def test_process_text_is_a_form(text):
    form = process_text(text)
    assert process_text(form) == form == form.lower() == form.strip()


@settings(deadline=None)
@given(any_text)
def test_split_and_join(text):
    words = split_words(text)
    assert all(words) and not any(c.isspace() for word in words for c in word)
    assert "".join(words) == "".join(text.split())
    assert all(len(w) == 1 or not any(map(is_cjk, w)) for w in words)
    if not set("<>") & set(text):  # marks swallow the blanks beside them; a transcript has none
        assert split_words(join_words(words)) == split_words(text.lower())


def test_split_words():
    assert split_words("play 周杰伦 songs, ok") == ["play", "周", "杰", "伦", "songs,", "ok"]
    assert join_words(["Play", "周", "杰", "songs", "now"]) == "play周杰songs now"


@pytest.mark.parametrize(
    "char, han", [("你", True), ("㐀", True), ("𠀀", True), ("a", False), ("，", False), ("あ", False)]
)
def test_is_cjk(char, han):
    assert is_cjk(char) is han


UNITS = ["<blank>", "<unk>", "▁", *"abchelo你好", "<happy>", "<throat clearing>", "<0.04>", "<sos/eos>"]


@pytest.fixture
def units(tmp_path: Path) -> Path:
    path = tmp_path / "units.txt"
    path.write_text("".join(f"{u} {i}\n" for i, u in enumerate(UNITS)), encoding="utf-8")
    return path


def test_char(units):
    tokenizer = init_tokenizer({"tokenizer": "char", "tokenizer_conf": {"symbol_table_path": str(units)}})
    tokens, ids = tokenizer.tokenize("hello 你<0.04><throat clearing><x>")
    assert tokens == [*"hello▁你", "<0.04>", "<throat clearing>", "<", "x", ">"]
    assert [UNITS[i] for i in ids] == [*tokens[:-3], "<unk>", "<unk>", "<unk>"]
    assert tokenizer.detokenize(ids[:-3]) == ("hello 你<0.04><throat clearing>", tokens[:-3])
    assert tokenizer.eos_id == UNITS.index("<sos/eos>")
    assert tokenizer.decode([*tokenizer.encode("ab"), tokenizer.eos_id]) == "ab"
    assert tokenizer.vocab_size() == len(UNITS) == len(tokenizer.symbol_table)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"abchelo你好 ", "<happy>", "<throat clearing>", "<0.04>"])).map("".join))
def test_char_gives_known_text_back(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "units.txt"
    path.write_text("".join(f"{u} {i}\n" for i, u in enumerate(UNITS)), encoding="utf-8")
    tokenizer = CharTokenizer(path)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("a 0\nb\n", ":2: 'b' is not 'symbol id'"),
        ("a 0\nb x\n", ":2: 'b x' is not"),
        ("a 0\na 1\n", ":2: .* given twice"),
        ("a 0\nb 0\n", ":2: .* given twice"),
        ("", "is empty"),
        ("a 0\n", "lacks 'b' and has no <unk>"),
    ],
)
def test_bad_input_units(tmp_path, content, complaint):
    path = tmp_path / "units.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        OsumError, match="units.txt" + complaint.join(["", ""]) if complaint[0] == ":" else complaint
    ):
        CharTokenizer(path).encode("ab")


def test_bad_input_no_end_symbol(tmp_path):
    (tmp_path / "units.txt").write_text("a 0\n", encoding="utf-8")
    with pytest.raises(OsumError, match="no end symbol"):
        _ = CharTokenizer(tmp_path / "units.txt").eos_id


def test_hugging_face(hf_folder):
    tokenizer = init_tokenizer({"tokenizer": "huggingface", "tokenizer_conf": {"model_path": str(hf_folder)}})
    assert tokenizer.vocab_size() == 257 == len(tokenizer.symbol_table)
    assert tokenizer.eos_id == tokenizer.symbol_table["<|endoftext|>"] == 256
    assert tokenizer.decode([*tokenizer.encode("hi"), tokenizer.eos_id]) == "hi"
    assert tokenizer.detokenize([*tokenizer.encode("hi"), tokenizer.eos_id])[0] == "hi"


@settings(deadline=None)
@given(any_text.map(process_text))
def test_hugging_face_gives_text_back(hf_folder, text):
    tokenizer = _hugging_face(hf_folder)
    _, ids = tokenizer.tokenize(text)
    assert ids == tokenizer.encode(text)
    assert tokenizer.decode(ids) == text == tokenizer.detokenize(ids)[0]


_loaded: dict[Path, HuggingFaceTokenizer] = {}


def _hugging_face(folder: Path) -> HuggingFaceTokenizer:
    return _loaded.setdefault(folder, HuggingFaceTokenizer(folder))


def test_tokenizers_pickle_without_their_backend(hf_folder, units):
    for tokenizer in (HuggingFaceTokenizer(hf_folder), CharTokenizer(units)):
        before = len(pickle.dumps(tokenizer))
        ids = tokenizer.encode("hello")
        assert len(pickle.dumps(tokenizer)) == before
        assert pickle.loads(pickle.dumps(tokenizer)).encode("hello") == ids


@pytest.mark.parametrize(
    "configs, complaint",
    [
        ({}, "tokenizer: unknown name None; choose one of char, huggingface, sentencepiece"),
        ({"tokenizer": "bpe"}, "unknown name 'bpe'"),
        ({"tokenizer": "char"}, "tokenizer_conf.symbol_table_path: missing"),
        (
            {"tokenizer": "sentencepiece", "tokenizer_conf": {"model": "x"}},
            "tokenizer_conf.model: unknown key",
        ),
        (
            {"tokenizer": "huggingface", "tokenizer_conf": {"model_path": "x", "eos": "y"}},
            "tokenizer_conf.eos: unknown",
        ),
    ],
)
def test_bad_input_tokenizer_conf(configs, complaint):
    with pytest.raises(OsumError, match=complaint):
        init_tokenizer(configs)


def test_bad_input_tokenizer_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.model").write_bytes(b"no model")
    for tokenizer in (
        HuggingFaceTokenizer(tmp_path / "empty"),
        HuggingFaceTokenizer(tmp_path / "missing"),
        SentencepieceTokenizer(tmp_path / "bad.model"),
        SentencepieceTokenizer(tmp_path / "missing.model"),
        CharTokenizer(tmp_path / "missing.txt"),
    ):
        with pytest.raises(OsumError, match=str(tmp_path)) as e:
            tokenizer.vocab_size()
        assert "\n" not in str(e.value)
