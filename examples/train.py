"""Hard triplets at a large learning rate, on invented data. Take SVMax's one line out and the embeddings collapse."""

import torch
import torch.nn.functional as F
from torch import nn

import svmax_ops

torch.manual_seed(0)
classes = torch.randn(40, 32)
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

for step in range(301):
    labels = torch.randperm(40)[:24].repeat_interleave(6)  # 24 classes, 6 samples each: b = 144
    embeddings = model(classes[labels] + torch.randn(144, 32))

    e = F.normalize(embeddings)
    distance = (2 - 2 * e @ e.T).clamp_min(1e-12).sqrt()
    same = labels[:, None] == labels
    hardest_positive = distance.masked_fill(~same, 0).amax(1)
    hardest_negative = distance.masked_fill(same, 9).amin(1)
    loss = F.relu(hardest_positive - hardest_negative + 0.2).mean()
    loss = loss + 0.1 * svmax_ops.svmax_loss(embeddings)  # SVMax

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step:3d}  loss {loss.item():.3f}  spread {svmax_ops.spectrum(embeddings).spread.item():.3f}")
