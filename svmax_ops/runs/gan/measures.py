"""What is logged of a GAN: the name and the digits of each number."""

from __future__ import annotations

from svmax_ops.runs.gan.ring import NEAR, WIDE
from svmax_ops.runs.measures import Measure

TRAINING = {
    "loss_generator": Measure("generator loss"),
    "loss_discriminator": Measure("discriminator loss"),
    "spread": Measure("spread", 3),
}
"""What the progress shows of a step, by its key in metrics.jsonl."""
MEASURES = {
    "modes_wide": Measure(f"modes within {WIDE}", 0),
    "modes": Measure(f"modes within {NEAR}", 0),
    "high_quality_wide": Measure(f"% of samples within {WIDE}", 0, scale=100),
    "high_quality": Measure(f"% of samples within {NEAR}", 0, scale=100),
    "radius_99": Measure("99 % radius", 1),
    "s_1": Measure("s₁"),
    "s_2": Measure("s₂"),
    "s_1_centred": Measure("centred s₁"),
    "s_2_centred": Measure("centred s₂"),
    "seconds_per_1000_steps": Measure("CPU s / 1,000 steps"),
}
"""Of an evaluation, by its key in metrics.jsonl (the singular values: in runs.csv)."""
