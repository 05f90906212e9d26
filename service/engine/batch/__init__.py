"""Many events at once, streamed both ways: unpacked, split, decided in order, and answered at the pace of whoever reads."""
