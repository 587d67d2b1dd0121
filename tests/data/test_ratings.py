"""The embedded human ratings: nothing lost, nothing mixed up, nothing on two sides."""

import collections
import dataclasses
import hashlib
import itertools
import multiprocessing
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxalign.data.ratings import SPLITS, load_ratings
from jaxalign.data.ratings.clean import clean_text, text_key
from jaxalign.data.ratings.load import CONFIGS, prepare_ratings
from jaxalign.data.ratings.pack import records
from jaxalign.data.ratings.splits import group_splits
from jaxalign.errors import UserError
from jaxalign.system.cache import cache_directory

LETTERS = {"policy": "P", "policy_validation": "V", "judge": "J", "evaluation": "E"}


@pytest.fixture(scope="module")
def movies(ratings_dir):
    return load_ratings("movies", ratings_dir)


@pytest.fixture(scope="module")
def products(ratings_dir):
    return load_ratings("products", ratings_dir)


def published(name):
    from jaxalign.data.ratings.builder import packed_records

    return packed_records(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, published_texts, kept, num_ratings",
    [("movies", 10605, 10603, 198810), ("products", 3708, 3689, 74160)],
)
def test_every_published_text_but_the_repeated_ones_is_there(
    name, published_texts, kept, num_ratings, request
):
    rows = {row["id"]: row for row in published(name)}
    ratings = request.getfixturevalue(name)
    assert len(rows) == published_texts
    assert sum(len(row["ratings"]) for row in rows.values()) == num_ratings
    assert len(ratings) == len(set(ratings.ids)) == kept
    for n, key in enumerate(ratings.ids):
        assert ratings.ratings[n, : ratings.num_ratings[n]].tolist() == rows[key]["ratings"]
        assert not ratings.ratings[n, ratings.num_ratings[n] :].any()
    gone = [
        clean_text(rows[key]["text"], lost_dashes=True) for key in rows.keys() - set(ratings.ids)
    ]
    assert {text_key(text) for text in gone} <= {text_key(text) for text in ratings.texts}


def test_the_packed_files_are_the_ones_that_were_checked_against_the_originals():
    # Sums of the means that the original ground truth files give: an edited rating changes them.
    for name, total in [("movies", 51.2288029702), ("products", 1417.65)]:
        means = [sum(row["ratings"]) / len(row["ratings"]) for row in published(name)]
        assert sum(means) == pytest.approx(total, abs=1e-5)


def write_originals(directory, mean="1.5", ids=("1_2", "1_1")):
    """As published: text file without, rating file with a byte order mark, in different orders."""
    texts = f"1_1\t{mean}\tone   text\r\n1_2\t-1\tna\u00efve\r\n"
    ratings = [f"{ids[0]}\t-1\t0\t[-1, -1]", f"{ids[1]}\t1.5\t0.5\t[1, 2]"]
    (directory / "x_GroundTruth.txt").write_bytes(texts.encode())
    (directory / "x_anonDataRatings.txt").write_bytes(("\ufeff" + "\r\n".join(ratings)).encode())


def test_packing_joins_by_id_and_checks(tmp_path):
    write_originals(tmp_path)
    assert records(tmp_path, "x") == [
        {"id": "1_1", "text": "one   text", "ratings": [1, 2]},
        {"id": "1_2", "text": "na\u00efve", "ratings": [-1, -1]},
    ]
    write_originals(tmp_path, mean="1.4")
    with pytest.raises(ValueError, match=r"1_1: mean 1\.4 is not the mean"):
        records(tmp_path, "x")
    write_originals(tmp_path, ids=("1_3", "1_1"))
    with pytest.raises(ValueError, match="2 ids are in one file only"):
        records(tmp_path, "x")
    write_originals(tmp_path, ids=("1_1", "1_1"))
    with pytest.raises(ValueError, match="1 ids occur twice"):
        records(tmp_path, "x")


def test_ratings_are_on_the_scale_and_means_ignore_padding(movies, products):
    for ratings, fewest, most in [(movies, 15, 29), (products, 20, 20)]:
        assert ratings.ratings.dtype == np.int8
        assert (np.abs(ratings.ratings) <= 4).all()
        assert (ratings.num_ratings.min(), ratings.num_ratings.max()) == (fewest, most)
        masked = np.ma.masked_array(ratings.ratings.astype(float), ~ratings.rated)
        np.testing.assert_allclose(ratings.means, masked.mean(1), atol=1e-12)


def test_a_movie_block_is_thirty_ids_with_one_number_of_raters(movies):
    for block, ids, count in zip(movies.block, movies.ids, movies.num_ratings, strict=True):
        assert block == (int(ids) - 1) // 30
        assert count == movies.num_ratings[movies.block == block][0]
    sizes = collections.Counter(movies.block.tolist())
    assert len(sizes) == 354
    # 10,605 = 353 * 30 + 15; blocks 344 and 351 lose a repeated text each
    assert {block: n for block, n in sizes.items() if n != 30} == {353: 15, 344: 29, 351: 29}


def column_correlation(columns):
    """Mean correlation of the columns' biases in the first and the second half of the texts."""
    found = []
    for given in columns:
        bias = given - given.mean(1, keepdims=True)
        first, second = bias[:15].mean(0), bias[15:].mean(0)
        found.append(np.corrcoef(first, second)[0, 1])
    return np.mean(found)


def test_a_column_of_a_block_is_one_person(movies):
    rows = [np.array(row["ratings"], float) for row in published("movies")]
    aligned = [np.stack(rows[s : s + 30]) for s in range(0, 10590, 30)]
    rng = np.random.default_rng(0)
    shuffled = [rng.permuted(block, axis=1) for block in aligned]
    across = [
        np.concatenate([a[15:], b[:15]])
        for a, b in itertools.pairwise(aligned)
        if a.shape == b.shape
    ]
    assert column_correlation(aligned) > 0.7
    # 353 (and 32) independent correlations of about 18 points: standard errors 0.013 and 0.043
    assert abs(column_correlation(shuffled)) < 0.05
    assert abs(column_correlation(across)) < 0.17


def test_no_block_no_review_and_no_text_is_in_two_splits(movies, products):
    for ratings, groups in [
        (movies, movies.block.tolist()),
        (products, [key.split("_")[0] for key in products.ids]),
    ]:
        for keys in (groups, [text_key(text) for text in ratings.texts]):
            sides = collections.defaultdict(set)
            for key, split in zip(keys, ratings.split, strict=True):
                sides[key].add(split)
            assert all(len(found) == 1 for found in sides.values())
        assert set(ratings.split) == set(SPLITS)


def test_splits_have_their_sizes_and_are_balanced_in_sentiment(movies):
    sizes = {split: len(movies.part(split)) for split in SPLITS}
    assert sizes == {"policy": 5295, "policy_validation": 1080, "judge": 2639, "evaluation": 1589}
    assert len(movies.part("policy", "policy_validation")) == 6375
    for split in SPLITS:
        part = movies.part(split)
        assert abs(part.means.mean() - movies.means.mean()) < 0.1
        assert 0.45 < (part.means > 0).mean() < 0.55


def test_splits_are_frozen():
    # Changing this digest moves texts between training and evaluation: results are no longer
    # comparable.
    names = "".join(LETTERS[split] for split in group_splits("movies", 354))
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "d9031482a7b64b2a"
    # of the first 20 groups, 10, 2, 5 and 3
    counts = collections.Counter(group_splits("products", 20))
    assert [counts[split] for split in SPLITS] == [10, 2, 5, 3]


def test_clean_text_mends_what_it_says():
    def clean(text):
        return clean_text(text, lost_dashes=True)

    assert clean("at &amp;#38; t&#39;s  R&amp;B") == "at & t's R&B"
    assert clean("the ''new'' `what' Cube?s") == "the \"new\" 'what' Cube's"
    assert clean("Why? so") == "Why? so"
    assert clean("a crock    or something") == "a crock - or something"
    assert clean_text("a crock    or", lost_dashes=False) == "a crock or"
    assert clean(" e\u0301t\u00e9 \u2013 it\u2019s ") == "\u00e9t\u00e9 - it's"


def test_texts_are_clean(movies, products):
    for text in movies.texts + products.texts:
        assert text == text.strip() != ""
        assert "  " not in text and "&amp;" not in text and "&#" not in text and "''" not in text
        assert not any(c in text for c in "\ufeff\ufffd\u2019\u2013\u00c3\u00c2`\t\n")


@pytest.mark.slow
def test_the_data_set_is_prepared_once_and_two_processes_do_not_collide(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(prepare_ratings, [("products", tmp_path)] * 2)
    assert found[0] == found[1] and (found[0] / "dataset_info.json").is_file()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"human_ratings"}
    assert len(load_ratings("products", tmp_path)) == 3689


def test_a_damaged_cache_is_named(tmp_path, products, ratings_dir):
    where = tmp_path / "human_ratings" / "products" / "1.0.0"
    shutil.copytree(ratings_dir / "human_ratings" / "products" / "1.0.0", where)
    judge = next(where.glob("*judge*"))
    shutil.copy(next(where.glob("*policy_validation*")), judge)
    with pytest.raises(UserError, match=r"products/1.0.0 is damaged .*delete that directory"):
        load_ratings("products", tmp_path)
    judge.unlink()
    with pytest.raises(UserError, match=r"products/1.0.0 is damaged .*delete that directory"):
        load_ratings("products", tmp_path)


def test_a_reader_that_loses_rows_is_found_out(tmp_path, monkeypatch, ratings_dir, products):
    import tensorflow_datasets as tfds

    class Losing(list):
        def __getitems__(self, keys):
            return [{"id": b"1_1"}] * (len(keys) - 1)

    class Builder:
        info = tfds.builder_from_directory(
            ratings_dir / "human_ratings" / "products" / "1.0.0"
        ).info

        def as_data_source(self):
            return {split: Losing(range(self.info.splits[split].num_examples)) for split in SPLITS}

    monkeypatch.setattr(tfds, "builder_from_directory", lambda where: Builder())
    with pytest.raises(UserError, match="1855 of 1856 examples of policy"):
        load_ratings("products", ratings_dir)


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "human_ratings").write_text("a file stands in the way")
    with pytest.raises(UserError, match=r"cannot prepare the ratings in .*XDG_CACHE_HOME"):
        load_ratings("products", tmp_path)


def test_unknown_names_are_named(movies, tmp_path):
    with pytest.raises(UserError, match="no ratings called 'tweets'"):
        load_ratings("tweets", tmp_path)
    with pytest.raises(UserError, match="no split"):
        movies.part("train")


def test_the_cache_directory_follows_the_convention(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "jaxalign"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory().parts[-2:] == (".cache", "jaxalign")


@pytest.mark.slow
def test_preparing_and_reading_is_silent_and_needs_no_tensorflow(tmp_path):
    code = (
        "import sys; from jaxalign.data.ratings import load_ratings;"
        "assert 'tensorflow_datasets' not in sys.modules;"
        f"load_ratings('products', {str(tmp_path)!r});"
        "assert 'tensorflow' not in sys.modules and 'tensorflow_datasets' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_rows_keeps_the_columns_together(products):
    part = products.rows(np.array([5, 2]))
    for field in dataclasses.fields(products):
        column = getattr(products, field.name)
        assert list(map(str, getattr(part, field.name))) == [str(column[5]), str(column[2])]
    assert CONFIGS == ("movies", "products")
