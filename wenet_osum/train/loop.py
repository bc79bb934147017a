"""The training loop, whole: batches in, optimizer steps, validation, checkpoints and states out.

A run is a function of its config, its lists and the number of ranks. Which utterances a batch has follows
from the plan (dataset/plan.py); what is random inside the model, dropout that is, from (seed, epoch, number
of the batch in the epoch). So a run can be left after any step and taken up there by a number, and two ranks
compute what one does that accumulates over twice as many batches.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wenet_osum.checkpoint.weights import llm_elsewhere, load_checkpoint, read_infos, write_checkpoint
from wenet_osum.constants import IGNORE_ID
from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.loader import Loader
from wenet_osum.device import memory_in_use
from wenet_osum.errors import OsumError
from wenet_osum.train import state
from wenet_osum.train.ema import Ema
from wenet_osum.train.engine import Engine
from wenet_osum.train.health import Health, StopRequest
from wenet_osum.train.journal import BAD_STEPS, SKIPPED, Journal
from wenet_osum.train.listening import swap_audio
from wenet_osum.train.meter import Meter
from wenet_osum.train.optim import build_optimizer, build_scheduler
from wenet_osum.train.phases import Phases


def token_counts(batch: Batch) -> tuple[float, int]:
    """Weighted answer tokens with their ends, and CTC tokens, of a batch: what the two losses are divided by."""
    if not batch["keys"]:
        return 0.0, 0
    return float(batch["target_weights"].sum()), int((batch["ctc_target"] != IGNORE_ID).sum())


def group_size(world_size: int) -> int:
    """Batches of like cost that stand together in a plan: the least power of two that holds all ranks, and
    at least two, so that one rank and two have the same plan."""
    return max(2, 1 << (world_size - 1).bit_length())


class Trainer:
    """Trains one model to ``max_epoch``.

    A step takes ``accum_grad`` batches a rank. Its loss is divided by the number of target tokens in all of
    them over all ranks, so a token weighs the same wherever it lands.

    Args:
        model: bare. configs: checked. train, dev: loaders of this rank.
        model_dir: checkpoints, states, lists of what happened. log_dir: TensorBoard.
        epoch, step: where to go on from a checkpoint (0, 0 for a new run); ``resume`` takes a state.
        scorer: decodes a part of the dev list and scores it (train/evaluate.py); None: losses alone.
    """

    def __init__(
        self,
        model: Any,
        configs: dict[str, Any],
        train: Loader,
        dev: Loader,
        engine: Engine,
        model_dir: Path,
        log_dir: Path,
        epoch: int = 0,
        step: int = 0,
        resume: Path | None = None,
        scorer: Callable[[Any], dict[str, float]] | None = None,
    ):
        self.configs, self.engine, self.scorer = configs, engine, scorer
        self.train_loader, self.dev_loader, self.model_dir = train, dev, model_dir
        self.mark, self.chief = state.index_mark(train.dataset.index), engine.rank == 0
        # Where the run stands: the epoch, how many of its batches are done, in which plan, optimizer steps.
        self.epoch, self.done, self.group, self.step = epoch, 0, group_size(engine.world_size), step
        self.seen = self.bad = 0
        self.health, self.stop, self.stopping = Health(configs["health_conf"]), StopRequest(), False
        self.resumed_at: int | None = None
        self.saved_at: int | None = None
        self.last_bad: dict[str, str] = {}
        self.dev_skipped: list[dict[str, str]] = []
        facts = state.read_facts(resume) if resume else {}
        if resume:
            self.take_up(facts, resume)
            load_checkpoint(model, resume / "model.pt")
        if engine.sum(self.step)[0] != self.step * engine.world_size:
            what = f"rank {engine.rank} goes on at step {self.step}, others at another one"
            raise OsumError(str(model_dir), what, "give all machines one shared --model_dir")

        self.phases = Phases(configs["phases"], model, configs["model_conf"].get("trainable"))
        model.set_trainable(self.phases.everything())  # the optimizer serves all phases
        learning = {n for n, p in model.named_parameters() if p.requires_grad}
        if not llm_elsewhere(model).isdisjoint(learning):
            model.decoder.pretrained = False  # it will not be what its folder holds, in no phase
        engine.prepare(model, lambda m: build_optimizer(m, configs["optim"], configs["optim_conf"]))
        self.bare, self.optimizer = engine.bare, engine.optimizer
        weights = {n: p for n, p in self.bare.named_parameters() if n in learning}
        self.ema = Ema(weights, configs["ema_decay"]) if configs["ema_decay"] else None
        if resume:
            engine.load_state(resume, None)
            if self.ema:
                whole = state.load_tensors(resume / "ema.pt")
                self.ema.load_state_dict(
                    {n: engine.local(t, weights[n]) if n in weights else t for n, t in whole.items()}
                )
        self.enter_phase(self.phases.at(self.step))

        batches = train.plan(0, 0, group_size(engine.world_size))
        if not batches:
            what = f"an epoch of {len(train.dataset.index)} utterances has not one, by the weights of its corpora"
            raise OsumError("--train_data", what, "raise the weights of the combine YAML")
        total = -(-batches // configs["accum_grad"]) * configs["max_epoch"]
        self.scheduler = build_scheduler(
            self.optimizer, configs["scheduler"], configs["scheduler_conf"], self.step, total
        )
        self.meter = Meter(train.dataset.table)
        self.journal = Journal(model_dir, log_dir, self.chief, self.step)
        if not (epoch or step):  # from a checkpoint, the lists go on
            same = resume is not None and resume.resolve().parent.parent == model_dir.resolve()
            self.journal.cut_back(facts.get("lists", {}) if same else {})
        if self.chief:
            state.drop_after(model_dir, self.step)
        if self.chief and not resume:
            for loader in (train, dev):
                self.list_skipped(loader.dataset.index.skipped)
        engine.barrier()  # nobody appends to a list that is still to be cut back

    def take_up(self, facts: dict[str, Any], folder: Path) -> None:
        """Stand where a state was saved, by any number of ranks.

        Raises:
            OsumError: the state is of another config or other training lists.
        """
        state.check_same_run(facts, self.configs, self.mark, folder)
        self.epoch, self.done, self.group = facts["epoch"], facts["done"], facts["group"]
        self.step = self.resumed_at = self.saved_at = facts["step"]
        self.seen, self.bad = facts["seen"], facts["bad"]
        self.health.load_state_dict(facts["health"])

    def enter_phase(self, phase: int) -> None:
        """Let the phase's parts learn, and no others."""
        if self.phases.parts:
            self.bare.set_trainable(self.phases.parts[phase])
            self.engine.rewrap()
        self.phase = phase

    def run(self) -> Path | None:
        """Train to the end; returns the last checkpoint, or None when SIGTERM came before."""
        if self.resumed_at is None:
            self.save("init")
        path = None
        with self.stop.listening():
            while self.epoch < self.configs["max_epoch"]:
                if not self.run_epoch():
                    return None
                path = self.checkpoint(f"epoch_{self.epoch}")
                self.epoch, self.done, self.group = self.epoch + 1, 0, group_size(self.engine.world_size)
        self.journal.close()
        return path

    def run_epoch(self) -> bool:
        """Train to the end of the epoch; False when asked to stop before it."""
        if self.resumed_at == self.step and self.every("save_interval"):
            self.checkpoint(f"step_{self.step - 1}")  # which the run did not come to before it was stopped
        left = self.train_loader.plan(self.epoch, self.done, self.group)
        batches, accum = iter(self.train_loader), self.configs["accum_grad"]
        hidden = None if self.chief else True
        with tqdm(total=left, desc=f"epoch {self.epoch}", unit="batch", disable=hidden) as bar:
            self.engine.model.train()
            self.meter.restart()
            while group := list(islice(batches, accum)):
                loss = self.train_step(group)
                bar.update(len(group))
                bar.set_postfix(loss=f"{loss:.3f}")
                if self.stopping:
                    self.save_state()
                    return False
                if self.every("state_interval"):
                    self.save_state()
                if self.every("save_interval"):
                    self.checkpoint(f"step_{self.step - 1}")
                    self.engine.model.train()
                    self.meter.restart()
        return True

    def every(self, key: str) -> bool:
        return bool(self.configs[key]) and self.step % self.configs[key] == 0

    def train_step(self, group: list[Batch]) -> float:
        """One optimizer step over ``accum_grad`` batches of each rank; returns the mean loss a token."""
        if (phase := self.phases.at(self.step)) != self.phase:
            self.enter_phase(phase)
        for batch in group:
            self.list_skipped(batch["skipped"])
        counts = [token_counts(b) for b in group]
        good, bad = (sum(len(b[name]) for b in group) for name in ("keys", "skipped"))
        # One exchange before the work: what the losses are divided by, what was set aside, who wants to stop.
        target, ctc, read, unread, stop = self.engine.sum(
            sum(c[0] for c in counts), sum(c[1] for c in counts), good, bad, self.stop.asked
        )
        self.check_share(int(read), int(unread))
        ranks = self.engine.world_size
        # Engines take the mean of the ranks' gradients; the sum is wanted.
        normalizers = {"target": target / ranks, "ctc": ctc / ranks}
        strange: list[str] = []
        self.meter.begin()
        for n, batch in enumerate(group):
            empty = not batch["keys"]
            if empty and ranks == 1:
                continue
            self.seed(self.done + n * ranks + self.engine.rank)
            whole = {**(self.stand_in() if empty else batch), "normalizers": normalizers}
            with self.engine.accumulate(last=n == len(group) - 1):
                with self.engine.autocast():
                    out = self.engine.model(whole, self.engine.device)
                self.engine.backward(out["loss"] * 0 if empty else out["loss"])
            if not empty:
                self.meter.add(batch, out, weight=1 / ranks)
                if not math.isfinite(float(out["loss"].detach())):
                    strange += batch["keys"]
        self.done += len(group) * ranks
        # And one behind it: the figures of the step.
        facts = self.meter.end(self.engine.sum, mean=False)
        if not math.isfinite(facts.get("loss", 0.0)) and self.engine.sum(len(strange))[0]:
            keys = strange  # the others are not to blame
        else:
            keys = [key for batch in group for key in batch["keys"]]
        self.update(facts, keys)
        self.stopping = stop > 0
        return facts.get("loss", 0.0)

    def seed(self, number: int) -> None:
        """Dropout of the epoch's batch ``number``."""
        words = np.random.SeedSequence([self.configs["seed"], self.epoch, number]).generate_state(2)
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))

    def stand_in(self) -> Batch:
        """A batch for a rank that has none of its own: every rank takes part in the exchange."""
        none = torch.zeros(1, 0, dtype=torch.long)
        feats = torch.zeros(1, 100, self.configs["input_dim"])
        if self.train_loader.dataset.conf["batch_conf"]["batch_type"] == "pack":
            feats = feats[0]
        ids = {"prompt": torch.zeros(1, 1, dtype=torch.long), "target": none, "ctc_target": none}
        return {"keys": [], "tasks": [], "feats": feats, "feats_lengths": torch.tensor([100]), **ids}

    def update(self, facts: dict[str, float], keys: list[str]) -> None:
        """Clip, step, schedule, log; a bad step is named and not taken.

        Args:
            keys: this rank's utterances of the step, or those of them whose loss was not finite.
        """
        nothing = not facts  # no rank could read an utterance of this step
        norm, loss, why = 0.0, facts.get("loss", 0.0), ""
        if nothing and self.engine.scaler is not None:
            self.optimizer.zero_grad(set_to_none=True)  # the scale has seen no gradient to scale
        else:
            norm = self.engine.clip(self.configs["grad_clip"])
            if self.engine.scaler is not None and math.isfinite(loss) and not math.isfinite(norm):
                why = self.health.judge_scaled()
            elif not nothing:
                why = self.health.judge(loss, norm)
            self.engine.step(skip=bool(why) or nothing)
        if self.ema and not (why or nothing):
            self.ema.update()
        if why:
            place = {"epoch": self.epoch, "step": self.step, "rank": self.engine.rank}
            self.journal.append(BAD_STEPS, [{**place, "cause": why, "keys": keys}] if keys else [])
            if self.chief:
                names = f": {', '.join(keys[:3])} ..." if keys else ""
                tqdm.write(f"step {self.step} not taken: {why}; utterances in {BAD_STEPS}{names}")
            self.health.note_bad(self.step, why, str(self.model_dir / BAD_STEPS))
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Detected call of `lr_scheduler.step"
            )  # a step may not be taken
            self.scheduler.step()
        self.step += 1
        if self.chief and self.step % self.configs["log_interval"] == 0:
            rates = [float(lr) for lr in self.scheduler.get_last_lr()]
            memory = memory_in_use(self.engine.device)
            rest = {"grad_norm": norm, "lr": rates[0], "memory_gb": memory, **self.meter.rates()}
            self.journal.train(self.epoch, self.step, {**facts, **rest}, rates)

    def list_skipped(self, bad: list[dict[str, str]]) -> None:
        self.journal.append(SKIPPED, [{**b, "epoch": self.epoch} for b in bad])
        self.last_bad = bad[-1] if bad else self.last_bad

    def check_share(self, good: int, bad: int) -> None:
        """Count what could not be read, over all ranks.

        Raises:
            OsumError: more than ``dataset_conf.max_bad_share`` of what was read so far is bad.
        """
        self.seen, self.bad = self.seen + good + bad, self.bad + bad
        if self.bad > 10 and self.bad > self.configs["dataset_conf"]["max_bad_share"] * self.seen:
            raise OsumError(
                str(self.model_dir / SKIPPED),
                f"{self.bad} of {self.seen} utterances cannot be read"
                + (", the last: {key} ({cause})".format(**self.last_bad) if self.last_bad else ""),
                "mend the data, or raise dataset_conf.max_bad_share",
            )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean losses a token and accuracy over the dev list, over all ranks; by task as well; with ``cv_swap`` the
        losses when utterances have each other's audio (train/listening.py); with a scorer the scores of
        decoded answers too."""
        self.engine.model.eval()
        self.dev_loader.plan(0)
        meter, swapped = Meter(self.dev_loader.dataset.table), Meter(self.dev_loader.dataset.table)
        meter.begin()
        swapped.begin()
        self.dev_skipped = []
        for batch in self.dev_loader:
            self.list_skipped(batch["skipped"])
            self.dev_skipped += batch["skipped"]
            counts = dict(zip(("target", "ctc"), map(float, token_counts(batch))))
            empty = not batch["keys"]
            if empty and self.engine.world_size == 1:
                continue
            whole = {**(self.stand_in() if empty else batch), "normalizers": counts}
            with self.engine.autocast():
                out = self.engine.model(whole, self.engine.device)
            if not empty:
                meter.add(batch, out, weight=counts["target"])
            if self.configs["cv_swap"]:
                with self.engine.autocast():
                    out = self.engine.model(swap_audio(whole), self.engine.device)
                if len(batch["keys"]) > 1:  # one alone has nobody to change with
                    swapped.add(batch, out, weight=counts["target"])
        means = meter.end(self.engine.sum, mean=True)
        others = swapped.end(self.engine.sum, mean=True) if self.configs["cv_swap"] else {}
        means |= {f"swapped/{n}": others[n] for n in others if n == "loss_llm" or n.startswith("loss/")}
        if not means:
            raise OsumError(
                "--cv_data",
                "no utterance of it could be used",
                "check the list; see the skipped counts above",
            )
        if self.scorer is not None:
            with self.engine.gathered(), self.engine.autocast():
                means.update(self.scorer(self.bare))
        self.journal.dev(self.epoch, self.step, means)
        return means

    def checkpoint(self, tag: str) -> Path:
        """Validate and write ``TAG.pt``. A state is saved before, so that a run stopped in validation takes it
        up again; one that was stopped behind it finds the checkpoint and what validation said."""
        path = self.model_dir / f"{tag}.pt"
        infos = path.with_suffix(".yaml")
        if self.resumed_at == self.step and infos.is_file() and path.is_file():
            found = read_infos(infos)
            if found["step"] == self.step - tag.startswith("step_"):
                if self.chief:
                    self.list_skipped(found["dev_skipped"])
                self.journal.dev(self.epoch, self.step, found["loss_dict"])
                return path
        self.save_state()
        with self.ema.in_place() if self.ema else contextlib.nullcontext():
            return self.save(tag, self.validate())

    def save(self, tag: str, dev: dict[str, float] | None = None) -> Path:
        """Write ``TAG.pt`` and ``TAG.yaml`` (rank 0): ``init``, ``epoch_N``, or ``step_N``, whose steps count
        from 0, as WeNet's do. ``dev``: what ``validate`` found; it becomes curves as well."""
        path, weights = self.model_dir / f"{tag}.pt", self.engine.weights()
        if weights is None:
            return path
        infos = {**self.configs, "tag": tag, "save_time": time.strftime("%d/%m/%Y %H:%M:%S")}
        if dev is not None:
            inside = tag.startswith("step_")
            rates = [float(lr) for lr in self.scheduler.get_last_lr()]
            step = self.step - inside
            infos.update(epoch=self.epoch, step=step, loss_dict=dev, lrs=rates, dev_skipped=self.dev_skipped)
            self.journal.curves(*("cv", step) if inside else ("epoch", self.epoch), dev)
        write_checkpoint(weights, path, infos)
        return path

    def save_state(self) -> None:
        """Write what ``resume`` needs, by all ranks together."""
        folder = state.state_folder(self.model_dir, self.step)
        if self.saved_at == self.step:
            return
        parts = folder.parent / f".{folder.name}.tmp"
        if self.chief:
            parts = state.unfinished(self.model_dir, self.step)
        self.engine.barrier()
        try:
            self.engine.save_state(parts)
            weights = self.engine.weights()
            averages = self.ema and {n: self.engine.full(t) for n, t in self.ema.state_dict().items()}
            if weights is not None:
                state.save_tensors(weights, parts / "model.pt")
                if averages:
                    state.save_tensors(averages, parts / "ema.pt")
                state.write_state(folder, parts, self.facts(), self.configs["keep_states"])
        except BaseException:
            if self.chief:  # a full disk has no room for half a state
                shutil.rmtree(parts, ignore_errors=True)
            raise
        self.engine.barrier()
        self.saved_at = self.step

    def facts(self) -> dict[str, Any]:
        where = {"epoch": self.epoch, "done": self.done, "group": self.group, "step": self.step}
        counts = {"seen": self.seen, "bad": self.bad}
        run = {"configs": self.configs, "index": self.mark, "world_size": self.engine.world_size}
        return {**where, **counts, **run, "health": self.health.state_dict(), "lists": self.journal.sizes()}
