"""The CTC head over the LLM's word embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import adapter_config, build, random_batch, row_of, stage1_config

from wenet_osum.errors import OsumError
from wenet_osum.models.ctc import WordCTC

CPU = torch.device("cpu")


def tiny() -> Any:
    return build({**adapter_config("osum"), "ctc": "words"}, scale=2)


def test_a_batch_and_a_pack_have_the_losses_of_their_utterances():
    model = tiny()
    batch = random_batch([137, 201, 164, 183])
    whole = {"target": 1.0, "ctc": 1.0}
    together = model({**batch, "normalizers": whole}, CPU)
    alone = [model({**row_of(batch, i), "normalizers": whole}, CPU) for i in range(4)]
    rows = [feats[:n] for feats, n in zip(batch["feats"], batch["feats_lengths"])]
    packed = model({**batch, "feats": torch.cat(rows), "normalizers": whole}, CPU)
    for name in ("loss", "loss_llm", "loss_ctc"):
        torch.testing.assert_close(together[name], sum(a[name] for a in alone))
        torch.testing.assert_close(packed[name], together[name])
    assert float(together["loss_ctc"]) > 1


def test_it_reads_words_from_their_own_embeddings_and_nothing_from_zeros():
    model = tiny()
    with torch.no_grad():
        words = 3 * model.decoder.embed(torch.tensor([7, 7, 9, 30]))  # some are shorter than the mean
        speech = torch.stack([words[0], words[1], 0 * words[0], words[2], words[3], 0 * words[0], words[3]])
        model.ctc.fit(model.decoder.word_size())
        logits = model.decoder.likeness(speech[None])
        assert logits.shape == (1, 7, 60)
        assert model.ctc.greedy(logits, torch.tensor([7])) == [[7, 9, 30, 30]]
        assert model.ctc.greedy(logits, torch.tensor([4])) == [[7, 9]]
        assert float(model.ctc.log_softmax(logits).exp().sum(-1).sum()) == pytest.approx(7, abs=1e-4)


def test_it_learns_two_numbers_and_teaches_the_adapter():
    model = build({**adapter_config("osum"), "ctc": "words"}).train()
    model.ctc.fit(10 * model.decoder.word_size())  # a fresh adapter's output is larger than these embeddings
    model.set_trainable(["adapter", "ctc"])
    assert isinstance(model.ctc, WordCTC) and sum(p.numel() for p in model.ctc.parameters()) == 2
    batch = random_batch([120, 140])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        loss = model(batch, CPU)["loss_ctc"]
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    heard = model.eval().hear(batch["feats"], batch["feats_lengths"])
    wanted = [row[row >= 0].tolist() for row in batch["ctc_target"]]
    assert model.ctc_greedy(heard) == wanted
    infos = {"prompt": batch["prompt"]}
    found = model.decode(["ctc_greedy_search"], batch["feats"], batch["feats_lengths"], infos=infos)
    assert [r.tokens for r in found["ctc_greedy_search"]] == wanted


def test_negatives_are_drawn_while_training_only():
    ys = torch.tensor([[5, 9, -1], [9, 2, 30]])
    head = WordCTC(1000, 8, negatives=40)
    words = head.candidates(ys)
    assert words is not None and 4 < len(words) <= 44 and {2, 5, 9, 30} <= set(words.tolist())
    assert words.tolist() == sorted(words.tolist())
    assert head.eval().candidates(ys) is None and WordCTC(1000, 8).train().candidates(ys) is None


def test_with_all_words_among_the_negatives_the_loss_is_that_of_all():
    model, batch = tiny().train(), random_batch([137, 201])
    model.ctc.negatives = 2000  # all 60 of them, but for the odds of e^-33
    some = model(batch, CPU)["loss_ctc"]
    model.ctc.negatives = 0
    torch.testing.assert_close(some, model(batch, CPU)["loss_ctc"])


def test_ctc_alone_does_not_ask_the_llm(monkeypatch: pytest.MonkeyPatch):
    model, batch = tiny(), random_batch([137, 201])
    both = model(batch, CPU)
    model.ctc_weight = 1.0
    monkeypatch.setattr(model.decoder, "forward", None)
    alone = model({**batch, "normalizers": {}}, CPU)
    torch.testing.assert_close(alone["loss"], both["loss_ctc"])
    assert "loss_llm" not in alone and float(alone["utterance_weight"].sum()) == 0


def test_bad_input_stage_1_has_no_llm():
    with pytest.raises(OsumError, match=r"ctc: words is for an LLM's word embeddings; use ctc or none"):
        build({**stage1_config(), "ctc": "words"})
