# The targets set up the environment and hand over to utils/run.py, which knows what is current and runs the rest.
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
CLIPS ?=
FACE_MODEL ?=
VENV ?= .venv

# As they were typed: a space, an apostrophe, # or $ in a path is part of it.
override DATA := $(value DATA)
override SET := $(value SET)
override RUN := $(value RUN)
override FILE := $(value FILE)
override INPUT := $(value INPUT)
override OUT := $(value OUT)
override FACES := $(value FACES)
override CLIPS := $(value CLIPS)
override FACE_MODEL := $(value FACE_MODEL)
export FACE_MODEL PROFILE DATA JOBS SET RUN FILE INPUT OUT FACES CLIPS SAMPLE

PY := $(VENV)/bin/python
READY := $(VENV)/.ready
NOTEBOOKS = $(PY) -m utils.run $@ --profile "$$PROFILE" --data "$$DATA" --face-model "$$FACE_MODEL" --set "$$SET" --jobs "$$JOBS" --name "$$RUN"

.PHONY: help all env data render flow train ablation submit check validate report reproduce predict test fuzz train-flow pretrain bench lint lab readme clean clean-data

## help: print the targets (also: bare `make`)
help:
	@grep -E '^## ' $(firstword $(MAKEFILE_LIST)) | sed 's/^## /  make /'
	@echo '  with PROFILE=smoke|demo|full  DATA=/path/to/4DME  JOBS=2  SET="seed=1 views=split"  RUN=name  FACE_MODEL=model'

## env: virtual environment with the pinned packages, in $(VENV)
env: $(READY)
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

## all: everything: environment, data, notebooks 01 to 03, the submission (05), then the ablation (04)
all: $(READY)
	@$(NOTEBOOKS)

## submit: the submission, without the ablation: notebooks 01, 02, 03, 05
submit: $(READY)
	@$(NOTEBOOKS)

## data: the synthetic 4D faces of the profile, with their card; FACE_MODEL=model: of people of a face model of yours
data: $(READY)
	@$(NOTEBOOKS)

## render: 01, from sequences to two cropped views
render: $(READY)
	@$(NOTEBOOKS)

## flow: 02, optical flow, apex, features (after 01)
flow: $(READY)
	@$(NOTEBOOKS)

## check: a look at the data (DATA=...) before anything runs: "ready", or problems with remedies; SAMPLE=48 clips are opened
check: $(READY)
	@$(NOTEBOOKS) --sample "$$SAMPLE"

## validate: all that is wrong with a submission: FILE=submission.csv (default: the run's), DATA=...
validate: $(READY)
	@$(NOTEBOOKS) $(if $(FILE),--file "$$FILE")

## report: the page of a finished run anew, in submissions/<run>/report.html (RUN=name, or the profile's)
report: $(READY)
	@$(NOTEBOOKS)

## reproduce: repeat RUN=name from its run.json in a clean clone: is submission.csv the same, and if not, what differs
reproduce: $(READY)
	@$(PY) -m utils.report.reproduce "$$RUN" --data "$$DATA" --jobs "$$JOBS"

## predict: what one clip shows: INPUT=video or folder, RUN=run whose networks judge (default: the weights that ship), OUT=folder
predict: $(READY)
	@$(PY) -m utils.predict --input "$$INPUT" --run "$$RUN" --out "$$OUT" --set "$$SET"

## train: 03, the network on held-out subjects (after 02)
train: $(READY)
	@$(NOTEBOOKS)

## ablation: 04, variants and baselines with paired intervals (after 03)
ablation: $(READY)
	@$(NOTEBOOKS)

## clean: remove the artefacts of the run, and of no other (RUN=name, or the profile's; submissions and data stay)
clean: $(READY)
	@$(NOTEBOOKS)

## clean-data: remove the synthetic data of the profile
clean-data: $(READY)
	@$(NOTEBOOKS)

## test: the tests, with the smoke profile of the whole pipeline
test: $(READY)
	$(PY) -m pytest -q -n 2 --dist loadfile

## fuzz: 50,000 damaged files of every format that is read, and how they ended (`make test` has 2,000 of them)
fuzz: $(READY)
	$(PY) -m pytest -q -n 2 --dist loadfile tests/dataset/test_fuzz.py tests/dataset/test_fuzz_meshes.py --fuzz 25

## train-flow: the flow network taught by rendered faces anew, into utils/weights (about an hour and a half on two cores)
train-flow: $(READY)
	$(PY) -m utils.lab.teachers.train_flow --jobs "$$JOBS"

## pretrain: the classifiers taught by synthetic motion anew, into utils/weights (about seven minutes)
pretrain: $(READY)
	$(PY) -m utils.lab.teachers.classifier --kind dual
	$(PY) -m utils.lab.teachers.classifier --kind frontal
	$(PY) -m utils.lab.teachers.classifier --kind single

## bench: ours against what one would otherwise write: table in artefacts/bench (ONLY="apex rendering"; photographs and clips for real_skin: FACES=DIR CLIPS=DIR)
bench: $(READY)
	$(PY) -m utils.lab.bench --jobs "$$JOBS" $(if $(FACES),--faces "$$FACES") $(if $(CLIPS),--clips "$$CLIPS") $(if $(ONLY),--only $(ONLY))

## lint: ruff over code, tests and notebooks: faults and format
lint: $(READY)
	$(VENV)/bin/ruff check utils tests notebooks
	$(VENV)/bin/ruff format --check utils tests notebooks

## lab: JupyterLab on the notebooks
lab: $(READY)
	JUPYTER_PATH= JUPYTER_PREFER_ENV_PATH=1 $(VENV)/bin/jupyter lab --notebook-dir=.

## readme: write the tables and the picture of README.md and RESULTS.md anew from the records of a run (RUN=full)
readme: $(READY)
	$(PY) -m utils.lab.readme "$$RUN"
	cp "artefacts/$$RUN/figures/03_overview.png" notebooks/overview.png
