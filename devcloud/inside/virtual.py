"""nova-compute for virtual machines: with KVM if a kernel boots on it, else emulated.

`virtual.py KERNEL RESULT ARGUMENT...`. RESULT, a configuration file of nova-compute, caches the result of the check
until the machine restarts.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
import subprocess
import sys
from pathlib import Path

import nova.monkey_patch  # noqa: F401  (must come first)
from nova.cmd.compute import main

SECONDS = 20
PROOF = b"Unable to mount root fs"
SETTINGS = {
    "kvm": "[libvirt]\nvirt_type = kvm\n",
    # QEMU's default CPU model lacks x86-64-v2, which current distributions need, and AES instructions, without which
    # SSH is slow under emulation. The machine's own CPU does not matter.
    "qemu": "[libvirt]\nvirt_type = qemu\ncpu_mode = custom\ncpu_models = Westmere\n"
    "[workarounds]\nskip_cpu_compare_at_startup = true\n",
}


def kvm_works(kernel: str) -> bool:
    """Whether a kernel boots on KVM until it looks for a root file system, which it is not given.

    On some machines /dev/kvm opens and the firmware runs, but every kernel hangs.
    """
    # Not subprocess's timeout: in the patched standard library it raises an exception that cannot be caught by name.
    command = [
        "timeout", str(SECONDS), "qemu-system-x86_64", "-accel", "kvm", "-m", "128", "-nodefaults", "-display", "none",
        "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    return PROOF in subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True).stdout


def detect(kernel: str, result: Path) -> None:
    """Check KVM once after each start of the machine, and write the configuration."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if not result.exists() or boot not in result.read_text():
        result.write_text(f"# Tried after boot {boot}\n{SETTINGS['kvm' if kvm_works(kernel) else 'qemu']}")


if __name__ == "__main__":
    detect(sys.argv[1], Path(sys.argv[2]))
    sys.argv = ["nova-compute", "--config-file", *sys.argv[2:]]
    sys.exit(main())
