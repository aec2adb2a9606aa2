"""Workers run the driver's mmcl_fast and nothing of the current folder."""

import subprocess
import sys
from pathlib import Path

import pytest

import mmcl_fast
from mmcl_fast import TrainConfig, sweep
from mmcl_fast.errors import OutputError

pytestmark = pytest.mark.process

TINY = TrainConfig(n=12, m=4, epochs=2, data="reduced")


def test_modules_of_the_current_folder_are_not_run(tmp_path: Path) -> None:
    """The driver is not either: with -P it is what the script `mmcl` is."""
    ran = tmp_path / "ran"
    (tmp_path / "mmcl_fast").mkdir()
    for module in ("json.py", "torch.py", "mmcl_fast/__init__.py"):
        (tmp_path / module).write_text(f"open({str(ran)!r}, 'a').write(__name__)\n")
    command = [sys.executable, "-P", "-m", "mmcl_fast.cli", "sweep", "--n", "12", "--m", "4"]
    command += ["--epochs", "2", "--data", "reduced", "--workers", "1", "--out", "store"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert not ran.exists(), ran.read_text()
    assert sweep.load(tmp_path / "store").num_rows == 1


def test_workers_of_another_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mmcl_fast").mkdir()
    real = Path(mmcl_fast.__file__).parent
    (tmp_path / "mmcl_fast" / "__init__.py").write_text(
        f"__path__ = [{str(real)!r}]\n__version__ = '9.9.9'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    plan = sweep.make_plan(TINY)
    message = rf"workers: expected mmcl_fast {mmcl_fast.__version__} of .*, got 9.9.9 of {tmp_path}"
    with pytest.raises(OutputError, match=message):
        sweep.run_sweep(plan, tmp_path / "s", policy=sweep.Policy(workers=1))
    assert not list((tmp_path / "s" / "parts").iterdir())


def test_output_of_libraries_is_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what is printed before a worker's own first line."""
    (tmp_path / "sitecustomize.py").write_text("print('hello from a site')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = sweep.run_sweep(sweep.make_plan(TINY), tmp_path / "s", policy=sweep.Policy(workers=1))
    assert result.counts == {"finished": 1}
