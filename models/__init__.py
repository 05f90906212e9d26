"""The vocabulary of hardware errors: what arrives, what the host looks like, what was decided.

Nothing here decides anything, opens a file or talks to a network.
"""
