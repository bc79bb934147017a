"""A second implementation of OSUM's released model, for tests: a tiny state dict in the release's layout, and
what it gives for one utterance, computed in plain torch from the raw keys.

It shares nothing with ``wenet_osum``: functions in place of modules, LoRA added to its matrices in place of
peft. Only the language model itself is transformers' Qwen2.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

MELS, D, FFN, HEADS, H, VOCAB, EOS, SPEECH_TOKENS = 12, 16, 20, 2, 24, 50, 49, 5
LLM: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": VOCAB,
    "hidden_size": H,
    "intermediate_size": 28,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}
SPEC: dict[str, Any] = {
    "encoder_conf": {"attention_heads": HEADS},
    "lora": {"r": 3, "alpha": 12},
    "speech_token_num": SPEECH_TOKENS,
    "eos_id": EOS,
    "llm": LLM,
}
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj")
CAUSAL_LM = "llama_model.base_model.model."


def layer_shapes(prefix: str, ffn: int, key_bias: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("q", "k", "v", "out"):
        shapes[f"{prefix}.self_attn.linear_{name}.weight"] = (D, D)
        if name != "k" or key_bias:
            shapes[f"{prefix}.self_attn.linear_{name}.bias"] = (D,)
    for name, (rows, columns) in {"w_1": (ffn, D), "w_2": (D, ffn)}.items():
        shapes[f"{prefix}.feed_forward.{name}.weight"] = (rows, columns)
        shapes[f"{prefix}.feed_forward.{name}.bias"] = (rows,)
    for name in ("norm1", "norm2"):
        shapes[f"{prefix}.{name}.weight"] = shapes[f"{prefix}.{name}.bias"] = (D,)
    return shapes


def release_state(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under every kind of key that the release has."""
    rng = torch.Generator().manual_seed(seed)
    conv = {"weight": (D, D, 3), "bias": (D,)}
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.embed.conv.0.weight": (D, MELS, 3),
        "encoder.embed.conv.0.bias": (D,),
        **{f"encoder.embed.conv.2.{n}": s for n, s in conv.items()},
        "encoder.embed.pos_enc.pe": (1, 60, D),
        **layer_shapes("encoder.encoders.0", FFN, key_bias=False),
        **layer_shapes("encoder.encoders.1", FFN, key_bias=False),
        "encoder.after_norm.weight": (D,),
        "encoder.after_norm.bias": (D,),
        "ln_speech.weight": (D,),
        "ln_speech.bias": (D,),
        **{f"down_sample_2.conv.{i}.{n}": s for i in (1, 4, 7) for n, s in conv.items()},
        "speech_transformer.embed.out.0.weight": (D, D),
        **{f"speech_transformer.embed.out.{n}": (D,) for n in ("0.bias", "1.weight", "1.bias")},
        "speech_transformer.embed.pos_enc.pe": (1, 40, D),
        **layer_shapes("speech_transformer.encoders.0", FFN + 4, key_bias=True),
        "speech_transformer.after_norm.weight": (D,),
        "speech_transformer.after_norm.bias": (D,),
        "speech_llama_proj.weight": (H, D),
        "speech_llama_proj.bias": (H,),
        "speech_token_emded.weight": (SPEECH_TOKENS + 2, H),
        "speaker_head.weight": (SPEECH_TOKENS, H),
        "speaker_head.bias": (SPEECH_TOKENS,),
    }
    with torch.device("meta"):
        llm = Qwen2ForCausalLM(Qwen2Config(**LLM))
    for name, tensor in llm.state_dict().items():
        module, _, leaf = name.rpartition(".")
        adapted = module.split(".")[-1] in ADAPTED
        shapes[CAUSAL_LM + (f"{module}.base_layer.{leaf}" if adapted else name)] = tuple(tensor.shape)
        if adapted and leaf == "weight":
            shapes[f"{CAUSAL_LM}{module}.lora_A.default.weight"] = (SPEC["lora"]["r"], tensor.shape[1])
            shapes[f"{CAUSAL_LM}{module}.lora_B.default.weight"] = (tensor.shape[0], SPEC["lora"]["r"])
    state = {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=rng) * (0.5 if len(shape) == 1 else 1.5 / math.sqrt(shape[-1]))
        state[name] = x + 1 if len(shape) == 1 and name.endswith("weight") else x
    state["embed_tokens.weight"] = state[CAUSAL_LM + "model.embed_tokens.weight"]
    state["lm_head.weight"] = state[CAUSAL_LM + "lm_head.weight"]
    return state


def layer(s: dict[str, Tensor], p: str, x: Tensor, heads: int, activation: Any) -> Tensor:
    """Pre-norm transformer layer over x (T, D), the attention written out."""
    y = F.layer_norm(x, (D,), s[f"{p}.norm1.weight"], s[f"{p}.norm1.bias"])
    q, k, v = (
        F.linear(y, s[f"{p}.self_attn.linear_{n}.weight"], s.get(f"{p}.self_attn.linear_{n}.bias"))
        for n in ("q", "k", "v")
    )
    size = D // heads
    parts = []
    for h in range(heads):
        cut = slice(h * size, (h + 1) * size)
        parts.append(torch.softmax(q[:, cut] @ k[:, cut].T / math.sqrt(size), dim=-1) @ v[:, cut])
    x = x + F.linear(
        torch.cat(parts, -1), s[f"{p}.self_attn.linear_out.weight"], s[f"{p}.self_attn.linear_out.bias"]
    )
    y = F.layer_norm(x, (D,), s[f"{p}.norm2.weight"], s[f"{p}.norm2.bias"])
    y = activation(F.linear(y, s[f"{p}.feed_forward.w_1.weight"], s[f"{p}.feed_forward.w_1.bias"]))
    return x + F.linear(y, s[f"{p}.feed_forward.w_2.weight"], s[f"{p}.feed_forward.w_2.bias"])


def encode(s: dict[str, Tensor], feats: Tensor) -> Tensor:
    """feats (T, MELS) -> encoder frames (ceil(T / 2), D)."""
    x = F.gelu(
        F.conv1d(feats.T[None], s["encoder.embed.conv.0.weight"], s["encoder.embed.conv.0.bias"], 1, 1)
    )
    x = F.gelu(F.conv1d(x, s["encoder.embed.conv.2.weight"], s["encoder.embed.conv.2.bias"], 2, 1))[0].T
    x = x + s["encoder.embed.pos_enc.pe"][0, : len(x)]
    for i in range(2):
        x = layer(s, f"encoder.encoders.{i}", x, HEADS, F.gelu)
    return F.layer_norm(x, (D,), s["encoder.after_norm.weight"], s["encoder.after_norm.bias"])


def adapt(s: dict[str, Tensor], x: Tensor) -> Tensor:
    """Encoder frames -> speech embeddings (S, H)."""
    for i, stride in ((1, 1), (4, 2), (7, 2)):
        padded = F.pad(x.T[None], (2, 0))
        conv = F.conv1d(
            padded, s[f"down_sample_2.conv.{i}.weight"], s[f"down_sample_2.conv.{i}.bias"], stride
        )
        x = F.gelu(conv)[0].T
    p = "speech_transformer"
    x = F.linear(x, s[f"{p}.embed.out.0.weight"], s[f"{p}.embed.out.0.bias"])
    x = F.layer_norm(x, (D,), s[f"{p}.embed.out.1.weight"], s[f"{p}.embed.out.1.bias"])
    x = x * math.sqrt(D) + s[f"{p}.embed.pos_enc.pe"][0, : len(x)]
    x = layer(s, f"{p}.encoders.0", x, 4, F.relu)
    x = F.layer_norm(x, (D,), s[f"{p}.after_norm.weight"], s[f"{p}.after_norm.bias"])
    return F.linear(x, s["speech_llama_proj.weight"], s["speech_llama_proj.bias"])


def language_model(s: dict[str, Tensor]) -> Any:
    """Qwen2 with LoRA added to its matrices."""
    plain = {}
    for key, tensor in s.items():
        if key.startswith(CAUSAL_LM) and "lora_" not in key:
            lora = key.replace("base_layer.weight", "lora_{}.default.weight")
            if lora != key:
                scale = SPEC["lora"]["alpha"] / SPEC["lora"]["r"]
                tensor = tensor + scale * s[lora.format("B")] @ s[lora.format("A")]
            plain[key.removeprefix(CAUSAL_LM).replace(".base_layer", "")] = tensor
    llm = Qwen2ForCausalLM(Qwen2Config(**LLM)).eval()
    llm.load_state_dict(plain)
    return llm


@torch.no_grad()
def answer(
    s: dict[str, Tensor], feats: Tensor, prompt: list[int], target: list[int]
) -> dict[str, np.ndarray]:
    """The arrays of one utterance; ``target`` ends in the end id."""
    llm, encoded = language_model(s), encode(s, feats)
    speech = adapt(s, encoded)

    def embed(ids: list[int]) -> Tensor:
        return s[CAUSAL_LM + "model.embed_tokens.weight"][torch.tensor(ids, dtype=torch.long)]

    begin, end = s["speech_token_emded.weight"][-2:]
    asked = torch.cat([embed(prompt), begin[None], speech, end[None]])

    def logits(after: list[int]) -> Tensor:
        return llm(inputs_embeds=torch.cat([asked, embed(after)])[None]).logits[0]

    predicted = logits(target)[len(asked) - 1 : -1]
    greedy: list[int] = []
    while len(greedy) < 8:
        greedy.append(int(logits(greedy)[-1].argmax()))
        if greedy[-1] == EOS:
            break
    out = {
        "feats": feats,
        "encoder_out": encoded,
        "speech_embeds": speech,
        "loss": F.cross_entropy(predicted, torch.tensor(target)),
        "next_logits": logits([])[-1],
        **{n: torch.tensor(ids) for n, ids in (("prompt", prompt), ("target", target), ("greedy", greedy))},
    }
    return {n: t.numpy() for n, t in out.items()}


def write_reference(folder: Path, state: dict[str, Tensor], frames: tuple[int, ...] = (64, 37, 101)) -> None:
    """``x.pt``, ``x.npz`` and ``x.json`` in ``folder``; odd lengths among the utterances."""
    rng = torch.Generator().manual_seed(5)
    arrays = {}
    for k, length in enumerate(frames):
        prompt, target = (torch.randint(EOS, (n,), generator=rng).tolist() for n in (3 + k, 4 + 2 * k))
        given = answer(state, torch.randn(length, MELS, generator=rng), prompt, [*target, EOS])
        arrays.update({f"{k}.{n}": a for n, a in given.items()})
    torch.save(state, folder / "x.pt")
    np.savez(folder / "x.npz", **arrays)
    (folder / "x.json").write_text(json.dumps(SPEC), encoding="utf-8")
