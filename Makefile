# The commands of the README, and those of a developer. Each does all set-up on a fresh machine and is quick when that is done.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint docs site

demo: $(STAMP)
	$(BIN)/crossdistill demo

test: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# Written aside first: a failure leaves the page as it was. The pictures are drawn by docs/probe_pictures.py.
# The documentation as a site that opens from its folder; a link that leads nowhere is an error.
site: $(STAMP)
	$(BIN)/zensical build --clean --strict

docs: $(STAMP)
	for page in methods probes; do $(BIN)/crossdistill list $$page --markdown > docs/$$page.md.new && mv docs/$$page.md.new docs/$$page.md || exit; done

# pip 25.1 is the first that knows dependency groups; the constraints file holds the versions that were tested together.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[hf,opencv,ray,tensorboard,onnx]' --group dev --group docs
	touch $(STAMP)
