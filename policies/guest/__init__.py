"""Stage 7: what a VMM that is signalled finds out, tells its guest, or dies of."""
