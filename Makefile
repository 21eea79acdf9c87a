PYTHON ?= python3
VENV := .venv
VENV_NUMPY2 := .venv-numpy2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

DEMO := runs/demo
GAME := MsPacman
CHECKPOINT := $(DEMO)/mspacman.safetensors

# What needs neither OCAtari nor the benchmarks' extras.
CORE_TESTS := tests/keypoints tests/envs tests/encoders tests/common tests/rainbow tests/frames tests/play/test_collect.py

.PHONY: demo demo-steps test test-numpy2 test-matrix lint docs dist release-check clean

# Each step runs when its result is missing; a second `make demo` only prints the table again. After a kill it goes on.
demo: $(INSTALLED)
	@echo "MsPacman in five steps: frames, keypoints, pictures, agent, score. About 10 minutes on two free CPU cores and"
	@echo "longer on busy ones; each step shows its progress, and what is done already is not done again."
	@$(MAKE) --no-print-directory demo-steps

# These commands follow each other by themselves: none names the next one.
demo-steps: export SB3_PERMAKEY_NEXT := 0
demo-steps: $(DEMO)/frames/frames.json $(CHECKPOINT) $(DEMO)/keypoints.png $(DEMO)/agent/final_model.zip
	@echo "step 5 of 5: whole games on 10 test seeds, by the agent and at random"
	$(BIN)/sb3-permakey evaluate --game $(GAME) --agent $(DEMO)/agent/best_model.zip --checkpoint $(CHECKPOINT) \
		--out $(DEMO)/evaluation.json --video $(DEMO)/agent.mp4

$(DEMO)/frames/frames.json:
	@echo "step 1 of 5: 6,000 frames of random play (about half a minute)"
	$(BIN)/sb3-permakey collect --game $(GAME) --frames 6000 --out $(DEMO)/frames

$(CHECKPOINT): | $(DEMO)/frames/frames.json
	@echo "step 2 of 5: keypoints, by 400 steps of VAE and LSPN and 3,000 of the PointNet (about 4 minutes)"
	$(BIN)/sb3-permakey pretrain --frames $(DEMO)/frames --out $@ --schedule staged --lspn-stride 4 \
		--max-steps 400 --pointnet-learning-rate 2e-3 --pointnet-steps 3000 --no-score

$(DEMO)/keypoints.png: | $(CHECKPOINT)
	@echo "step 3 of 5: pictures of the keypoints (seconds)"
	$(BIN)/sb3-permakey show --checkpoint $(CHECKPOINT) --frames $(DEMO)/frames --out $@ --gif $(DEMO)/keypoints.gif

$(DEMO)/agent/final_model.zip: | $(CHECKPOINT)
	@echo "step 4 of 5: an agent, by 20,000 steps of learning (about 6 minutes); its mean score after each 5,000"
	$(BIN)/sb3-permakey train --game $(GAME) --checkpoint $(CHECKPOINT) --out $(DEMO)/agent --resume \
		--algo recurrent-dqn --preset strong --steps 20000 --learning-starts 1000 --validate-every 5000 --validation-episodes 10

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

# OCAtari, which scores keypoints, holds numpy below 2; everything else is tested with numpy 2 as well.
test-numpy2: $(VENV_NUMPY2)/.installed
	OMP_NUM_THREADS=1 $(VENV_NUMPY2)/bin/pytest -q -n 2 $(CORE_TESTS)

# The same on other Pythons that are found here, the oldest with the lowest versions that pyproject.toml allows.
test-matrix:
	.ci/matrix $(CORE_TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in build/site; what leads nowhere is an error. Neither building nor reading it takes a network.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build  # not -q, with which a warning is no error

# Wheel and source distribution, and the wheel tried in an empty environment.
dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build -q --outdir dist
	$(BIN)/twine check --strict dist/*
	PYTHON=$(PYTHON) .ci/wheel dist/*.whl

# What a release is checked by beside the tests: the wheel, pages in a browser, keypoints drawn from files.
release-check: lint docs dist
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -rs -m browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/commands/test_detect.py

# All extras, so that no test is skipped.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,scores,benchmarks,players,zoo,parquet,docs,window,view]"
	touch $@

$(VENV_NUMPY2)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_NUMPY2)
	$(VENV_NUMPY2)/bin/pip install -q -c constraints.txt torch
	grep -v '^numpy\|^opencv' constraints.txt > $(VENV_NUMPY2)/constraints.txt
	$(VENV_NUMPY2)/bin/pip install -q -c $(VENV_NUMPY2)/constraints.txt "numpy>=2" -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV_NUMPY2) .venv-matrix-* runs build dist
