"""The same run with pytorch-metric-learning: SVMax is its regularizer.   pip install 'svmax-ops[metric-learning]'"""

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from torch import nn

import svmax_ops
from svmax_ops.integrations.metric_learning import SVMaxRegularizer

torch.manual_seed(0)
classes = torch.randn(40, 32)
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
miner = BatchHardMiner(distance=LpDistance())
criterion = TripletMarginLoss(margin=0.2, embedding_regularizer=SVMaxRegularizer(), embedding_reg_weight=0.1)

for step in range(301):
    labels = torch.randperm(40)[:24].repeat_interleave(6)
    embeddings = model(classes[labels] + torch.randn(144, 32))
    loss = criterion(embeddings, labels, miner(embeddings, labels))

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step:3d}  loss {loss.item():.3f}  spread {svmax_ops.spectrum(embeddings).spread.item():.3f}")
