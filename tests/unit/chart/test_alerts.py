"""Alert rules and metrics: what a rule asks for exists, and people are told what it means and what to do."""

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from lethe.adapters.metrics import OperatorMetrics
from tests.unit.chart.test_chart import CHART, one, render

Object = dict[str, Any]
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "operations.md"
RULES: list[Object] = [
    rule
    for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
SUFFIXES = re.compile(r"_(bucket|count|sum)$")


def metrics() -> dict[str, str]:
    """Return the metrics of the operator and their types."""
    text = OperatorMetrics().render().decode()
    return dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE") and "_created" not in line)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
class TestRule:
    def test_asks_for_metrics_that_exist(self, rule: Object) -> None:
        known = metrics()
        wanted = set(re.findall(r"\blethe_\w+", rule["expr"]))
        assert wanted
        for name in wanted:
            base = SUFFIXES.sub("", name)
            assert name in known or known.get(base) == "histogram", f"{rule['alert']} asks for {name}"

    def test_asks_for_labels_that_exist(self, rule: Object) -> None:
        shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
        plain = {"node"} if "lethe_scrub_coverage_ratio" in rule["expr"] else set()
        assert shown <= grouped | plain

    def test_says_what_it_means_and_what_to_do(self, rule: Object) -> None:
        assert all(rule["annotations"].get(name) for name in ("summary", "description", "action"))
        assert rule["labels"]["severity"] in ("critical", "warning", "info")

    def test_is_promql(self, rule: Object) -> None:
        promql_parser.parse(rule["expr"])

    def test_is_explained_to_operators(self, rule: Object) -> None:
        assert rule["alert"] in GUIDE.read_text(encoding="utf-8")


def test_names_of_alerts_are_unique() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_every_metric_is_documented() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    assert [name for name in metrics() if f"`{name}`" not in guide] == []


def test_rules_are_installed_only_where_asked_for() -> None:
    assert not [item for item in render() if item["kind"] == "PrometheusRule"]
    objects = render(metrics={"prometheusRule": {"enabled": True, "labels": {"release": "monitoring"}}})
    rules = one(objects, "PrometheusRule", "lethe")
    assert rules["metadata"]["labels"]["release"] == "monitoring"
    assert [rule for group in rules["spec"]["groups"] for rule in group["rules"]] == RULES
