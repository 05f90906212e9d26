"""RAS trace events of the kernel, from trace text and rasdaemon databases."""
