"""A part of the trust campaign: no answer to a query of known truth is wrong."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest

from tests.scripts import scripts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import SimpleNamespace

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def trust() -> Iterator[SimpleNamespace]:
    with scripts("trust", ("hostile", "maxima", "campaign")) as modules:
        yield modules


def test_hostile_networks_that_violate_their_query_by_a_hair(trust: SimpleNamespace) -> None:
    figures = trust.campaign.decide(islice(trust.campaign.hostile_queries(range(10_000, 10_002)), 40), 0.3, 1)
    assert figures.queries == 40
    assert figures.wrong == []


def test_tiny_networks_on_both_sides_of_the_truth(trust: SimpleNamespace) -> None:
    figures = trust.campaign.decide(trust.campaign.tiny_queries(range(10_000, 10_012)), 0.5, 1)
    assert figures.queries == 24
    assert figures.wrong == []
    answers = {verdict for _, verdict in figures.verdicts}
    assert {"sat", "unsat"} <= answers


def test_a_wrong_answer_is_noticed(trust: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries said to be violated that are not, and the other way round."""
    from dataclasses import replace

    queries = list(trust.campaign.tiny_queries(range(10_000, 10_006)))
    turned = [replace(query, violated=not query.violated) for query in queries]
    assert any("unsat, but violated" in text for text in trust.campaign.decide(iter(turned), 0.5, 1).wrong)
    moved = [replace(query, values=query.values * 2 + 1) for query in queries]
    assert any("not in" in text for text in trust.campaign.decide(iter(moved), 0.5, 0).wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_campaign(trust: SimpleNamespace) -> None:
    """Some 400 hostile queries, and 400 of tiny networks."""
    figures = trust.campaign.decide(trust.campaign.hostile_queries(range(20_000, 20_010)), 1.0, 3)
    figures.add(trust.campaign.decide(trust.campaign.tiny_queries(range(20_000, 20_200)), 1.0, 3))
    assert figures.queries > 700
    assert figures.wrong == []
