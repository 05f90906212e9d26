"""Import of files of other tools: detection, reading, options."""
