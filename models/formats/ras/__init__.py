"""What the kernel's RAS trace events say: one module for each kind of section, fed by rasdaemon's tables and by trace text."""
