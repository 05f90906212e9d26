"""Stage 7: guest notification by VMM and KVM."""
