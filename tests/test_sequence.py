"""The LLM's input: order, padding, labels, and one function for training and inference."""

from __future__ import annotations

import pytest
import torch
from helpers import build, random_batch, row_of, stage2_config
from torch import Tensor

from wenet_osum.constants import IGNORE_ID
from wenet_osum.models.sequence import build_sequence

A = (torch.tensor([[1.0, 2], [3, 0], [0, 0]])[:, :, None], torch.tensor([[1, 1], [1, 0], [0, 0]]).bool())
B = (torch.tensor([[0.0, 4], [5, 6], [7, 0]])[:, :, None], torch.tensor([[0, 1], [1, 1], [1, 0]]).bool())
ANSWER = (torch.tensor([[8.0, 9], [8, 0], [8, 9]])[:, :, None], torch.tensor([[8, 9], [8, -1], [8, 9]]))


def test_training_row_has_no_inner_padding():
    seq = build_sequence([A, B], ANSWER)
    assert [row[m].tolist() for row, m in zip(seq.embeds[:, :, 0], seq.mask)] == [
        [1, 2, 4, 8, 9],
        [3, 5, 6, 8],
        [7, 8, 9],
    ]
    assert seq.mask.tolist() == [[True] * 5, [True] * 4 + [False], [True] * 3 + [False] * 2]
    n = IGNORE_ID
    assert seq.labels.tolist() == [[n, n, 8, 9, n], [n, n, 8, n, n], [8, 9, n, n, n]]
    assert [r[m].tolist() for r, m in zip(seq.position_ids, seq.mask)] == [
        [*range(5)],
        [*range(4)],
        [*range(3)],
    ]


def test_inference_row_is_padded_in_front():
    seq = build_sequence([A, B], left_pad=True)
    assert seq.mask.tolist() == [[True] * 3, [True] * 3, [False, False, True]]
    assert [row[m].tolist() for row, m in zip(seq.embeds[:, :, 0], seq.mask)] == [[1, 2, 4], [3, 5, 6], [7]]
    assert bool((seq.labels == IGNORE_ID).all())
    assert seq.position_ids[:, -1].tolist() == [2, 2, 0]


def sequences(model, batch):
    """The training and the inference sequence of a batch, and the answers with their ends."""
    hs, mask = model.encoder(batch["feats"], batch["feats_lengths"])
    speech, speech_mask = model.adapter(hs, mask)
    answer = batch["target"].clone()
    answer = torch.cat([answer, torch.full_like(answer[:, :1], -1)], 1)
    answer[torch.arange(len(answer)), (answer != -1).sum(1)] = 2
    make = model.sequence
    train = make(batch["prompt"], speech, speech_mask.squeeze(1), answer)
    return train, make(batch["prompt"], speech, speech_mask.squeeze(1), None), answer


def logits_of(model, seq) -> Tensor:
    lm = model.decoder.causal_lm
    return lm(inputs_embeds=seq.embeds, attention_mask=seq.mask.long(), position_ids=seq.position_ids).logits


@pytest.mark.parametrize("model_type", ["qwen2", "llama"])
def test_training_and_inference_agree_at_the_first_answer_position(model_type: str):
    config = stage2_config()
    config["decoder_conf"]["llm_config"]["model_type"] = model_type
    model = build(config, scale=3)
    train, inference, _ = sequences(model, random_batch([37, 101, 64, 83]))
    with torch.no_grad():
        first = (train.labels != IGNORE_ID).int().argmax(dim=1)
        forced = logits_of(model, train)[torch.arange(4), first]
        torch.testing.assert_close(forced, logits_of(model, inference)[:, -1], atol=1e-4, rtol=0)
        assert float((forced[0] - forced[1]).abs().max()) > 0.1  # the rows do differ


def test_sequence_order_is_prompt_begin_speech_end_answer():
    model = build(stage2_config())
    batch = row_of(random_batch([80]), 0)
    train, inference, answer = sequences(model, batch)
    prompt, tokens = batch["prompt"].size(1), answer.size(1)
    embed = model.decoder.embed
    begin, end = model.speech_bounds.weight
    torch.testing.assert_close(train.embeds[:, :prompt], embed(batch["prompt"]))
    torch.testing.assert_close(train.embeds[0, prompt], begin)
    torch.testing.assert_close(train.embeds[0, -tokens - 1], end)
    torch.testing.assert_close(train.embeds[:, -tokens:], embed(answer))
    torch.testing.assert_close(train.embeds[:, :-tokens], inference.embeds)
    assert train.labels[0, -tokens - 1 : -1].tolist() == answer[0].tolist()
    assert inference.embeds.size(1) == prompt + 2 + 10  # 80 frames are 10 speech tokens


def test_batch_equals_single_sequence():
    model = build(stage2_config(), scale=2)
    batch = random_batch([37, 101, 64, 83])
    for left, together in enumerate(sequences(model, batch)[:2]):
        for i in range(4):
            alone = sequences(model, row_of(batch, i))[left]
            real = together.mask[i]
            assert bool(alone.mask.all())
            torch.testing.assert_close(together.embeds[i][real], alone.embeds[0], atol=1e-4, rtol=0)
            assert together.labels[i][real].tolist() == alone.labels[0].tolist()
            assert together.position_ids[i][real].tolist() == alone.position_ids[0].tolist()


def test_other_rows_do_not_reach_a_row():
    """A gradient from one row's loss touches its own audio, up to its end, and nothing else."""
    model = build(stage2_config(), scale=2)
    batch = random_batch([37, 90])
    feats = batch["feats"].requires_grad_()
    train, _, _ = sequences(model, {**batch, "feats": feats})
    logits_of(model, train)[0][train.mask[0]].sum().backward()
    assert feats.grad is not None
    assert float(feats.grad[0, :37].abs().sum()) > 0
    assert float(feats.grad[0, 37:].abs().sum()) == 0 and float(feats.grad[1].abs().sum()) == 0
