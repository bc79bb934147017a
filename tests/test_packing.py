"""Packed batches: several utterances in one row give what a padded batch gives, and none sees another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import ADAPTER_CONFS, ENCODER, LLM, build, random_batch, stage1_config, stage2_config
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F

from wenet_osum.errors import OsumError
from wenet_osum.models import head
from wenet_osum.models.dropout import Dropout
from wenet_osum.models.half_attention import half_attention
from wenet_osum.models.head import head_loss
from wenet_osum.models.lora import LoraLinear
from wenet_osum.models.packed import Apart, causal_apart, frames_around

CPU = torch.device("cpu")
MIXED = [37, 64, 1, 101, 2, 83, 3, 50]  # frames, odd and even, down to one
ADAPTERS = ["osum", "conv", "linear"]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def packed(batch: dict[str, Any]) -> dict[str, Any]:
    """The same batch as ``batch_type: pack`` has it: the real frames of all utterances in one row."""
    rows = [row[:n] for row, n in zip(batch["feats"], batch["feats_lengths"].tolist())]
    return {**batch, "feats": torch.cat(rows)}


def config_of(adapter: str, checkpointing: bool = False, **decoder: Any) -> dict[str, Any]:
    conf = dict(ADAPTER_CONFS[adapter])
    if adapter == "osum":
        conf["gradient_checkpointing"] = checkpointing
    return stage2_config(
        encoder_conf={**ENCODER, "gradient_checkpointing": checkpointing},
        model_conf={"adapter": adapter, "adapter_conf": conf, "ctc_weight": 0.3},
        decoder_conf={"llm_config": LLM, "gradient_checkpointing": checkpointing, **decoder},
    )


def gradients(model: Any, batch: dict[str, Any]) -> tuple[dict[str, Tensor | None], dict[str, Tensor]]:
    model.zero_grad()
    out = model(batch, CPU)
    out["loss"].backward()
    return out, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def check_equal(model: Any, batch: dict[str, Any]) -> None:
    """Loss and gradients to 1e-5 of the largest. torch's CTC is run in fp64: in fp32 its gradient alone
    moves by 1e-4 when its input moves by 1e-7."""
    model.train()
    model.ctc.log_softmax = lambda hs: model.ctc.ctc_lo(hs).double().log_softmax(dim=-1)
    (padded, padded_grads), (one_row, grads) = gradients(model, batch), gradients(model, packed(batch))
    assert padded.keys() == one_row.keys()
    for name, value in padded.items():
        torch.testing.assert_close(one_row[name].float(), value.float(), **TOLERANCE)
    assert grads.keys() == padded_grads.keys() and len(grads) > 20
    largest = max(1.0, *(float(g.abs().max()) for g in padded_grads.values()))
    for name, value in padded_grads.items():
        worst = float((grads[name] - value).abs().max())
        assert worst <= 1e-5 * largest, f"{name}: {worst}, the largest gradient is {largest}"


def with_lora(model: Any) -> Any:
    """LoRA that does something: its second matrix starts at zero."""
    for n, p in model.named_parameters():
        if "lora_B" in n:
            nn.init.normal_(p, std=0.05)
    return model


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_pack_equals_pad(adapter: str, lora: bool):
    more = {"lora": {"lora_dropout": 0.0}} if lora else {}
    check_equal(with_lora(build(config_of(adapter, **more), scale=2)), random_batch(MIXED))


@pytest.mark.parametrize("strides", [(2, 2), (1, 1)])
def test_pack_equals_pad_other_strides(strides: tuple[int, int]):
    config = config_of("osum")
    config["encoder_conf"]["conv_strides"] = strides
    config["model_conf"]["adapter_conf"]["strides"] = (2, 1, 3)
    check_equal(build(config), random_batch(MIXED))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "llama", "mistral"])
def test_pack_equals_pad_any_llm(model_type: str, checkpointing: bool):
    llm = {**LLM, "model_type": model_type}
    config = config_of("linear", checkpointing, llm_config=llm, lora={"lora_dropout": 0.0})
    check_equal(with_lora(build(config, scale=2)), random_batch(MIXED))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_pack_equals_pad_attention(attention: str):
    config = config_of("conv", attn_implementation=attention)
    check_equal(build(config), random_batch(MIXED))


def test_pack_equals_pad_stage1():
    check_equal(build(stage1_config(), scale=2), random_batch(MIXED))


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    adapter=st.sampled_from(ADAPTERS),
    seed=st.integers(0, 99),
)
def test_pack_equals_pad_any_lengths(lengths: list[int], adapter: str, seed: int):
    check_equal(build(config_of(adapter)), random_batch(lengths, seed=seed))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_utterances_of_a_pack_do_not_see_each_other(adapter: str, attention: str, checkpointing: bool):
    """A gradient of one utterance's loss reaches its own frames and no other's; another one perturbed
    changes nothing."""
    model = build(config_of(adapter, checkpointing, attn_implementation=attention), scale=2).train()
    batch = random_batch([31, 40, 22])
    for i in range(3):
        weights = torch.zeros_like(batch["target_weights"])
        weights[i] = batch["target_weights"][i]
        only = packed({**batch, "target_weights": weights})
        del only["ctc_target"]
        feats = only["feats"].requires_grad_()
        loss = model(only, CPU)["loss"]
        (grad,) = torch.autograd.grad(loss, feats)
        own = [g.abs().sum() for g in grad.split([31, 40, 22])]
        assert [bool(g > 0) for g in own] == [j == i for j in range(3)]
        others = feats.detach().clone()
        for j, part in enumerate(others.split([31, 40, 22])):
            part += (j != i) * torch.randn(part.shape)
        changed = {**only, "feats": others, "prompt": only["prompt"].clone()}
        changed["prompt"][[j for j in range(3) if j != i], 0] = 7
        torch.testing.assert_close(model(changed, CPU)["loss"], loss, atol=1e-6, rtol=0)


@pytest.mark.parametrize("change", [{"use_cache": True}, {"attention_mask": torch.ones(1, 30).long()}])
def test_transformers_own_way_with_a_pack_has_a_trap(change: dict[str, Any]):
    """Why ``LLMDecoder.hidden`` calls as it does: with a cache or a mask of ones, transformers lets the
    utterances of a row see each other. Its plain call keeps them apart, as ours does."""
    lm = build(config_of("linear", attn_implementation="eager"), scale=3).decoder.causal_lm.base_model
    embeds = torch.randn(1, 30, 32)
    positions = torch.cat([torch.arange(12), torch.arange(18)])[None]
    alone = lm(inputs_embeds=embeds[:, 12:], use_cache=False).last_hidden_state

    def second(**how: Any) -> Tensor:
        how = {"inputs_embeds": embeds, "position_ids": positions, "use_cache": False, **how}
        return lm(**how).last_hidden_state[:, 12:]

    torch.testing.assert_close(second(), alone, atol=1e-5, rtol=0)
    assert float((second(**change) - alone).abs().max()) > 0.01


def test_bad_input_pack_for_a_language_model_that_drops_the_lengths(monkeypatch: pytest.MonkeyPatch):
    model, batch = build(config_of("linear")), packed(random_batch([31, 40]))
    llm = model.decoder.causal_lm.base_model
    plain = llm.forward
    monkeypatch.setattr(llm, "forward", lambda apart=None, **kw: plain(**kw))
    with pytest.raises(OsumError, match="batch_type: pack: Qwen2ForCausalLM's attention is not told"):
        model(batch, CPU)


def test_bad_input_pack_longer_than_the_attention_window():
    q = torch.randn(1, 2, 30, 8)
    with pytest.raises(OsumError, match="sees 10 positions, an utterance has 20"):
        causal_apart(nn.Identity(), q, q, q, None, Apart([10, 20]), sliding_window=10)


@pytest.mark.parametrize(
    ("config", "part"),
    [(stage1_config(), "encoder"), (stage2_config(), "encoder"), (stage2_config(), "adapter")],
    ids=["stage1-encoder", "stage2-encoder", "stage2-adapter"],
)
def test_bad_input_pack_for_a_part_that_pads(config: dict[str, Any], part: str):
    model = build(config)
    getattr(model, part).packs = False
    name = type(getattr(model, part)).__name__
    words = rf"batch_conf\.batch_type: pack: the {part} {name} takes padded batches only; use dynamic"
    with pytest.raises(OsumError, match=words):
        model(packed(random_batch([40, 30])), CPU)


def test_pack_longer_than_the_position_table():
    model = build(stage2_config(encoder_conf={**ENCODER, "max_positions": 30}))
    model(packed(random_batch([60, 60])), CPU)  # the table is for each utterance, not for the row
    with pytest.raises(ValueError, match="31 encoder frames, the position table ends at 30"):
        model(packed(random_batch([62, 40])), CPU)


def test_frames_around_is_what_a_convolution_sees():
    x = torch.arange(1.0, 8)[:, None]
    seen, lengths = frames_around(x, [4, 1, 2], (-1, 0, 1), 2)
    assert lengths == [2, 1, 1]
    assert seen.tolist() == [[0, 1, 2], [2, 3, 4], [0, 5, 0], [0, 6, 7]]


# --- the output layer's loss ---


@pytest.mark.parametrize("chunk", [1, 60 * 4, 1 << 24])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("learns", [False, True])
def test_head_loss_is_cross_entropy(learns: bool, bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(head, "CHUNK", chunk)
    hidden = torch.randn(11, 8, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(60, 8, requires_grad=learns)
    b = torch.randn(60, requires_grad=learns) if bias else None
    labels, weights = torch.randint(60, (11,)), torch.rand(11) * 2
    inputs = [t for t in (hidden, weight, b) if t is not None and t.requires_grad]
    logits = F.linear(hidden, weight, b)
    expected = (F.cross_entropy(logits, labels, reduction="none") * weights).sum()
    loss, right, each = head_loss(hidden, weight, b, labels, weights)
    torch.testing.assert_close(loss, expected)
    each_expected = F.cross_entropy(logits, labels, reduction="none") * weights
    torch.testing.assert_close(each, each_expected.detach())
    assert int(right) == int((logits.argmax(-1) == labels).sum())
    for got, wanted in zip(torch.autograd.grad(loss * 3, inputs), torch.autograd.grad(expected * 3, inputs)):
        torch.testing.assert_close(got, wanted)
    with torch.no_grad():
        torch.testing.assert_close(head_loss(hidden, weight, b, labels, weights)[0], expected)
    empty = head_loss(hidden[:0], weight, b, labels[:0], weights[:0])
    assert float(empty[0]) == 0 and int(empty[1]) == 0


def test_head_loss_of_large_logits_and_half_precision():
    hidden, weight = torch.full((2, 4), 300.0), torch.tensor([[1.0] * 4, [-1.0] * 4, [0.5] * 4])
    loss, *_ = head_loss(hidden, weight, None, torch.tensor([0, 1]), torch.ones(2))
    assert float(loss) == pytest.approx(2400)
    hidden, weight = torch.randn(9, 32), torch.randn(60, 32) / 5
    labels, weights = torch.randint(60, (9,)), torch.ones(9)
    exact, *_ = head_loss(hidden, weight, None, labels, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, *_ = head_loss(hidden, weight, None, labels, weights)
    assert half.dtype == torch.float32 and half != exact
    torch.testing.assert_close(half, exact, rtol=5e-3, atol=0)


@pytest.mark.parametrize("tied", [False, True])
def test_head_that_learns_is_tied_or_not(tied: bool):
    """The embedding's gradient and the output layer's come together in a tied table."""
    config = config_of("linear", llm_config={**LLM, "tie_word_embeddings": tied})
    model, batch = build(config, scale=2), random_batch([40, 61])
    _, grads = gradients(model, batch)
    assert (
        model.decoder.causal_lm.lm_head.weight is model.decoder.causal_lm.model.embed_tokens.weight
    ) == tied

    def by_torch(hidden: Tensor, weight: Tensor, bias: Any, labels: Tensor, weights: Tensor) -> Any:
        losses = F.cross_entropy(F.linear(hidden, weight, bias), labels, reduction="none")
        return (losses * weights).sum(), torch.zeros(()), losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wenet_osum.models.llm_decoder.head_loss", by_torch)
        _, expected = gradients(model, batch)
    assert grads.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(grads[name], value, **TOLERANCE)


# --- dropout ---


def test_dropout_drops_its_share_and_repeats_by_the_seed():
    dropout = Dropout(0.1)
    x = torch.ones(501, 333, requires_grad=True)
    torch.manual_seed(5)
    y = dropout(x)
    y.backward(torch.full_like(y, 2.0))
    zero = y == 0
    assert float(zero.float().mean()) == pytest.approx(0.1, abs=0.003)
    assert float(y.detach().mean()) == pytest.approx(1.0, abs=0.004)
    for lag in (1, 2, 3, 4):  # four come of one draw: neighbours are independent all the same
        both = (zero.flatten()[lag:] & zero.flatten()[:-lag]).float().mean()
        assert float(both) == pytest.approx(0.01, abs=0.001)
    assert x.grad is not None and torch.equal(x.grad, 2 * y)
    torch.manual_seed(5)
    assert torch.equal(dropout(x), y)
    assert torch.equal(dropout.eval()(x), x)
    assert float(Dropout(1.0)(x).abs().sum()) == 0 and Dropout(0.0)(x) is x


# --- LoRA and half precision ---


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("half", ["no", "weights", "autocast"])
def test_lora_in_one_step_is_pefts(half: str, dropout: float, monkeypatch: pytest.MonkeyPatch):
    """Against peft's own layer given the same mask: values and gradients."""
    base = nn.Linear(24, 40).requires_grad_(False)
    dtype = torch.float32 if half == "no" else torch.bfloat16
    layer = LoraLinear(base, "default", LoraConfig(lora_dropout=dropout), r=4, lora_alpha=12)
    layer.update_layer("default", 4, lora_alpha=12, config=LoraConfig(lora_dropout=dropout))
    base.to(dtype)
    nn.init.normal_(layer.lora_B["default"].weight, std=0.3)
    keep = torch.rand(2 * 7, 24) > dropout
    monkeypatch.setattr("wenet_osum.models.lora.keep_mask", lambda x, p: keep)
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: x * keep.view(x.shape) / (1 - dropout))
    found = []
    for forward in (LoraLinear.forward, Linear.forward):
        x = torch.randn(2, 7, 24, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half == "autocast"):
            y = forward(layer, x)
        y.float().pow(2).sum().backward()
        weights = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
        found.append([y, x.grad, *(w.grad for w in weights)])
        layer.zero_grad()
    exact = {"atol": 1e-4, "rtol": 1e-5} if half == "no" else {"atol": 0.05, "rtol": 0.05}
    for name, ours, theirs in zip(("y", "x", "A", "B"), *found):
        assert ours.dtype == theirs.dtype
        scale = 1.0 if half == "no" else float(theirs.abs().max())
        torch.testing.assert_close(ours.float() / scale, theirs.float() / scale, **exact, msg=name)


def test_lora_is_ours_and_merges_as_pefts():
    model = with_lora(build(config_of("linear", lora={})))
    layers = [m for m in model.modules() if isinstance(m, LoraLinear)]
    assert len(layers) == 2 * 6
    x = torch.randn(3, 32)
    layer = layers[0]
    before = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), before)  # without gradients it is peft's own way
    layer.merge()
    torch.testing.assert_close(layer(x), before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(layer.base_layer(torch.zeros(3, 32)) + 1, before)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_half_attention_is_attention(causal: bool, groups: int):
    shape = (1, 6, 17, 8)
    q = torch.randn(shape).bfloat16().requires_grad_()
    k, v = (torch.randn(1, 6 // groups, 17, 8).bfloat16().requires_grad_() for _ in range(2))
    out = half_attention(q, k, v, causal, 0.5)
    wide = [t.detach().float().requires_grad_() for t in (q, k, v)]
    exact = F.scaled_dot_product_attention(*wide, is_causal=causal, scale=0.5, enable_gqa=True)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, atol=0.02, rtol=0.02)
    up = torch.randn(shape)
    got = torch.autograd.grad(out, (q, k, v), up.bfloat16())
    for mine, theirs in zip(got, torch.autograd.grad(exact, wide, up)):
        torch.testing.assert_close(mine.float(), theirs, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_pack_under_bf16_is_close_to_fp32(adapter: str):
    """Losses of three packs; the gradient points the same way."""
    model = with_lora(build(config_of(adapter, lora={"lora_dropout": 0.0}))).train()
    batch = packed(random_batch(MIXED))
    out, exact = gradients(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(batch, CPU)
    model.zero_grad()
    half["loss"].backward()
    assert half["loss"].dtype == torch.float32
    assert float(half["loss"]) == pytest.approx(float(out["loss"]), rel=2e-3)
    flat = [
        torch.cat([g.flatten() for g in gs])
        for gs in zip(*((exact[n], p.grad) for n, p in model.named_parameters() if n in exact))
    ]
    assert float(F.cosine_similarity(*flat, dim=0)) > 0.99
