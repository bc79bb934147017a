"""The score command: what it finds, writes and refuses."""

import json

import pytest

from wenet_osum.bin.score import main
from wenet_osum.errors import OsumError, run_main
from wenet_osum.score.files import read_hypotheses

REFS = [
    {"key": "a", "wav": "a.wav", "txt": "yes please", "emotion": "happy"},
    {"key": "b", "wav": "b.wav", "txt": "不要", "emotion": "sad"},
    {"key": "c", "wav": "c.wav", "txt": "no"},
]


@pytest.fixture
def work(tmp_path):
    lines = [json.dumps(ref, ensure_ascii=False) for ref in REFS]
    (tmp_path / "data.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    decoded(tmp_path, "asr", "a yes\nb\t不 要\nc no\n")
    decoded(tmp_path, "ser", "a yes please<happy>\nb\n")
    return tmp_path


def decoded(work, task, text, mode="llm_greedy"):
    path = work / "decode" / task / mode / "text"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def score(work, *flags):
    return main(
        [
            "--data",
            str(work / "data.list"),
            "--decode_dir",
            str(work / "decode"),
            "--resamples",
            "20",
            "--output",
            str(work / "scores.json"),
            *flags,
        ]
    )


def written(work):
    return json.loads((work / "scores.json").read_text("utf-8"))


def test_scores_what_was_decoded(work, capsys):
    assert score(work, "--require", "asr,<TRANSCRIBE><EMOTION>") == 0
    scores = written(work)
    assert list(scores) == ["asr", "ser"]
    assert scores["asr"]["value"] == pytest.approx(20.0)  # "please" of 5 tokens
    assert scores["ser"]["value"] == pytest.approx(50.0)
    assert scores["ser"]["counts"]["unparseable"] == 1  # b: an empty answer, not a missing one
    assert scores["ser"]["counts"]["missing"] == 0
    table = capsys.readouterr().out
    assert "20.00 %" in table
    assert "scores.json" in table


def test_output_goes_beside_the_decoded_text_by_default(work):
    args = ["--data", str(work / "data.list"), "--decode_dir", str(work / "decode"), "--resamples", "5"]
    assert main(args) == 0
    assert (work / "decode" / "scores.json").is_file()


def test_kaldi_data_dir_as_reference(work):
    data = work / "data"
    data.mkdir()
    (data / "wav.scp").write_text("a a.wav\nb b.wav\n", encoding="utf-8")
    (data / "text").write_text("a yes please\nb 不要\n", encoding="utf-8")
    assert score(work, "--data", str(data)) == 0
    assert list(written(work)) == ["asr"]
    assert written(work)["asr"]["counts"]["extra"] == 1


def test_task_without_reference_is_told_and_not_scored(work, capsys):
    decoded(work, "sgc", "a yes please<female>\n")
    assert score(work) == 0
    assert "no reference for sgc; not scored" in capsys.readouterr().err
    assert "sgc" not in written(work)


def test_bad_input_no_reference_for_anything_decoded(work):
    (work / "data.list").write_text(
        '{"key": "a", "wav": "a.wav", "task": "<TRANSCRIBE> <GENDER>", "txt": "x<male>"}\n', encoding="utf-8"
    )
    with pytest.raises(OsumError, match="no reference for any task"):
        score(work)
    assert not (work / "scores.json").exists()


def test_required_task_without_score_fails_after_the_rest_is_written(work):
    with pytest.raises(OsumError, match="no score for srwt, sttc; decode what is required"):
        score(work, "--require", "asr,srwt,sttc")
    assert "asr" in written(work)


def test_required_task_whose_score_is_undefined_fails(work):
    refs = [REFS[0] | {"align": [[0, 1, "yes"], [1, 2, "please"]]}]
    (work / "data.list").write_text(json.dumps(refs[0]) + "\n", encoding="utf-8")
    decoded(work, "srwt", "a nothing with times\n")
    with pytest.raises(OsumError, match="no score for srwt"):
        score(work, "--require", "srwt")


def test_user_task(work):
    (work / "more.yaml").write_text(
        "polite:\n  tag: <TRANSCRIBE> <POLITE>\n"
        "  label: {name: polite, atom: POLITE, file: utt2polite, values: [kind, rude]}\n"
        "  prompts: {en: ['Is it kind?']}\n",
        encoding="utf-8",
    )
    ref = json.dumps(REFS[0] | {"polite": "kind"})
    (work / "data.list").write_text(ref + "\n", encoding="utf-8")
    decoded(work, "polite", "a yes please<kind>\n")
    assert score(work, "--task_conf", str(work / "more.yaml")) == 0
    assert written(work)["polite"]["value"] == 100.0


def test_transcript_with_stray_marks_is_scored_as_wenets_script_does(work):
    decoded(work, "asr", "a <noise>yes ok please\nb <happy>不要\nc no\n")
    score(work)
    assert written(work)["asr"]["value"] == pytest.approx(20.0)  # "ok" is one too many
    assert written(work)["asr"]["counts"]["unparseable"] == 2


def test_words_beyond_ascii_are_told_of_and_may_be_kept_whole(work, capsys):
    (work / "data.list").write_text('{"key": "a", "wav": "a.wav", "txt": "Été à Nice"}\n', encoding="utf-8")
    decoded(work, "asr", "a Etés à Nice\n")
    score(work)
    assert written(work)["asr"]["counts"]["ref_tokens"] == 4  # É T+É À NICE
    assert "1 texts have letters beyond ASCII" in capsys.readouterr().err
    score(work, "--normalizer", "no_marks")
    assert written(work)["asr"]["value"] == pytest.approx(100 / 3)
    assert "beyond ASCII" not in capsys.readouterr().err


def test_read_hypotheses(tmp_path):
    path = tmp_path / "text"
    path.write_text("a one  two \nb\tthree\n\nc\n", encoding="utf-8")
    assert read_hypotheses(path) == {"a": "one  two", "b": "three", "c": ""}


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--data", "gone"], "gone: no such data dir or list"),
        (["--decode_dir", "gone"], "gone: no such folder"),
        (["--mode", "beam"], "no TASK/beam/text in it; it has llm_greedy"),
        (["--require", "emotions"], "emotions: unknown task"),
        (["--normalizer", "loud"], "no normaliser 'loud'"),
    ],
)
def test_bad_input_flags(work, flags, line):
    with pytest.raises(OsumError) as e:
        score(work, *flags)
    assert line in str(e.value)
    assert not (work / "scores.json").exists()


@pytest.mark.parametrize(
    ("task", "text", "line"),
    [
        ("sgc", "a x\nb y\na z\n", "sgc/llm_greedy/text:3: a second hypothesis for a"),
        ("sgc", b"a x\nb \xff\n", "sgc/llm_greedy/text:2: not UTF-8"),
        ("mood", "a x\n", "mood: no task is named 'mood'"),
    ],
)
def test_bad_input_decoded_text(work, task, text, line):
    decoded(work, task, text)
    with pytest.raises(OsumError) as e:
        score(work)
    assert line in str(e.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"key": "a", "wav": "a.wav", "txt": "x"}\n{"key": \n', "data.list:2"),
        ("", "no utterance in it"),
        ('{"key": "a", "wav": "a.wav", "txt": "x", "emotion": "glad"}\n', "'glad'"),
    ],
)
def test_bad_input_references(work, text, line):
    (work / "data.list").write_text(text, encoding="utf-8")
    with pytest.raises(OsumError) as e:
        score(work)
    assert line in str(e.value)
    assert not (work / "scores.json").exists()


def test_bad_input_is_one_line_and_status_1(work, capsys):
    with pytest.raises(SystemExit) as e:
        run_main(lambda: score(work, "--mode", "beam"))
    assert e.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_bad_input_resamples(work, capsys):
    with pytest.raises(SystemExit):
        score(work, "--resamples", "0")
    assert "give a positive number" in capsys.readouterr().err


def test_bad_input_hypotheses_of_other_ids_are_told(work, capsys):
    (work / "decode/asr/llm_greedy/text").write_text("a yes\nzz no\nyy no\n")
    assert score(work) == 0
    assert "2 answers to ids that" in (err := capsys.readouterr().err) and "such as yy" in err
    assert written(work)["asr"]["counts"]["extra"] == 2


def test_ids_may_hold_other_white_space(tmp_path):
    (tmp_path / "text").write_text("a\u3000b hello there\nc\td\n", encoding="utf-8")
    assert read_hypotheses(tmp_path / "text") == {"a\u3000b": "hello there", "c": "d"}


def test_bad_input_reference_with_an_unknown_task(work):
    with open(work / "data.list", "a") as f:
        f.write('{"key": "d", "wav": "d.wav", "txt": "no", "task": "<FOO>"}\n')
    with pytest.raises(OsumError, match=r"data\.list:4: unknown task '<FOO>'"):
        score(work)


def test_bad_input_seed(work):
    with pytest.raises(SystemExit):
        score(work, "--seed", "-1")


def test_against_another_mode_of_the_same_folder(work, capsys):
    decoded(work, "asr", "a yes please\nb 不要\nc no\n", mode="llm_beam")
    assert score(work, "--against", str(work / "decode"), "--against_mode", "llm_beam") == 0
    against = written(work)["asr"]["against"]
    assert (against["decode_dir"], against["mode"]) == (str(work / "decode"), "llm_beam")
    assert against["scores"]["mer"]["difference"] == pytest.approx(20.0)
    assert "against" not in written(work)["ser"]
    assert "no ser to compare with" in capsys.readouterr().err


def test_bad_input_against_nothing(work):
    with pytest.raises(OsumError, match="gone: no such folder"):
        score(work, "--against", "gone")
    with pytest.raises(OsumError, match="no TASK/beam/text in it"):
        score(work, "--against", str(work / "decode"), "--against_mode", "beam")
    assert not (work / "scores.json").exists()
