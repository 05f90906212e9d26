"""Error injections of QEMU."""
