"""The sources of a campaign: each form, and what is said of one that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conformance.running.campaign.kernels import Kernel, digest_of, read_sources, written
from conformance.running.options import UsageError
from tests.running.campaign.samples import RIGHT, folder, wrong


def read(source: Path) -> dict[str, Kernel]:
    return {k.name: k for k in read_sources([source], source.parent / "texts")}


def test_a_folder_has_a_kernel_in_each_python_file(tmp_path: Path) -> None:
    source = folder(tmp_path / "mine", {"b": RIGHT, "a": wrong(2), "_not": RIGHT})
    folder(source / "inner", {"c": RIGHT})
    folder(source / ".hidden", {"d": RIGHT})
    (source / "notes.txt").write_text("none")
    found = read(source)
    assert [*found] == ["a", "b", "inner.c"]
    assert found["b"].digest == found["inner.c"].digest != found["a"].digest
    assert found["a"].target == str(source / "a.py")


def test_a_list_names_files_from_where_it_lies_and_what_is_meant_in_them(tmp_path: Path) -> None:
    folder(tmp_path / "some", {"a": RIGHT})
    source = tmp_path / "mine.txt"
    source.write_text("# kernels\n\nsome/a.py\nsome/a.py:loss  # by name\n")
    found = read(source)
    assert [*found] == ["some.a", "some.a.loss"]
    assert found["some.a.loss"].target == f"{tmp_path / 'some' / 'a.py'}:loss"
    assert found["some.a"].digest != found["some.a.loss"].digest


def test_a_table_brings_its_texts_along_and_they_become_files(tmp_path: Path) -> None:
    source = tmp_path / "mine.jsonl"
    rows = [{"name": "one/1", "source": RIGHT}, {"name": "one_1", "source": wrong(2)}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(source)
    assert [*found] == ["one/1", "one_1"]
    written(found.values(), tmp_path / "texts")
    assert [Path(k.path).read_text() for k in found.values()] == [RIGHT, wrong(2)]


def test_a_parquet_file_is_the_same_table(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    source = tmp_path / "mine.parquet"
    parquet.write_table(pa.table({"name": ["a", "b"], "source": [RIGHT, wrong(2)]}), source)
    assert {name: kernel.text for name, kernel in read(source).items()} == {
        "a": RIGHT,
        "b": wrong(2),
    }


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("mine.txt", "nowhere.py\n", "mine.txt:1: no such file"),
        ("mine.txt", "\nsome words\n", "mine.txt:2: write path/file.py"),
        ("mine.txt", "# nothing\n", "no kernel in"),
        ("mine.jsonl", '{"name": "a"}\n', 'mine.jsonl:1: a kernel has "name" and "source"'),
        ("mine.jsonl", '{"name": "a", "source": 1}\n', "which are texts"),
        ("mine.jsonl", "[]\n", "which are texts"),
        ("mine.jsonl", '{"name": \n', "mine.jsonl:1: not JSON"),
        ("mine.jsonl", '{"name": "a", "source": "\\ud800"}\n', "mine.jsonl:1: half a character"),
        ("mine.parquet", "PAR1", "not a Parquet file"),
        ("mine.csv", "name,source\n", "none of .py"),
        (
            "mine.jsonl",
            '{"name": "a", "source": "x"}\n{"name": "a", "source": "y"}\n',
            "two kernels are called a",
        ),
    ],
)
def test_what_is_no_source_is_told_with_its_place(
    name: str, text: str, complaint: str, tmp_path: Path
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=complaint.replace("(", r"\(")):
        read(tmp_path / name)


def test_bytes_that_are_no_text_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"# \xff\n" + RIGHT.encode())
    found = read(tmp_path / "mine.py")["mine"]
    assert found.data == (tmp_path / "mine.py").read_bytes()
    assert found.digest == digest_of(found.data, "")


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder: .*nowhere"):
        read(tmp_path / "nowhere")
