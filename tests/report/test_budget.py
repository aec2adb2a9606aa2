"""What a report holds of a store: within its size, and said where it is not all."""

import pytest

from mmcl_fast import ConfigError, TrainConfig
from mmcl_fast.report.budget import DATA_BYTES, MEAN_BYTES, RUN_BYTES, SETTING_BYTES, budget


def points(count: int, epochs: int, every: int = 1) -> list[TrainConfig]:
    return [TrainConfig(epochs=epochs, evaluate_every=every)] * count


def test_a_small_store_is_held_whole() -> None:
    held = budget(points(20, 100), 10)
    assert held.epochs.tolist() == list(range(101))
    assert held.every == 1
    assert held.runs == 10


@pytest.mark.parametrize("count", [10, 300, 3000, 10_000, 25_000])
@pytest.mark.parametrize("epochs", [0, 1, 7, 200, 5000])
@pytest.mark.parametrize("every", [1, 10])
def test_sizes(count: int, epochs: int, every: int) -> None:
    held = budget(points(count, epochs, every), 1000)
    stored = len(held.epochs)
    size = count * (SETTING_BYTES + 4 * stored * (MEAN_BYTES + RUN_BYTES * held.runs))
    assert size <= DATA_BYTES
    assert held.epochs[0] == 0
    assert held.epochs[-1] == epochs
    assert (held.epochs[:-1] % held.every == 0).all()
    if every == 10 and held.every > 1 and epochs > 10:
        assert held.every % 10 == 0, "where accuracy is known"


def test_too_many_settings_are_refused_with_what_helps() -> None:
    with pytest.raises(
        ConfigError, match=r"at most \d+ settings for a report, got 90000; .*--where"
    ):
        budget(points(90_000, 100), 1)
