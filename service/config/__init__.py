"""Settings, their sources, and settings of the process."""
