# The targets make the environment and call utils/run.py, which runs what is not current.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
PROFILE ?= demo
DATA ?=
JOBS ?= 2
SET ?=
RUN ?=
SAMPLE ?= 48
FILE ?=
INPUT ?=
OUT ?=
FACES ?=
FACE_MODEL ?=
VENV ?= .venv

# Values as they were typed: a space, an apostrophe, # or $ is part of a path.
override DATA := $(value DATA)
override SET := $(value SET)
override RUN := $(value RUN)
override FILE := $(value FILE)
override INPUT := $(value INPUT)
override OUT := $(value OUT)
override FACES := $(value FACES)
override FACE_MODEL := $(value FACE_MODEL)
export FACE_MODEL PROFILE DATA JOBS SET RUN FILE INPUT OUT FACES SAMPLE

PY := $(VENV)/bin/python
READY := $(VENV)/.ready
NOTEBOOKS = $(PY) -m utils.run $@ --profile "$$PROFILE" --data "$$DATA" --face-model "$$FACE_MODEL" --set "$$SET" --jobs "$$JOBS" --name "$$RUN"

.PHONY: help all env data render flow train ablation submit check validate report reproduce predict test fuzz train-flow pretrain bench lint lab readme clean clean-data

## help: print the targets (as bare `make` does)
help:
	@grep -E '^## ' $(firstword $(MAKEFILE_LIST)) | sed 's/^##   /    /; s/^## /  make /'
	@echo '  with PROFILE=smoke|demo|full  DATA=/path/to/4DME  JOBS=2  SET="seed=1 views=split"  RUN=name  FACE_MODEL=model'

## env: make the virtual environment with the pinned packages, in $(VENV)
env: $(READY)
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e ".[lab]"
	touch $@

## all: everything: environment, data, notebooks 01 to 03, the submission (05), then the ablation (04)
all: $(READY)
	@$(NOTEBOOKS)

## submit: the submission without the ablation: notebooks 01, 02, 03, 05
submit: $(READY)
	@$(NOTEBOOKS)

## data: generate the synthetic 4D faces of the profile and their card; FACE_MODEL=model for people of your own face model
data: $(READY)
	@$(NOTEBOOKS)

## render: 01: two cropped views of every clip
render: $(READY)
	@$(NOTEBOOKS)

## flow: 02: optical flow, apex, features (after 01)
flow: $(READY)
	@$(NOTEBOOKS)

## check: check the data (DATA=...) before a run: "ready", or problems with remedies; opens SAMPLE=48 clips
check: $(READY)
	@$(NOTEBOOKS) --sample "$$SAMPLE"

## validate: list all faults of a submission: FILE=submission.csv (default: that of the run), DATA=...
validate: $(READY)
	@$(NOTEBOOKS) $(if $(FILE),--file "$$FILE")

## report: write submissions/<run>/report.html of a finished run again (RUN=name)
report: $(READY)
	@$(NOTEBOOKS)

## reproduce: repeat the run RUN=name from its run.json in a clean clone, and compare the submissions
reproduce: $(READY)
	@$(PY) -m utils.report.reproduce "$$RUN" --data "$$DATA" --jobs "$$JOBS"

## predict: the emotions in one clip: INPUT=video or folder, RUN=run with the networks (default: shipped weights), OUT=folder
predict: $(READY)
	@$(PY) -m utils.predict --input "$$INPUT" --run "$$RUN" --out "$$OUT" --set "$$SET"

## train: 03: the network on held-out people (after 02)
train: $(READY)
	@$(NOTEBOOKS)

## ablation: 04: variants and baselines with paired intervals (after 03)
ablation: $(READY)
	@$(NOTEBOOKS)

## clean: remove the artefacts of the run (RUN=name), but not its submission and its data
clean: $(READY)
	@$(NOTEBOOKS)

## clean-data: remove the synthetic data of the profile
clean-data: $(READY)
	@$(NOTEBOOKS)

## test: the tests, among them the whole pipeline in the smoke profile
test: $(READY)
	$(PY) -m pytest -q -n 2 --dist loadfile

## fuzz: read 50,000 damaged files of every format, and count how that ends (`make test` reads 2,000)
fuzz: $(READY)
	$(PY) -m pytest -q -n 2 --dist loadfile tests/dataset/test_fuzz.py tests/dataset/test_fuzz_meshes.py --fuzz 25

## train-flow: train the flow network again on rendered faces, into utils/weights (about an hour and a half on two cores)
train-flow: $(READY)
	$(PY) -m utils.lab.teachers.train_flow --jobs "$$JOBS"

## pretrain: pretrain the classifiers again on synthetic motion, into utils/weights (about seven minutes)
pretrain: $(READY)
	$(PY) -m utils.lab.teachers.classifier --kind dual
	$(PY) -m utils.lab.teachers.classifier --kind frontal
	$(PY) -m utils.lab.teachers.classifier --kind single

## bench: measure speed, memory and accuracy against other code, into artefacts/bench (ONLY="apex rendering"; photographs of
##   real faces: FACES=DIR)
bench: $(READY)
	$(PY) -m utils.lab.bench --jobs "$$JOBS" $(if $(FACES),--faces "$$FACES") $(if $(ONLY),--only $(ONLY))

## lint: ruff over code, tests and notebooks
lint: $(READY)
	$(VENV)/bin/ruff check utils tests notebooks
	$(VENV)/bin/ruff format --check utils tests notebooks

## lab: open the notebooks in JupyterLab
lab: $(READY)
	PYTHONPATH= JUPYTER_PATH= JUPYTER_PREFER_ENV_PATH=1 $(VENV)/bin/jupyter lab --notebook-dir=.

## readme: write the tables and the picture of README.md and RESULTS.md from the records of RUN=name
readme: $(READY)
	$(PY) -m utils.lab.readme "$$RUN"
	cp "artefacts/$$RUN/figures/03_overview.png" notebooks/overview.png
