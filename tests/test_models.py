"""The models: a batch gives each utterance what it gets alone, losses, parts that learn."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers import ENCODER, LLM, adapter_config, build, random_batch, row_of, stage1_config, stage2_config
from torch import Tensor
from torch.nn import functional as F

from wenet_osum.errors import OsumError
from wenet_osum.models.ctc import CTC
from wenet_osum.models.losses import combine_losses

CPU = torch.device("cpu")
ODD = [37, 101, 64, 1, 83, 50, 2, 99]  # frames
ADAPTERS = ["osum", "conv", "linear"]
DECODED_TOGETHER = [31 + 13 * (i % 9) for i in range(16)]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@pytest.mark.parametrize("strides", [(1, 2), (2, 2)])
def test_batch_equals_single_encoder(strides: tuple[int, int]):
    model = build(stage2_config(encoder_conf={**ENCODER, "conv_strides": strides}))
    batch = random_batch(ODD)
    together, mask = model.encoder(batch["feats"], batch["feats_lengths"])
    for i in range(len(ODD)):
        one = row_of(batch, i)
        alone, alone_mask = model.encoder(one["feats"], one["feats_lengths"])
        n = int(mask[i].sum())
        assert bool(alone_mask.all()) and alone.size(1) == n and bool(mask[i, 0, :n].all())
        close(together[i, :n], alone[0])


@pytest.mark.parametrize("name", ADAPTERS)
def test_batch_equals_single_adapter(name: str):
    model = build(adapter_config(name))
    lengths = torch.tensor([19, 50, 1, 32, 7])
    hs = torch.randn(5, 50, 32)
    mask = torch.arange(50)[None, None] < lengths[:, None, None]
    together, together_mask = model.adapter(hs, mask)
    assert together.shape[1] == together_mask.shape[2]
    for i, n in enumerate(lengths.tolist()):
        alone, alone_mask = model.adapter(hs[i : i + 1, :n], torch.ones(1, 1, n, dtype=torch.bool))
        tokens = int(together_mask[i].sum())
        assert alone.size(1) == tokens == int(alone_mask.sum())
        close(together[i, :tokens], alone[0])


@pytest.mark.parametrize(
    "config", [*map(adapter_config, ADAPTERS), stage1_config()], ids=[*ADAPTERS, "whisper"]
)
def test_batch_equals_single_loss(config: dict[str, Any]):
    model = build(config, scale=2)
    batch = random_batch([37, 101, 64, 83])
    whole = {"target": 1.0, "ctc": 1.0}
    together = model({**batch, "normalizers": whole}, CPU)
    alone = [model({**row_of(batch, i), "normalizers": whole}, CPU) for i in range(4)]
    for name in ("loss", "loss_llm", "loss_ctc"):
        close(together[name], sum(a[name] for a in alone))
    assert int(together["tokens"]) == sum(int(a["tokens"]) for a in alone)


@pytest.mark.parametrize("name", ADAPTERS)
def test_batch_equals_single_whole_model_decode(name: str):
    model = build(adapter_config(name), scale=3)
    check_decode(model, ["llm_greedy", "ctc_greedy_search"])


def test_batch_equals_single_whisper_decode():
    check_decode(build(stage1_config(), scale=3), ["attention", "ctc_greedy_search"])


def test_batch_equals_single_beam():
    check_decode(build(stage2_config(), scale=3), ["llm_beam"])


def check_decode(model: Any, methods: list[str]) -> None:
    batch = random_batch(DECODED_TOGETHER)
    together = model.decode(
        methods, batch["feats"], batch["feats_lengths"], 3, 0.0, {"prompt": batch["prompt"]}
    )
    for i in range(len(DECODED_TOGETHER)):
        one = row_of(batch, i)
        alone = model.decode(methods, one["feats"], one["feats_lengths"], 3, 0.0, {"prompt": one["prompt"]})
        for method in methods:
            assert together[method][i].tokens == alone[method][0].tokens
    for method in methods:  # utterances differ in what is decoded, else the comparison says nothing
        assert len({tuple(r.tokens) for r in together[method]}) > 3


def test_encoder_lengths_and_limits():
    encoder = build(stage2_config()).encoder
    for frames in (1, 2, 3, 100, 101):
        out, mask = encoder(torch.zeros(1, frames, 80), torch.tensor([frames]))
        assert out.shape[1] == mask.shape[2] == -(-frames // 2)
    encoder(torch.zeros(1, 3000, 80), torch.tensor([3000]))
    with pytest.raises(ValueError, match="position table"):
        encoder(torch.zeros(1, 3002, 80), torch.tensor([3002]))
    with pytest.raises(ValueError, match="stream"):
        encoder(torch.zeros(1, 10, 80), torch.tensor([10]), 16, -1)


def test_gradient_checkpointing_changes_nothing():
    batch = random_batch([37, 60])
    grads = []
    for on in (False, True):
        adapter = {
            "adapter_conf": {"attention_heads": 2, "linear_units": 8, "num_blocks": 1, "dropout_rate": 0.0}
        }
        adapter["adapter_conf"]["gradient_checkpointing"] = on
        config = stage2_config(
            encoder_conf={**ENCODER, "gradient_checkpointing": on},
            decoder_conf={"llm_config": LLM, "gradient_checkpointing": on},
            model_conf=adapter,
        )
        model = build(config).train()
        model(batch, CPU)["loss"].backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 20
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_loss_is_cross_entropy_of_the_answer_and_its_end():
    model = build(stage2_config(), scale=2)
    batch = row_of(random_batch([80]), 0)
    hs, mask = model.encoder(batch["feats"], batch["feats_lengths"])
    speech, _ = model.adapter(hs, mask)
    embed = model.decoder.embed
    begin, end = model.speech_bounds.weight[:, None, None]
    answer = torch.cat([batch["target"], torch.tensor([[2]])], dim=1)
    embeds = torch.cat([embed(batch["prompt"]), begin, speech, end, embed(batch["target"])], dim=1)
    logits = model.decoder.causal_lm(inputs_embeds=embeds).logits[:, -answer.size(1) :]
    out = model(batch, CPU)
    close(out["loss"], F.cross_entropy(logits[0], answer[0]))
    assert int(out["tokens"]) == answer.size(1)
    right = (logits[0].argmax(-1) == answer[0]).float().mean()
    assert float(out["th_accuracy"]) == pytest.approx(float(right))


def test_llama_and_others_by_config_alone():
    llama = build(stage2_config(decoder_conf={"llm_config": {**LLM, "model_type": "llama"}}), scale=3)
    assert type(llama.decoder.causal_lm).__name__ == "LlamaForCausalLM"
    check_decode(llama, ["llm_greedy"])
    assert type(build(stage2_config()).decoder.causal_lm).__name__ == "Qwen2ForCausalLM"
    old = {**LLM, "rope_theta": 1e6}  # the key in the config.json of a released Qwen2
    config = build(stage2_config(decoder_conf={"llm_config": old})).decoder.causal_lm.config
    assert config.to_dict()["rope_parameters"]["rope_theta"] == 1e6


def test_bad_input_language_model(tmp_path, llm_folder):
    def decoder(**conf: Any) -> Any:
        return build(stage2_config(decoder_conf=conf))

    with pytest.raises(OsumError, match="neither llm nor llm_config"):
        decoder()
    with pytest.raises(OsumError, match="embedding rows"):
        decoder(llm_config={**LLM, "vocab_size": 10})
    with pytest.raises(OsumError, match="cannot be loaded"):
        decoder(llm=str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(OsumError, match=r"decoder_conf\.llm"):
        decoder(llm=str(tmp_path))
    with pytest.raises(OsumError, match=r"decoder_conf\.lora"):
        decoder(llm_config=LLM, lora={"rank": 4})
    with pytest.raises(OsumError, match=r"decoder_conf\.lora"):
        decoder(llm_config=LLM, lora={"target_modules": ["no_such_layer"]})


def test_bad_input_language_model_with_cut_off_weights(tmp_path, llm_folder):
    for path in llm_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(OsumError, match=r"decoder_conf\.llm"):
        build(stage2_config(decoder_conf={"llm": str(tmp_path)}))


def test_greedy_is_plain_whatever_the_folder_recommends(tmp_path, llm_folder):
    """Instruct models come with a generation_config.json that asks for penalties and sampling."""
    plain = build(stage2_config(decoder_conf={"llm": str(llm_folder)}), scale=3)
    for path in llm_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    advice = (
        '{"do_sample": true, "top_k": 3, "repetition_penalty": 8.0, "eos_token_id": [2, 5], "num_beams": 2}'
    )
    (tmp_path / "generation_config.json").write_text(advice)
    advised = build(stage2_config(decoder_conf={"llm": str(tmp_path)}), scale=3)
    batch = random_batch([40, 75, 90])
    answers = [
        m.decode(["llm_greedy"], batch["feats"], batch["feats_lengths"], infos={"prompt": batch["prompt"]})
        for m in (plain, advised)
    ]
    assert answers[0] == answers[1]


def test_answers_end_at_their_limit_or_end_id():
    model = build(stage2_config(), scale=3)
    batch = random_batch([60, 90, 33])
    infos = {"prompt": batch["prompt"]}
    long = model.decode(["llm_greedy"], batch["feats"], batch["feats_lengths"], infos=infos)["llm_greedy"]
    assert max(len(r.tokens) for r in long) == 12 and all(2 not in r.tokens for r in long)
    # The second answer's third token made the end id: it now ends there, the others as before.
    end = long[1].tokens[2]
    model.eos = end
    cut = model.decode(["llm_greedy"], batch["feats"], batch["feats_lengths"], infos=infos)["llm_greedy"]
    for before, now in zip(long, cut):
        expected = list(itertools.takewhile(lambda t: t != end, before.tokens))
        assert now.tokens[: len(expected)] == expected and end not in now.tokens


def test_bad_input_decoding_mode():
    batch = random_batch([40])
    for config in (stage2_config(), stage1_config()):
        with pytest.raises(OsumError, match="--modes"):
            build(config).decode(["rescoring"], batch["feats"], batch["feats_lengths"])
    none = build(stage2_config(ctc="none"))
    with pytest.raises(OsumError, match="does not have 'ctc_greedy_search'"):
        none.decode(["ctc_greedy_search"], batch["feats"], batch["feats_lengths"])


# --- what learns ---


def learning(model: Any) -> set[str]:
    return {part for part, params in model.parts().items() if any(p.requires_grad for p in params)}


def test_only_adapters_learn_under_lora():
    model = build(stage2_config(decoder_conf={"llm_config": LLM, "lora": {}})).train()
    assert learning(model) == {"encoder", "adapter", "lora", "ctc"}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # lora_A learns from the second step on, since lora_B starts at zero
        optimizer.zero_grad()
        model(random_batch([50, 70]), CPU)["loss"].backward()
        optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    llm = {n for n in changed if n.startswith("decoder.")}
    assert llm and all("lora_" in n for n in llm)
    targets = {n.split(".lora_")[0].split(".")[-1] for n in llm}
    assert targets == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"}


def test_lora_starts_as_no_change(llm_folder):
    batch = random_batch([50, 70])
    plain = build(stage2_config(decoder_conf={"llm": str(llm_folder)}))
    lora = build(stage2_config(decoder_conf={"llm": str(llm_folder), "lora": {"r": 4}}))
    state = {n: t for n, t in plain.state_dict().items() if not n.startswith("decoder.")}
    lora.load_state_dict(state, strict=False)
    close(plain(batch, CPU)["loss"], lora(batch, CPU)["loss"])


@pytest.mark.parametrize("names", [["adapter"], ["adapter", "encoder"], ["lora"], ["llm", "ctc"], []])
def test_trainable_names_the_parts(names: list[str]):
    conf = {**adapter_config("linear")["model_conf"], "trainable": names}
    model = build(stage2_config(model_conf=conf, decoder_conf={"llm_config": LLM, "lora": {}}))
    assert learning(model) == set(names)
    every = [id(p) for params in model.parts().values() for p in params]
    assert len(every) == len(set(every)) and set(every) == {id(p) for p in model.parameters()}


# --- CTC ---


def test_ctc_loss_sums_over_all_paths():
    ctc = CTC(4, 6, blank_id=3)
    hs, lengths = torch.randn(1, 4, 6), torch.tensor([4])
    log_probs = ctc.log_softmax(hs)[0]
    total = 0.0
    for path in itertools.product(range(4), repeat=4):
        if [t for t, _ in itertools.groupby(path) if t != 3] == [1, 2]:
            total += float(log_probs[range(4), path].sum().exp())
    loss = ctc(hs, lengths, torch.tensor([[1, 2]]), torch.tensor([2]))
    assert float(loss) == pytest.approx(-torch.tensor(total).log().item(), abs=1e-5)


def test_ctc_skips_what_cannot_fit_and_padding():
    ctc = CTC(8, 6)
    hs = torch.randn(2, 5, 6)
    ys = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [1, 2, -1, -1, -1, -1, -1]])
    both = ctc(hs, torch.tensor([5, 4]), ys, torch.tensor([7, 2]))
    alone = ctc(hs[1:, :4], torch.tensor([4]), torch.tensor([[1, 2]]), torch.tensor([2]))
    close(both, alone)  # seven tokens cannot come of five frames: no loss, rather than an infinite one


def test_ctc_greedy_joins_repeats_within_the_length():
    ctc = CTC(4, 4, blank_id=0)
    with torch.no_grad():
        ctc.ctc_lo.weight.copy_(torch.eye(4))
        ctc.ctc_lo.bias.zero_()
    path = torch.tensor([[1, 1, 0, 1, 2, 2, 3], [3, 0, 0, 3, 1, 1, 1]])
    hs = F.one_hot(path, 4).float()
    assert ctc.greedy(hs, torch.tensor([7, 4])) == [[1, 1, 2, 3], [3, 3]]


@pytest.mark.parametrize("config", [stage1_config(), stage2_config()], ids=["stage1", "stage2"])
def test_target_weights_weigh_tokens(config: dict[str, Any]):
    model, batch = build(config), random_batch([60, 90])
    plain = model({k: v for k, v in batch.items() if k != "target_weights"}, torch.device("cpu"))
    same = model(batch, torch.device("cpu"))
    assert torch.allclose(plain["loss_llm"], same["loss_llm"])
    # Only the second utterance's first token counts, three times: the loss is that token's own.
    batch["target_weights"] *= 0
    batch["target_weights"][1, 0] = 3
    alone = model(batch, torch.device("cpu"))["loss_llm"]
    row = row_of(batch, 1)
    row["target_weights"] = row["target_weights"].clamp(max=1)
    assert torch.allclose(alone, model(row, torch.device("cpu"))["loss_llm"], atol=1e-5)
    assert not torch.allclose(alone, plain["loss_llm"], atol=1e-3)


def test_combine_losses_weighs_as_wenet():
    att, ctc, n, m = torch.tensor(6.0), torch.tensor(20.0), torch.tensor(3), torch.tensor(5)
    out = combine_losses({}, att, n, ctc, m, 0.25)
    assert [float(out[k]) for k in ("loss_llm", "loss_ctc", "loss")] == [2.0, 4.0, 0.75 * 2 + 0.25 * 4]
    out = combine_losses({"normalizers": {"target": 12, "ctc": 10}}, att, n, ctc, m, 0.25)
    assert [float(out[k]) for k in ("loss_llm", "loss_ctc")] == [0.5, 2.0]
    assert "loss_ctc" not in combine_losses({}, att, n, None, m, 0.0)


def test_whisper_greedy_is_teacher_forced_argmax():
    model = build(stage1_config(), scale=3)
    batch = random_batch([40, 75, 90])
    infos = {"prompt": batch["prompt"]}
    out = model.decode(["attention"], batch["feats"], batch["feats_lengths"], infos=infos)["attention"]
    for i, result in enumerate(out):
        one = row_of(batch, i)
        one["target"] = torch.tensor([result.tokens])
        del one["target_weights"]
        if len(result.tokens) < 12:  # it ended by itself, so the end is right as well
            assert float(model(one, CPU)["th_accuracy"]) == 1.0
        else:
            assert float(model(one, CPU)["th_accuracy"]) >= 12 / 13 - 1e-6
