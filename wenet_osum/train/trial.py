"""Run batches of given shapes in a process of its own, and tell whether the device's memory held them."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from wenet_osum.dataset.dataset import Batch
from wenet_osum.errors import OsumError
from wenet_osum.train.ema import Ema
from wenet_osum.train.engine import Engine
from wenet_osum.train.optim import build_optimizer
from wenet_osum.train.phases import Phases
from wenet_osum.train.tune import Shape, feature_frames

GB = 1e9
# How an allocation that fails is told, by torch's CUDA, NPU and CPU allocators.
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class Outcome(NamedTuple):
    """Whether a trial fitted; the most bytes it had at once, and may have; how it ended if it did not fit."""

    fits: bool
    peak: int
    limit: int
    why: str = ""


class Trial(NamedTuple):
    """What a trial needs to know.

    ``configs``: checked and with the tokenizer's ids. ``build``: configs -> model, for the shape alone.
    ``prompt``: tokens of the longest prompt. ``memory``: bytes; None: what is free on the device.
    ``headroom``: the share of them that may be used.
    """

    configs: dict[str, Any]
    build: Callable[[dict[str, Any]], Any]
    prompt: int
    device: str
    dtype: str
    memory: int | None
    headroom: float


def random_model(trial: Trial, device: torch.device) -> Any:
    """The config's model with numbers that mean nothing, on a device; its pretrained parts are not loaded.

    A quantised LLM is the exception: it has no shape without its weights.
    """
    if (trial.configs["decoder_conf"] or {}).get("quant", "none") != "none":
        return trial.build(trial.configs).to(device)
    with torch.device("meta"):
        model = trial.build(trial.configs)
    # Weights that are one (an LLM's first and last layer) would become two.
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            owners.setdefault(id(p), []).append((module, name))
    model.to_empty(device=device)
    for (module, name), *others in owners.values():
        for other, same in others:
            setattr(other, same, getattr(module, name))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.01)
        for b in model.buffers():
            b.zero_()
    return model


def fake_batch(shape: Shape, configs: dict[str, Any], prompt: int) -> Batch:
    """A training batch of a shape: random features and ids, always the same."""
    rng = torch.Generator().manual_seed(0)
    rows, tokens = shape.rows, shape.tokens
    frames = feature_frames(shape.frames, configs["dataset_conf"])

    def ids(count: int) -> torch.Tensor:
        return torch.randint(configs["vocab_size"], (rows, count), generator=rng)

    feats = torch.randn(rows, frames, configs["input_dim"], generator=rng)
    if configs["dataset_conf"]["batch_conf"]["batch_type"] == "pack":
        feats = feats.flatten(0, 1)
    return {
        "keys": [f"u{i}" for i in range(rows)],
        "feats": feats,
        "feats_lengths": torch.full((rows,), frames),
        "prompt": ids(prompt),
        "target": ids(tokens),
        "target_lengths": torch.full((rows,), tokens),
        "target_weights": torch.ones(rows, tokens + 1),
        # A transcript has a frame of the encoder's for each of its tokens and more.
        "ctc_target": ids(max(1, min(tokens, frames // 16))),
        "normalizers": {"target": rows * (tokens + 1.0), "ctc": rows * float(tokens)},
        "skipped": [],
    }


def run_shapes(trial: Trial, shapes: list[Shape]) -> Outcome:
    """Train on a batch of each shape, in this process."""
    engine = Engine(trial.device, trial.dtype)
    memory = Memory(engine.device, trial.memory, trial.headroom)
    configs = trial.configs
    try:
        model = random_model(trial, engine.device)
        # Every part that learns in any phase learns here: that is no less than each phase needs.
        model.set_trainable(
            Phases(configs["phases"], model, configs["model_conf"].get("trainable")).everything()
        )
        learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
        ema = Ema(learning, configs["ema_decay"]) if configs["ema_decay"] else None
        engine.prepare(model, lambda m: build_optimizer(m, configs["optim"], configs["optim_conf"]))
        engine.model.train()
        # The first, small step makes the optimizer's state, which every later one has beside its batch.
        small = Shape(1, min(s.frames for s in shapes), 1)
        # Two rounds: the second finds the gaps that the first left between its tensors, as training does.
        for shape in (small, *shapes, *shapes):
            for _ in range(
                min(2, configs["accum_grad"])
            ):  # the second batch runs beside the first's gradients
                batch = fake_batch(shape, configs, trial.prompt)
                with engine.autocast():
                    loss = engine.model(batch, engine.device)["loss"]
                engine.backward(loss)
                del loss, batch
            engine.clip(configs["grad_clip"])
            engine.optimizer.step()  # not by fp16's scaler, which would leave out a step whose numbers are none
            engine.optimizer.zero_grad(set_to_none=True)
            if engine.scaler:
                engine.scaler.update()
            if ema:
                ema.update()
    except (MemoryError, RuntimeError) as e:  # torch.OutOfMemoryError is a RuntimeError
        if not isinstance(e, MemoryError) and not any(words in str(e).lower() for words in NO_MEMORY):
            raise
        return Outcome(False, memory.peak(), memory.limit, "out of memory")
    peak = memory.peak()
    return Outcome(peak <= memory.limit, peak, memory.limit, "" if peak <= memory.limit else "over the limit")


class Memory:
    """A device's memory, as far as this process may use it.

    On cuda and npu the allocator refuses what goes beyond ``limit``; ``peak`` is the most that tensors had.
    On cpu it is the most that was resident, libraries and all; the parent process watches the limit.
    """

    def __init__(self, device: torch.device, memory: int | None, headroom: float):
        self.device = device
        if device.type == "cpu":
            self.limit = round(headroom * (free_memory() if memory is None else memory))
            # Should the machine itself run short, this process is the one to go.
            with contextlib.suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text("1000")
            return
        self.module: Any = getattr(torch, device.type)
        free, total = self.module.mem_get_info(device)
        self.limit = round(headroom * (free if memory is None else min(free, memory)))
        self.module.set_per_process_memory_fraction(min(1.0, self.limit / total), device)

    def peak(self) -> int:
        if self.device.type == "cpu":
            return resident_peak("self")
        return int(self.module.max_memory_allocated(self.device))


def resident_peak(process: int | str) -> int:
    """The most bytes that a process had resident; 0 of another one where the system does not tell."""
    # Not getrusage where there is this: its figure goes on from the parent's through exec.
    with contextlib.suppress(OSError, KeyError):
        return table_of(Path(f"/proc/{process}/status"))["VmHWM"] * 1024
    if process != "self":
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def table_of(path: Path) -> dict[str, int]:
    """A file of the system's with a name and a number in each line."""
    lines = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of main memory that this machine, or this container, has free.

    Raises:
        OsumError: the system does not tell.
    """
    free = []
    with contextlib.suppress(OSError):
        free.append(table_of(proc / "meminfo")["MemAvailable"] * 1024)
    # Control groups, version 2 and 1; what they hold of files gives way.
    for most, used, stat, files in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            *("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
            *("memory/memory.stat", "total_inactive_file"),
        ),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):  # ValueError: "max", no limit
            limit, taken = (int((cgroup / name).read_text()) for name in (most, used))
            free.append(limit - taken + table_of(cgroup / stat)[files])
    if not free:
        raise OsumError("--memory", "the free memory of this machine is not known", "give it in GB")
    return max(0, min(free))


def child(pipe: Connection, trial: Trial, shapes: list[Shape], threads: int) -> None:
    """A trial's process: sends an ``Outcome``, or the error that the user is to mend."""
    if threads:
        torch.set_num_threads(threads)
    try:
        pipe.send(run_shapes(trial, shapes))
    except OsumError as e:
        pipe.send(e)
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


def start_method() -> Any:
    """How trials' processes start: from one that has imported everything and done nothing, where there is such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The loop as well: what training has beside a model (TensorBoard, the data engine) takes its room too.
    context.set_forkserver_preload([__name__, "wenet_osum.train.loop", "peft", "transformers.models.qwen2"])
    return context


def run_trial(trial: Trial, shapes: list[Shape], threads: int = 0) -> Outcome:
    """``run_shapes`` in a process of its own: one that is killed for its memory is an answer as well.

    Raises:
        OsumError: the trial's own, or that it broke for another reason than memory.
    """
    context = start_method()
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(there, trial, shapes, threads))
    process.start()
    there.close()
    limit = round(trial.headroom * (trial.memory or 0))
    watched = trial.device == "cpu" and trial.memory is not None
    result: Outcome | OsumError | None = None
    while result is None:
        alive = process.is_alive()  # asked first: what a process sent before its end is still to be read
        if here.poll(0.05 if alive else 0):
            with contextlib.suppress(EOFError):
                result = here.recv()
                break
        if not alive:
            break
        if watched and (peak := resident_peak(process.pid or 0)) > limit:
            result = Outcome(False, peak, limit, "over the limit")
            process.kill()
    process.join()
    if isinstance(result, OsumError):
        raise result
    if result is not None:
        return result
    if process.exitcode == -signal.SIGKILL:
        return Outcome(False, 0, limit, "killed by the system")
    raise OsumError("a trial", f"ended with exit status {process.exitcode}", "see the messages above")
