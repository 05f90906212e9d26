"""The rules: what a policy makes of a hardware error. Pure: no input or output, no clock, no chance."""
