"""The training loop, whole: batches in, optimizer steps, validation, checkpoints out."""

from __future__ import annotations

import contextlib
import json
import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from wenet_osum.checkpoint.weights import save_checkpoint
from wenet_osum.constants import IGNORE_ID
from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.loader import Loader
from wenet_osum.errors import OsumError
from wenet_osum.train.engine import Engine
from wenet_osum.train.optim import build_optimizer, build_scheduler


def token_counts(batch: Batch) -> tuple[float, int]:
    """Weighted answer tokens with their ends, and CTC tokens, of a batch: what the two losses are divided by."""
    if not batch["keys"]:
        return 0.0, 0
    return float(batch["target_weights"].sum()), int((batch["ctc_target"] != IGNORE_ID).sum())


class Trainer:
    """Trains one model to ``max_epoch``.

    A step takes ``accum_grad`` batches. Its loss is divided by the number of target tokens in all of
    them over all ranks, so a token weighs the same wherever it lands.

    Args:
        model: unwrapped. configs: checked. train, dev: loaders of this rank.
        model_dir: checkpoints, ``skipped.jsonl``. log_dir: TensorBoard.
        epoch, step: where to go on (0, 0 for a new run).
    """

    def __init__(
        self,
        model: nn.Module,
        configs: dict[str, Any],
        train: Loader,
        dev: Loader,
        engine: Engine,
        model_dir: Path,
        log_dir: Path,
        epoch: int = 0,
        step: int = 0,
    ):
        self.bare, self.configs, self.engine = model, configs, engine
        self.train_loader, self.dev_loader = train, dev
        self.model_dir, self.epoch, self.step = model_dir, epoch, step
        self.chief = engine.rank == 0
        self.model = engine.wrap(model)
        self.optimizer = build_optimizer(model, configs["optim"], configs["optim_conf"])
        total = -(-train.plan(epoch) // configs["accum_grad"]) * configs["max_epoch"]
        self.scheduler = build_scheduler(
            self.optimizer, configs["scheduler"], configs["scheduler_conf"], step, total
        )
        self.writer = SummaryWriter(str(log_dir)) if self.chief else None
        self.seen = self.bad = 0
        if self.chief:
            for loader in (train, dev):
                self.list_skipped(loader.dataset.index.skipped)
        self.last_log = time.monotonic()
        self.utterances_since_log = 0

    def run(self) -> Path:
        """Train to the end; returns the last checkpoint."""
        path = self.save("init")
        while self.epoch < self.configs["max_epoch"]:
            self.run_epoch()
            path = self.save(f"epoch_{self.epoch}", self.validate())
            self.epoch += 1
        if self.writer:
            self.writer.close()
        return path

    def run_epoch(self) -> None:
        self.model.train()
        count = self.train_loader.plan(self.epoch)
        batches = iter(self.train_loader)
        bar = tqdm(
            total=count, desc=f"epoch {self.epoch}", unit="batch", disable=None if self.chief else True
        )
        while group := list(islice(batches, self.configs["accum_grad"])):
            loss = self.train_step(group)
            bar.update(len(group))
            bar.set_postfix(loss=f"{loss:.3f}")
            interval = self.configs["save_interval"]
            if interval and self.step % interval == 0:
                self.save(f"step_{self.step - 1}", self.validate())
                self.model.train()
        bar.close()

    def train_step(self, group: list[Batch]) -> float:
        """One optimizer step over ``accum_grad`` batches; returns the mean loss a token."""
        for batch in group:
            self.set_aside(batch)
        counts = [token_counts(b) for b in group]
        target, ctc = self.engine.sum(sum(c[0] for c in counts), sum(c[1] for c in counts))
        # DistributedDataParallel takes the mean of the ranks' gradients; the sum is wanted.
        normalizers = {"target": target / self.engine.world_size, "ctc": ctc / self.engine.world_size}
        sums: dict[str, float] = {}
        right = tokens = 0.0
        for n, batch in enumerate(group):
            empty = not batch["keys"]
            if empty and self.engine.world_size == 1:
                continue
            if empty:
                batch = self.stand_in()
            last = n == len(group) - 1
            with self.no_sync() if not last else contextlib.nullcontext(), self.engine.autocast():
                out = self.model({**batch, "normalizers": normalizers}, self.engine.device)
            loss = out["loss"] * 0 if empty else out["loss"]
            (self.engine.scaler.scale(loss) if self.engine.scaler else loss).backward()
            if empty:
                continue
            for name in ("loss", "loss_llm", "loss_ctc"):
                if name in out:
                    sums[name] = sums.get(name, 0.0) + float(out[name].detach())
            right += float(out["th_accuracy"] * out["tokens"])
            tokens += float(out["tokens"])
            self.utterances_since_log += len(batch["keys"])
        sums["acc"] = right / max(1.0, tokens)
        self.update(sums)
        return sums.get("loss", 0.0)

    def stand_in(self) -> Batch:
        """A batch for a rank that could read nothing of its own: every rank takes part in the exchange."""
        none = torch.zeros(1, 0, dtype=torch.long)
        feats = torch.zeros(1, 100, self.configs["input_dim"])
        ids = {"prompt": torch.zeros(1, 1, dtype=torch.long), "target": none, "ctc_target": none}
        return {"keys": [], "feats": feats, "feats_lengths": torch.tensor([100]), **ids}

    def no_sync(self) -> contextlib.AbstractContextManager[Any]:
        """Between the batches of one step the ranks need not exchange gradients."""
        if isinstance(self.model, nn.parallel.DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def update(self, sums: dict[str, float]) -> None:
        """Clip, step, schedule, log.

        Raises:
            OsumError: a loss that is not a number.
        """
        scaler = self.engine.scaler
        if scaler:
            scaler.unscale_(self.optimizer)
        learning = [p for g in self.optimizer.param_groups for p in g["params"]]
        norm = float(nn.utils.clip_grad_norm_(learning, self.configs["grad_clip"]))
        if not scaler and not math.isfinite(norm):
            raise OsumError(
                f"step {self.step}",
                "the loss or a gradient is not a number",
                "lower optim_conf.lr, or train with --dtype fp32",
            )
        if scaler:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        self.step += 1
        if self.chief and self.step % self.configs["log_interval"] == 0:
            self.log(sums, norm)

    def log(self, sums: dict[str, float], norm: float) -> None:
        now = time.monotonic()
        rate = self.utterances_since_log / (now - self.last_log)
        self.last_log, self.utterances_since_log = now, 0
        rates = self.scheduler.get_last_lr()
        facts = {**sums, "grad_norm": norm, "lr": rates[0], "utterances_per_second": rate}
        assert self.writer is not None
        wenet = {"loss": "train_loss", "lr": "lr_0"}  # WeNet's names of curves; the others are the same
        for name, value in facts.items():
            self.writer.add_scalar(f"train/{wenet.get(name, name)}", value, self.step)
        for i, lr in enumerate(rates[1:], 1):
            self.writer.add_scalar(f"train/lr_{i}", lr, self.step)
        text = " ".join(f"{k} {v:.4g}" for k, v in facts.items())
        tqdm.write(f"epoch {self.epoch} step {self.step} {text}")

    def set_aside(self, batch: Batch) -> None:
        """Count and list what could not be read.

        Raises:
            OsumError: more than ``dataset_conf.max_bad_share`` of what was read so far is bad.
        """
        bad = batch["skipped"]
        self.seen += len(batch["keys"]) + len(bad)
        self.bad += len(bad)
        self.list_skipped(bad)
        share = self.configs["dataset_conf"]["max_bad_share"]
        if self.bad > 10 and self.bad > share * self.seen:
            raise OsumError(
                str(self.model_dir / "skipped.jsonl"),
                f"{self.bad} of {self.seen} utterances cannot be read, the last: "
                f"{bad[-1]['key']} ({bad[-1]['cause']})"
                if bad
                else "too many bad utterances",
                "mend the data, or raise dataset_conf.max_bad_share",
            )

    def list_skipped(self, bad: list[dict[str, str]]) -> None:
        if bad:
            with open(self.model_dir / "skipped.jsonl", "a", encoding="utf-8") as f:
                f.writelines(json.dumps({**b, "epoch": self.epoch}, ensure_ascii=False) + "\n" for b in bad)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean losses a token and accuracy over the dev list, over all ranks."""
        self.model.eval()
        self.dev_loader.plan(0)
        names = ("loss", "loss_llm", "loss_ctc")
        total = dict.fromkeys(names, 0.0)
        weight = right = tokens = 0.0
        for batch in self.dev_loader:
            self.list_skipped(batch["skipped"])
            if batch["keys"]:
                with self.engine.autocast():
                    out = self.bare(batch, self.engine.device)
                count = token_counts(batch)[0]
                weight += count
                for name in names:
                    total[name] += count * float(out.get(name, 0.0))
                right += float(out["th_accuracy"] * out["tokens"])
                tokens += float(out["tokens"])
        *sums, weight, right, tokens = self.engine.sum(*total.values(), weight, right, tokens)
        if tokens == 0:
            raise OsumError(
                "--cv_data",
                "no utterance of it could be used",
                "check the list; see the skipped counts above",
            )
        means = {name: value / weight for name, value in zip(names, sums)}
        means["acc"] = right / tokens
        if self.chief:
            tqdm.write(
                f"epoch {self.epoch} step {self.step} dev "
                + " ".join(f"{k} {v:.4f}" for k, v in means.items())
            )
        return means

    def save(self, tag: str, dev: dict[str, float] | None = None) -> Path:
        """Write ``TAG.pt`` and ``TAG.yaml`` (rank 0): ``init``, ``epoch_N``, or ``step_N``, whose steps count
        from 0, as WeNet's do. ``dev``: what ``validate`` found; it becomes curves as well."""
        path = self.model_dir / f"{tag}.pt"
        if self.writer is None:
            return path
        infos = {**self.configs, "tag": tag, "save_time": time.strftime("%d/%m/%Y %H:%M:%S")}
        if dev is not None:
            inside = tag.startswith("step_")
            rates = [float(lr) for lr in self.scheduler.get_last_lr()]
            step = self.step - inside
            infos.update(epoch=self.epoch, step=step, loss_dict=dev, lrs=rates)
            for name, value in dev.items():
                self.writer.add_scalar(
                    *(f"cv/{name}", value, step) if inside else (f"epoch/{name}", value, self.epoch)
                )
        save_checkpoint(self.bare, path, infos)
        return path
