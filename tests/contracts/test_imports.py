"""The import arrows of docs/architecture.md, what imports cost, and the public names."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mmcl_fast

PACKAGE = Path(mmcl_fast.__file__).parent
ROOT = PACKAGE.parent

# Who may import whom. A package stands for all its modules; nothing else is allowed.
ARROWS: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "theory": set(),
    "reference": set(),
    "kernels": set(),
    "config": {"errors", "data.tags"},
    "presets": {"config"},
    "environment": {"__init__"},
    "files": {"errors"},
    "progress": set(),
    "model": set(),
    "contrast": set(),
    "row_statistics": {"contrast"},
    "torch_impl": {"contrast", "errors", "row_statistics", "_native"},
    "backends": {"contrast", "environment", "errors"},
    "losses": {"backends", "contrast", "errors"},
    "losses.compat.open_clip": {"losses", "distributed"},
    "triton_impl": {"contrast", "errors", "kernels", "row_statistics", "torch_impl"},
    "distributed": {"contrast", "losses", "torch_impl"},
    "distributed.training_run": {
        "config", "data", "engines", "errors", "run", "torch_impl", "training",
    },
    "data": {"config", "errors", "_native"},
    "data.device_rows": {"data", "kernels"},
    "data.device_runs": {"data", "kernels"},
    "newton": set(),
    "probe": {"errors", "newton", "_native"},
    "engines": {"config", "errors", "data", "model", "torch_impl"},
    "engines.native": {"config", "data", "_native"},
    "engines.primal": {"config", "data", "environment", "model", "torch_impl", "triton_impl"},
    "engines.modality_triton": {"data", "kernels", "model", "torch_impl", "triton_impl"},
    "engines.triton": {"config", "data", "environment", "kernels", "model", "torch_impl"},
    "engines.reference_engine": {"config", "errors", "data", "reference"},
    "run": {"config", "errors", "data", "model", "engines"},
    "recorder": {"config", "data", "engines", "probe", "run"},
    "checkpoint": {"config", "errors", "data", "engines", "files", "recorder"},
    "training": {"config", "errors", "data", "engines", "checkpoint", "recorder", "run"},
    "sweep": {
        "_native", "__init__", "config", "data", "engines", "environment", "errors", "files",
        "presets", "run", "training",
    },
    "experiments": {"config", "environment", "presets", "recorder", "run", "theory", "training"},
    "experiments.table1": {
        "config", "data", "environment", "errors", "experiments.table1.protocol", "files", "losses",
    },
    "experiments.table1.protocol": {"data.colour_rule", "data.tags", "errors"},
    "experiments.scaling": {"config", "errors"},
    "experiments.crossing": set(),
    "experiments.phase_names": set(),
    "experiments.phase_planes": {
        "config", "experiments.phase_names", "experiments.scaling", "theory",
    },
    "experiments.phase": {
        "environment", "experiments.crossing", "experiments.figure1", "experiments.phase_names",
        "experiments.phase_planes", "seed_statistics", "sweep",
    },
    "seed_statistics": {"config", "errors"},
    "experiments.theory_checks": {
        "config", "data", "environment", "experiments.crossing", "experiments.scaling",
        "experiments.theory_checks.names", "run", "theory", "training",
    },
    "experiments.theory_checks.names": set(),
    "plotting_style": set(),
    "plotting": {"config", "experiments", "files", "plotting_style", "run"},
    "plotting_table1": {
        "data", "experiments.table1", "experiments.table1.protocol", "plotting_style",
    },
    "plotting_theory": {"experiments.theory_checks", "plotting_style"},
    "plotting_sweep": {"plotting", "plotting_style", "seed_statistics"},
    "plotting_phase": {
        "experiments.figure1", "experiments.phase", "experiments.phase_planes", "plotting_style",
        "plotting_sweep", "theory",
    },
    "commands": {
        "_native", "backends", "bench", "config", "data", "engines", "environment", "errors",
        "experiments", "files", "plotting", "plotting_phase", "plotting_style", "plotting_sweep",
        "plotting_table1", "plotting_theory", "progress", "run", "seed_statistics", "sweep",
        "training",
    },
    "cli": {"__init__", "errors", "options", "presets", "sweep"},
    "options": {
        "config", "errors", "experiments.phase_names", "experiments.table1.protocol",
        "experiments.theory_checks.names", "presets", "commands", "sweep",
    },
}  # fmt: skip


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *(ROOT / "kernels").glob("*.py")]):
        base = PACKAGE if PACKAGE in path.parents else ROOT
        name = ".".join(path.relative_to(base).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def owner(module: str) -> str:
    """The row of ARROWS for a module: its own, or that of the nearest package around it."""
    while module not in ARROWS and "." in module:
        module = module.rpartition(".")[0]
    return module


def imported(path: Path, module: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative imports hide from this test"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {f"mmcl_fast.{name}" for name in MODULES} | {"mmcl_fast._native"}
            names |= {name if name in known else node.module for name in inner}
    ours = {
        n.removeprefix("mmcl_fast").removeprefix(".") or "__init__"
        for n in names
        if n.split(".")[0] == "mmcl_fast"
    }
    return ours - {module}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__"}))
def test_arrows(module: str) -> None:
    me = owner(module)
    allowed = ARROWS[me] | {me, me.split(".")[0]}
    for target in imported(MODULES[module], module):
        names = {target, owner(target), target.split(".")[0]}
        if owner(target) == "engines.reference_engine" and module != "engines":
            names = {target}
        assert names & allowed, f"{module} imports {target}"


def test_reference_imports_torch_only() -> None:
    for module, path in MODULES.items():
        if owner(module) != "reference":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                from_one = isinstance(node, ast.ImportFrom)
                names = [node.module] if from_one else [alias.name for alias in node.names]
                tops = {(name or "").split(".")[0] for name in names}
                assert tops <= {
                    "torch",
                    "mmcl_fast",
                    "__future__",
                    "collections",
                    "dataclasses",
                    "typing",
                }


def test_no_module_shares_a_public_functions_name() -> None:
    for module, path in MODULES.items():
        if path.name != "__init__.py":
            continue
        package = f"mmcl_fast.{module}" if module != "__init__" else "mmcl_fast"
        loaded = __import__(package, fromlist=["x"])
        for name in getattr(loaded, "__all__", []):
            value = getattr(loaded, name)
            if callable(value):
                assert not (path.parent / f"{name}.py").exists(), f"{package}.{name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_listed_name_exists(module: str) -> None:
    if module.startswith("kernels") and module != "kernels":
        pytest.importorskip("triton")
    loaded = __import__(f"mmcl_fast.{module}".removesuffix(".__init__"), fromlist=["x"])
    for name in getattr(loaded, "__all__", []):
        assert hasattr(loaded, name), name


def test_public_names_are_these() -> None:
    assert mmcl_fast.__all__ == sorted(mmcl_fast.__all__, key=lambda n: (n.lower() == n, n))
    assert set(mmcl_fast.__all__) == {
        "BackendUnavailableError", "ConfigError", "DataError", "EngineRefusedError", "EpochInfo",
        "InfoNCELoss", "MmclError", "OutputError", "Run", "SignalNoiseData", "TrainConfig",
        "TwoLayerEncoder", "__version__", "data", "info_nce", "losses", "reference", "sweep",
        "theory", "train", "train_many",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import mmcl_fast, mmcl_fast.config, mmcl_fast.presets, mmcl_fast.cli",
            ["torch", "numpy", "matplotlib"],
        ),
        ("import mmcl_fast; mmcl_fast.info_nce", ["triton", "matplotlib", "jax", "rich"]),
        ("import mmcl_fast; mmcl_fast.train", ["triton", "matplotlib", "jax", "rich"]),
    ],
)
def test_imports_are_lazy(statement: str, absent: list[str]) -> None:
    # torch itself imports triton where it is installed if asked to compile; these paths do not.
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(out.stdout)) & set(absent)
