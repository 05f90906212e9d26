"""CPER sections (UEFI 2.10 appendix N): one value per section, the same for its bytes and for its JSON.

Every section type keeps all that its bytes said, also where they contradict themselves: `encode_payload` of what `decode_payload` read
gives the same bytes back.
"""
