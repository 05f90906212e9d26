"""Modules that forked commands have loaded already."""

import gc

import ras_triage.service.cli.output
import ras_triage.service.client
import ras_triage.service.engine.imports.decisions
import ras_triage.service.engine.syndromes
import ras_triage.service.http.app
import ras_triage.service.http.server.run  # noqa: F401
from ras_triage.service.cli.commands import COMMANDS, load_command

for name in COMMANDS:
    load_command(name)

gc.freeze()  # a child that collects does not copy the pages of what it inherited
