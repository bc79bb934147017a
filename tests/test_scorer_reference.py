"""Every scorer beside an independent reference on shared cases.

WeNet's compute-wer.py and compute-cer.py (their recorded figures; run for real in
``integration/test_scorer_reference_wenet.py``), jiwer, scikit-learn, sacrebleu, Whisper's normaliser; the
average shift has none to install, so its cases are worked out by hand.
"""

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import corpus_bleu, corpus_chrf
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from wenet_osum.score.align import align
from wenet_osum.score.bootstrap import Draws
from wenet_osum.score.labels import NO_ANSWER, label_scores
from wenet_osum.score.normalizer import get_normalizer
from wenet_osum.score.reply import reply_scores
from wenet_osum.score.srwt import shift_scores
from wenet_osum.score.wer import error_rate
from wenet_osum.tasks import Word

# What WeNet's scripts print for each line: N C S D I.
WENET_FIGURES = [
    # reference, hypothesis, compute-wer.py --char=1, compute-cer.py --char=1
    ("今天天气very good吗？", "今天 天气 vary good 吗", "7 6 1 0 0", "13 12 1 0 0"),
    ("Hello, world", "hello world", "2 1 1 0 0", "6 5 1 0 4"),
    ("say 'yes' it's ok", "say yes its OK", "4 2 2 0 0", "7 5 2 0 4"),
    ("打开 Wi-Fi 和 GPS", "打开wifi和gps", "5 4 1 0 0", "7 6 1 0 3"),
    ("一二三四五", "一三四四五六", "5 4 0 1 2", "5 4 0 1 2"),
    ("你好<happy>", "你好<sad>", "2 2 0 0 0", "2 2 0 0 0"),
    ("the cat sat", "<laugh>the cat<noise>sat", "3 1 1 1 0", "9 9 0 0 0"),
    ("", "uh huh", "0 0 0 0 2", "0 0 0 0 5"),
    ("什么都没有", "", "5 0 0 5 0", "5 0 0 5 0"),
    ("room 101 第3排", "room 1 0 1 第 三 排", "5 3 2 0 2", "10 9 1 0 0"),
    ("ＡＢＣ公司，“新”的", "ABC 公司 新的", "9 4 1 4 0", "9 4 3 2 0"),
    ("a b c d", "b c d a", "4 3 0 1 1", "4 3 0 1 1"),
    ("don’t stop…", "don't stop", "4 1 1 2 0", "9 4 1 4 0"),
    ("完全一样 same", "完全一样SAME", "5 5 0 0 0", "8 8 0 0 0"),
]

# What compute-wer.py --v=1 prints under "lab:" and "rec:", "-" where it leaves a gap.
WENET_ALIGNMENTS = [
    ("A B", "B C", "A B -", "- B C"),
    ("A B B", "A B", "A B B", "A B -"),
    ("A B", "A A B", "A - B", "A A B"),
    ("A B C D", "B C D A", "A B C D -", "- B C D A"),
    ("A B C", "X Y", "A B C", "X Y -"),
    ("A B", "X Y Z", "A B -", "X Y Z"),
    ("一 二 三 四 五", "一 三 四 四 五 六", "一 二 三 四 - 五 -", "一 - 三 四 四 五 六"),
]

# What openai-whisper's EnglishTextNormalizer makes of these.
WHISPER = [
    ("Mr. Smith's colour won't be grey, it's £3.50!", "mister smith is color will not be gray it is £3.50"),
    ("twenty one hundred and five", "2105"),
    ("I'm gonna pay $20 million uh mm", "i am going to pay $20000000"),
    ("the 1960s twenty-first", "the 1960s 21st"),
    ("double oh seven", "007"),
    ("naïve café œuvre", "naive cafe oeuvre"),
    ("he'd've [laughs] (coughs) said 3.5%", "he would have said 3.5%"),
    ("minus five degrees", "-5 degrees"),
    ("two and a half", "2.5"),
    ("a hundred and one dalmatians", "a 101 dalmatians"),
    ("organise the labour's programme", "organize the labor is program"),
    ("<happy> hello", "hello"),
]


@pytest.mark.parametrize(("unit", "column"), [("mixed", 2), ("char", 3)])
def test_error_rate_is_wenets_scripts(unit, column):
    rows = [tuple(map(int, case[column].split())) for case in WENET_FIGURES]
    for (ref, hyp, *_), row in zip(WENET_FIGURES, rows, strict=True):
        assert wenet_figures({"u": ref}, {"u": hyp}, unit) == row, ref
    refs, hyps = ({str(i): case[side] for i, case in enumerate(WENET_FIGURES)} for side in (0, 1))
    assert wenet_figures(refs, hyps, unit) == tuple(map(sum, zip(*rows, strict=True)))


def wenet_figures(refs, hyps, unit):
    """N C S D I, the order of the scripts."""
    counts = error_rate(refs, hyps, unit, "wenet").counts
    n, s, i, d = (counts[k] for k in ("ref_tokens", "substitutions", "insertions", "deletions"))
    return n, n - s - d, s, d, i


@pytest.mark.parametrize(("ref", "hyp", "lab", "rec"), WENET_ALIGNMENTS)
def test_alignment_is_compute_wers(ref, hyp, lab, rec):
    pairs = align(ref.split(), hyp.split())
    assert [" ".join(t or "-" for t in side) for side in zip(*pairs, strict=True)] == [lab, rec]


TEXT = st.lists(st.sampled_from(["a", "b", "cat", "Cat", "你", "好"]), min_size=1, max_size=8).map(" ".join)


@given(st.lists(st.tuples(TEXT, TEXT | st.just("")), min_size=1, max_size=5))
def test_error_rate_is_jiwers(pairs):
    refs, hyps = ([pair[side] for pair in pairs] for side in (0, 1))
    keyed = [{str(i): text for i, text in enumerate(texts)} for texts in (refs, hyps)]
    words = error_rate(*keyed, "word", "plain")
    theirs = jiwer.process_words(refs, hyps)
    assert words.value == pytest.approx(100 * theirs.wer)
    errors = theirs.substitutions + theirs.insertions + theirs.deletions
    assert sum(u.errors for u in words.details) == errors
    tight = [[t.replace(" ", "") for t in texts] for texts in (refs, hyps)]
    assert error_rate(*keyed, "char", "plain").value == pytest.approx(
        100 * jiwer.process_characters(*tight).cer
    )


@pytest.mark.parametrize(("text", "normal"), WHISPER)
def test_whisper_en_is_whispers(text, normal):
    assert get_normalizer("whisper_en")(text) == normal


@given(st.text(alphabet="abeoruy -'.,$%&<>()123é", max_size=30))
def test_whisper_en_is_the_packages(text):
    english = pytest.importorskip("whisper_normalizer.english")
    theirs = " ".join(english.EnglishTextNormalizer()(text).split())
    assert get_normalizer("whisper_en")(text) == theirs


def test_labels_are_scikit_learns():
    rng = np.random.default_rng(5)
    values = ("a", "b", "c", "d")
    y_true = [values[i] for i in rng.integers(0, 3, 200)]  # "d" is answered but never right
    y_pred = [[*values, NO_ANSWER][i] for i in rng.integers(0, 5, 200)]
    refs = {str(i): v for i, v in enumerate(y_true)}
    hyps = {str(i): v for i, v in enumerate(y_pred) if v != NO_ANSWER}
    result = label_scores(refs, hyps, values)
    assert result["accuracy"] == pytest.approx(100 * accuracy_score(y_true, y_pred))
    f1 = f1_score(y_true, y_pred, labels=["a", "b", "c"], average="macro")
    assert result["macro_f1"] == pytest.approx(100 * f1)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert result["uar"] == pytest.approx(100 * balanced_accuracy_score(y_true, y_pred))
    recalls = recall_score(y_true, y_pred, labels=["a", "b", "c"], average=None)
    assert list(result["recall"].values()) == pytest.approx(list(100 * recalls))
    expected = confusion_matrix(y_true, y_pred, labels=[*values, NO_ANSWER])[:-1]
    assert result["confusion"]["matrix"] == expected.tolist()


def test_replies_are_sacrebleus():
    refs = {"a": "the answer is twenty four of them", "b": "我今天 想去北京看一看"}
    hyps = {"a": "the answer is twenty five of them", "b": "我今天想去上海看一看"}
    sides = ([hyps["a"], hyps["b"]], [[refs["a"], "我今天想去北京看一看"]])
    result = reply_scores(refs, hyps)
    assert result["bleu"]["value"] == pytest.approx(corpus_bleu(*sides, tokenize="zh").score)
    assert result["chrf"]["value"] == pytest.approx(corpus_chrf(*sides).score)
    assert "tok:zh" in result["bleu"]["signature"]


@given(st.lists(st.tuples(TEXT, TEXT | st.just("")), min_size=1, max_size=5))
def test_replies_are_sacrebleus_whatever_their_length(pairs):
    sides = [[" ".join(pair[side].lower().split()) for pair in pairs] for side in (0, 1)]
    sides = [
        [
            text.replace(" 你", "你").replace("你 ", "你").replace(" 好", "好").replace("好 ", "好")
            for text in s
        ]
        for s in sides
    ]
    keyed = [{str(i): text for i, text in enumerate(texts)} for texts in sides]
    result = reply_scores(*keyed, draws=Draws(2))
    bleu = corpus_bleu(sides[1], [sides[0]], tokenize="zh", use_effective_order=True)
    assert result["bleu"]["value"] == pytest.approx(bleu.score)
    assert result["chrf"]["value"] == pytest.approx(corpus_chrf(sides[1], [sides[0]]).score)


REF = [Word(0.0, 0.4, "good"), Word(0.5, 0.9, "morning"), Word(1.0, 1.3, "all")]


def test_average_shift_by_hand():
    hyp = [Word(0.02, 0.40, "good"), Word(0.45, 0.99, "morning"), Word(1.0, 1.4, "all")]
    result = shift_scores({"u": REF}, {"u": hyp})
    # absolute shifts: 20 0 | 50 90 | 0 100 ms over 6 boundaries
    assert result["value"] == pytest.approx(260 / 6)
    assert result["token_sum_ms"] == pytest.approx(260 / 3)
    assert result["start_bias_ms"] == pytest.approx((20 - 50 + 0) / 3)
    assert result["end_bias_ms"] == pytest.approx((0 + 90 + 100) / 3)
    assert result["aligned"] == 100.0
    assert result["counts"] == {"utterances": 1, "ref_words": 3, "aligned_words": 3}


def test_average_shift_by_hand_of_the_words_both_have():
    # "good" -> "god" (substituted, far off), "oh" inserted, "all" deleted: only "morning" has a shift
    hyp = [Word(5.0, 6.0, "god"), Word(0.6, 0.9, "Morning"), Word(0.9, 1.0, "oh")]
    result = shift_scores({"u": REF}, {"u": hyp})
    assert result["value"] == pytest.approx(50.0)
    assert result["aligned"] == pytest.approx(100 / 3)


def test_average_shift_by_hand_is_pooled_over_utterances():
    # 1 word 100 ms off at both ends, 3 words exact: 200 ms over 8 boundaries; the mean of the means would be 50
    result = shift_scores({"a": [Word(0, 1, "x")], "b": REF}, {"a": [Word(0.1, 1.1, "x")], "b": REF})
    assert result["value"] == pytest.approx(25.0)
    low, high = result["interval"]
    assert low == 0.0
    assert high == pytest.approx(100.0)
