from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from fllm_export import Bundle, Runtime, UserTable
from fllm_export.cli.main import main
from fllm_export.table.footprint import Footprint
from fllm_export.table.options import TableOptions

from ..drawn import check, measured


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def texts_file(item_texts: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "items.txt"
    path.write_text("\n".join(item_texts))
    return path


def test_query_prints_what_the_runtime_answers(tiny_bundle: Bundle, item_texts: list[str]) -> None:
    expected = Runtime.open(tiny_bundle.path).topk(item_texts[:2], 5)
    document = json.loads(run("query", tiny_bundle.path, *item_texts[:2], "-k", 5, "--json").stdout)
    assert document["schema"] == "fllm-export/query"
    for item, found in enumerate(document["items"]):
        assert [user["user_id"] for user in found["users"]] == expected.user_ids[item].tolist()
        np.testing.assert_allclose([user["log_prob"] for user in found["users"]], expected.log_probs[item])
        assert found["complete"]
    text = run("query", tiny_bundle.path, item_texts[0], "-k", 5)
    assert text.exit_code == 0
    first = expected.user_ids[0, 0], f"{math.exp(expected.log_probs[0, 0]):.5f}"
    assert f"{first[0]}" in text.stdout
    assert first[1] in text.stdout
    assert "encode" in text.stderr


def test_query_reads_texts_from_a_file_and_samples(tiny_bundle: Bundle, texts_file: Path) -> None:
    arguments = ["query", tiny_bundle.path, "--file", texts_file, "-k", 3, "--mode", "sample", "--seed", 4, "--json"]
    first, second = (json.loads(run(*arguments).stdout)["items"] for _ in range(2))
    assert first == second
    assert len(first) == 36


def test_query_says_when_it_was_cut_short(tiny_checkpoint: object, tmp_path: Path, item_texts: list[str]) -> None:
    from fllm_export import build

    checkpoint = tiny_checkpoint("bert", users=400)
    build(checkpoint, tmp_path / "b", calibration=item_texts, quant="fp32", shard_bytes=4096)
    # The native engine scores 512 KiB of codes before it first looks at the clock, more than this table has.
    result = run("query", tmp_path / "b", "a film", "--budget-ms", 0.001, "--engine", "numpy")
    assert result.exit_code == 0
    assert "cut short by the budget" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no item was given"),
        (["a", "--file", "b.txt"], 2, "both texts and --file were given"),
        (["a", "-k", "401"], 2, "k is 401; expected an integer from 1 to 400"),
        ([" "], 2, "text 0 is ' '; expected a text that is not empty"),
        (["a", "--threads", "0"], 2, "0 is not in the range"),
        (["a", "--engine", "quantum"], 2, "'quantum' is not one of 'native', 'cuda'"),
        (["a", "--encoder", "abacus"], 2, "'abacus' is not one of 'cpu', 'cpu-fp32', 'cuda'"),
        (["a", "--no-exact", "--log-probs", "exact"], 2, "log_probs is 'exact' while exact is False"),
        (["a", "--log-probs", "some"], 2, "'some' is not one of 'exact', 'estimate', 'none'"),
        (["a", "--mode", "best"], 2, "'best' is not one of"),
    ],
)
def test_query_names_unfit_arguments(tiny_bundle: Bundle, arguments: list[str], code: int, message: str) -> None:
    result = run("query", tiny_bundle.path, *arguments)
    assert result.exit_code == code
    assert message in result.stderr


def test_verify_and_inspect(tiny_bundle: Bundle, tmp_path: Path) -> None:
    good = run("verify", tiny_bundle.path)
    assert good.exit_code == 0
    assert "all intact" in good.stdout
    assert run("verify", tiny_bundle.path / "users").exit_code == 0
    facts = json.loads(run("inspect", tiny_bundle.path, "--json").stdout)
    assert (facts["kind"], facts["users"], facts["codec"]) == ("bundle", 400, "int8")
    table = json.loads(run("inspect", tiny_bundle.path / "users", "--json").stdout)
    assert (table["kind"], table["users"]) == ("user table", 400)
    assert facts["encoder"] == ["encoder/model.onnx"]
    assert "LlamaForCausalLM" in facts["base_model"]
    assert (facts["adapter"], facts["min_recall"], facts["plans"], facts["generation"]) == (True, 0.9, [], 1)
    text = run("inspect", tiny_bundle.path).stdout
    for line in ("sketch_dims +no sketch", "clustered +no", "adapter +yes", "plans +none"):
        assert re.search(f"(?m)^{line}$", text), line
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle.path, copy)
    shard = next((copy / "users").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    bad = run("verify", copy)
    assert bad.exit_code == 4
    assert shard.name in bad.stderr
    assert run("query", copy, "a").exit_code == 4
    assert run("inspect", tmp_path).exit_code == 2


def test_bench_prints_stages_beside_a_yardstick(tiny_bundle: Bundle, texts_file: Path) -> None:
    arguments = ["bench", tiny_bundle.path, "--file", texts_file, "-k", 10, "--batch", 2, "--repeats", 3]
    document = json.loads(run(*arguments, "--json").stdout)
    (result,) = document["results"]
    assert result["batch"] == 2
    assert result["yardstick"]["median"] > 0
    stages = sum(spread["median"] for spread in result["stages"].values())
    assert stages <= result["total"]["median"] * 1.5
    text = run(*arguments).stdout
    assert "plain fp32 scan" in text
    assert "tokenise" in text


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with a sketch, and item vectors for it."""
    folder = tmp_path_factory.mktemp("table")
    rows = np.random.default_rng(0).standard_normal((3000, 64), dtype=np.float32)
    UserTable.create(folder / "users", rows, sketch="yes")
    np.save(folder / "items.npy", rows[:3])
    return folder


@pytest.mark.parametrize("engine", ["native", "numpy"])
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--log-probs", "none"], {"log_probs": "none"}),
        (["--exact", "--log-probs", "estimate"], {"log_probs": "estimate"}),
        (["--log-probs", "certified"], {"log_probs": "certified"}),
        (["--no-exact"], {"exact": False}),
    ],
)
def test_query_asks_a_table_as_the_options_say(
    engine: str, options: list[str], arguments: dict[str, object], table: Path
) -> None:
    given = ["query", table / "users", "--file", table / "items.npy", "-k", 4, "--engine", engine, *options]
    document = json.loads(run(*given, "--json").stdout, parse_constant=pytest.fail)
    answer = UserTable.open(table / "users", engine=engine).topk(np.load(table / "items.npy"), 4, **arguments)
    expected = answer.to_dict()
    assert document["items"] == expected["items"]
    known = arguments.get("log_probs") != "none"
    assert all((user["log_prob"] is not None) == known for item in document["items"] for user in item["users"])
    text = run(*given)
    assert text.exit_code == 0
    assert "item vector 2" in text.stdout
    for told in ("(estimate)", "off by at most"):
        assert (told in text.stdout) == (known and not answer.log_probs_exact[0])


def test_a_table_is_not_asked_about_texts_or_by_an_encoder(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = ["--file", table / "items.npy"]
    assert "texts were given" in run("query", table / "users", "a text").stderr
    refused = run("query", table / "users", *items, "--encoder", "cpu")
    assert (refused.exit_code, "an encoder was given" in refused.stderr) == (2, True)
    monkeypatch.setenv("FLLM_ENCODER", "cpu")
    assert run("query", table / "users", *items).exit_code == 0


@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_draws_the_page_of_bench(width: int, table: Path, tmp_path: Path) -> None:
    given = ["bench", table / "users", "--file", table / "items.npy", "--repeats", 2, "--report", tmp_path / "a.html"]
    assert run(*given, "--batch", 1, "--batch", 2).exit_code == 0
    assert measured((tmp_path / "a.html").read_text(), width, tmp_path) == (width, width, 0, 0)


@pytest.mark.parametrize(("load", "busy"), [(0.0, False), (99.0, True)])
def test_bench_says_how_busy_the_machine_was(
    load: float, busy: bool, table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    given = ["bench", table / "users", "--file", table / "items.npy", "--batch", 1, "--repeats", 2]
    document = json.loads(run(*given, "--json").stdout)
    assert (document["load"], document["busy"]) == (load, busy)
    page = tmp_path / "page.html"
    told = run(*given, "--report", page).stdout
    for text in (told, page.read_text()):
        assert f"load {load:.1f} on {document['processors']} processor" in text
        assert ("the machine was busy" in text) == busy
    assert "SLOWER" not in told


def test_bench_measures_a_table_with_the_chosen_options(table: Path) -> None:
    given = ["bench", table / "users", "--file", table / "items.npy", "--batch", 1, "--repeats", 2]
    document = json.loads(run(*given, "--log-probs", "none", "--json").stdout)
    assert (document["exact"], document["log_probs"], document["encoder"]) == (True, "none", None)
    assert document["results"][0]["stages"].keys() == {"scan", "merge"}
    assert "exact top-100, log-probabilities: exact" in run(*given, "--report", table / "latency.html").stdout
    page = (table / "latency.html").read_text()
    check(page)
    assert "A call with 1 item takes" in page
    assert "1 item, plain scan" in page
    assert "not necessarily exact top-100, log-probabilities: estimate" in run(*given, "--no-exact").stdout


@pytest.mark.parametrize(
    ("words", "typed", "expected"),
    [
        (["query", "--engine"], "na", ["native"]),
        (["bench", "--encoder"], "tensorrt-b", ["tensorrt-bf16"]),
        (["query", "--log-probs"], "", ["exact", "estimate", "none", "certified"]),
        (["users"], "cr", ["create"]),
    ],
)
def test_shells_complete_names(words: list[str], typed: str, expected: list[str]) -> None:
    completer = ShellComplete(main, {}, "fllm-export", "_FLLM_EXPORT_COMPLETE")
    assert [item.value for item in completer.get_completions(words, typed)] == expected


def test_build_dry_run_shows_its_arithmetic_and_makes_nothing(
    tiny_checkpoint: object, tmp_path: Path, texts_file: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    tiny_checkpoint("bert", users=400, dim=16).save(checkpoint)
    arguments = ["build", checkpoint, "--out", tmp_path / "b", "--calibration", texts_file, "--dry-run"]
    text = run(*arguments)
    assert text.exit_code == 0
    assert "8,000 codes and scales + 3,200 ids" in text.stdout
    assert "peak memory" in text.stdout
    document = json.loads(run(*arguments, "--json").stdout)
    assert document["files"]["users/"]["value"] == Footprint.of(TableOptions(), 400, 16).disk
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "b.partial").exists()


def test_build_below_the_recall_is_exit_3(tiny_checkpoint: object, tmp_path: Path, texts_file: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    tiny_checkpoint("bert", users=400).save(checkpoint)
    arguments = ["build", checkpoint, "--out", tmp_path / "b", "--calibration", texts_file, "--quant", "int4", "-k", 10]
    failed = run(*arguments, "--min-recall", "1")
    assert failed.exit_code == 3
    assert "recall@10" in failed.stderr
    assert (tmp_path / "b.partial" / "reports" / "parity.json").is_file()
    passed = run(*arguments, "--min-recall", "0.2", "--json")
    assert passed.exit_code == 0
    assert json.loads(passed.stdout)["parity"]["recall"]["10"] >= 0.2
    assert (tmp_path / "b" / "manifest.json").is_file()


def test_inspect_groups_the_digits_of_counts(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((1200, 8), np.float32))
    assert run("users", "create", tmp_path / "t", tmp_path / "rows.npy").exit_code == 0
    assert re.search(r"^users +1,200$", run("inspect", tmp_path / "t").stdout, re.MULTILINE)


def test_users_create_makes_a_table_that_other_verbs_know(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((500, 64), dtype=np.float32)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "ids.npy", np.arange(500, 1000))
    arguments = ["users", "create", tmp_path / "table", tmp_path / "rows.npy", "--ids", tmp_path / "ids.npy"]
    document = json.loads(run(*arguments, "--sketch", "yes", "--json").stdout)
    assert document["schema"] == "fllm-export/users-create"
    assert (document["users"], document["dim"], document["codec"]) == (500, 64, "int8")
    assert document["sketch_dims"] > 0
    expected = UserTable.create(tmp_path / "expected", rows, np.arange(500, 1000)).topk(rows[:3], 5)
    np.testing.assert_array_equal(UserTable.open(tmp_path / "table").topk(rows[:3], 5).user_ids, expected.user_ids)
    assert run("verify", tmp_path / "table").exit_code == 0
    again = run(*arguments)
    assert again.exit_code == 2
    assert "holds a table already" in again.stderr
    assert "500 users x 64, fp16" in run(*arguments[:2], tmp_path / "t2", *arguments[3:], "--quant", "fp16").stdout


def test_users_create_names_the_row_that_is_not_finite(tmp_path: Path) -> None:
    rows = np.ones((10, 4), np.float32)
    rows[7, 1] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    result = run("users", "create", tmp_path / "table", tmp_path / "rows.npy")
    assert result.exit_code == 4
    assert "rows.npy has a NaN or infinite number in row 7" in result.stderr
    rows[7, 1] = 0
    np.save(tmp_path / "rows.npy", rows)
    assert run("users", "create", tmp_path / "table", tmp_path / "rows.npy").exit_code == 0


def test_estimate_shows_its_arithmetic(tmp_path: Path) -> None:
    arguments = ["estimate", "--rows", "2e4", "--dim", "24", "--machines", "2", "--batch", "1,4", "--folder", tmp_path]
    text = run(*arguments)
    assert text.exit_code == 0
    assert "= 10,000 rows x 28 bytes (int8)" in text.stdout
    assert "= 2 machines x (24 x 4 bytes to it + 100 users x 16 bytes and 16 bytes back)" in text.stdout
    assert "It fits into" in text.stdout
    document = json.loads(run(*arguments, "--memory-gb", "0.0001", "--json").stdout)
    assert document["bytes"]["codes and scales"]["value"] == 10_000 * 28
    assert [scan["batch"] for scan in document["scans"]] == [1, 4]
    assert not document["fits"]
    assert document["shortages"][0]["available"] == 100_000


@pytest.mark.parametrize("rows", ["0", "1.5", "many", "1e999"])
def test_estimate_refuses_what_is_no_count(rows: str) -> None:
    failed = run("estimate", "--rows", rows, "--dim", "8")
    assert failed.exit_code == 2
    assert "is not an integer of 1 or more" in failed.stderr
