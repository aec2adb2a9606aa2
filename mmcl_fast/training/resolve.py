"""What `auto` and defaults mean here: the device, the engine, the temperature."""

from __future__ import annotations

import torch

from mmcl_fast.config import Device, TrainConfig
from mmcl_fast.engines import check_memory, resolve_engine
from mmcl_fast.errors import ConfigError


def resolve(cfg: TrainConfig) -> TrainConfig:
    """The config with `auto` and defaults replaced by what will be used; it fits into memory."""
    cfg = resolve_settings(cfg)
    check_memory(cfg, cfg.engine)
    return cfg


def resolve_settings(cfg: TrainConfig) -> TrainConfig:
    """The same without a look at memory."""
    cfg = cfg.replace(device=usable_device(cfg.device), tau=cfg.tau_value)
    engine = resolve_engine(cfg)
    return cfg if engine == cfg.engine else cfg.replace(engine=engine)


def usable_device(device: Device) -> Device:
    """The device itself, or where `auto` trains here.

    Raises: ConfigError: there is no such device.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ConfigError("device: expected cpu (no CUDA device is usable here), got cuda")
    if device == "auto":
        return "cuda" if there else "cpu"
    return device


__all__ = ["resolve", "resolve_settings", "usable_device"]
