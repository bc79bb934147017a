"""Whisper's weights, from wherever they are published, under our names.

===================  ====================================================================
form                 how it is told
===================  ====================================================================
Hugging Face         a folder or a hub id, safetensors, sharded too; ``encoder.layers.``
openai-whisper       ``.pt`` of ``dims`` and ``model_state_dict``; ``encoder.blocks.``
WeNet, converted     ``.pt`` with ``decoder.embed.0.weight`` (WeNet's
                     ``convert_whisper_to_wenet_config_and_ckpt.py``); its encoder is named as ours
wenet_osum           anything else: taken as it is
===================  ====================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from wenet_osum.checkpoint.files import flat, read_hf_folder, read_json, read_safetensors, read_torch
from wenet_osum.checkpoint.folder import CONFIG, read_folder
from wenet_osum.errors import OsumError
from wenet_osum.hub import CONFIG_FILES, WEIGHT_FILES, fetch, is_hub_id

# Whole parts of a dotted key, theirs -> ours, by form; first what both sides share.
HUGGING_FACE = {
    "": {
        **{f"{p}_proj": f"linear_{p}" for p in ("q", "k", "v", "out")},
        **{"self_attn_layer_norm": "norm1", "layer_norm": "after_norm"},
        **{"fc1": "feed_forward.w_1", "fc2": "feed_forward.w_2"},
    },
    "encoder": {
        **{"conv1": "embed.conv.0", "conv2": "embed.conv.2", "embed_positions.weight": "embed.pos_enc.pe"},
        **{"layers": "encoders", "final_layer_norm": "norm2"},
    },
    "decoder": {
        **{"embed_tokens": "embed", "embed_positions.weight": "positions", "layers": "decoders"},
        **{"encoder_attn": "src_attn", "encoder_attn_layer_norm": "norm2", "final_layer_norm": "norm3"},
    },
}
OPENAI = {
    "": {
        **{"query": "linear_q", "key": "linear_k", "value": "linear_v", "out": "linear_out"},
        **{"attn": "self_attn", "attn_ln": "norm1"},
        **{"mlp.0": "feed_forward.w_1", "mlp.2": "feed_forward.w_2"},
    },
    "encoder": {
        **{"conv1": "embed.conv.0", "conv2": "embed.conv.2", "positional_embedding": "embed.pos_enc.pe"},
        **{"blocks": "encoders", "mlp_ln": "norm2", "ln_post": "after_norm"},
    },
    "decoder": {
        **{"token_embedding": "embed", "positional_embedding": "positions", "blocks": "decoders"},
        **{"cross_attn": "src_attn", "cross_attn_ln": "norm2", "mlp_ln": "norm3", "ln": "after_norm"},
    },
}
WENET = {"": {}, "encoder": {}, "decoder": {"embed.0": "embed", "embed.1.pe": "positions"}}
FORMS = {"Hugging Face Whisper": HUGGING_FACE, "openai-whisper": OPENAI, "WeNet Whisper": WENET}


class Source(NamedTuple):
    """``form`` in words; ``state`` under our names; ``heads`` by side (``encoder``, ``decoder``) where the
    file says, since a wrong number of heads fits every shape and computes something else."""

    form: str
    state: dict[str, Tensor]
    heads: dict[str, int]


def rename(key: str, form: dict[str, dict[str, str]]) -> str:
    """One key of Whisper's in our names; a part that the form does not know stays as it is."""
    side = key.split(".", 1)[0]
    out = f".{key}."
    for theirs, ours in {**form[""], **form.get(side, {})}.items():
        out = out.replace(f".{theirs}.", f".{ours}.")
    return out.strip(".")


def form_of(state: dict[str, Tensor]) -> str:
    keys = {k.removeprefix("model.") for k in state}
    if any(k.startswith(("encoder.layers.", "decoder.layers.")) for k in keys):
        return "Hugging Face Whisper"
    if any(k.startswith(("encoder.blocks.", "decoder.blocks.")) for k in keys):
        return "openai-whisper"
    # WeNet's other models have our names, since ours are WeNet's; Whisper's convolutions run along time alone.
    conv = state.get("encoder.embed.conv.0.weight")
    whisper = "decoder.embed.0.weight" in keys and (conv is None or conv.dim() == 3)
    return "WeNet Whisper" if whisper else "wenet_osum"


def drop_output_layer(state: dict[str, Tensor], path: str) -> None:
    """Whisper's output layer is the embedding table. Files may carry it a second time (Hugging Face's
    ``proj_out``, WeNet's ``decoder.output_layer`` after training).

    Raises:
        OsumError: it differs from the table, or has a bias: then dropping it would change the model.
    """
    for name in ("proj_out.weight", "decoder.output_layer.weight"):
        copy = state.pop(name, None)
        if copy is not None and not torch.equal(copy, state["decoder.embed.weight"]):
            raise OsumError(path, f"{name} is not the embedding table", "train with tied word embeddings")
    bias = state.pop("decoder.output_layer.bias", None)
    if bias is not None and bool(bias.any()):
        raise OsumError(path, "decoder.output_layer.bias is not zero", "Whisper's output layer has no bias")


def our_names(state: dict[str, Tensor], path: str) -> tuple[str, dict[str, Tensor]]:
    """The form of a state dict, and its tensors under our names and in our shapes."""
    form = form_of(state)
    if form == "wenet_osum":
        return form, state
    out = {rename(k.removeprefix("model."), FORMS[form]): t for k, t in state.items()}
    # Position tables: ours are (1, N, D) in the encoder and (N, D) in the decoder.
    for name, dims in (("encoder.embed.pos_enc.pe", 3), ("decoder.positions", 2)):
        if name in out and out[name].dim() != dims:
            out[name] = out[name][None] if dims == 3 else out[name][0]
    drop_output_layer(out, path)
    return form, out


def heads_in(config: Path) -> dict[str, int]:
    """Heads from the YAML that WeNet's converter, our training and our converter write beside the weights."""
    try:
        conf = yaml.safe_load(config.read_text(encoding="utf-8"))
        sides = {side: conf.get(f"{side}_conf") or {} for side in ("encoder", "decoder")}
        return {s: int(c["attention_heads"]) for s, c in sides.items() if "attention_heads" in c}
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return {}  # no such file, or not a config: there is nothing to compare with


def read_source(path: str) -> Source:
    """Read initial weights in any of the forms.

    Args:
        path: ``.pt``, ``.safetensors``, a Hugging Face folder, a model folder of ours, or a hub id.

    Raises:
        OsumError: nothing there, not a whole file, a pickle with code in it, or another kind of model.
    """
    heads: dict[str, int] = {}
    if (Path(path) / CONFIG).is_file():
        return Source("wenet_osum", read_folder(Path(path)), heads_in(Path(path) / CONFIG))
    if is_hub_id(path) or Path(path).is_dir():
        folder = Path(path) if Path(path).is_dir() else fetch(path, CONFIG_FILES + WEIGHT_FILES, "--enc_init")
        config = read_json(folder / "config.json")
        if config.get("model_type") != "whisper":
            raise OsumError(
                str(folder / "config.json"),
                f"is a {config.get('model_type')!r}, not a Whisper",
                "give a Whisper",
            )
        state = read_hf_folder(folder)
        heads = {side: config.get(f"{side}_attention_heads", 0) for side in ("encoder", "decoder")}
    elif not Path(path).is_file():
        raise OsumError(path, "no such checkpoint", "check the path, or train first")
    elif Path(path).suffix == ".safetensors":
        state = read_safetensors(Path(path))
    else:
        content: Any = read_torch(Path(path))
        heads = heads_in(Path(path).parent / "train.yaml")
        if isinstance(content, dict) and isinstance(content.get("dims"), dict):
            dims = content["dims"]
            heads = {"encoder": dims.get("n_audio_head", 0), "decoder": dims.get("n_text_head", 0)}
            content = content.get("model_state_dict")
        state = content
    form, state = our_names(flat(state, path), path)
    return Source(form, state, heads)


def check_fit(model: Any, source: Source, path: str, sides: set[str]) -> None:
    """What no shape shows: the number of heads, and Whisper's strides.

    Raises:
        OsumError: naming the config key.
    """
    for side in sides & {"encoder", "decoder"}:
        layers, heads = getattr(getattr(model, side), f"{side}s", None), source.heads.get(side)
        attention = getattr(layers[0], "self_attn", None) if layers else None
        ours = getattr(attention, "heads", getattr(attention, "h", None))  # h: a layer of WeNet's
        if heads and ours is not None and ours != heads:
            raise OsumError(
                f"{side}_conf.attention_heads", f"is {ours}, {path} has {heads}", f"set it to {heads}"
            )
    if source.form != "wenet_osum" and "encoder" in sides:
        strides = tuple(getattr(model.encoder.embed, "strides", (1, 2)))
        if strides != (1, 2):
            raise OsumError(
                "encoder_conf.conv_strides", f"is {list(strides)}, Whisper has [1, 2]", "leave it out"
            )
