"""How a virtual machine starts: libvirt, QEMU, its jail, and the guest."""
