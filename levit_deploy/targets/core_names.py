"""What the cores of a CPU are called, by the text of /proc/cpuinfo."""

from __future__ import annotations

# CPU part numbers of implementer 0x41, from the MIDR_EL1 of Arm's Technical Reference Manuals.
_ARM_CORES = {
    "0xc05": "Cortex-A5",
    "0xc07": "Cortex-A7",
    "0xc08": "Cortex-A8",
    "0xc09": "Cortex-A9",
    "0xc0f": "Cortex-A15",
    "0xd01": "Cortex-A32",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4f": "Neoverse-V2",
}


def core_names(cpuinfo: str) -> dict[int, str]:
    """The kind of each core by its number: x86 has a `model name`, ARM a part number."""
    names: dict[int, str] = {}
    core, implementer = 0, ""
    for line in cpuinfo.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdigit():
            core = int(value)
            names[core] = ""
        elif key == "model name":
            names[core] = value
        elif key == "CPU implementer":
            implementer = value
        elif key == "CPU part":
            known = _ARM_CORES.get(value.lower()) if implementer == "0x41" else None
            names[core] = known or f"CPU part {value}"
    return names
