"""Error rates worked out by hand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenet_osum.errors import OsumError
from wenet_osum.score import normalizer
from wenet_osum.score.edits import count_edits
from wenet_osum.score.normalizer import get_normalizer, without_marks
from wenet_osum.score.wenet_tokens import _mixed_tokens, mixed_tokens
from wenet_osum.score.wer import error_rate, get_cut

MARKS = "!,?、。！，；？：「」︰『』《》"


def counts(rate):
    return tuple(rate.counts[k] for k in ("ref_tokens", "substitutions", "insertions", "deletions"))


def test_one_of_each_edit():
    # the -> a (S), big (D), now (I); the words between leave no other way with three edits
    rate = error_rate({"u": "the cat big sat on it"}, {"u": "a cat sat on it now"}, "word")
    assert counts(rate) == (6, 1, 1, 1)
    assert rate.value == pytest.approx(50.0)


def test_tokens_are_pooled_not_averaged_over_utterances():
    # 1 error of 1 token and 0 of 9: pooled 10 %, the mean of the rates would be 50 %
    rate = error_rate({"a": "x", "b": "1 2 3 4 5 6 7 8 9"}, {"a": "y", "b": "1 2 3 4 5 6 7 8 9"}, "word")
    assert rate.value == pytest.approx(10.0)


def test_mixed_counts_chinese_characters_and_words():
    # 播 放 YESTERDAY 吧 against 播 YESTERDAY ONCE: 放 deleted, 吧 -> once
    rate = error_rate({"u": "播放yesterday吧"}, {"u": "播Yesterday once"}, "mixed")
    assert counts(rate) == (4, 1, 0, 1)
    assert rate.value == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("unit", "tokens"),
    [("word", ["AB", "你好C"]), ("char", list("AB你好C")), ("mixed", ["AB", "你", "好", "C"])],
)
def test_units(unit, tokens):
    assert get_cut(unit, "plain")("AB 你好C") == tokens


def test_missing_hypothesis_is_all_deletions_and_told_from_an_empty_one():
    rate = error_rate({"a": "one two", "b": "three", "c": "four"}, {"b": "", "c": "four"}, "word")
    assert counts(rate) == (4, 0, 0, 3)
    assert rate.counts["missing"] == 1
    assert [(u.key, u.errors, u.missing) for u in rate.details] == [
        ("a", 2, True),
        ("b", 1, False),
        ("c", 0, False),
    ]


def test_words_where_nothing_is_said_are_insertions():
    rate = error_rate({"a": "", "b": "yes"}, {"a": "uh huh", "b": "yes"}, "word")
    assert counts(rate) == (1, 0, 2, 0)
    assert rate.value == pytest.approx(200.0)


def test_no_reference_token_at_all_is_undefined():
    assert error_rate({"a": ""}, {"a": "x"}).value is None
    assert error_rate({}, {}).value is None
    assert error_rate({}, {}).interval() is None


def test_hypotheses_of_other_keys_do_not_count():
    assert error_rate({"a": "x"}, {"a": "x", "z": "y y y"}).value == 0.0


def test_only_keeps_some_utterances():
    rate = error_rate({"a": "x", "b": "y"}, {"a": "x", "b": "z"})
    assert rate.only(["a"]).value == 0.0
    assert rate.only(["b"]).value == 100.0


def test_interval_is_reproducible_and_holds_the_value():
    refs = {str(i): "a b c d" for i in range(40)}
    hyps = {str(i): "a b c d" if i % 4 else "a x y d" for i in range(40)}
    rate = error_rate(refs, hyps)
    low, high = rate.interval()
    assert rate.value == pytest.approx(12.5)
    assert low < 12.5 < high
    assert rate.interval() == [low, high]


def test_to_dict_is_json_and_names_what_was_done():
    result = json.loads(json.dumps(error_rate({"a": "x"}, {}).to_dict()))
    assert result["metric"] == "mer"
    assert (result["value"], result["tokens"], result["normalizer"]) == (100.0, "mixed", "wenet")


def test_without_marks_drops_seventeen_marks_tags_and_case():
    assert len(set(MARKS)) == 17
    assert without_marks("".join(f"{m}a" for m in MARKS)) == " ".join("A" for _ in MARKS)
    assert without_marks("Hello<happy> <unk> World!") == "HELLO WORLD"
    assert without_marks("it's 3.5") == "IT'S 3.5"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # the tokens WeNet's compute-wer.py --char=1 makes of these lines
        ("今天天气 very good吗？", ["今", "天", "天", "气", "VERY", "GOOD", "吗"]),
        ("<unk>你好<noise>, 世界。", ["你", "好", "世", "界"]),
        ("《三体》 by liu", ["三", "体", "BY", "LIU"]),
        ("IPHONE6手机it's", ["IPHONE6", "手", "机", "IT'S"]),
        ("yes, no ,no", ["YES,", "NO", "NO"]),
        ("hello<happy>world a<b", ["HELLOWORLD", "A"]),
        ("<throat clearing>ok", ["CLEARING>OK"]),
        ("café naïve", ["CAF", "É", "NA", "ÏVE"]),
        ("ＯＫ\u30003.5 “x”", ["Ｏ", "Ｋ", "3.5", "“X", "”"]),
        ("カラ 한국", list("カラ한국")),
    ],
)
def test_mixed_tokens_are_compute_wers(text, tokens):
    assert get_cut("mixed", "wenet")(text) == tokens


@given(st.text(alphabet="aB1.'-<>!,?，。《》\u3000 \t\r\x0b你好\u9fea\u9feb\u4dbfé“", max_size=12))
def test_common_texts_are_cut_as_all_others_are(text):
    assert mixed_tokens(text) == _mixed_tokens(text)


def test_split_of_a_tie_is_compute_wers():
    assert count_edits(["a", "b"], ["b", "c"]) == (0, 1, 1)
    assert count_edits([], ["a"]) == (0, 1, 0)
    assert count_edits(["a"], []) == (0, 0, 1)


def test_whisper_en_makes_numbers_and_contractions_equal():
    refs, hyps = {"a": "I won't pay twenty dollars, um, no"}, {"a": "i will not pay $20 no"}
    assert error_rate(refs, hyps, "word", "whisper_en").value == 0.0
    assert error_rate(refs, hyps, "word", "plain").value > 50.0


def test_whisper_en_with_a_spelling_map_of_ones_own(tmp_path):
    path = tmp_path / "normalizer.json"
    path.write_text('{"colour": "red"}', encoding="utf-8")
    assert get_normalizer(f"whisper_en:{path}")("Colour") == "red"


def test_bad_input_no_spelling_map(monkeypatch):
    monkeypatch.setattr(normalizer, "find_spec", lambda _: None)
    get_normalizer.cache_clear()
    with pytest.raises(
        OsumError, match="^whisper_en: OpenAI's spelling map is not installed; pip install whisper-"
    ):
        get_normalizer("whisper_en")


def test_bad_input_normalizer_and_unit(tmp_path):
    with pytest.raises(OsumError, match="no normaliser 'loud'; choose one of wenet"):
        get_normalizer("loud")
    with pytest.raises(OsumError, match="gone.json: not a readable spelling map"):
        get_normalizer(f"whisper_en:{tmp_path / 'gone.json'}")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(OsumError, match="list.json: not an object"):
        get_normalizer(f"whisper_en:{tmp_path / 'list.json'}")
    with pytest.raises(OsumError, match="no normaliser 'loud'"):
        error_rate({}, {}, "mixed", "loud")
    with pytest.raises(OsumError, match="no unit 'phone'"):
        error_rate({"a": "x"}, {"a": "x"}, "phone")


def distance(ref, hyp):
    """Edit distance from its recursive definition, row by row."""
    row = list(range(len(hyp) + 1))
    for i, r in enumerate(ref, 1):
        previous, row = row, [i]
        for j, h in enumerate(hyp, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (r != h)))
    return row[-1]


WORDS = st.lists(st.sampled_from("ab你c"), max_size=8)


@given(WORDS, WORDS, st.sampled_from(["plain", "wenet"]))
def test_errors_are_the_edit_distance(ref, hyp, normalizer):
    rate = error_rate({"u": " ".join(ref)}, {"u": " ".join(hyp)}, "mixed", normalizer)
    (u,) = rate.details
    assert u.errors == distance(ref, hyp)
    assert u.ref_tokens == len(ref)
    assert len(ref) - u.deletions + u.insertions == len(hyp)
