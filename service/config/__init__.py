"""Settings, their sources, and process-wide configuration."""
