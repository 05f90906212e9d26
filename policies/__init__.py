"""Rules that decide hardware errors under a policy. Pure: no I/O, clock or randomness."""
