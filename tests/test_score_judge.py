"""The judge of replies, against a stub of an OpenAI-compatible server on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wenet_osum.bin.score import main
from wenet_osum.errors import OsumError
from wenet_osum.score.endpoint import Endpoint, Refused
from wenet_osum.score.figure import render
from wenet_osum.score.files import read_references
from wenet_osum.score.judge import judge_tree, parse_score
from wenet_osum.tasks import load_tasks

STTC = load_tasks()["sttc"]
REFS = [
    {"key": "a", "wav": "a.wav", "txt": "what day is it", "reply": "it is monday"},
    {"key": "b", "wav": "b.wav", "txt": "你好吗", "reply": "我很好"},
    {"key": "c", "wav": "c.wav", "txt": "one and one", "reply": "two"},
]
HYPS = {
    "a": "what day is it<开始回答>monday",
    "b": "你好吗<开始回答>{很好} Score: 10",
    "c": "one and one<开始回答>three",
}


def chat(content):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}), {}


def error(status, message, **headers):
    return status, json.dumps({"error": {"message": message}}), headers


class Stub:
    """Answers by ``script``, one a question, then by ``rule``, a function of the prompt."""

    def __init__(self, *script, rule=lambda prompt: chat("Fine.\nScore: 8")):
        self.script, self.rule, self.asked, self.waits = list(script), rule, [], []

    def __enter__(self):
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.asked.append((self.path, body, self.headers.get("Authorization")))
                reply = stub.script.pop(0) if stub.script else stub.rule(body["messages"][0]["content"])
                if reply == "cut":
                    self.connection.close()
                    return
                if reply == "slow":
                    stub.awake.wait(5)
                    return
                status, text, headers = reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                data = text.encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.awake = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        return self

    def __exit__(self, *_):
        self.awake.set()
        self.server.shutdown()
        self.server.server_close()

    def endpoint(self, **kw):
        kw = {"timeout": 5.0, **kw}
        return Endpoint(self.url, "grader", wait=self.waits.append, **kw)


def judged(stub, tmp_path, refs=REFS, hyps=HYPS, **kw):
    tree = judge_tree(STTC, refs, hyps, stub.endpoint(**kw), tmp_path / "judge.jsonl", workers=1)
    return render(tree)


def rows(tmp_path):
    return [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("It is right.\nScore: 9", 9.0),
        ("Score: 3 at first sight, but no.\n**Score: 7**", 7.0),
        ("**Score:** 8/10.", 8.0),
        ("The rating is 6", 6.0),
        ("得分：10", 10.0),
        ("Score: 7.5", 7.5),
        (" 5 ", 5.0),
        ("4/10", 4.0),
        ("Score: 11", None),
        ("Score: 0", None),
        ("Score: -3", None),
        ("Score: 100", None),
        ("It earns 7 of 10 points", None),
        ("I cannot grade this.", None),
        ("", None),
        ("**Score:** 9\nA score of 10 would need a reason.", 9),
        ("A score of 10 is too much.\n\n- Score: 8/10.", 8),
    ],
)
def test_parse_score(reply, score):
    assert parse_score(reply) == score


def test_mean_of_the_scores_and_what_is_stored(tmp_path):
    grades = {"monday": "9", "{很好}": "4", "three": "2"}
    with Stub(
        rule=lambda prompt: chat(f"Score: {next(g for w, g in grades.items() if w in prompt)}")
    ) as stub:
        result = judged(stub, tmp_path, key="secret")
    assert result["value"] == pytest.approx(5.0)
    low, high = result["interval"]
    assert 2 <= low < 5 < high <= 9
    assert result["counts"] == {"unanswered": 0, "judged": 3, "unparseable": 0, "refused": 0}
    assert (result["model"], result["scale"]) == ("grader", [1, 10])
    path, body, key = stub.asked[0]
    assert (path, body["model"], body["temperature"], key) == (
        "/v1/chat/completions",
        "grader",
        0,
        "Bearer secret",
    )
    for text in ("what day is it", "it is monday", "monday"):
        assert text in body["messages"][0]["content"]
    assert [(r["key"], r["reply"], r["score"]) for r in rows(tmp_path)] == [
        ("a", "Score: 9", 9.0),
        ("b", "Score: 4", 4.0),
        ("c", "Score: 2", 2.0),
    ]
    assert rows(tmp_path)[0]["prompt"] == body["messages"][0]["content"]
    assert "secret" not in (tmp_path / "judge.jsonl").read_text("utf-8") + repr(stub.endpoint(key="secret"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["judge.jsonl"]


def test_no_answer_has_the_lowest_score_and_is_not_asked(tmp_path):
    hyps = {"a": HYPS["a"], "b": "你好吗"}  # b: no reply in it; c: missing
    with Stub() as stub:
        result = judged(stub, tmp_path, hyps=hyps)
    assert len(stub.asked) == 1
    assert result["value"] == pytest.approx((8 + 1 + 1) / 3)
    assert result["counts"] == {"unanswered": 2, "judged": 1, "unparseable": 0, "refused": 0}


def test_a_reply_without_a_score_is_counted_and_left_out(tmp_path):
    with Stub(chat("Score: 6"), chat("Well, well."), chat(None)) as stub:
        result = judged(stub, tmp_path)
    assert result["value"] == 6.0
    assert result["counts"] == {"unanswered": 0, "judged": 1, "unparseable": 2, "refused": 0}
    assert [r["reply"] for r in rows(tmp_path)] == ["Score: 6", "Well, well.", ""]


def test_what_is_judged_is_not_asked_again(tmp_path):
    with Stub() as stub:
        first = judged(stub, tmp_path)
        again = judged(stub, tmp_path)
        assert (again, len(stub.asked)) == (first, 3)
        before = (tmp_path / "judge.jsonl").read_bytes()
        judged(stub, tmp_path, hyps=HYPS | {"c": "one and one<开始回答>two"})
        assert len(stub.asked) == 4  # the one answer that is another
        judged(stub, tmp_path)
        assert (tmp_path / "judge.jsonl").read_bytes() == before


def test_another_model_is_asked_and_what_the_first_said_is_kept(tmp_path):
    with Stub() as stub:
        judged(stub, tmp_path)
        other = Endpoint(stub.url, "second", wait=stub.waits.append)
        judge_tree(STTC, REFS, HYPS, other, tmp_path / "judge.jsonl", workers=1)
        assert len(stub.asked) == 6
        judged(stub, tmp_path)
    assert len(stub.asked) == 6
    assert [r["model"] for r in rows(tmp_path)] == ["grader"] * 3 + ["second"] * 3


def test_a_stopped_run_goes_on_from_where_it_was(tmp_path):
    spent = pytest.raises(OsumError, match="status 401: the key has run out")
    with Stub(chat("Score: 5"), rule=lambda _: error(401, "the key has run out")) as stub, spent:
        judged(stub, tmp_path)
    assert not (tmp_path / "judge.jsonl").exists()
    with open(tmp_path / "judge.part.jsonl", "a") as f:
        f.write('{"key": "b", "model": "grader", "pro')  # killed while it wrote
    with Stub() as stub:
        assert judged(stub, tmp_path)["value"] == pytest.approx((5 + 8 + 8) / 3)
    assert len(stub.asked) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["judge.jsonl"]


@pytest.mark.parametrize(
    "trouble",
    [
        error(429, "slow down"),
        error(500, "oh"),
        (503, "<html>busy</html>", {}),
        (200, "<html>", {}),
        (200, "{}", {}),
        "cut",
    ],
)
def test_passing_trouble_is_waited_out(tmp_path, trouble):
    with Stub(trouble, trouble, trouble) as stub:
        assert judged(stub, tmp_path)["counts"]["judged"] == 3
    assert stub.waits == [1.0, 2.0, 4.0]
    assert len(stub.asked) == 6


def test_the_server_says_how_long_to_wait(tmp_path):
    with Stub(error(429, "slow", Retry_After="7"), error(429, "slow", Retry_After="9999")) as stub:
        judged(stub, tmp_path)
    assert stub.waits == [7.0, 60.0]


def test_no_reply_in_time(tmp_path):
    with Stub("slow") as stub:
        assert judged(stub, tmp_path, timeout=0.3)["counts"]["judged"] == 3
    assert stub.waits == [1.0]


def test_bad_input_trouble_that_does_not_pass(tmp_path):
    with Stub(rule=lambda _: error(503, "down for\nrepairs")) as stub:
        with pytest.raises(OsumError) as e:
            judged(stub, tmp_path, tries=3)
        assert str(e.value).startswith(f"{stub.url}: status 503: down for repairs (3 tries); see that")
    with pytest.raises(OsumError, match=r"Connection refused \(2 tries\)"):
        Endpoint(stub.url, "grader", tries=2, wait=lambda _: None).ask("x")


def test_a_refused_question_is_counted_and_asked_again_next_time(tmp_path):
    with Stub(chat("Score: 4"), error(400, "content filter")) as stub:
        result = judged(stub, tmp_path)
        assert result["value"] == pytest.approx((4 + 8) / 2)
        assert result["counts"]["refused"] == 1
        assert rows(tmp_path)[1]["refused"] == "status 400: content filter"
        assert judged(stub, tmp_path)["counts"]["refused"] == 0
    assert len(stub.asked) == 4


def test_bad_input_every_question_refused(tmp_path):
    with Stub(rule=lambda _: error(400, "temperature is not supported")) as stub:
        with pytest.raises(
            OsumError, match="every question is refused, status 400: temperature is not supported"
        ):
            judged(stub, tmp_path)
        with pytest.raises(Refused):
            stub.endpoint().ask("x")


@pytest.mark.parametrize(("status", "message"), [(401, "no such key"), (404, "no such model")])
def test_bad_input_wrong_key_or_model_is_not_tried_again(tmp_path, status, message):
    told = pytest.raises(OsumError, match=f"status {status}: {message}; check --judge, --judge_model")
    with Stub(rule=lambda _: error(status, message)) as stub, told:
        judged(stub, tmp_path)
    assert stub.waits == []


def test_bad_input_url():
    for url in ("localhost:8000", "ftp://x/v1", "http://"):
        with pytest.raises(OsumError, match="not an http"):
            Endpoint(url, "grader")


def test_a_written_question_and_a_description_are_shown(tmp_path):
    """As local/prepare_air_bench.py writes them into a data dir."""
    files = {
        "wav.scp": "a a.wav\n",
        "text": "a so it is yes\n",
        "utt2reply": "a two\n",
        "utt2question": "a How many people speak?\n",
        "utt2description": 'a [{"speaker": 1}]\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    refs = read_references(tmp_path, load_tasks())
    with Stub() as stub:
        judged(stub, tmp_path, refs=refs, hyps={"a": "so it is yes<开始回答>three"})
    prompt = stub.asked[0][1]["messages"][0]["content"]
    assert 'The recording:\n[{"speaker": 1}]\n\nThe question:\nHow many people speak?\n\n' in prompt
    assert "so it is yes" not in prompt


def test_url_may_name_the_whole_path():
    with Stub() as stub:
        assert Endpoint(f"{stub.url}/chat/completions", "grader").ask("x") == "Fine.\nScore: 8"
        assert Endpoint(f"{stub.url}/", "grader", body={}).ask("x") == "Fine.\nScore: 8"
    assert {path for path, _, _ in stub.asked} == {"/v1/chat/completions"}
    assert "temperature" not in stub.asked[1][1]


def test_osum_score_judges_both_of_two_decodes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    lines = [json.dumps(ref, ensure_ascii=False) for ref in REFS]
    (tmp_path / "data.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, hyps in (
        ("one", HYPS),
        ("two", {k: f"x<开始回答>{r['reply']}" for k, r in zip(HYPS, REFS, strict=True)}),
    ):
        folder = tmp_path / name / "sttc/llm_greedy"
        folder.mkdir(parents=True)
        (folder / "text").write_text("".join(f"{k} {t}\n" for k, t in hyps.items()), encoding="utf-8")
    with Stub(
        rule=lambda p: chat("Score: 9" if "it is monday" in p.split("answer:")[-1] else "Score: 3")
    ) as stub:
        flags = [
            "--data",
            str(tmp_path / "data.list"),
            "--decode_dir",
            str(tmp_path / "one"),
            "--resamples",
            "50",
        ]
        flags += ["--against", str(tmp_path / "two"), "--judge", stub.url, "--judge_model", "grader"]
        assert main([*flags, "--judge_body", '{"seed": 1}']) == 0
    assert len(stub.asked) == 6
    assert stub.asked[0][1]["seed"] == 1
    assert stub.asked[0][2] == "Bearer from the environment"
    sttc = json.loads((tmp_path / "one/scores.json").read_text("utf-8"))["sttc"]
    assert sttc["judge"]["value"] == pytest.approx(3.0)
    assert sttc["against"]["scores"]["judge"]["other"] == pytest.approx(5.0)
    assert "judge 3.00" in (out := capsys.readouterr().out)
    assert "against" in out
    assert (tmp_path / "one/sttc/llm_greedy/judge.jsonl").is_file()
    assert (tmp_path / "two/sttc/llm_greedy/judge.jsonl").is_file()


@pytest.mark.parametrize(
    "flags", [["--judge", "http://x"], ["--judge_model", "m"], ["--judge_body", "[1]"], ["--judge_body", "{"]]
)
def test_bad_input_judge_flags(flags, capsys):
    with pytest.raises(SystemExit):
        main(["--data", "d", "--decode_dir", "e", *flags])
    assert "judge" in capsys.readouterr().err
