# Two commands set everything up on a machine that has Python and pip:
#   make demo   builds every dataset from dummy_data/ and prints it
#   make test   runs the whole test suite
# PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-slow test-lowest lint benchmark fixtures clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of extras, so that nothing is installed twice.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	touch $@

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python dummy_data/demo.py

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

# The suite with the oldest versions that pyproject.toml allows.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
	    --resolution lowest-direct -e ".[test]"
	.venv-lowest/bin/python -m pytest -m "not slow"

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# An hour, 60 GB of disk. img2dataset (Python 3.10 to 3.12) makes the corpora, in
# an environment of its own. Remove a folder that was not finished.
CORPUS ?= build/benchmark/corpus
CORPORA ?= build/benchmark/corpora

.venv-img2dataset:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet img2dataset pillow tensorflow tensorflow-io

$(CORPUS): | .venv-img2dataset
	.venv-img2dataset/bin/python benchmarks/make_corpus.py $@ --num_shards 8

$(CORPORA): | .venv-img2dataset
	for format in webdataset files parquet tfrecord; do \
	  .venv-img2dataset/bin/python benchmarks/make_corpus.py $@/$$format \
	    --dataset coyo_labeled_300m --output_format $$format \
	    --num_shards 12 --rows_per_shard 4000 || exit 1; \
	done

TABLES ?= build/benchmark/tables

$(TABLES): $(VENV)/.installed-benchmark
	$(BIN)/python benchmarks/make_metadata.py $@/coyo_700m \
	    --num_rows 500000 --num 6
	$(BIN)/python benchmarks/make_metadata.py $@/coyo_labeled_300m \
	    --dataset coyo_labeled_300m --num_rows 250000 --num 6

PARTITIONS ?= build/benchmark/partitions
LARGE_PARTITION ?= build/benchmark/large_partition

$(PARTITIONS): $(VENV)/.installed-benchmark
	$(BIN)/python benchmarks/make_partitions.py $@ --num_rows 40000

$(LARGE_PARTITION): $(VENV)/.installed-benchmark
	$(BIN)/python benchmarks/make_partitions.py $@ --num_rows 1000448

SCREENSHOTS ?= build/benchmark/screenshots

$(SCREENSHOTS): $(VENV)/.installed-benchmark
	$(BIN)/python benchmarks/make_screenshots.py $@/tiles --num_rows 4800
	$(BIN)/python benchmarks/make_screenshots.py $@/headers --num_tars 1000 \
	    --num_rows 20000 --empty

benchmark: $(VENV)/.installed-benchmark | $(CORPUS) $(PARTITIONS) \
    $(LARGE_PARTITION) $(CORPORA) $(TABLES) $(SCREENSHOTS)
	$(BIN)/python benchmarks/laion400m_images.py $(CORPUS)
	$(BIN)/python benchmarks/one_large_shard.py $(CORPUS)
	$(BIN)/python benchmarks/laion400m_embeddings.py $(PARTITIONS)
	$(BIN)/python benchmarks/laion400m_embeddings.py $(LARGE_PARTITION) \
	    --only "build: ours" "build: ours, 1 process" "build: cp"
	$(BIN)/python benchmarks/img2dataset_formats.py $(CORPORA)
	$(BIN)/python benchmarks/published_tables.py $(TABLES)
	$(BIN)/python benchmarks/screenshots.py $(SCREENSHOTS)/tiles
	$(BIN)/python benchmarks/screenshots.py $(SCREENSHOTS)/headers \
	    --only index "index: tarfile"
	$(BIN)/python benchmarks/many_shards.py build/benchmark/many_shards

# img2dataset and tensorflow-io, with which it writes TFRecord, run on Python 3.10
# to 3.12.
fixtures: | .venv-img2dataset
	.venv-img2dataset/bin/python -m pip install --quiet --no-deps clip-retrieval
	.venv-img2dataset/bin/python dummy_data/laion400m/make_images.py
	.venv-img2dataset/bin/python dummy_data/laion400m/make_embeddings.py
	.venv-img2dataset/bin/python dummy_data/coyo_700m/make_metadata.py
	.venv-img2dataset/bin/python dummy_data/coyo_700m/make_images.py
	.venv-img2dataset/bin/python dummy_data/coyo_labeled_300m/make_labels.py
	.venv-img2dataset/bin/python dummy_data/coyo_labeled_300m/make_images.py
	.venv-img2dataset/bin/python \
	    dummy_data/screenshot_training_natural_filtered_v2/make_tiles.py

clean:
	rm -rf $(VENV) .venv-lowest .venv-img2dataset build
