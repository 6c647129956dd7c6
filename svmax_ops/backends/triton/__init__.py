"""The Triton kernels: a stage in each file, the ops of csrc/schemas.cpp in ops.py."""
