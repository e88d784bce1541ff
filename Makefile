# What a developer runs. Every target says what it does as it goes; none hides a step.
#
#   make test                       everything: lint, unit, API server, simulation, fuzzing, end-to-end on a real cluster
#   make integrations               datasets read by PyTorch, Hugging Face, pandas and pyarrow (6 GB of packages)
#   make demo, make demo-leak       the two-tenant demo, and the same without Lethe
#   make cluster | images | down    the test cluster by itself
#   make mutants                    do the tests notice defects? puts each into a copy of the package
#   make e2e K=attacks              end-to-end tests whose names match a pytest expression
#   make fuzz SECONDS=600           the parsers of the dataset format, for so long each; without SECONDS 5, as in make test
#   make sweep                      the operator disturbed at every write, in memory and on a real API server
#   make soak STEPS=2000000 SEED=   the custody machine: steps of everything that may happen, over all cores
#   make bench-control PART=bind    measure the control plane; without PART all of bind, closing, custody, decisions, restart
#   make bench-scrub PART=passes    measure the scrub without a GPU; without PART all of scrubs, passes, image
#   make bench-data PART=long       measure encrypted data; without PART all of loader, long, trees, peers, manyfiles
#   make bench-gpu                  measure the scrub on this machine's NVIDIA GPU
#
# CLUSTER=embedded|kind|current takes a cluster by name (without it: the one of KUBECONFIG, else kind where a Docker
# engine answers, else embedded as root on Linux). KIND_NODE_IMAGE names kind's node image.

PYTHON ?= python3
CLUSTER ?=
K ?=
STEPS ?= 2000000
SEED ?=
SECONDS ?= 5
export CLUSTER KIND_NODE_IMAGE

BIN := .venv/bin
INSTALLED := .venv/installed
INTEGRATIONS := .venv-integrations
PYTEST := $(BIN)/python -m pytest $(if $(K),-k '$(K)')

.PHONY: test lint unit integrations apiserver simulation fuzz mutants e2e sweep soak bench-control bench-scrub bench-data bench-gpu \
	cluster images tools down demo demo-leak venv clean

# The cluster's tests mostly wait: the others run beside them. Each suite's output comes when it has ended.
test: lint tools
	$(MAKE) --jobs=2 --output-sync=target e2e unit integrations apiserver simulation fuzz

venv: $(INSTALLED)

# Debian keeps ensurepip, which venv needs, in a package of its own.
$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import ensurepip' || { apt-get update && apt-get install -y --no-install-recommends python3-venv; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy -p tests.cluster
	$(BIN)/lint-imports

unit: tools
	$(PYTEST) tests/unit tests/gpu tests/vectors tests/fuzz

# PyTorch from PyPI comes with CUDA's libraries, of another version than the scrub's: hence an environment of its own.
integrations: $(INTEGRATIONS)/installed
	$(INTEGRATIONS)/bin/python -m pytest $(if $(K),-k '$(K)') tests/integrations

$(INTEGRATIONS)/installed: pyproject.toml $(INSTALLED)
	$(PYTHON) -m venv $(INTEGRATIONS)
	$(INTEGRATIONS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[integrations]'
	touch $@

# The fence, the schemas and the key service against a real etcd and API server, without nodes.
apiserver: tools
	$(PYTEST) tests/apiserver

# Kubernetes and the rest, built from Go modules into the cache folder.
tools: venv
	$(BIN)/python -m tests.cluster tools

# Defects put into a copy of the package: each must be caught by a test. `make mutants K='a word of their names'`.
mutants: venv
	$(BIN)/python -m tests.mutants $(K)

simulation: venv
	$(PYTEST) tests/simulation

# Atheris, which has wheels for Linux on x86-64 only; elsewhere the unit tests take the same targets without it.
fuzz: venv
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

sweep: tools
	$(BIN)/python -m tests.simulation.sweep
	$(BIN)/python -m tests.apiserver.sweep

soak: venv
	$(BIN)/python -m tests.simulation.soak --steps $(STEPS) $(if $(SEED),--seed $(SEED))

e2e: venv
	$(PYTEST) tests/cluster tests/e2e

# Writes docs/measurements/control.{json,md}; the part `custody` brings the test cluster up, and leaves it up.
bench-control: tools
	$(BIN)/python -m tests.performance control $(PART)

# Writes docs/measurements/scrub.{json,md}; the part `scrubs` brings the test cluster up, and leaves it up.
bench-scrub: tools
	$(BIN)/python -m tests.performance scrub $(PART)

# Writes docs/measurements/data.{json,md}. On tmpfs, up to 12 GiB of it; beside gocryptfs, age, rclone and restic.
bench-data: $(INTEGRATIONS)/installed
	command -v gocryptfs age rclone restic fusermount3 >/dev/null \
		|| { apt-get update && apt-get install -y --no-install-recommends gocryptfs age rclone restic fuse3; }
	$(BIN)/python -m tests.performance data $(PART)

# On a machine with an NVIDIA GPU that nobody uses; the suite of tests there: .venv/bin/python -m pytest -m gpu tests/gpu
bench-gpu: venv
	$(BIN)/python -m tests.performance gpu $(PART)

cluster: venv
	$(BIN)/python -m tests.cluster up

images: venv
	$(BIN)/python -m tests.cluster images

down: venv
	$(BIN)/python -m tests.demo down

demo: venv
	$(BIN)/python -m tests.demo

demo-leak: venv
	$(BIN)/python -m tests.demo leak

# The built programs and images stay in the cache (~/.cache/lethe, or LETHE_CACHE): remove that folder to start afresh.
clean:
	rm -rf .venv $(INTEGRATIONS) build dist operator/*.egg-info
