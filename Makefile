.PHONY: check format lint types contracts test fix

check: format lint types contracts

format:
	uv run ruff format --check .

lint:
	uv run ruff check .

types:
	uv run mypy

contracts:
	uv run lint-imports

test:
	uv run pytest

fix:
	uv run ruff format .
	uv run ruff check --fix .
