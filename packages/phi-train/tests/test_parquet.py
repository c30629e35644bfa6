"""Parquet files: documents, what is wrong with a file, and what is said without the extra."""

from __future__ import annotations

import sys

import pytest

from phi_train import DataError
from phi_train.corpus import open_corpus
from phi_train.documents import documents
from phi_train.prepare import open_prepared, prepare
from phi_train.tokens import encode_documents


def test_without_the_extra_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1")
    for read in (lambda: list(documents(path)), lambda: prepare(str(path), tmp_path / "out")):
        with pytest.raises(DataError, match=r"x\.parquet.* pip install 'phi-train\[parquet\]'"):
            read()
    assert not (tmp_path / "out").exists()


@pytest.fixture
def write(tmp_path):
    """Writes columns to a parquet file of small row groups."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def make(columns, name="x.parquet"):
        parquet.write_table(arrow.table(columns), tmp_path / name, row_group_size=700)
        return tmp_path / name

    return make


def test_documents_of_a_column(write):
    texts = [f" Text {i} äö 😀\n" for i in range(3000)]
    texts[7], texts[8] = None, "  "
    path = write({"id": list(range(3000)), "text": texts})
    assert list(documents(path)) == [t.strip() for t in texts if t and t.strip()]


@pytest.mark.parametrize("workers", [1, 2])
def test_it_is_prepared_as_any_other(write, tmp_path, stories, workers):
    path = write({"text": stories(3000, words=5)})
    prepare(str(path), tmp_path / "tokens", vocab_size=300, workers=workers)
    data, corpus = open_prepared(tmp_path / "tokens", verify=True), open_corpus(str(path))
    assert data.train.ids.tolist() == encode_documents(corpus.train, data.tokenizer).ids.tolist()
    assert data.valid.ids.tolist() == encode_documents(corpus.valid, data.tokenizer).ids.tolist()


def test_files_that_will_not_do(write, tmp_path):
    with pytest.raises(DataError, match=r'x\.parquet is not a parquet file with a column "text"'):
        list(documents(write({"story": ["One."]})))
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DataError, match=r"broken\.parquet is not a parquet file"):
        list(documents(broken))
