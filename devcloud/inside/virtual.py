"""nova-compute for virtual machines: with KVM where it truly works, else emulated.

`virtual.py KERNEL FINDING ARGUMENT...`. FINDING keeps what was found until the machine's next start, as a configuration
file of nova-compute.
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
    # QEMU's own choice lacks what current distributions are compiled for (x86-64-v2), and the instructions for AES,
    # without which emulated SSH is slow. What the machine's own processor has does not matter.
    "qemu": "[libvirt]\nvirt_type = qemu\ncpu_mode = custom\ncpu_models = Westmere\n"
    "[workarounds]\nskip_cpu_compare_at_startup = true\n",
}


def kvm_works(kernel: str) -> bool:
    """Whether a kernel without a disk gets as far as it can on KVM.

    On some machines /dev/kvm opens and firmware runs, yet every kernel hangs.
    """
    # Not subprocess's own timeout: that of the patched standard library raises what cannot be caught by name.
    command = [
        "timeout", str(SECONDS), "qemu-system-x86_64", "-accel", "kvm", "-m", "128", "-nodefaults", "-display", "none",
        "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    return PROOF in subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True).stdout


def find_out(kernel: str, finding: Path) -> None:
    """Try KVM, once after each start of the machine."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if not finding.exists() or boot not in finding.read_text():
        finding.write_text(f"# Tried after boot {boot}\n{SETTINGS['kvm' if kvm_works(kernel) else 'qemu']}")


if __name__ == "__main__":
    find_out(sys.argv[1], Path(sys.argv[2]))
    sys.argv = ["nova-compute", "--config-file", *sys.argv[2:]]
    sys.exit(main())
