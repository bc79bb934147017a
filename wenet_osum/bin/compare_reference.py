"""Does a checkpoint in OSUM's layout give here what it gave where it comes from?

``python -m wenet_osum.bin.compare_reference --checkpoint X.pt --reference X.npz --spec X.json`` converts the
checkpoint to a model folder, that folder back to OSUM's layout and once more to a folder, runs every
utterance of the reference through both, alone and in one padded batch, and prints the largest absolute
difference of each array. Exit status 1: a difference above --tolerance, or another greedy token.

The ``.npz`` holds for each utterance k: ``k.feats`` (T, F), ``k.prompt`` and ``k.target`` ids (the target
with its end id), ``k.encoder_out`` (T', D), ``k.speech_embeds`` (S, H), ``k.loss`` (mean over the target),
``k.next_logits`` (V,) behind the whole input, ``k.greedy`` ids. The ``.json`` holds ``llm`` (its config),
``eos_id``, ``encoder_conf.attention_heads``, ``lora.alpha``, ``speech_token_num``.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.bin import convert
from wenet_osum.checkpoint.files import read_json
from wenet_osum.checkpoint.weights import load_checkpoint
from wenet_osum.constants import IGNORE_ID
from wenet_osum.errors import OsumError, run_main
from wenet_osum.registry import init_model

Arrays = dict[str, np.ndarray]
FLOATS = ("encoder_out", "speech_embeds", "loss", "next_logits")
NAMES = ("feats", "prompt", "target", *FLOATS, "greedy")


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="compare_reference", description=__doc__)
    p.add_argument("--checkpoint", required=True, help="flat state dict in the layout of OSUM's infer.pt")
    p.add_argument("--reference", required=True, help=".npz of arrays")
    p.add_argument("--spec", required=True, help=".json of sizes")
    p.add_argument("--tolerance", type=float, default=1e-4, help="largest absolute difference allowed")
    return p.parse_args(argv)


def read_reference(path: str) -> list[Arrays]:
    """The arrays of each utterance.

    Raises:
        OsumError: no such file, or an array missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {n: file[n] for n in file.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as e:
        raise OsumError(path, f"not a whole .npz ({e})", "check --reference") from None
    utterances: list[Arrays] = []
    while f"{len(utterances)}.feats" in arrays:
        k = len(utterances)
        if lost := [n for n in NAMES if f"{k}.{n}" not in arrays]:
            raise OsumError(path, f"{k}.{lost[0]} is missing", "write it with the others")
        utterances.append({n: arrays[f"{k}.{n}"] for n in NAMES})
    if not utterances:
        raise OsumError(path, "no array 0.feats in it", "check --reference")
    return utterances


def convert_both_ways(checkpoint: str, spec: dict[str, Any], work: Path) -> list[Path]:
    """Two model folders: of the checkpoint, and of what comes out when the first is converted back."""
    config = work / "llm.json"
    config.write_text(json.dumps(spec["llm"]), encoding="utf-8")
    options = ["--llm-config", str(config), "--eos-id", str(spec["eos_id"])]
    options += ["--lora-alpha", str(spec["lora"]["alpha"])]
    options += ["--encoder-heads", str(spec["encoder_conf"]["attention_heads"])]
    there, back, again = work / "folder", work / "back.pt", work / "again"
    tokens = ["--speech-token-num", str(spec["speech_token_num"])]
    convert.main(["--from", "osum", checkpoint, str(there), *options])
    convert.main(["--to", "osum", str(there), str(back), *tokens])
    convert.main(["--from", "osum", str(back), str(again), *options])
    return [there, again]


def load(folder: Path, vocab_size: int) -> Any:
    """The model of a folder that has no tokenizer, in eval mode."""
    configs = convert.read_config(str(folder))
    model = init_model({**configs, "vocab_size": vocab_size})
    load_checkpoint(model, folder)
    return model.eval()


@torch.no_grad()
def run(model: Any, utterances: list[Arrays]) -> list[Arrays]:
    """What the model gives for a batch of utterances: ``FLOATS`` and ``greedy`` of each, padding cut off."""
    feats = pad_sequence([torch.from_numpy(u["feats"]) for u in utterances], batch_first=True)
    lengths = torch.tensor([len(u["feats"]) for u in utterances])
    prompt, target = (
        pad_sequence([torch.from_numpy(ids) for ids in rows], batch_first=True, padding_value=IGNORE_ID)
        for rows in ([u["prompt"] for u in utterances], [u["target"][:-1] for u in utterances])
    )
    hs, mask = model.encoder(feats, lengths)
    speech, speech_mask = model.adapter(hs, mask)
    seq = model.sequence(prompt, speech, speech_mask.squeeze(1), None)
    last = model.decoder.causal_lm(
        inputs_embeds=seq.embeds,
        attention_mask=seq.mask.long(),
        position_ids=seq.position_ids,
        use_cache=False,
    ).logits[:, -1]
    model.max_new_tokens = max(len(u["greedy"]) for u in utterances)
    answers = model.decode(["llm_greedy"], feats, lengths, infos={"prompt": prompt})["llm_greedy"]
    batch = {"feats": feats, "feats_lengths": lengths, "prompt": prompt, "target": target}
    return [
        {
            "encoder_out": hs[k][mask[k, 0]].numpy(),
            "speech_embeds": speech[k][speech_mask[k, 0]].numpy(),
            "loss": row_loss(model, batch, k),
            "next_logits": last[k].numpy(),
            "greedy": np.array(answers[k].tokens),
        }
        for k in range(len(utterances))
    ]


def row_loss(model: Any, batch: dict[str, Tensor], k: int) -> np.ndarray:
    """The training loss of row ``k`` in its batch: the other rows' tokens weigh nothing."""
    width = batch["target"].size(1) + 1
    weights = torch.zeros(len(batch["target"]), width)
    weights[k] = 1.0
    return model({**batch, "target_weights": weights}, torch.device("cpu"))["loss_llm"].numpy()


def differences(ours: Arrays, reference: Arrays, eos_id: int) -> dict[str, float]:
    """Largest absolute difference of each array; the number of other tokens for ``greedy``. An array of
    another shape, or with a NaN, differs by infinity."""
    out = {}
    for name in FLOATS:
        a, b = ours[name], reference[name]
        difference = float(np.abs(a - b).max()) if a.shape == b.shape else np.inf
        out[name] = np.inf if np.isnan(difference) else difference
    tokens, wanted = ours["greedy"].tolist(), [t for t in reference["greedy"].tolist() if t != eos_id]
    out["greedy"] = sum(x != y for x, y in zip(tokens, wanted)) + abs(len(tokens) - len(wanted))
    return out


def compare(folder: Path, utterances: list[Arrays], spec: dict[str, Any]) -> dict[str, list[float]]:
    """Array name -> how far a folder's model is from it, run alone and in a padded batch."""
    model = load(folder, int(spec["llm"]["vocab_size"]))
    table: dict[str, list[float]] = {}
    for runs in ([run(model, [u])[0] for u in utterances], run(model, utterances)):
        for k, (ours, reference) in enumerate(zip(runs, utterances)):
            for name, value in differences(ours, reference, spec["eos_id"]).items():
                table.setdefault(f"{k}.{name}", []).append(value)
    return table


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    spec = read_json(Path(args.spec))
    logging.disable(logging.INFO)  # what the conversion leaves out is told by osum convert
    try:
        utterances = read_reference(args.reference)
        with tempfile.TemporaryDirectory(prefix="osum_compare_") as work:
            folders = convert_both_ways(args.checkpoint, spec, Path(work))
            there, back = (compare(folder, utterances, spec) for folder in folders)
        table = {name: there[name] + back[name] for name in there}
    except KeyError as e:
        raise OsumError(args.spec, f"has no {e}", "add it") from None
    finally:
        logging.disable(logging.NOTSET)
    print(f"{'array':20} {'alone':>10} {'in batch':>10} {'back alone':>10} {'back batch':>10}")
    for name, values in table.items():
        print(
            f"{name:20} " + " ".join(f"{v:10.2e}" if "greedy" not in name else f"{v:10.0f}" for v in values)
        )
    worst = max(v for n, values in table.items() if "greedy" not in n for v in values)
    tokens = sum(v for n, values in table.items() if "greedy" in n for v in values)
    fits = worst <= args.tolerance and tokens == 0
    print(f"largest difference {worst:.2e} (tolerance {args.tolerance:g}), other greedy tokens {tokens:.0f}")
    print("the same" if fits else "NOT the same")
    return 0 if fits else 1


if __name__ == "__main__":
    run_main(main)
