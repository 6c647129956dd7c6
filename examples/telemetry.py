"""What `spectrum` says about a batch: no gradient, nothing to switch on, cheap enough for every hundredth step."""

import torch

import svmax_ops

torch.manual_seed(0)
b, d = 144, 64
sphere = torch.randn(b, d)
rank_8 = torch.randn(b, 8) @ torch.randn(8, d)
collapsed = torch.randn(d) + 0.01 * torch.randn(b, d)
quarter_turn = torch.eye(2).repeat_interleave(b // 2, 0)  # two clumps, 90 degrees apart

print("embeddings                        spread   centred   effective rank   condition")
for name, embeddings in {
    "spread over the sphere": sphere,
    "in 8 of 64 directions": rank_8,
    "collapsed onto one direction": collapsed,
    "two clumps in the plane": quarter_turn,
}.items():
    report = svmax_ops.spectrum(embeddings)
    centred = svmax_ops.spectrum(embeddings, center=True)  # the only one that sees the two clumps for what they are
    print(
        f"{name:30s} {report.spread:9.3f} {centred.spread:9.3f}"
        f" {report.effective_rank:11.1f} of {embeddings.shape[1]:2d} {report.condition:11.1e}"
    )
