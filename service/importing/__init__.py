"""Taking in what other tools keep: the files behind the readers of `models.formats`."""
