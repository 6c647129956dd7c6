"""The chips that benchmarks.gpu_model predicts for: published limits and rates, and how many blocks fit.

Sources. Limits of a multiprocessor: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; the
granularities of registers and shared memory: cuda_occupancy.h of the toolkit. Operations a clock: the guide's
"Arithmetic Instructions", whose 2 float64 results a clock of sm_86, sm_89 and sm_120 are NVIDIA's GA102, AD102 and RTX
Blackwell whitepapers' two float64 units a multiprocessor. Multiprocessors and boost clock: the card's data sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
REGISTERS = 65_536
"""32-bit registers of a multiprocessor, of every chip here."""
REGISTER_UNIT = 256
"""A warp's registers are handed out in units of so many."""
SHARED_UNIT = 128
RESERVED_SHARED = 1024
"""Bytes of shared memory that the system takes for every block."""


@dataclass(frozen=True)
class Architecture:
    name: str
    card: str
    multiprocessors: int
    clock: float
    """GHz, boost."""
    threads: int
    """Of a multiprocessor, at most; likewise ``blocks`` and ``shared``, in bytes."""
    blocks: int
    shared: int
    f64: int
    """Multiply-adds a clock and multiprocessor; likewise ``f32``."""
    f32: int = 128
    schedulers: int = 4
    """A warp belongs to one of them, which has its part of the arithmetic units."""

    @property
    def shared_of_a_block(self) -> int:
        return self.shared - RESERVED_SHARED


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture("sm_80", "A100 SXM", 108, 1.41, threads=2048, blocks=32, shared=164 << 10, f64=32, f32=64),
        Architecture("sm_86", "RTX 3090", 82, 1.695, threads=1536, blocks=16, shared=100 << 10, f64=2),
        Architecture("sm_89", "RTX 4090", 128, 2.52, threads=1536, blocks=24, shared=100 << 10, f64=2),
        Architecture("sm_90", "H100 SXM", 132, 1.98, threads=2048, blocks=32, shared=228 << 10, f64=64),
        Architecture("sm_100", "B200", 148, 1.965, threads=2048, blocks=32, shared=228 << 10, f64=64),
        Architecture("sm_120", "RTX 5090", 170, 2.407, threads=1536, blocks=24, shared=100 << 10, f64=2),
    )
}


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def resident_blocks(architecture: Architecture, threads: int, registers: int, shared: int) -> int:
    """Blocks of a kernel on one multiprocessor at once; 0 where not even one fits.

    Args:
        threads: of a block. registers: of a thread. shared: bytes of a block, static and dynamic.
    """
    warps = -(-threads // WARP)
    if shared > architecture.shared_of_a_block:
        return 0
    # Warps are dealt to the schedulers, each with its part of the registers.
    of_a_warp = _up(registers * WARP, REGISTER_UNIT)
    by_registers = REGISTERS // architecture.schedulers // of_a_warp * architecture.schedulers // warps
    by_threads = architecture.threads // WARP // warps
    by_shared = architecture.shared // _up(shared + RESERVED_SHARED, SHARED_UNIT)
    return min(architecture.blocks, by_threads, by_registers, by_shared)


def occupancy(architecture: Architecture, threads: int, registers: int, shared: int) -> float:
    """Resident warps as a part of those that a multiprocessor can hold."""
    blocks = resident_blocks(architecture, threads, registers, shared)
    return blocks * -(-threads // WARP) / (architecture.threads // WARP)
