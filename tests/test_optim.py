"""Learning-rate schedules and parameter groups."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import build, stage2_config

from wenet_osum.config import DEFAULTS
from wenet_osum.errors import OsumError
from wenet_osum.train.optim import build_optimizer, build_scheduler, rate_at

CONF = {**DEFAULTS["scheduler_conf"], "warmup_steps": 10, "max_steps": 100, "hold_steps": 20}


def test_warmuplr_is_wenets():
    for step in (1, 5, 10, 11, 40, 1000):
        wenet = 10**0.5 * min(step**-0.5, step * 10**-1.5)
        assert rate_at(step, "warmuplr", CONF) == pytest.approx(wenet)


def test_linear_ends_at_zero():
    rates = [rate_at(s, "linear", CONF) for s in range(1, 101)]
    assert rates[9] == 1.0 and rates[99] == 0.0 and rates[54] == pytest.approx(0.5)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_noam_hold_annealing_holds_then_decays():
    rates = {s: rate_at(s, "NoamHoldAnnealing", CONF) for s in (5, 10, 29, 30, 60, 100)}
    assert rates[5] == 0.5 and rates[10] == rates[29] == rates[30] == 1.0
    assert rates[60] == pytest.approx(math.sqrt(10 / 40)) and rates[100] == pytest.approx(math.sqrt(10 / 80))


def optimizer_of(**conf):
    return build_optimizer(build(stage2_config()), "adamw", {**DEFAULTS["optim_conf"], **conf})


def test_schedule_drives_the_rate_and_goes_on_where_it_stood():
    optimizer = optimizer_of(lr=0.1)
    scheduler = build_scheduler(
        optimizer, "linear", {**CONF, "max_steps": None, "warmup_steps": 2}, 0, total=12
    )
    rates = []
    for _ in range(12):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.05, 0.1, *(0.1 * k / 10 for k in range(9, -1, -1))])
    resumed = build_scheduler(
        optimizer_of(lr=0.1), "linear", {**CONF, "max_steps": None, "warmup_steps": 2}, 7, 12
    )
    assert resumed.get_last_lr()[0] == pytest.approx(rates[7])


def test_min_lr_bounds_the_rate():
    optimizer = optimizer_of(lr=0.1)
    scheduler = build_scheduler(
        optimizer, "linear", {**CONF, "max_steps": 4, "warmup_steps": 1, "min_lr": 0.04}, 0, 4
    )
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr()[0] == pytest.approx(0.04)


def test_groups_scale_rates_and_spare_vectors_from_decay():
    model = build(stage2_config(ctc="none"))
    conf = {**DEFAULTS["optim_conf"], "lr": 0.1, "weight_decay": 0.3, "lr_scale": {"encoder": 0.1}}
    optimizer = build_optimizer(model, "adamw", conf)
    grouped = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.01 if group["name"] == "encoder" else 0.1)
        for p in group["params"]:
            assert group["weight_decay"] == (0.3 if p.dim() > 1 else 0.0)
    frozen = {id(p) for p in model.encoder.parameters()}
    for p in model.encoder.parameters():
        p.requires_grad_(False)
    left = build_optimizer(model, "adam", {**conf, "lr_scale": {}})
    assert isinstance(left, torch.optim.Adam)
    assert not frozen & {id(p) for g in left.param_groups for p in g["params"]}


def test_rates_by_module_as_wenet_has_them():
    model = build(stage2_config())
    conf = {**DEFAULTS["optim_conf"], "lr": [0.1, 0.2, 0.3], "modules": ["encoder", "decoder.causal_lm"]}
    optimizer = build_optimizer(model, "adam", conf)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        part = 0.1 if name.startswith("encoder.") else 0.2 if name.startswith("decoder.causal_lm.") else 0.3
        assert rates[id(p)] == part, name
    warmup = {**CONF, "warmup_steps": [2, 4, 8]}
    scheduler = build_scheduler(optimizer, "warmuplr", warmup, 0, total=100)
    for step in range(1, 20):
        for group in optimizer.param_groups:
            steps = {"encoder": 2, "decoder.causal_lm": 4, "rest": 8}[group["name"]]
            wenet = steps**0.5 * min(step**-0.5, step * steps**-1.5)
            assert group["lr"] == pytest.approx(group["initial_lr"] * wenet)
        optimizer.step()
        scheduler.step()


def test_warmup_and_hold_as_shares_of_the_steps():
    shares = {**CONF, "warmup_steps": 1, "hold_steps": 0, "warmup_ratio": 0.1, "hold_ratio": 0.2}
    by_share = build_scheduler(optimizer_of(lr=0.1), "NoamHoldAnnealing", shares, 60, total=5)
    by_steps = build_scheduler(optimizer_of(lr=0.1), "NoamHoldAnnealing", CONF, 60, total=5)
    assert by_share.get_last_lr() == by_steps.get_last_lr() != [0.1]


def test_bad_input_module_that_the_model_has_not():
    with pytest.raises(
        OsumError, match="optim_conf.modules: the model has no 'encodr'; choose from encoder,"
    ):
        optimizer_of(lr=[0.1, 0.2], modules=["encodr"])


def test_bad_input_optimizer():
    with pytest.raises(OsumError, match=r"lr_scale\.encodr"):
        optimizer_of(lr_scale={"encodr": 0.1})
    model = build(stage2_config())
    model.set_trainable([])
    with pytest.raises(OsumError, match="no parameter"):
        build_optimizer(model, "adamw", DEFAULTS["optim_conf"])
