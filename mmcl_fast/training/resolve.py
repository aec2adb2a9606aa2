"""Resolution of `auto` and of defaults: device, engine, temperature."""

from __future__ import annotations

import torch

from mmcl_fast.config import Device, TrainConfig
from mmcl_fast.config_variants import test_correlation
from mmcl_fast.engines import check_memory, resolve_engine
from mmcl_fast.errors import ConfigError


def resolve(cfg: TrainConfig) -> TrainConfig:
    """The config with `auto` and defaults replaced, checked to fit into memory."""
    cfg = resolve_settings(cfg)
    check_memory(cfg, cfg.engine)
    return cfg


def resolve_settings(cfg: TrainConfig) -> TrainConfig:
    """The config with `auto` and defaults replaced; memory is not checked."""
    cfg = cfg.replace(
        device=usable_device(cfg.device),
        tau=cfg.tau_value,
        probe_samples=cfg.probe_samples_value or None,
        spurious_correlation_test=test_correlation(cfg),
    )
    engine = resolve_engine(cfg)
    return cfg if engine == cfg.engine else cfg.replace(engine=engine)


def usable_device(device: Device) -> Device:
    """The device, with `auto` replaced by cuda where there is a GPU, else cpu.

    Raises: ConfigError: the device is cuda and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError("device: expected cpu (no CUDA device is usable here), got cuda")
    if device == "auto":
        return "cuda" if has_cuda else "cpu"
    return device


__all__ = ["resolve", "resolve_settings", "usable_device"]
