"""Peak speeds of accelerators, from their makers' data sheets."""

# Dense bfloat16 operations a second by the beginning of the device's name, the longest first.
# https://cloud.google.com/tpu/docs/system-architecture-tpu-vm, a chip; NVIDIA's data sheets of the
# A100, H100 (SXM), H200 and B200, without sparsity.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Peak of a device in bfloat16 operations a second; None: not known, as of any CPU.

    >>> peak_flops("NVIDIA A100-SXM4-80GB"), peak_flops("cpu")
    (312000000000000.0, None)
    """
    for name, peak in PEAKS.items():
        if device_kind.startswith(name) and "MIG" not in device_kind:
            return peak
    return None
