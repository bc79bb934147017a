"""How much memory a model takes, estimated from its shape: nothing here needs weights or a device.

Counted: weights, gradients and AdamW's two moments of what learns (fp32), half-precision copies that
autocast keeps, the activations that the backward pass needs, the logits. Not counted: the framework
itself and its fragments (about 1 GB on a GPU), data workers, several ranks' buckets.

Activations are what torch saves for the backward pass of one layer, position by position, in bytes:
``d`` is the layer's width, ``f`` its feed-forward's, ``h`` 2 under autocast and 4 without. Attention is
sdpa's, which keeps no scores.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from wenet_osum.models.head import CHUNK

GRAD_AND_MOMENTS = 4 + 8  # bytes of each parameter that learns: fp32 gradient, two AdamW moments


class Stack(NamedTuple):
    """``layers`` equal layers over ``positions``; ``saved`` bytes a layer and position, ``width`` d, ``inner`` f.
    ``backward``: whether the backward pass goes through it; ``checkpointed``: only layer inputs are kept."""

    layers: int
    positions: int
    saved: float
    width: int
    inner: int
    backward: bool
    checkpointed: bool


def activations(stacks: list[Stack]) -> float:
    """What the forward pass keeps, and the one checkpointed layer that the backward pass redoes at a time."""
    used = [s for s in stacks if s.backward]
    kept = sum(s.positions * s.layers * (4 * s.width if s.checkpointed else s.saved) for s in used)
    return kept + max((s.positions * s.saved for s in used if s.checkpointed), default=0.0)


class Load(NamedTuple):
    """One batch. ``frames``: padded 10 ms frames of all utterances; ``answer``: their answer tokens;
    ``rows``: utterances (their prompts add about 20 tokens each)."""

    frames: int
    answer: int
    rows: int


def saved_plain(d: int, f: int, h: int, dropout: bool) -> float:
    """A Whisper layer (LayerNorm, attention, GELU or ReLU): two norms' inputs in fp32, what the four
    projections and the attention read, the feed-forward's two inner tensors, the masks of dropout."""
    inputs = 4 * h * d if h == 2 else 2 * h * d  # autocast casts the normed input once for each linear layer
    return 8 * d + inputs + 5 * h * d + 2 * h * f + dropout * (2 * d + f)


def saved_gated(d: int, kv: int, f: int, h: int) -> float:
    """An LLM layer (RMSNorm in fp32, rotary attention, gated feed-forward) with LoRA beside its matrices."""
    norms = 2 * (8 * d + 2 * h * d)
    attention = 4 * h * d + 4 * h * kv + 2 * h * d
    lora = 5 * d + f  # the masks of dropout; its inputs are the matrices' own
    return norms + attention + 4 * h * f + lora


def learning(module: nn.Module | list[nn.Parameter]) -> int:
    parameters = module if isinstance(module, list) else list(module.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad)


def weight_bytes(model: Any, quant: str = "none") -> float:
    """All weights in their number types; an LLM to be quantised as if it were (its matrices only)."""
    inner = set()
    if quant != "none":
        base = model.decoder.causal_lm.base_model
        inner = {
            id(m.weight) for n, m in base.named_modules() if isinstance(m, nn.Linear) and "lora_" not in n
        }
    factor = {"4bit": 0.52, "8bit": 1.0}.get(quant, 0.0)  # nf4's scales take 0.13 bit a weight and the rest
    return sum(p.numel() * (factor if id(p) in inner else p.element_size()) for p in model.parameters())


def tokens_of(model: Any, frames: int) -> int:
    """Speech tokens that the adapter makes of ``frames``."""
    for conv in [*model.encoder.embed.conv, *getattr(model.adapter, "down_sample", nn.Module()).modules()]:
        if isinstance(conv, nn.Conv1d):
            frames = -(-frames // conv.stride[0])
    return -(-frames // getattr(model.adapter, "factor", 1))


def stacks(model: Any, load: Load, half: bool) -> list[Stack]:
    """The stacks of layers of an ``osum`` or ``whisper_multitask`` model over one batch."""
    h = 2 if half else 4
    encoder, decoder = model.encoder, model.decoder
    d = encoder.output_size()
    frames = -(-load.frames // encoder.embed.strides[0] // encoder.embed.strides[1])

    def plain(
        layers: nn.ModuleList, positions: int, extra: float, backward: bool, checkpointed: bool
    ) -> Stack:
        first: Any = layers[0]
        f, dropout = first.feed_forward.w_1.out_features, first.dropout.p > 0
        saved = saved_plain(d, f, h, dropout) + extra
        return Stack(len(layers), positions, saved, d, f, backward, checkpointed)

    below = learning(encoder) > 0
    out = [plain(encoder.encoders, frames, 0.0, below, encoder.gradient_checkpointing)]
    if not hasattr(model, "adapter"):
        text = load.answer + 20 * load.rows
        cross = (
            4 * d + 5 * h * d + 2 * h * d * frames / max(1, text)
        )  # keys and values of the encoder's frames
        out.append(plain(decoder.decoders, text, cross, below or learning(decoder) > 0, False))
        return out
    tokens = tokens_of(model, load.frames)
    below = below or learning(model.adapter) > 0
    if hasattr(model.adapter, "transformer"):
        out.append(
            plain(
                model.adapter.transformer.encoders, tokens, 0.0, below, model.adapter.gradient_checkpointing
            )
        )
    c = decoder.causal_lm.config
    inner = inner_size(c)
    saved = saved_gated(c.hidden_size, key_value_size(c), inner, h)
    positions = tokens + load.answer + 22 * load.rows
    out.append(
        Stack(
            c.num_hidden_layers,
            positions,
            saved,
            c.hidden_size,
            inner,
            True,
            decoder.gradient_checkpointing,
        )
    )
    return out


def key_value_size(c: Any) -> int:
    """Size of one layer's keys (or values) at one position; older shapes (GPT-2) have no grouped heads."""
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    return int((getattr(c, "num_key_value_heads", None) or c.num_attention_heads) * head)


def inner_size(c: Any) -> int:
    """Size inside an LLM's feed-forward; GPT-2 names it ``n_inner``, None meaning four times its width."""
    return int(getattr(c, "intermediate_size", None) or getattr(c, "n_inner", None) or 4 * c.hidden_size)


def training(model: Any, load: Load, half: bool, quant: str = "none") -> dict[str, float]:
    """Bytes by kind for one step over ``load``."""
    learns = learning(model)
    if hasattr(model, "adapter"):  # a chunk of logits, which turns into its gradient, and its half copy
        head = model.decoder.causal_lm.get_output_embeddings().weight
        chunk = max(CHUNK, len(head))
        logits = min(chunk, load.answer * len(head)) * (6.0 if half else 4.0)
        logits += 4.0 * head.numel() * head.requires_grad  # made in the forward pass
    else:  # the logits, their fp32 copy, its log-softmax and the gradient of each
        logits = load.answer * model.vocab_size * ((4 if half else 0) + 12.0)
    return {
        "weights": weight_bytes(model, quant),
        "gradients and AdamW": learns * GRAD_AND_MOMENTS,
        "half-precision copies": learns * 2.0 * half,
        "activations": activations(stacks(model, load, half)),
        "logits": logits,
    }


def inference(model: Any, load: Load, half: bool, quant: str = "none") -> dict[str, float]:
    """Bytes by kind for decoding ``load``: its keys and values, and one layer's work at a time."""
    parts, h = stacks(model, load, half), 2 if half else 4
    d = model.encoder.output_size()
    if hasattr(model, "adapter"):
        c = model.decoder.causal_lm.config
        each = 2 * c.num_hidden_layers * key_value_size(c) * model.decoder.dtype.itemsize
        cache = parts[-1].positions * each
    else:
        cache = 8 * d * parts[-1].layers * (parts[-1].positions + parts[0].positions)
    return {
        "weights": weight_bytes(model, quant),
        "keys and values": float(cache),
        # The stream and its norm in fp32, queries, keys, values; gate, up and their product.
        "one layer's work": max(s.positions * (20.0 * s.width + 3 * h * s.inner) for s in parts),
    }
