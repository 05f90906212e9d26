"""Rules that decide a hardware error. No I/O, clock or randomness."""
