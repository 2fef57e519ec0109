"""Every package builds a wheel that works in an empty environment with its own dependencies."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path.parent for path in ROOT.glob("*/*/pyproject.toml"))

pytestmark = pytest.mark.slow


def uv(*arguments: str | Path) -> None:
    program = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    command = [program, *map(str, arguments)]
    # The environment of `uv run` must not leak into the one under test.
    outer = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(command, cwd=ROOT, env=outer, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr


def metadata(project: Path) -> dict:
    return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]


def family(name: str) -> set[str]:
    """Return a package of ours and all of ours that it needs."""
    of = {metadata(p)["name"]: metadata(p)["dependencies"] for p in PROJECTS}
    needed = {name_of(r) for r in of[name]} & of.keys()
    return {name}.union(*(family(one) for one in needed))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    uv("build", "--all-packages", "--wheel", "--out-dir", folder)
    return folder


@pytest.fixture(scope="module")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    path = tmp_path_factory.mktemp("pins") / "constraints.txt"
    path.write_text("\n".join(root["tool"]["uv"]["constraint-dependencies"]), encoding="utf-8")
    return path


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_the_readme_example_runs_where_only_this_wheel_is_installed(
    project: Path, wheels: Path, constraints: Path, tmp_path: Path
) -> None:
    facts = metadata(project)
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    uv("venv", "--python", sys.executable, environment)
    wheel = next(wheels.glob(f"{facts['name'].replace('-', '_')}-{facts['version']}-*.whl"))
    uv("pip", "install", "--python", python, "--find-links", wheels, "-c", constraints, wheel)

    listed = subprocess.run(
        [
            python,
            "-c",
            "import importlib.metadata as m; print(*[d.name for d in m.distributions()])",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    ours = {metadata(p)["name"] for p in PROJECTS}
    assert ours & set(listed) == family(facts["name"])

    readme = (project / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert example is not None, f"{project.name} has no example in its README"
    script = tmp_path / "example.py"
    script.write_text(example[1], encoding="utf-8")
    done = subprocess.run(
        [python, script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
