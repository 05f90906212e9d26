"""CPER sections (UEFI 2.10 appendix N): one model for both bytes and JSON.

Every section type preserves all bytes, contradictory ones too: `encode_payload` is the inverse of `decode_payload`.
"""
