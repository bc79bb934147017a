"""Convert a model: ``osum convert --from osum infer.pt --llm-config Qwen2-7B DIR`` and back.

A model folder (DIR) is what the other commands read: ``--config DIR/config.yaml --checkpoint DIR``.

    --from osum infer.pt DIR     OSUM's release (with --llm-config or --llm)
    --from train NAME.pt DIR     a checkpoint of ours, with the train.yaml beside it
    --to osum DIR OUT.pt         the flat file that OSUM's own code loads
    --to train DIR OUT.pt        a checkpoint of ours and its train.yaml
    --to hf DIR OUT              a Hugging Face folder, LoRA merged (import wenet_osum.hf, then AutoModel)
    --merge-lora DIR OUT         the folder with LoRA merged into the LLM
"""

from __future__ import annotations

import argparse
import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wenet_osum.checkpoint.assemble import prepare_configs, resolve_beside
from wenet_osum.checkpoint.check import check_state
from wenet_osum.checkpoint.files import read_hf_folder
from wenet_osum.checkpoint.folder import CONFIG, read_folder, read_whole, skeleton, write_folder
from wenet_osum.checkpoint.llm_folder import read_llm_config
from wenet_osum.checkpoint.lora import OURS, hf_name, is_llm, merged
from wenet_osum.checkpoint.osum_release import read_release, to_release
from wenet_osum.checkpoint.weights import llm_elsewhere, read_state
from wenet_osum.config import load_config, save_config
from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_folder, atomic_write
from wenet_osum.text import init_tokenizer


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="osum convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--from", dest="source_kind", choices=["osum", "train"], help="what SOURCE is, DIR comes out"
    )
    what.add_argument(
        "--to", dest="target_kind", choices=["osum", "train", "hf"], help="what TARGET is, of a DIR"
    )
    what.add_argument("--merge-lora", action="store_true", help="DIR to DIR, LoRA merged into the LLM")
    p.add_argument("source")
    p.add_argument("target")
    p.add_argument("--config", help="--from train: the config; default: train.yaml beside the checkpoint")
    p.add_argument("--llm-config", help="--from osum: config.json of its LLM, or the folder that has it")
    p.add_argument("--llm", help="--from osum: leave the LLM out and name it, a local folder or hub id")
    p.add_argument("--tokenizer", help="--from osum: tokenizer folder; default: the folder given for the LLM")
    p.add_argument("--eos-id", type=int, default=151643, help="--from osum: id that ends an answer")
    p.add_argument("--lora-alpha", type=float, default=32, help="--from osum: as it was trained")
    p.add_argument(
        "--encoder-heads", type=int, help="--from osum: default one head a 64 dimensions, as Whisper"
    )
    p.add_argument("--adapter-heads", type=int, default=4, help="--from osum: as it was trained")
    p.add_argument("--speech-token-num", type=int, default=4097, help="--to osum: as in the config it is for")
    return p.parse_args(argv)


def from_osum(args: argparse.Namespace) -> None:
    """A release file to a model folder."""
    where = args.llm_config or args.llm
    if where is None or not Path(where).exists():
        raise OsumError("--llm-config", f"{where} is no local folder or file", "give the LLM's config.json")
    release = read_release(
        args.source,
        read_llm_config(where),
        args.eos_id,
        args.lora_alpha,
        args.encoder_heads,
        args.adapter_heads,
    )
    configs, state, rows = release.configs, release.state, release.llm_config.vocab_size
    for note in release.notes:
        logging.info(note)
    if args.llm is None:
        configs["decoder_conf"]["llm"] = "llm"
    else:
        configs["decoder_conf"]["llm"] = args.llm
        state = leave_out_llm(state, args.llm, args.source)
    fill_tokenizer(configs, args, where)
    for option, least in (("--eos-id", args.eos_id + 1), ("--tokenizer", configs["vocab_size"] or 0)):
        if least > rows:
            raise OsumError(option, f"needs {least} ids, the LLM has {rows}", "give the LLM's own")
    with atomic_folder(args.target) as folder:
        write_folder(folder, configs, state, release.llm_config)


def leave_out_llm(state: dict[str, Tensor], llm: str, where: str) -> dict[str, Tensor]:
    """The weights less the LLM's own, once those are known to be the ones of ``llm``.

    Raises:
        OsumError: a local LLM that has other weights.
    """
    rest = {n: t for n, t in state.items() if not is_llm(n)}
    if not Path(llm).is_dir():
        logging.info("%s: its weights are not here and were not compared with those of %s", llm, where)
        return rest
    other = read_hf_folder(llm)
    for name in set(state) - set(rest):
        theirs = other.get(hf_name(name))
        if theirs is None or not torch.equal(theirs.to(state[name].dtype), state[name]):
            raise OsumError(
                "--llm", f"{llm} has another {name.removeprefix(OURS)} than {where}", "leave --llm away"
            )
    return rest


def fill_tokenizer(configs: dict[str, Any], args: argparse.Namespace, llm: str) -> None:
    """Name the tokenizer, and count its ids where it is at hand."""
    source = args.tokenizer or (llm if (Path(llm) / "tokenizer_config.json").is_file() else None)
    hub_id = args.llm if args.llm and not Path(args.llm).exists() else None
    configs["tokenizer_conf"]["model_path"] = source or hub_id or "tokenizer"
    if source is None and hub_id is None:
        logging.info("no tokenizer was given: put its files into %s/tokenizer", args.target)
    if source is not None:
        prepare_configs(configs, init_tokenizer(configs))


def from_train(args: argparse.Namespace) -> None:
    """A checkpoint of ours to a model folder."""
    path = args.config or str(Path(args.source).parent / "train.yaml")
    configs = load_config(path)
    resolve_beside(configs, path)
    if configs["model"] != "osum":
        raise OsumError(path, f"model is {configs['model']}", "only osum has an LLM and goes into a folder")
    if configs["vocab_size"] is None:
        prepare_configs(configs, init_tokenizer(configs))
    model, state = skeleton(configs), read_state(args.source)
    model.decoder.pretrained = configs["decoder_conf"].get("llm") is not None
    llm = llm_elsewhere(model)
    check_state(state, model.state_dict(), args.source, () if llm & set(state) else llm)
    config = model.decoder.causal_lm.config
    config.architectures = [type(model.decoder.causal_lm).__name__]
    with atomic_folder(args.target) as folder:
        write_folder(folder, configs, state, config)


def read_config(folder: str) -> dict[str, Any]:
    """The config of a model folder, its paths resolved."""
    path = str(Path(folder).absolute() / CONFIG)
    configs = load_config(path)
    resolve_beside(configs, path)
    return configs


def write_osum(args: argparse.Namespace) -> None:
    """A model folder to OSUM's flat file."""
    configs = read_config(args.source)
    state, llm = read_whole(Path(args.source), configs)
    release, notes = to_release(configs, state, llm, args.source, args.speech_token_num)
    for note in notes:
        logging.info(note)
    with atomic_write(args.target, "wb") as f:
        torch.save(release, f)


def write_train(args: argparse.Namespace) -> None:
    """A model folder to a checkpoint and a train.yaml; the LLM stays where it is."""
    configs = read_config(args.source)
    path = Path(args.target)
    if (path.parent / "train.yaml").exists():
        raise OsumError(str(path.parent / "train.yaml"), "is there already", "give a file in a new folder")
    for section, key in (
        (configs["decoder_conf"], "llm"),
        (configs["tokenizer_conf"], "model_path"),
        (configs["tokenizer_conf"], "symbol_table_path"),
        (configs["tokenizer_conf"], "non_lang_syms_path"),
        (configs, "tasks"),
    ):
        if section.get(key) and Path(section[key]).exists():
            section[key] = str(Path(section[key]).resolve())
    with atomic_write(path, "wb") as f:
        torch.save(read_folder(Path(args.source)), f)
    save_config(configs, path.parent / "train.yaml")


def write_hugging_face(args: argparse.Namespace) -> None:
    """A model folder to a Hugging Face folder."""
    from wenet_osum.hf.export import write_hf

    with atomic_folder(args.target) as folder:
        write_hf(Path(args.source), read_config(args.source), folder)


def merge(args: argparse.Namespace) -> None:
    """A model folder to one without LoRA."""
    configs = read_config(args.source)
    state, llm = read_whole(Path(args.source), configs)
    lora = configs["decoder_conf"].get("lora")
    if lora is None:
        raise OsumError(args.source, "has no LoRA", "nothing is to be merged")
    adapter = {n: t for n, t in state.items() if "lora_" in n}
    rest = {n: t for n, t in state.items() if n not in adapter}
    config = read_llm_config(configs["decoder_conf"]["llm"])
    configs = copy.deepcopy(configs)
    configs["decoder_conf"]["lora"] = None
    with atomic_folder(args.target) as folder:
        write_folder(folder, configs, rest, config, merged(llm, adapter, lora))


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    kind = (args.source_kind, args.target_kind)
    if kind == ("osum", None):
        from_osum(args)
    elif kind == ("train", None):
        from_train(args)
    elif kind == (None, "osum"):
        write_osum(args)
    elif kind == (None, "train"):
        write_train(args)
    elif kind == (None, "hf"):
        write_hugging_face(args)
    else:
        merge(args)
    logging.info("%s -> %s", args.source, args.target)
    return 0


if __name__ == "__main__":
    run_main(main)
