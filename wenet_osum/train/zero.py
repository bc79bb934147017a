"""DeepSpeed's ZeRO 1 to 3 (arXiv 1910.02054) through accelerate: optimizer (1), gradients (2) and weights (3)
shared out among the ranks.

DeepSpeed's json has the sizes of its buckets and what goes to the CPU; steps, optimizer, schedule, clipping
and number type are the config's, and a json that says otherwise is refused. Weights that learn stay fp32 and
bf16 is autocast, as with the other engines.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wenet_osum.checkpoint.check import check_state
from wenet_osum.checkpoint.weights import llm_elsewhere, state_to_save
from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write
from wenet_osum.train.engine import Engine

FACTS, TAG = "deepspeed.json", "deepspeed"

# Keys of the json that DeepSpeed alone knows.
THEIRS = (
    *("zero_optimization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "aio"),
    *("communication_data_type", "prescale_gradients", "gradient_predivide_factor", "steps_per_print"),
    *("wall_clock_breakdown", "memory_breakdown", "dump_state", "comms_logger", "flops_profiler"),
)


def read_zero_config(path: str | None, dtype: str, configs: dict[str, Any]) -> dict[str, Any]:
    """DeepSpeed's json as WeNet's recipes have it, less what the config of the run says.

    Args:
        dtype: of the run.
        configs: of the run; the json may repeat ``accum_grad`` and ``grad_clip`` (WeNet's must).

    Raises:
        OsumError: no json, no stage of 1 to 3, a key that contradicts the run, an unknown key, phases, averages
            of weights that no rank has whole.
    """
    if path is None:
        raise OsumError("--deepspeed_config", "is missing", "give DeepSpeed's json: conf/ds_stage2.json")
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as e:
        raise OsumError(f"{path}:{e.lineno}", f"is no json ({e.msg})", "mend the file") from None
    stage = (found.get("zero_optimization") or {}).get("stage") if isinstance(found, dict) else None
    if stage not in (1, 2, 3):
        mend = "choose 1, 2 or 3, or --train_engine torch_ddp"
        raise OsumError(f"{path}: zero_optimization.stage", f"is {stage!r}", mend)
    if configs.get("phases"):
        raise OsumError("phases", "are not for deepspeed", "use --train_engine torch_ddp or torch_fsdp")
    if configs.get("ema_decay") and stage == 3:
        raise OsumError("ema_decay", "is not for ZeRO 3", "use stage 1 or 2, or --train_engine torch_fsdp")
    ours = {
        "train_micro_batch_size_per_gpu": (1, "batches are dataset_conf.batch_conf's; WeNet has 1 here"),
        "gradient_accumulation_steps": (configs.get("accum_grad", 1), "make it accum_grad"),
        "gradient_clipping": (configs.get("grad_clip"), "make it grad_clip"),
    }
    for key, (value, mend) in ours.items():
        said = found.pop(key, "auto")
        if said not in ("auto", value) and value is not None:
            raise OsumError(f"{path}: {key}", f"is {said!r}, the run has {value!r}", mend)
    half = {key: bool((found.pop(key, None) or {}).get("enabled")) for key in ("fp16", "bf16")}
    if half["fp16"] or dtype == "fp16":
        raise OsumError(f"{path}: fp16", "is not for deepspeed here", "use --dtype bf16, or torch_ddp")
    if half["bf16"] and dtype != "bf16":
        raise OsumError(f"{path}: bf16.enabled", f"is true, the run has {dtype}", "give --dtype bf16")
    for key in found:
        if key not in THEIRS:
            mend = f"leave it out: the run's config has it, or choose from {', '.join(THEIRS)}"
            raise OsumError(f"{path}: {key}", "is not DeepSpeed's to say here", mend)
    if dtype == "bf16":  # DeepSpeed turns off an autocast from outside; no layer's gradients go in bf16
        found["torch_autocast"] = {
            "enabled": True,
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        }
    return {**found, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}


class ZeroEngine(Engine):
    """A rank of DeepSpeed; one process alone works too.

    Args:
        zero: of ``read_zero_config``.
        more: see ``Engine``.

    Raises:
        OsumError: DeepSpeed is not installed.
    """

    needs_group = True

    def __init__(self, *args: Any, zero: dict[str, Any], **more: Any):
        super().__init__(*args, **more)
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
            os.environ.setdefault(name, value)  # accelerate asks for torchrun's even from one process
        if self.device.type == "cpu":
            os.environ.update(DS_ACCELERATOR="cpu", ACCELERATE_TORCH_DEVICE="cpu")
        self.zero, self.stage = zero, int(zero["zero_optimization"]["stage"])
        try:
            import deepspeed  # noqa: F401
        except ImportError:
            raise OsumError(
                "--train_engine deepspeed", "deepspeed is not installed", "pip install wenet_osum[deepspeed]"
            ) from None

    def prepare(
        self, model: Any, build_optimizer: Callable[[nn.Module], Optimizer]
    ) -> tuple[nn.Module, Optimizer]:
        """Raises:
        OsumError: DeepSpeed refuses a key of the json.
        """
        from accelerate import Accelerator
        from accelerate.utils import DeepSpeedPlugin
        from pydantic import ValidationError

        self.bare = model.to(self.device)
        self.keep_frozen()
        plugin = DeepSpeedPlugin(hf_ds_config=self.zero, zero3_init_flag=False)
        accelerator = Accelerator(deepspeed_plugin=plugin)
        try:
            self.model, _ = accelerator.prepare(self.bare, build_optimizer(self.bare))
        except ValidationError as e:
            first = e.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            what = f"DeepSpeed refuses it: {first['msg']}"
            raise OsumError(f"--deepspeed_config: zero_optimization.{key}", what, "mend the json") from None
        if self.stage == 3:
            self.bare.register_forward_pre_hook(self.forget_order, prepend=True)
        self.optimizer = self.model.optimizer.optimizer
        return self.model, self.optimizer

    def forget_order(self, module: nn.Module, args: Any) -> None:
        """DeepSpeed foretells which layer's weights come next from the steps before, and a validation that differs
        from what it foretold is an error to it; without a record it gathers what is asked for."""
        coordinator = self.model.optimizer.parameter_offload.get_param_coordinator()
        if not torch.is_grad_enabled() and not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()

    def keep_frozen(self) -> None:
        """What a checkpoint holds beside the weights that learn, as it is now, on rank 0."""
        learns = {n for n, p in self.bare.named_parameters(remove_duplicate=False) if p.requires_grad}
        self.names = list(state_to_save(self.bare))
        self.frozen = {
            n: t.detach().cpu().clone()
            for n, t in state_to_save(self.bare).items()
            if self.rank == 0 and n not in learns
        }

    def rewrap(self) -> None:
        raise OsumError("--train_engine deepspeed", "has no phases", "use torch_ddp or torch_fsdp for phases")

    def accumulate(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        self.model.set_gradient_accumulation_boundary(last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        self.model.backward(loss, scale_wrt_gas=False)

    def clip(self, max_norm: float) -> float:
        sharer = self.model.optimizer
        sharer.clip_grad = max_norm  # which it does in its step
        norms = sharer._get_norm_groups() if self.stage == 3 else [sharer.scaled_global_norm()]
        found = [float(n) for n in norms]
        # DeepSpeed says -1 for what is not finite.
        return math.hypot(*found) if all(0 <= n < math.inf for n in found) else math.nan

    def step(self, skip: bool = False) -> None:
        if skip:  # DeepSpeed's step, which clears its buffers, around an optimizer that does nothing
            taken, self.optimizer.step = self.optimizer.step, lambda *_, **__: None  # type: ignore
        try:
            self.model.step()
        finally:
            if skip:
                self.optimizer.step = taken  # type: ignore[method-assign]

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.bare.named_parameters(remove_duplicate=False))

    def whole(self, *parameters: nn.Parameter, writer: int | None = None) -> Any:
        """Inside it the parameters are whole on every rank; what rank ``writer`` changes is then all ranks'."""
        if self.stage < 3:
            return contextlib.nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=writer)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        if self.stage < 3:
            yield
            return
        offload = self.model.optimizer.parameter_offload
        with self.whole(*self.bare.parameters()):
            # DeepSpeed's hooks would share each layer out again behind it.
            for hook in [*offload.forward_hooks, *offload.backward_hooks]:
                hook.remove()
            offload.forward_hooks, offload.backward_hooks = [], []
            for parameter in self.bare.parameters():
                parameter.ds_active_sub_modules.clear()
            try:
                yield
            finally:
                offload._register_deepspeed_module(offload.module)

    def weights(self) -> dict[str, Tensor] | None:
        parameters, out = self.parameters(), dict(self.frozen)
        for name in self.names:
            if name in parameters and parameters[name].requires_grad:
                with self.whole(parameters[name]):
                    if self.rank == 0:
                        whole = parameters[name].detach().cpu()
                        out[name] = whole.clone() if self.stage == 3 else whole
        return {name: out[name] for name in self.names} if self.rank == 0 else None

    def load_weights(self, weights: dict[str, Tensor], where: str) -> None:
        parameters, buffers = self.parameters(), dict(self.bare.named_buffers())
        shapes = {
            n: torch.empty(getattr(p, "ds_shape", p.shape), device="meta") for n, p in parameters.items()
        }
        own = {n: shapes.get(n, t) for n, t in self.bare.state_dict().items()}
        check_state(weights, own, where, llm_elsewhere(self.bare))
        with torch.no_grad():
            for name, tensor in weights.items():
                if name in parameters:
                    with self.whole(parameters[name], writer=0):
                        parameters[name].data.copy_(tensor)
                else:
                    buffers[name].copy_(tensor)
                if name in self.frozen:
                    self.frozen[name] = tensor.clone()
        self.model.optimizer.refresh_fp32_params()

    def save_state(self, folder: Path) -> None:
        """DeepSpeed's own checkpoint of optimizer and weights that learn, a part from each rank; it fits the same
        number of ranks and the same stage only."""
        self.model.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=True)
        if self.rank == 0:
            with atomic_write(folder / FACTS) as f:
                json.dump({"world_size": self.world_size, "stage": self.stage}, f)
        self.barrier()

    def load_state(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """Raises:
        OsumError: the state is another engine's, another stage's or another number of ranks'.
        """
        path = folder / FACTS
        if not path.is_file():
            what = "is missing: the state is another engine's"
            raise OsumError(str(path), what, "resume with the --train_engine of the run before")
        facts = json.loads(path.read_text(encoding="utf-8"))
        for key, now in (("world_size", self.world_size), ("stage", self.stage)):
            if facts[key] != now:
                raise OsumError(
                    str(folder),
                    f"was saved by DeepSpeed with {key} {facts[key]}, this run has {now}",
                    "resume with the same, or start from a checkpoint (torch_fsdp's states fit any number)",
                )
        if weights is not None:
            self.load_weights(weights, str(folder))
        self.model.load_checkpoint(
            str(folder), tag=TAG, load_module_strict=False, load_lr_scheduler_states=False
        )
