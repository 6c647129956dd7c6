"""Telemetry while a Lightning module trains.   pip install 'svmax-ops[lightning]'"""

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import svmax_ops
from svmax_ops.integrations.lightning import SpectrumMonitor


class Denoiser(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decode = nn.Linear(16, 32)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        embeddings = self.embed(batch[0] + torch.randn_like(batch[0]))
        return nn.functional.mse_loss(self.decode(embeddings), batch[0]) + 0.1 * svmax_ops.svmax_loss(embeddings)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


pl.seed_everything(0)
rows = torch.randn(40, 32).repeat(144, 1)
trainer = pl.Trainer(
    max_epochs=5,
    accelerator="cpu",
    logger=CSVLogger("runs", name="lightning"),  # runs/lightning/version_0/metrics.csv
    callbacks=[SpectrumMonitor("embed", every_n_steps=20)],
)
trainer.fit(Denoiser(), DataLoader(TensorDataset(rows), batch_size=144, shuffle=True, drop_last=True))
print({name: round(value.item(), 3) for name, value in trainer.callback_metrics.items()})
