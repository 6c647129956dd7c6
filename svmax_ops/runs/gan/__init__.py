"""The paper's GAN run (section 4.2, figure 3): a ring of eight Gaussians."""
