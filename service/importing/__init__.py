"""Taking in what other tools keep: the files behind the readers of `ras_triage.models.formats`."""
