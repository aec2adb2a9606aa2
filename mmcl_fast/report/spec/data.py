"""Data sets: settings with the chosen value, and what each panel takes of them."""

from __future__ import annotations

from mmcl_fast.report.spec.content import Content
from mmcl_fast.report.spec.signals import PAGE_ROWS, Json
from mmcl_fast.sweep.store.schema import CURVES

MOST_WORDS = 4  # of a search
LINE = "%0A"  # of a CSV file inside an address


def data(content: Content) -> list[Json]:
    """Every data set."""
    cut = content.elsewhere("{k} === x", *content.not_modality)
    picked = content.elsewhere(*content.not_modality)
    place = {"type": "formula", "as": "place", "expr": "axes[x].places[datum['a' + x]]"}
    band = [
        {
            "type": "formula",
            "as": "low",
            "expr": "datum.value - (statistic === 'mean' ? datum.sd : 0)",
        },
        {
            "type": "formula",
            "as": "high",
            "expr": "datum.value + (statistic === 'mean' ? datum.sd : 0)",
        },
    ]
    found = [
        _settings(content),
        _derived("map", "settings", [_filter(content.elsewhere("{k} === x", "{k} === y"))]),
        _border("t1_up", "t1", "x", "y"),
        _border("t1_right", "t1", "y", "x"),
        _border("assumption_up", "assumption", "x", "y"),
        _border("assumption_right", "assumption", "y", "x"),
        _derived("cut", "settings", [_filter(cut), _filter("isValid(datum.value)"), place, *band]),
        _derived("picked", "settings", [_filter(picked)]),
        _derived("here", "settings", [_filter(content.elsewhere())]),
        _runs(),
        *(one for name in CURVES for one in (_curve(name), _run_curve(name))),
        *_rows(),
    ]
    return found


def _derived(name: str, source: str, transforms: list[Json]) -> Json:
    return {"name": name, "source": source, "transform": transforms}


def _filter(condition: str) -> Json:
    return {"type": "filter", "expr": condition}


def _formula(name: str, expression: str) -> Json:
    return {"type": "formula", "as": name, "expr": expression}


def _settings(content: Content) -> Json:
    """Every setting, with the chosen statistic of the chosen quantity at the chosen epoch."""
    numbers = ["setting", "finished", "diverged", "failed", "t1", "assumption"]
    numbers += [f"a{k}" for k in range(len(content.axes))]
    numbers += [f"{name}_{kind}" for name in CURVES for kind in ("mean", "sd", "least", "largest")]
    texts = [f"{name}_{kind}" for name in CURVES for kind in ("means", "sds")]
    parse = dict.fromkeys(numbers, "number") | dict.fromkeys([*texts, "modality"], "string")
    end = "e === length(epochs) - 1"
    labels = [f"axes[{k}].labels[datum.a{k}]" for k, _ in content.named]
    named = zip(content.named, labels, strict=True)
    text = " + ' ' + ".join(f"'{name}=' + {label}" for (_, name), label in named) or "'all runs'"
    counts = ["datum.finished", "datum.diverged", "datum.failed"]
    epoch = f"{end} ? 'last' : epochs[e]"
    line = [*labels, *counts, epoch, "quantity", "datum.mean", "datum.sd"]
    chosen = {
        "mean": f"{end} ? datum[quantity + '_mean'] : "
        "toNumber(split(datum[quantity + '_means'], ' ')[e])",
        "sd": f"{end} ? datum[quantity + '_sd'] : "
        "toNumber(split(datum[quantity + '_sds'], ' ')[e])",
        "lost": "datum.diverged + datum.failed",
        # Fields by name: Vega does not see what an expression reads by a computed one.
        "value": "statistic === 'mean' ? datum.mean : statistic === 'sd' ? datum.sd : "
        "statistic === 'lost' ? datum.lost : datum.finished",
        "text": text,
        "csv": " + ',' + ".join(f"({part})" for part in line),
    }
    return {
        "name": "settings",
        "values": content.settings,
        "format": {"type": "csv", "parse": parse},
        "transform": [_formula(name, rule) for name, rule in chosen.items()],
    }


def _border(name: str, field: str, group: str, along: str) -> Json:
    """Pairs of neighbouring cells along an axis between which a theory's number changes sign."""
    at = "datum['a' + {}]".format
    window = {
        "type": "window",
        "groupby": ["group"],
        "sort": {"field": "along"},
        "ops": ["lag", "lag"],
        "fields": [field, "along"],
        "as": ["before", "place_before"],
    }
    neighbours = "isValid(datum.before) && datum.along === datum.place_before + 1"
    change = f"isValid(datum.{field}) && (datum.before >= 0) !== (datum.{field} >= 0)"
    parts = [_formula("group", at(group)), _formula("along", at(along)), window]
    return _derived(name, "map", [*parts, _filter(f"{neighbours} && {change}")])


def _runs() -> Json:
    """Single runs of the chosen setting, with its modality."""
    join = {
        "type": "lookup",
        "from": "picked",
        "key": "setting",
        "fields": ["setting"],
        "values": ["modality"],
        "as": ["modality"],
    }
    return _derived("picked_runs", "runs", [join, _filter("isValid(datum.modality)")])


def runs_source(content: Content) -> Json:
    """Every single run."""
    parse = {"setting": "number", "run": "number", "seed": "string", "status": "string"}
    parse |= {f"{name}_values": "string" for name in CURVES}
    return {"name": "runs", "values": content.runs, "format": {"type": "csv", "parse": parse}}


def _curve(name: str) -> Json:
    """Mean and band over epochs of the chosen setting."""
    split = [
        _formula("means", f"split(datum.{name}_means, ' ')"),
        _formula("sds", f"split(datum.{name}_sds, ' ')"),
        {"type": "flatten", "fields": ["means", "sds"], "as": ["m", "s"], "index": "k"},
    ]
    numbers = {
        "mean": "toNumber(datum.m)",
        "sd": "toNumber(datum.s)",
        "epoch": "epochs[datum.k]",
        "low": "datum.mean - datum.sd",
        "high": "datum.mean + datum.sd",
        "csv": f"datum.modality + ',{name},' + datum.epoch + ',' + datum.m + ',' + datum.s",
    }
    rules = [_formula(k, v) for k, v in numbers.items()]
    return _derived(f"curve_{name}", "picked", [*split, _filter("datum.m !== ''"), *rules])


def _run_curve(name: str) -> Json:
    """A quantity over epochs of each single run of the chosen setting."""
    return _derived(
        f"runs_{name}",
        "picked_runs",
        [
            _formula("values", f"split(datum.{name}_values, ' ')"),
            {"type": "flatten", "fields": ["values"], "as": ["v"], "index": "k"},
            _filter("datum.v !== ''"),
            _formula("value", "toNumber(datum.v)"),
            _formula("epoch", "epochs[datum.k]"),
        ],
    )


def _rows() -> list[Json]:
    """Rows of the table that meet the search, sorted, and those of the page."""
    tests = ["(!lost_only || datum.lost > 0)"]
    for k in range(MOST_WORDS):
        whole = f"indexof(' ' + datum.searched + ' ', ' ' + words[{k}] + ' ') >= 0"
        part = f"indexof(datum.searched, words[{k}]) >= 0"
        equal = f"indexof(words[{k}], '=') >= 0"
        tests.append(f"(length(words) <= {k} || ({equal} ? {whole} : {part}))")
    shown = "sort_by === 'mean' ? datum.mean : sort_by === 'sd' ? datum.sd : datum[sort_by]"
    key = "isValid(datum.shown) ? (descending ? -datum.shown : datum.shown) : 1e300"
    lower = _formula("searched", "lower(datum.text)")
    number = {"type": "window", "sort": {"field": "key"}, "ops": ["row_number"], "as": ["number"]}
    page = f"datum.number > page * {PAGE_ROWS} && datum.number <= (page + 1) * {PAGE_ROWS}"
    found = [lower, _filter(" && ".join(tests)), _formula("shown", shown), _formula("key", key)]
    return [
        _derived("found", "settings", [*found, {"type": "collect", "sort": {"field": "key"}}]),
        _derived("on_page", "found", [number, _filter(page)]),
    ]


def csv_address(header: str, *data_sets: str) -> str:
    """Expression of an address whose target is the rows of data sets as a CSV file.

    Beyond two million characters a browser does not follow it; the text then says so instead.
    """
    rows = f" + '{LINE}' + ".join(
        f"join(pluck(data('{name}'), 'csv'), '{LINE}')" for name in data_sets
    )
    return f"'data:text/csv;charset=utf-8,{header}{LINE}' + {rows}"


__all__ = ["csv_address", "data", "runs_source"]
