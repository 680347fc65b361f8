"""What the makers say of their chips: memory, and the rate of dense bfloat16 matrix products.

By `device.device_kind`, word for word: a name that does not stand here, such as a slice of a GPU
(MIG), is not known, and nothing is said about a share of its peak. Of TPUs a device is a whole chip
on all that are listed (v4 and v5p as megacore).

Sources: cloud.google.com/tpu/docs (v4, v5e, v5p, v6e); NVIDIA's data sheets of A100, H100 and H200,
whose figures for sparse matrices are halved here.
"""

import typing


class Chip(typing.NamedTuple):
  """`hbm`: bytes of high-bandwidth memory. `peak`: dense bfloat16 FLOP/s, a product and a sum
  counting as two."""
  hbm: int
  peak: float


GB, GIB = 10**9, 2**30
V5E, V5P, V6E = Chip(16 * GIB, 197e12), Chip(95 * GIB, 459e12), Chip(32 * GIB, 918e12)
CHIPS = {
    'TPU v4': Chip(32 * GIB, 275e12),
    'TPU v5 lite': V5E, 'TPU v5e': V5E,
    'TPU v5': V5P, 'TPU v5p': V5P,
    'TPU v6 lite': V6E, 'TPU v6e': V6E,
    'NVIDIA A100-SXM4-40GB': Chip(40 * GB, 312e12),
    'NVIDIA A100-SXM4-80GB': Chip(80 * GB, 312e12),
    'NVIDIA A100-PCIE-40GB': Chip(40 * GB, 312e12),
    'NVIDIA A100 80GB PCIe': Chip(80 * GB, 312e12),
    'NVIDIA H100 80GB HBM3': Chip(80 * GB, 989e12),  # SXM
    'NVIDIA H100 PCIe': Chip(80 * GB, 756e12),
    'NVIDIA H100 NVL': Chip(94 * GB, 835e12),
    'NVIDIA H200': Chip(141 * GB, 989e12),  # SXM
    'NVIDIA H200 NVL': Chip(141 * GB, 835e12),
}


def hbm(device_kind):
  """Bytes of memory of one device, None where the chip is not known."""
  return CHIPS[device_kind].hbm if device_kind in CHIPS else None


def peak(device_kind):
  """Dense bfloat16 FLOP/s of one device, None where the chip is not known."""
  return CHIPS[device_kind].peak if device_kind in CHIPS else None
