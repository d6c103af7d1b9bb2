"""The shipped suite: its layout, its size, and answers of both kinds."""

from __future__ import annotations

from collections import Counter

from boundsmith.cli.bench.judge import read_expected
from boundsmith.cli.bench.suite import find_expected, read_suite
from boundsmith.cli.main import cli
from click.testing import CliRunner

from .conftest import QUICKSTART


def test_every_instance_has_files_and_a_known_answer() -> None:
    instances = read_suite(QUICKSTART)
    file = find_expected(QUICKSTART)
    assert file is not None
    known = read_expected(file)
    assert {instance.key for instance in instances} == set(known)
    counts = Counter(expectation.verdict for expectation in known.values())
    assert counts["sat"] >= 5
    assert counts["unsat"] >= 5
    networks = {network for instance in instances for network in instance.networks.values()}
    assert 5 <= len(networks) <= 10
    assert all(network.stat().st_size < 100_000 for network in networks)


def test_everything_loads_and_parses() -> None:
    ended = CliRunner().invoke(cli, ["bench", str(QUICKSTART), "--check-only"])
    assert ended.exit_code == 0, ended.output


def test_every_answer_is_right(tmp_path: object) -> None:
    ended = CliRunner().invoke(cli, ["bench", str(QUICKSTART), "--out", f"{tmp_path}/run", "--jobs", "2"])
    assert ended.exit_code == 0, ended.output
    total = ended.stdout.splitlines()[-2].split()
    assert total[0] == "quickstart"
    assert total[7] == total[1], ended.output
