"""What to do about an error of CUDA: its runtime and its driver share their numbers."""

from __future__ import annotations

__all__ = ["TOO_OLD", "driver_too_old", "remedy"]

TOO_OLD = 35  # cudaErrorInsufficientDriver

# NVIDIA's CUDA compatibility guide: any driver of a major version runs all CUDA of that version
_DRIVERS = {12: "525.60.13", 13: "580.65.06"}

_MEMORY = (
    "Stop what else runs on the GPU, or build the plan for smaller calls "
    "(`mnemoscope build --profile 1`)."
)
_NO_GPU = (
    "CUDA_VISIBLE_DEVICES may hide it; a container sees GPUs only with the NVIDIA runtime "
    "(`docker run --gpus all`)."
)
_MISMATCH = (
    "The driver's parts have different versions, as after an update: reboot, or load the new "
    "kernel modules."
)
_KERNELS = (
    "The library that failed brings no code for this GPU, or newer code than the driver "
    "compiles: install a build for its compute capability, or a newer driver."
)
_RESTART = (
    "After such an error CUDA refuses everything else: start the process again. If it comes "
    "back, take the GPU to be faulty or too hot (`nvidia-smi -q`), or report it with the versions "
    "that `mnemoscope doctor` shows."
)
_OURS = "That is a fault of Mnemoscope: report it with the versions that `mnemoscope doctor` shows."

_REMEDIES = {
    1: _OURS,  # invalid value
    2: _MEMORY,
    3: (  # initialisation error
        "CUDA does not survive `os.fork()`: open the bundle in the process that screens. If there "
        "was no fork, check that `nvidia-smi` shows the GPU."
    ),
    34: (  # stub library
        "The libcuda that was found is the one for compiling: take CUDA's `stubs` folder out of "
        "LD_LIBRARY_PATH."
    ),
    46: (  # devices unavailable
        "Another process has the GPU for itself: stop it, or let processes share the GPU "
        "(`nvidia-smi --compute-mode=DEFAULT`)."
    ),
    100: _NO_GPU,
    101: _NO_GPU,  # invalid device
    209: _KERNELS,  # no kernel image for this device
    222: _KERNELS,  # unsupported PTX version
    214: _RESTART,  # uncorrectable ECC error
    400: _OURS,  # invalid handle
    700: _RESTART,  # illegal address
    702: _RESTART,  # launch timeout
    710: _RESTART,  # assertion on the device
    714: _RESTART,  # hardware stack error
    715: _RESTART,  # illegal instruction
    716: _RESTART,  # misaligned address
    717: _RESTART,  # invalid address space
    718: _RESTART,  # invalid program counter
    719: _RESTART,  # launch failure
    802: (  # system not ready
        "The GPUs are still being set up: start NVIDIA's fabric manager (NVSwitch), then try again."
    ),
    803: _MISMATCH,
    804: (  # compatibility not supported on this device
        "CUDA's forward compatibility is for data-centre GPUs: take its `compat` folder out of "
        "LD_LIBRARY_PATH, or install a newer driver."
    ),
    999: (  # unknown
        "On Linux the module nvidia_uvm is often not loaded: `nvidia-modprobe -u -c 0`, or reboot."
    ),
}


def remedy(code: int) -> str:
    """What to do next."""
    return _REMEDIES.get(code, "`mnemoscope doctor` shows whether the GPU works.")


def driver_too_old(driver: object, has: str, wanted: int) -> str:
    """What to say of a driver that a library is too new for.

    Args:
        driver: It, for the message.
        has: The latest CUDA that it supports: "12.4".
        wanted: Major version of the CUDA that the library was built for.
    """
    since = f" ({_DRIVERS[wanted]} or newer on Linux)" if wanted in _DRIVERS else ""
    return (
        f"The driver ({driver}) is too old: it supports CUDA up to {has}, and what is to run here "
        f"was built for CUDA {wanted}. Install a driver for CUDA {wanted}{since}, or packages for "
        f"CUDA {has.partition('.')[0]}."
    )
