"""The import arrows of docs/architecture.md, what imports cost, and the public names."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import mmcl_fast

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mmcl_fast"

# Who imports whom. A package stands for all its modules; no other arrow is allowed, and none is
# listed that nobody uses.
ARROWS: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "theory": set(),
    "reference": set(),
    "kernels": set(),
    "stream_tags": set(),
    "config": {
        "config_checks", "config_values", "config_variants", "derived", "errors", "names",
        "stream_tags",
    },
    "config_checks": {"config_variants", "errors", "stream_tags"},
    "config_presets": {"config"},
    "config_values": {"errors", "stream_tags"},
    "config_variants": {"errors"},
    "derived": {"errors"},
    "names": set(),
    "progress": set(),
    "operating_system": set(),
    "environment": {"__init__", "operating_system"},
    "content_digest": {"errors"},
    "files": {"errors", "operating_system"},
    "terminal": set(),
    "model": set(),
    "losses.pairwise": set(),
    "losses.contrast": {"losses.pairwise", "losses.unit_rows"},
    "losses.class_sums": set(),
    "losses.unit_rows": set(),
    "losses.torch_backend": {"_native", "losses.class_sums", "losses.contrast"},
    "losses.backends": {"environment", "errors", "losses.contrast"},
    "losses.triton_backend": {"kernels", "losses.contrast"},
    "losses": {
        "losses.backends", "losses.class_sums", "losses.contrast", "losses.pairwise",
        "losses.torch_backend",
    },
    "losses.compat": {
        "distributed", "losses", "losses.backends", "losses.contrast", "losses.unit_rows",
    },
    "distributed": {
        "losses", "losses.class_sums", "losses.contrast", "losses.torch_backend",
    },
    "distributed.training": {
        "config", "config_checks", "config_variants", "data.signal_noise", "data.stream",
        "distributed", "distributed.sample_shards",
        "engines", "errors", "training",
    },
    "distributed.sample_shards": {"distributed", "engines.paper_loss"},
    "data": set(),
    "data.stream": {"_native", "operating_system", "stream_tags"},
    "data.signal_noise": {
        "_native", "config", "config_checks", "config_variants", "data.stream", "errors", "kernels",
        "names", "stream_tags",
    },
    "data.mnist": {"data.stream", "errors", "files", "operating_system"},
    "engines": {
        "_native", "config", "config_variants", "data.signal_noise", "data.stream",
        "engines.paper_loss", "environment", "errors", "kernels", "losses.torch_backend",
        "losses.triton_backend",
    },
    "engines.reference_engine": {
        "config", "data.signal_noise", "engines", "engines.reference_variants", "reference",
    },
    "engines.reference_variants": {"config", "data.signal_noise", "engines", "reference"},
    "engines.paper_loss": {"kernels", "losses.torch_backend", "losses.triton_backend"},
    "training": {
        "_native", "config", "config_checks", "config_variants", "content_digest",
        "data.signal_noise", "engines", "environment", "errors", "files", "model", "progress",
    },
    "metrics": {"config_variants", "errors", "losses", "model", "training"},
    "sweep": set(),
    "sweep.plan": {
        "__init__", "config", "config_checks", "config_presets", "config_variants", "derived",
        "engines", "errors", "operating_system", "training",
    },
    "sweep.store": {
        "_native", "config", "content_digest", "derived", "environment", "errors", "files",
        "names", "sweep.plan", "training",
    },
    "sweep.execute": {
        "__init__", "_native", "config", "data.signal_noise", "data.stream", "engines", "errors",
        "files", "operating_system", "progress", "sweep.plan", "sweep.store", "training",
    },
    "experiments": {"config", "config_presets", "environment", "errors", "theory", "training"},
    "experiments.table1": {
        "data.mnist", "data.stream", "environment", "errors", "experiments.table1.protocol",
        "files", "losses",
    },
    "experiments.table1.protocol": {"data.mnist", "errors", "stream_tags"},
    "experiments.phase.names": set(),
    "experiments.phase": {
        "config", "derived", "environment", "errors", "experiments", "experiments.phase.names",
        "names", "sweep.execute", "sweep.plan", "sweep.store", "theory",
    },
    "experiments.examples.names": set(),
    "experiments.examples": {
        "config", "environment", "experiments.examples.names", "metrics", "training",
    },
    "experiments.theory_checks": {
        "config", "data.signal_noise", "environment", "experiments",
        "experiments.theory_checks.names", "theory", "training",
    },
    "experiments.theory_checks.names": set(),
    "plotting": {
        "config", "config_variants", "data.mnist", "errors", "experiments",
        "experiments.examples", "experiments.examples.names", "experiments.phase",
        "experiments.table1", "experiments.table1.protocol", "experiments.theory_checks", "files",
        "sweep.store", "theory", "training",
    },
    "report": {
        "config", "errors", "experiments", "files", "plotting", "sweep.plan", "sweep.store",
    },
    "cli": {
        "__init__", "cli.checks", "cli.commands", "config", "config_presets", "derived", "errors",
        "names", "experiments.examples.names", "experiments.phase.names",
        "experiments.table1.protocol", "experiments.theory_checks.names", "operating_system",
        "sweep.execute", "sweep.plan", "sweep.store", "terminal",
    },
    "cli.checks": {"derived", "errors", "sweep.plan"},
    "cli.commands": {
        "_native", "bench", "bench.peers", "bench.run", "cli.checks", "progress", "config",
        "config_checks", "data.mnist", "data.signal_noise", "engines", "environment", "errors",
        "experiments", "experiments.examples", "experiments.examples.names", "experiments.phase",
        "experiments.phase.names", "experiments.table1", "experiments.table1.protocol",
        "experiments.theory_checks", "experiments.theory_checks.names", "files", "losses.backends",
        "operating_system", "plotting", "report", "sweep.execute", "sweep.plan", "sweep.store",
        "terminal", "training",
    },
    "bench": {"bench.peers", "config", "operating_system"},
    "bench.run": {"bench", "bench.peers", "bench.report"},
    "bench.cpu": {
        "__init__", "_native", "bench", "bench.peers", "bench.timing", "config", "data",
        "data.signal_noise", "data.stream", "engines", "experiments.table1", "losses",
        "losses.torch_backend", "operating_system", "sweep", "sweep.execute", "sweep.store",
        "training",
    },
    "bench.gpu": {
        "bench", "bench.cpu", "bench.peers", "bench.timing", "config",
        "data.signal_noise", "engines", "kernels", "losses", "losses.triton_backend",
        "operating_system", "sweep", "training",
    },
    "bench.peers": {"config", "data.signal_noise", "reference"},
    "bench.report": {
        "bench", "bench.cpu", "bench.gpu", "bench.peers", "bench.science", "experiments.table1",
        "experiments.table1.protocol", "experiments.theory_checks", "plotting",
    },
    "bench.science": {
        "bench", "config", "config_presets", "data.mnist", "experiments", "experiments.phase",
        "experiments.phase.names", "experiments.table1", "experiments.table1.protocol", "training",
    },
    "bench.timing": {"bench", "losses.torch_backend", "operating_system"},
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of ours by its name inside `mmcl_fast`."""
    found = {}
    for folder, inside in (
        (PACKAGE, ""),
        (ROOT / "kernels", "kernels."),
        (ROOT / "bench", "bench."),
    ):
        for path in sorted(folder.rglob("*.py")):
            name = inside + ".".join(path.relative_to(folder).with_suffix("").parts)
            found[name if name == "__init__" else name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def owner(module: str) -> str:
    """The row of ARROWS for a module: its own, or that of the nearest package around it."""
    while module not in ARROWS and "." in module:
        module = module.rpartition(".")[0]
    return module


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes of what is run: imports for type checkers alone are none."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from nodes(child)


@cache
def imported(module: str) -> frozenset[str]:
    """Modules of ours that a module imports, wherever in it."""
    path = MODULES[module]
    full = "mmcl_fast" if module == "__init__" else f"mmcl_fast.{module}"
    known = {"mmcl_fast", "mmcl_fast._native", *(f"mmcl_fast.{name}" for name in MODULES)}
    names = set()
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                assert module.startswith("bench"), f"{module}: only bench runs in a bare checkout"
                package = full if path.name == "__init__.py" else full.rpartition(".")[0]
                base = resolve_name("." * node.level + base, package)
            inner = {f"{base}.{alias.name}" for alias in node.names}
            names |= {name if name in known else base for name in inner}
    ours = {n for n in names if n.split(".")[0] == "mmcl_fast"}
    assert ours <= known, f"{module} imports {ours - known}"
    return frozenset(
        {n.removeprefix("mmcl_fast").removeprefix(".") or "__init__" for n in ours} - {module}
    )


def arrows_from(row: str) -> dict[str, str]:
    """Rows that modules of a row import, each with one who does.

    That a package exports what lies in it is no arrow.
    """
    found = {}
    for module in MODULES:
        if owner(module) != row or module == "__init__":
            continue
        is_package = MODULES[module].name == "__init__.py"
        for target in imported(module):
            if not (is_package and target.startswith(f"{module}.")):
                found[owner(target)] = f"{module} imports {target}"
    found.pop(row, None)
    return found


@pytest.mark.parametrize("row", sorted(ARROWS))
def test_arrows(row: str) -> None:
    assert row in MODULES
    found = arrows_from(row)
    forbidden = [why for target, why in found.items() if target not in ARROWS[row]]
    assert not forbidden
    assert not ARROWS[row] - set(found), "arrows that nobody uses"


def test_every_module_has_a_row() -> None:
    assert not {name for name in MODULES if owner(name) not in ARROWS}


def test_no_import_circle() -> None:
    """Neither among modules nor among the rows above."""
    TopologicalSorter({module: imported(module) for module in MODULES}).prepare()
    TopologicalSorter(ARROWS).prepare()


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


def test_public_names_are_these() -> None:
    assert mmcl_fast.__all__ == sorted(mmcl_fast.__all__, key=lambda n: (n.lower() == n, n))
    assert set(mmcl_fast.__all__) == {
        "BackendUnavailableError", "ConfigError", "DamagedFileError", "DataError",
        "EngineRefusedError", "EpochInfo", "InfoNCELoss", "MmclError", "OutputError", "Run",
        "RunState", "SignalNoiseData",
        "TrainConfig", "TwoLayerEncoder", "__version__", "data", "distributed", "info_nce",
        "losses", "metrics", "reference", "sweep", "theory", "train", "train_many",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["distributed.clip_loss", "sweep.load"])
def test_a_public_module_is_there_after_the_import_alone(name: str) -> None:
    # In a process of its own: here another test may have imported what it names.
    subprocess.run([sys.executable, "-c", f"import mmcl_fast; mmcl_fast.{name}"], check=True)


def test_type_checkers_see_no_module_that_has_every_name() -> None:
    """A function `__getattr__` of a module makes any misspelt name an `Any`."""
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            hidden = isinstance(node, ast.If) and ast.unparse(node.test) == "not TYPE_CHECKING"
            names = {getattr(x, "name", "") for x in [node, *getattr(node, "body", [])]}
            assert hidden or "__getattr__" not in names, module


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import mmcl_fast, mmcl_fast.config, mmcl_fast.cli; mmcl_fast.cli.main",
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
