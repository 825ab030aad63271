# Every stage is a file that depends on the stage before it and on the code that it runs. A notebook is executed into a
# temporary file, which is renamed only when it succeeded: papermill writes its output even when a cell fails.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PROFILE ?= demo
DATA ?=
JOBS ?= 2
SET ?=
VENV ?= .venv

PY := $(VENV)/bin/python
READY := $(VENV)/.ready
RUN ?= $(PROFILE)$(if $(DATA),-$(notdir $(patsubst %/,%,$(DATA))))
WORK := artefacts/$(RUN)
BOOKS := $(WORK)/notebooks
DATASET := $(if $(filter full,$(PROFILE)),demo,$(PROFILE))
ROOT_DATA := $(if $(DATA),$(DATA),data/$(DATASET))
SYNTHETIC := data/$(DATASET)/truth/clips.csv
SOURCE := $(if $(DATA),$(DATA)/train.csv,$(SYNTHETIC))

code = $(addprefix utils/,$(addsuffix .py,$(1)))
CODE_DATA := $(call code,config artefacts parallel dataset face_assets face_model skin motion render synthetic)
CODE_01 := $(CODE_DATA) $(call code,views pipeline data_card plots submission)
CODE_02 := $(CODE_01) $(call code,classical_flow flow_net face_flow flow apex features samples ground_truth measure) $(wildcard utils/weights/flow.*)
CODE_03 := $(CODE_02) $(call code,model decision train evaluate baselines ablation explain motion_fields flow_pairs flow_images pretrain) $(wildcard utils/weights/*)

# One thread for each worker: two workers with two threads each are slower on two cores. The hash seed is for repeatable runs.
export OMP_NUM_THREADS := 1
export PYTHONHASHSEED := 0
export PYDEVD_DISABLE_FILE_VALIDATION := 1

execute = mkdir -p $(BOOKS) && $(VENV)/bin/papermill notebooks/$(1).ipynb $(BOOKS)/$(1).part.ipynb -k python3 --cwd notebooks \
	--no-progress-bar --log-output -r PROFILE $(PROFILE) -r DATA "$(if $(DATA),$(abspath $(DATA)))" -r WORK "$(abspath $(WORK))" \
	-p JOBS $(JOBS) -r SET "$(SET)" 2>&1 | grep -v -e 'Executing' -e 'Ending Cell' -e 'TCP without encryption' -e 'KeyboardInterrupt caught' && mv $(BOOKS)/$(1).part.ipynb $(BOOKS)/$(1).ipynb

.PHONY: help all env data render flow train ablation submit test train-flow pretrain bench lint lab readme clean

## help: print the targets (also: bare `make`)
help:
	@grep -E '^## ' $(MAKEFILE_LIST) | sed 's/^## /  make /'
	@echo "  with PROFILE=smoke|demo|full  DATA=/path/to/4DME  JOBS=2  SET=\"seed=1 views=split\"  RUN=name   (now: PROFILE=$(PROFILE) DATA=$(ROOT_DATA))"

## all: everything: environment, data, notebooks 01 to 05, figures, submission
all: submit
	@echo "submission: submissions/$(RUN)/submission.csv   figures: $(WORK)/figures   notebooks: $(BOOKS)"

## env: virtual environment with the pinned packages, in $(VENV)
env: $(READY)
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

## data: the synthetic 4D faces of the profile, with their card
data: $(SYNTHETIC)
$(SYNTHETIC): $(CODE_DATA) | $(READY)
	$(PY) -m utils.synthetic.data_root --profile $(PROFILE) --jobs $(JOBS)
	$(PY) -m utils.report.data_card data/$(DATASET)
	touch $@

## render: 01, from sequences to two cropped views
render: $(BOOKS)/01_render.ipynb
$(BOOKS)/01_render.ipynb: notebooks/01_render.ipynb $(SOURCE) $(CODE_01) | $(READY)
	set -o pipefail; $(call execute,01_render)

## flow: 02, optical flow, apex, features
flow: $(BOOKS)/02_flow_apex.ipynb
$(BOOKS)/02_flow_apex.ipynb: notebooks/02_flow_apex.ipynb $(BOOKS)/01_render.ipynb $(CODE_02) | $(READY)
	set -o pipefail; $(call execute,02_flow_apex)

## train: 03, the network on held-out subjects
train: $(BOOKS)/03_train.ipynb
$(BOOKS)/03_train.ipynb: notebooks/03_train.ipynb $(BOOKS)/02_flow_apex.ipynb $(CODE_03) | $(READY)
	set -o pipefail; $(call execute,03_train)

## ablation: 04, variants and baselines with paired intervals
ablation: $(BOOKS)/04_ablation.ipynb
$(BOOKS)/04_ablation.ipynb: notebooks/04_ablation.ipynb $(BOOKS)/03_train.ipynb $(CODE_03) | $(READY)
	set -o pipefail; $(call execute,04_ablation)

## submit: 05, the submission file, its record and the local leaderboard
submit: $(BOOKS)/05_submit.ipynb
$(BOOKS)/05_submit.ipynb: notebooks/05_submit.ipynb $(BOOKS)/04_ablation.ipynb $(CODE_03) | $(READY)
	set -o pipefail; $(call execute,05_submit)

## test: the tests, with the smoke profile of the whole pipeline
test: $(READY)
	$(PY) -m pytest -q -n 2 --dist loadfile

## train-flow: the flow network taught by rendered faces anew, into utils/weights (55 minutes on two cores)
train-flow: $(READY)
	$(PY) -m utils.pretrain.train_flow --jobs $(JOBS)

## pretrain: both classifiers taught by synthetic motion anew, into utils/weights (about five minutes)
pretrain: $(READY)
	$(PY) -m utils.pretrain.classifier --kind dual
	$(PY) -m utils.pretrain.classifier --kind single

## bench: ours against what one would otherwise write: table in artefacts/bench (parts of it: ONLY="apex rendering")
bench: $(READY)
	$(PY) -m utils.bench --jobs $(JOBS) $(if $(ONLY),--only $(ONLY))

## lint: ruff over code, tests and notebooks: faults and format
lint: $(READY)
	$(VENV)/bin/ruff check utils tests notebooks
	$(VENV)/bin/ruff format --check utils tests notebooks

## lab: JupyterLab on the notebooks
lab: $(READY)
	$(VENV)/bin/jupyter lab --notebook-dir=.

## readme: write the tables and the picture of README.md anew from the records of a run, such as PROFILE=full
readme: $(READY)
	$(PY) -m utils.report.readme $(RUN)
	cp $(WORK)/figures/03_overview.png notebooks/overview.png

## clean: remove artefacts and synthetic data of the profile (submissions stay)
clean:
	rm -rf "$(WORK)" "data/$(DATASET)"
