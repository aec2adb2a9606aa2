"""A user's code as a type checker sees it: `.ci/run` checks a copy of it outside of the checkout.

An ignored error that is none is itself an error (`--warn-unused-ignores`).
"""

import torch

import mmcl_fast

cfg = mmcl_fast.TrainConfig(n=20, d=30, m=4, epochs=2)
run: mmcl_fast.Run = mmcl_fast.train(cfg)
runs: list[mmcl_fast.Run] = mmcl_fast.train_many([cfg.replace(seed=s) for s in range(3)])
x, y = torch.randn(8, 4), torch.randn(8, 4)
loss: torch.Tensor = mmcl_fast.info_nce(x, y, temperature=0.1)
sample: mmcl_fast.SignalNoiseData = mmcl_fast.data.sample(cfg)
module: torch.nn.Module = mmcl_fast.distributed.DistributedInfoNCELoss()

mmcl_fast.info_nec(x, y)  # type: ignore[attr-defined]
mmcl_fast.data.sampel(cfg)  # type: ignore[attr-defined]
mmcl_fast.TrainConfig(nn=3)  # type: ignore[call-arg]
wrong: int = mmcl_fast.info_nce(x, y)  # type: ignore[assignment]
