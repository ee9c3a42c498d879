# `make demo` and `make test` set up everything they need in .venv; the other targets do the same.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check torture training bench docs redis abid clean

demo: $(READY)
	$(BIN)/binsight demo --out demo-out

# Three workers on two cores: many tests wait for a server.
test: $(READY) check
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m "not torture" -n 3 --dist worksteal

# mypy by two processes, and where they do not start within its 3 s, by one.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2 || { [ $$? -eq 2 ] && $(BIN)/mypy; }
	$(BIN)/lint-imports --no-cache

torture: $(READY)
	$(BIN)/python -m pytest -m torture --timeout=7200

# The part of torture that trains: by several processes, and killed; CI runs it after the tests.
training: $(READY)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m torture --timeout=7200 -n 2 --dist worksteal tests/train

bench: $(READY)
	$(BIN)/python -m bench

# The documentation site, with the notebooks as they come out when they are run.
docs: $(READY) $(patsubst %,build/%,$(wildcard notebooks/*.ipynb))
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

build/notebooks/%.ipynb: notebooks/%.ipynb notebooks/pictures.py | $(READY)
	$(BIN)/python notebooks/run.py build/notebooks $<

# Debian's own Redis 8 for the tests, in .redis and without Docker: wants root, debootstrap and a minute.
redis: .redis/redis-server

.redis/redis-server:
	rm -rf .redis && mkdir -p .redis
	debootstrap --variant=minbase --include=redis-server trixie .redis/tree
	cp tests/redis_server.sh $@ && chmod +x $@

# All 535,234 bins from the bucket to a judged model: wants a GPU, 150 GB of disk and about a day. Interrupted, it goes on.
ABID ?= abid
ABID_SOURCE ?= s3://aft-vbi-pds
ABID_BINS ?= 1:535234
ABID_TRAIN ?= --backbone resnet50 --embedding 256 --epochs 30 --batch-size 512 --lr 2e-3 --workers 8 --compile
abid: $(READY)
	$(BIN)/binsight data fetch --source $(ABID_SOURCE) --range $(ABID_BINS) --out $(ABID)/bins || test $$? = 1
	$(BIN)/binsight data split $(ABID)/bins --out $(ABID)/split.csv --fractions 90/5/5 || test $$? = 1
	test -d $(ABID)/model || $(BIN)/binsight train --data $(ABID)/bins --split $(ABID)/split.csv --out $(ABID)/model \
	  $(ABID_TRAIN) $$(test ! -f $(ABID)/model.run/last.ckpt || echo --resume) || test $$? = 1
	$(BIN)/binsight evaluate count --model $(ABID)/model --data $(ABID)/bins --split $(ABID)/split.csv --out $(ABID)/report || test $$? = 1

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "binsight needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	@test "$(origin PYTHON)" != "command line" || test "$$($(BIN)/python -V 2>&1)" = "$$($(PYTHON) -V)" || rm -rf $(VENV)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "python3 cannot make a virtual environment; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing the packages into $(VENV): about 7 GB, several minutes, nothing is said meanwhile"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev,docs]' \
	  || { echo "the packages could not be installed; the same without --quiet tells more:"; \
	    echo "$(BIN)/python -m pip install -c constraints.txt -e '.[all,dev,docs]'"; exit 1; }
	@touch $(READY)

clean:
	rm -rf $(VENV) demo-out bench-out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
