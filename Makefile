# Two verbs for everybody, the others for those who change the code.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-long lint client reference tables screenshots docs bench growth crash torture fuzz lock audit clean

run: $(VENV)/.run  ## set up, start the service, decide a recorded error under two kernels that disagree; KEEP=1 keeps it open for a browser
	@$(BIN)/ras-triage demo $(if $(KEEP),--keep)

# Two processes with neighbouring tests each, so that servers of a module start once; and with bytecode, else each compiles all tests.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

test: $(VENV)/.test  ## set up and run the tests
	@$(PYTEST)

test-long: $(VENV)/.test  ## the same tests with far more examples, kills and time; takes hours
	@RAS_TRIAGE_TESTS=long $(PYTEST)

lint: $(VENV)/.lint  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

client:  ## write the synchronous client after a change of the asynchronous one
	@$(PYTHON) tests/generate_client.py

reference: $(VENV)/.test  ## write the reference pages and the manual page after a change of what they list
	@$(BIN)/python -m tests.generate_reference
	@$(BIN)/python -m tests.generate_man_page

tables: $(VENV)/.run  ## write the decision grids that are under review, after a change of what is decided
	@$(BIN)/python -m tests.generate_grids

screenshots: $(VENV)/.test  ## a picture of each page of the service, light, dark and narrow, in build/screenshots; needs chromium
	@$(BIN)/python -m tests.generate_screenshots

docs: $(VENV)/.docs  ## the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file deploy/site/mkdocs.yml

bench: $(VENV)/.run  ## how fast it is, as ratios, and against other decision servers and engines that are installed
	@$(BIN)/python bench/run.py

growth: $(VENV)/.run  ## what 2 million kept decisions cost, in memory and time; takes minutes and 10 GB
	@$(BIN)/python bench/load.py growth

crash: $(VENV)/.test  ## kill the service under load KILLS (5000) times
	@$(BIN)/python -m tests.service.test_crashes --kills $(or $(KILLS),5000)

torture: $(VENV)/.test  ## hostile clients, a failing disk, stopped workers and kills at once for SECONDS (600)
	@$(BIN)/python -m tests.service.test_torture --seconds $(or $(SECONDS),600)

fuzz: $(VENV)/.fuzz  ## coverage-guided fuzzing for SECONDS (600)
	@$(BIN)/python tests/fuzz_events.py -max_total_time=$(or $(SECONDS),600) -rss_limit_mb=1024

LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" --output-file

lock: $(VENV)/.lock  ## resolve the dependencies that the image installs again, to the newest that pyproject.toml allows
	@$(LOCK) deploy/requirements.lock pyproject.toml
	@$(LOCK) deploy/requirements-otel.lock --extra otel pyproject.toml
	@$(LOCK) deploy/build.lock --group build

audit: $(VENV)/.audit  ## look what the image installs up in a vulnerability database; AUDIT_ARGS="--service osv" asks another
	@$(BIN)/python deploy/audit.py $(AUDIT_ARGS) deploy/*.lock

$(VENV)/.node: tests/node/package-lock.json | $(BIN)/pip  ## what tests take from npm; they are skipped without it
	@mkdir -p $(VENV)/node
	@cp tests/node/package.json tests/node/package-lock.json $(VENV)/node
	@npm ci --prefix $(VENV)/node --silent --no-audit --no-fund
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(BIN)/pip:
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.run: pyproject.toml | $(BIN)/pip
	@$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.test $(VENV)/.lint $(VENV)/.fuzz $(VENV)/.lock $(VENV)/.audit $(VENV)/.docs: $(VENV)/.%: $(VENV)/.run
	@$(BIN)/pip install --quiet --group $*
	@touch $@
