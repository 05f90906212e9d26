"""Policy decision point for hardware errors on Linux."""
