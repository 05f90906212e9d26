"""ACPI status blocks and CPER records: parsers and encoders."""
