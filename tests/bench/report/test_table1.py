"""Tables of Table 1: what counts as reproduced under which accounting, and colour alone."""

from __future__ import annotations

import json

import pytest

from mmcl_fast.bench.report import table1
from mmcl_fast.bench.science import table1_colours
from mmcl_fast.cli.options import COMMANDS
from mmcl_fast.cli.parser import build, parse

STATUS = {
    (88.0, 88.0): "reproduced under both",
    (88.0, 95.0): "reproduced as ten-class accuracy; not as 0 against 1",
    (78.0, 88.0): "reproduced as 0 against 1; NOT as ten-class accuracy",
    (78.0, 95.0): "NOT reproduced",
}


def made_up(multi: tuple[float, float], single: tuple[float, float]) -> dict:
    """Results of `mmcl table1` whose accuracies are (ten classes, 0 against 1)."""

    def sets(ten: float, two: float) -> dict:
        keys = dict.fromkeys(("train", "id", "rand", "rev"), ten)
        keys |= {f"{kind}_0_vs_1": two for kind in keys}
        return {key: {"mean": value, "sd": 0.5} for key, value in keys.items()}

    probe, short = sets(single[0], 50.0), sets(20.0, single[1])
    return {
        "config": {"tied": "all", "seeds": [0, 1], "arms": ["multi", "single"], "probe_l2": 0.01}
        | {"few_labels": 500, "few_epochs": 5},
        "multi": {"zero_shot": sets(*multi)},
        "single": {"probe": probe, "probe_few_epochs": short},
        "colour_only": {"sampled": sets(77.0, 88.0), "law": dict.fromkeys(sets(0, 0), 12.5)},
    }


@pytest.mark.parametrize("values", STATUS)
def test_claims_say_which_accounting_has_the_papers_number(values, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(table1, "RESULTS", tmp_path)
    for name in table1.RUNS:
        (tmp_path / name).write_text(json.dumps(made_up(values, values)))
    row = table1_colours.row(
        next(iter(table1_colours.READINGS)), made_up(values, values)["colour_only"]
    )
    (tmp_path / table1.COLOURS).write_text(json.dumps(row | {"date": "2026"}))
    lines = [line.split(" | ") for line in table1.table1_claims().splitlines()[2:]]
    assert len(lines) == 2 * 4 + 2
    for line in lines[:8]:
        if ", training" in line[0]:
            assert line[-1] == f"{STATUS[values]} |"
            assert line[3:5] == [f"{value:.1f} ± 0.5" for value in values]
    assert [line[2] for line in lines[:4]] == ["88.43", "12.68", "87.77", "82.13"]
    assert lines[8][3:5] == ["77.0 ± 0.5", "88.0 ± 0.5"]
    assert lines[8][-1] == f"{STATUS[78.0, 88.0]} |"


def test_the_reading_of_the_text_is_a_command(tmp_path) -> None:
    _, command, *words = table1.TEXT.split()
    options = build(COMMANDS[command], parse(command, COMMANDS[command], words))
    rule = options.config.colours
    assert (rule.tied, rule.noise_to) == ("first_two", "any")
    assert table1_colours.TEXT.items() <= options.config.to_dict().items()


def test_colour_alone_is_set_against_the_papers_pair() -> None:
    name = next(iter(table1_colours.READINGS))
    found = made_up((0, 0), (0, 0))["colour_only"]
    found["sampled"]["rev_0_vs_1"] = {"mean": 12.08, "sd": 0.6}
    lines = table1_colours.render([table1_colours.row(name, found)]).splitlines()
    assert lines[2] == (
        f"| {name} | 77.0 ± 0.5 / 77.0 ± 0.5 | 88.00 ± 0.50 / 12.08 ± 0.60 | 12.50 / 12.50 | "
        "+0.9 / +1.0 |"
    )
