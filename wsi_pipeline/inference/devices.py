"""Devices by their names. PyTorch, whose import takes seconds, is asked only where there may be more than a CPU."""

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.machine import may_have_gpu

Device = str
"""``cpu``, ``mps``, ``cuda`` (every GPU that this process may use) or ``cuda:N``."""


def choose_device(name: str) -> Device:
    """``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: where the device asked for is not there.
    """
    if name == "auto" and not may_have_gpu():
        return "cpu"
    if name == "cpu":
        return name
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, found in there.items() if found)
    if not there[name]:
        raise ConfigError("device", f"this machine has no {name} device that torch can use", "Use --device auto.")
    return name


def kind_of(device: Device) -> str:
    """``cpu``, ``cuda`` or ``mps``, without a number."""
    return device.partition(":")[0]


def each_device(device: Device) -> list[Device]:
    """The devices that a name stands for: ``cuda`` without a number is every GPU that this process may use."""
    if device != "cuda":
        return [device]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def cuda_available() -> bool:
    """Whether torch can use an NVIDIA or AMD GPU."""
    if not may_have_gpu():
        return False
    import torch

    return torch.cuda.is_available()


def gpu_names() -> list[str]:
    """What the GPUs that torch can use are called."""
    if not cuda_available():
        return []
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
