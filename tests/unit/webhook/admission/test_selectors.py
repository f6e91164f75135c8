"""Selectors of labels: as Kubernetes writes them, and when a pod's own demands leave it nothing but selected nodes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webhook_lab import pod
from webhook.admission.selectors import Requirement, demands_of, selector, selector_or_none


def one_of(key: str, *values: str) -> Requirement:
    return Requirement(key, "In", frozenset(values))


def none_of(key: str, *values: str) -> Requirement:
    return Requirement(key, "NotIn", frozenset(values))


@pytest.mark.parametrize(
    ("text", "requirements"),
    [
        ("pool=spot", [one_of("pool", "spot")]),
        ("pool == spot", [one_of("pool", "spot")]),
        ("pool=", [one_of("pool", "")]),
        ("pool!=spot", [none_of("pool", "spot")]),
        ("pool in (spot, batch)", [one_of("pool", "spot", "batch")]),
        ("example.com/pool notin (spot),!agents", [none_of("example.com/pool", "spot"), Requirement("agents", "DoesNotExist")]),
        (" gpu , pool=spot ", [Requirement("gpu", "Exists"), one_of("pool", "spot")]),
        ("in in (in)", [one_of("in", "in")]),
        ("", []),
    ],
)
def test_a_selector_is_read_as_kubectl_reads_it(text: str, requirements: list[Requirement]) -> None:
    assert selector(text).requirements == tuple(requirements)


@pytest.mark.parametrize(
    "text", ["pool in spot", "pool in (", "pool=a b", "!pool=a", "=a", "a,,b", "a,", "pool in (a);b", "a=" + "b" * 64]
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"selector of labels|ends with a comma"):
        selector(text)


def test_nothing_is_no_selector() -> None:
    assert selector_or_none(" ") is None
    chosen = selector_or_none("a=b")
    assert chosen is not None
    assert chosen.text == "a=b"


@pytest.mark.parametrize(
    ("text", "demand", "implied"),
    [
        ("pool in (a,b)", one_of("pool", "a"), True),
        ("pool in (a,b)", one_of("pool", "a", "c"), False),
        ("pool in (a,b)", one_of("pool"), False),
        ("pool in (a,b)", one_of("tier", "a"), False),
        ("pool!=a", one_of("pool", "b", "c"), True),
        ("pool!=a", one_of("pool", "a", "b"), False),
        ("pool!=a", none_of("pool", "a", "b"), True),
        ("pool!=a", none_of("pool", "b"), False),
        ("pool!=a", Requirement("pool", "DoesNotExist"), True),
        ("!pool", Requirement("pool", "DoesNotExist"), True),
        ("!pool", none_of("pool", "a"), False),
        ("pool", one_of("pool", "a"), True),
        ("pool", Requirement("pool", "Gt", frozenset({"3"})), True),
        ("pool", none_of("pool", "a"), False),
        ("pool=a,gpu", one_of("pool", "a"), False),
    ],
)
def test_a_demand_leaves_only_selected_nodes_when_it_implies_the_selector(text: str, demand: Requirement, implied: bool) -> None:
    assert selector(text).has_to_hold([demand]) is implied


def test_the_node_selector_holds_in_every_term_of_the_affinity() -> None:
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", 7]}]}, {"matchFields": []}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    demanded = demands_of(pod(nodeSelector={"pool": "x", "odd": 7}, affinity={"nodeAffinity": required}))
    assert demanded == [[one_of("pool", "x"), one_of("zone", "a")], [one_of("pool", "x")]]


@pytest.mark.parametrize(
    "affinity", [None, 7, {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": 7}}}]
)
def test_a_pod_that_demands_nothing_leaves_one_way_to_any_node(affinity: Any) -> None:
    assert demands_of(pod(affinity=affinity)) == [[]]
    assert demands_of({}) == [[]]
