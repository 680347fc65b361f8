"""Memory and peak speed of accelerators, by `device.device_kind`.

Memory: what XLA allows one program, which is less than the chip has: the number in libtpu 0.0.52's
message when a program needs more ("exceeds available HBM (15.75G)"); Cloud TPU's system
architecture pages say 32, 16, 95 and 32 GB.
Speed: peak of dense bf16 matrix products, from the same pages and from NVIDIA's data
sheets of A100, H100 and H200 (without sparsity).
"""

MEMORY = {  # bytes a chip
    'TPU v4': int(30.75 * 2**30),
    'TPU v5 lite': int(15.75 * 2**30),  # v5e
    'TPU v5': int(95.73 * 2**30),  # v5p
    'TPU v6 lite': int(31.24 * 2**30),  # v6e
}

PEAK = {  # FLOP/s a chip
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5': 459e12,
    'TPU v6 lite': 918e12,
    'NVIDIA A100-SXM4-40GB': 312e12,
    'NVIDIA A100-SXM4-80GB': 312e12,
    'NVIDIA A100-PCIE-40GB': 312e12,
    'NVIDIA A100 80GB PCIe': 312e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H100 80GB HBM3': 989e12,
    'NVIDIA H100 NVL': 835e12,
    'NVIDIA H200': 989e12,
    'NVIDIA H200 NVL': 835e12,
}
