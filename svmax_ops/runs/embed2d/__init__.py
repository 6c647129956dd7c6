"""``svmax embed2d``: embeddings on the unit circle, without and with SVMax (paper, figures 1 and 4)."""
