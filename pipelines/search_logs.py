"""Simulates product-search logs with a known truth: what was shown, what was clicked, and what was relevant.

Input: a `Simulation` (sizes, strength of the position bias, seed).  Output: Arrow tables or CSV files, one a day, a row
for each item shown.  An item is clicked when the user looks at its position, which depends on the rank alone, and
likes the item, which depends on its relevance alone.  So a log's bias is exactly `examination` and can be corrected.

`numeric_lists`, `numeric_table` and `write_letor` make anonymous numeric lists for benchmarks and tests.
This module needs only NumPy and Arrow; the same seed gives the same bytes.
"""

import dataclasses
import datetime
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

Array = np.ndarray[Any, Any]

NOUNS = {
    "audio": ("headphones", "speaker", "earbuds", "microphone", "turntable"),
    "camping": ("tent", "stove", "lantern", "hammock", "rucksack"),
    "cycling": ("helmet", "pump", "saddle", "pedals", "panniers"),
    "garden": ("hose", "shears", "planter", "rake", "trellis"),
    "kitchen": ("kettle", "skillet", "blender", "teapot", "grinder"),
    "office": ("chair", "desk", "lamp", "stapler", "notebook"),
    "shoes": ("boots", "sneakers", "sandals", "loafers", "slippers"),
    "toys": ("puzzle", "blocks", "kite", "robot", "drum"),
}
TRAITS = (
    *("red", "blue", "green", "black", "white", "grey", "yellow", "orange"),
    *("steel", "wooden", "leather", "cotton", "bamboo", "carbon", "ceramic", "rubber"),
    *("light", "foldable", "waterproof", "large", "compact", "silent", "sturdy", "travel"),
)
BRANDS = (
    *("acorn", "birkholm", "castel", "dunmore", "elvire", "fennec", "granit", "holloway"),
    *("ingrid", "juniper", "kestrel", "lumen", "morava", "norvik", "osprey", "pavo"),
)
COUNTRIES = {"DE": 0.0, "FR": 0.1, "IT": -0.2, "NL": 0.1, "PL": -0.5, "CH": 0.6}  # price wish, log of the usual price
WISHES = {"": 0.0, "cheap": -0.7, "premium": 0.7}  # a word of the query: its price wish, in the same unit
THRESHOLDS = (1.6, 2.6, 3.3, 4.0)  # of the utility, from which on an item has grade 1, 2, 3, 4
MAX_GRADE = len(THRESHOLDS)


@dataclasses.dataclass(frozen=True)
class Simulation:
    """What is simulated; two equal simulations give the same bytes."""

    queries: int = 5000  # searches, over all days
    days: int = 10
    first_day: str = "2026-11-01"
    min_items: int = 10  # shown for a search
    max_items: int = 20
    products: int = 3000
    power: float = 1.0  # position k is looked at with probability k ** -power
    noise: float = 0.05  # probability that an item of grade 0 is clicked once it is looked at
    popularity_pull: float = (
        1.5  # how much the production ranker goes by popularity, in standard deviations of its noise
    )
    missing_rating: float = 0.1  # fraction of the products that nobody has rated
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("queries", "days", "products", "min_items"):
            if getattr(self, name) < 1:
                raise ValueError(f"Simulation.{name}: expected at least 1; got {getattr(self, name)}.")
        if self.max_items < self.min_items:
            raise ValueError(
                f"Simulation.max_items: expected at least min_items ({self.min_items}); got {self.max_items}."
            )
        for name in ("noise", "missing_rating"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Simulation.{name}: expected a fraction in [0, 1]; got {getattr(self, name)}.")
        if self.power < 0:
            raise ValueError(f"Simulation.power: expected 0 (no bias) or more; got {self.power}.")
        datetime.date.fromisoformat(self.first_day)


def write_csv(simulation: Simulation, folder: pathlib.Path) -> list[pathlib.Path]:
    """One CSV file a day, `<folder>/2026-11-01.csv` and on; gives the files.  Holds one day in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for day, table in simulate_days(simulation):
        files.append(folder / f"{day}.csv")
        unfinished = folder / f".{day}.csv.unfinished"  # no pattern *.csv sees half a day
        pyarrow.csv.write_csv(table, str(unfinished))
        unfinished.replace(files[-1])
    return files


def days(simulation: Simulation) -> list[str]:
    """The dates of a log, which are its files' names.

    >>> days(Simulation(days=2, first_day="2026-12-31"))
    ['2026-12-31', '2027-01-01']
    """
    first = datetime.date.fromisoformat(simulation.first_day)
    return [(first + datetime.timedelta(days=i)).isoformat() for i in range(simulation.days)]


def simulate(simulation: Simulation) -> pa.Table:
    """All days of a log as one table: a row an item shown, the rows of a query together, by position.

    Columns: query_id, time (ISO, UTC), query_text, query_category, country (the query's, the same on all its rows);
    sku, title, brand, category, price, rating (null: nobody rated it), reviews, popularity, in_stock, text_match
    (the item's); position (from 1), clicked (0 or 1); relevance, the true grade 0 to 4, known to a simulator only.

    >>> log = simulate(Simulation(queries=2, days=1, min_items=3, max_items=3, products=50))
    >>> log["position"].to_pylist()
    [1, 2, 3, 1, 2, 3]
    """
    return pa.concat_tables([table for _, table in simulate_days(simulation)])


def simulate_days(simulation: Simulation) -> Iterator[tuple[str, pa.Table]]:
    """(date, that day's log), day after day; every day has its own random stream."""
    catalogue_seed, *day_seeds = np.random.SeedSequence(simulation.seed).spawn(1 + simulation.days)
    catalogue = _catalogue(simulation, np.random.default_rng(catalogue_seed))
    bounds = np.linspace(0, simulation.queries, simulation.days + 1).astype(int)
    for i, (day, seed) in enumerate(zip(days(simulation), day_seeds)):
        yield day, _one_day(simulation, catalogue, np.random.default_rng(seed), day, bounds[i], bounds[i + 1])


def examination(position: Array, power: float) -> Array:
    """Probability that a position, counted from 1, is looked at: position ** -power.

    >>> examination(np.array([1, 2, 4]), power=1.0)
    array([1.  , 0.5 , 0.25])
    """
    return np.asarray(position, float) ** -power


def appeal(grade: Array, noise: float) -> Array:
    """Probability that an item of a grade is clicked once it is looked at (Joachims et al., WSDM 2017).

    noise + (1 - noise) * (2 ** grade - 1) / (2 ** 4 - 1).

    >>> appeal(np.array([0, 4]), noise=0.05)
    array([0.05, 1.  ])
    """
    return noise + (1 - noise) * (2.0 ** np.asarray(grade) - 1) / (2**MAX_GRADE - 1)


class _Catalogue(NamedTuple):
    """The products, sorted by their noun; each array is [product]."""

    category: Array  # index into NOUNS
    noun: Array  # index into all nouns
    traits: Array  # [product, 2], indices into TRAITS
    brand: Array
    price_level: Array  # log of price over the category's usual price
    quality: Array  # what a rating is a noisy sight of, standard normal
    in_stock: Array
    popularity: Array  # log of sales, standard normal
    columns: dict[str, pa.Array]  # as a log shows them


def _catalogue(simulation: Simulation, rng: np.random.Generator) -> _Catalogue:
    n, per_category = simulation.products, 5
    noun = np.sort(rng.integers(len(NOUNS) * per_category, size=n))
    category = noun // per_category
    traits = rng.integers(len(TRAITS) // 2, size=(n, 2)) + np.array([0, len(TRAITS) // 2])  # two different ones
    brand = rng.integers(len(BRANDS), size=n)
    brand_level, brand_quality = rng.normal(0, 0.4, len(BRANDS)), rng.normal(0, 0.6, len(BRANDS))
    price_level = brand_level[brand] + rng.normal(0, 0.6, n)
    quality = brand_quality[brand] + rng.normal(0, 0.8, n)
    popularity = rng.normal(size=n)
    in_stock = (rng.random(n) < 0.9).astype(np.int64)
    usual_price = np.geomspace(15, 180, len(NOUNS))
    rating = np.clip(np.round(3.8 + 0.6 * quality + rng.normal(0, 0.3, n), 1), 1, 5)
    nouns = np.array([noun for names in NOUNS.values() for noun in names])
    brands, words = np.array(BRANDS), np.array(TRAITS)
    columns = {
        "sku": pa.array([f"P{i:06d}" for i in rng.permutation(n)]),
        "title": _join(brands[brand], words[traits[:, 0]], words[traits[:, 1]], nouns[noun]),
        "brand": pa.array(brands[brand]),
        "category": pa.array(np.array(list(NOUNS))[category]),
        "price": pa.array(np.round(usual_price[category] * np.exp(price_level), 2)),
        "rating": pa.array(rating, mask=rng.random(n) < simulation.missing_rating),
        "reviews": pa.array(rng.poisson(np.exp(3 + popularity))),
        "popularity": pa.array(np.round(100 * np.exp(popularity)).astype(np.int64)),
        "in_stock": pa.array(in_stock),
    }
    return _Catalogue(category, noun, traits, brand, price_level, quality, in_stock, popularity, columns)


def _one_day(
    simulation: Simulation, catalogue: _Catalogue, rng: np.random.Generator, day: str, first: int, last: int
) -> pa.Table:
    n = last - first
    noun = rng.integers(len(NOUNS) * 5, size=n)
    trait = np.where(rng.random(n) < 0.6, rng.integers(len(TRAITS), size=n), -1)  # -1: none in the query
    brand = np.where(rng.random(n) < 0.2, rng.integers(len(BRANDS), size=n), -1)
    wish = rng.choice(len(WISHES), size=n, p=[0.5, 0.3, 0.2])
    country = rng.choice(len(COUNTRIES), size=n, p=[0.3, 0.2, 0.15, 0.1, 0.15, 0.1])
    second = np.sort(rng.integers(86400, size=n))

    query, product = _retrieve(simulation, catalogue, rng, noun)
    same_category = catalogue.category[product] == noun[query] // 5
    match = _match(catalogue, product, noun[query], trait[query], brand[query])
    levels = np.array(list(COUNTRIES.values()))[country] + np.array(list(WISHES.values()))[wish]
    price_gap = np.abs(catalogue.price_level[product] - levels[query])
    utility = (
        (1 + 3 * match) * same_category  # words of another category's product do not help
        - 1.3 * np.minimum(price_gap, 1.5)
        + 0.6 * np.tanh(catalogue.quality[product])
        - 1.0 * (1 - catalogue.in_stock[product])
        + 0.4
    )
    relevance = np.searchsorted(THRESHOLDS, utility, side="right")

    # The production ranker: some text matching, a good deal of popularity, which says nothing about relevance here.
    shown_by = 1.5 * match + simulation.popularity_pull * catalogue.popularity[product] + rng.normal(size=len(product))
    order = np.lexsort((-shown_by, query))
    query, product, match, relevance = query[order], product[order], match[order], relevance[order]
    starts = np.searchsorted(query, np.arange(n))
    position = np.arange(len(query)) - starts[query] + 1
    examined = rng.random(len(query)) < examination(position, simulation.power)
    clicked = examined & (rng.random(len(query)) < appeal(relevance, simulation.noise))

    words = np.array([*TRAITS, ""])[trait], np.array([*BRANDS, ""])[brand], np.array(list(WISHES))[wish]
    nouns = np.array([name for names in NOUNS.values() for name in names])
    midnight = np.datetime64(day)
    times = np.char.add(np.datetime_as_string(midnight + second.astype("timedelta64[s]")), "Z")
    context = {
        "query_id": pa.array([f"q{i:07d}" for i in range(first, last)], pa.string()),
        "time": pa.array(times, pa.string()),
        "query_text": _join(words[2], words[1], words[0], nouns[noun]),
        "query_category": pa.array(np.array(list(NOUNS))[noun // 5]),
        "country": pa.array(np.array(list(COUNTRIES))[country]),
    }
    columns: dict[str, Any] = {name: values.take(pa.array(query)) for name, values in context.items()}
    columns |= {name: values.take(pa.array(product)) for name, values in catalogue.columns.items()}
    # What a search engine would log of its text score: the match, seen with some noise.
    columns["text_match"] = pa.array(np.round(np.maximum(10 * match + rng.normal(0, 0.5, len(query)), 0.0), 3))
    columns["position"] = pa.array(position)
    columns["clicked"] = pa.array(clicked.astype(np.int64))
    columns["relevance"] = pa.array(relevance)
    return pa.table(columns)


def _retrieve(
    simulation: Simulation, catalogue: _Catalogue, rng: np.random.Generator, noun: Array
) -> tuple[Array, Array]:
    """(query, product) of every item shown, by query: half by the noun, a third by the category, the rest at random.

    An item is drawn a second time now and then and shown once, so a few lists are shorter than min_items.
    """
    lengths = rng.integers(simulation.min_items, simulation.max_items, size=len(noun), endpoint=True)
    query = np.repeat(np.arange(len(noun)), lengths)
    kind = rng.choice(3, size=len(query), p=[0.5, 0.35, 0.15])
    nouns = noun[query]
    low = np.choose(kind, [nouns, nouns // 5 * 5, np.zeros_like(nouns)])
    high = np.choose(kind, [nouns + 1, nouns // 5 * 5 + 5, np.full_like(nouns, len(NOUNS) * 5)])
    begin, end = np.searchsorted(catalogue.noun, low), np.searchsorted(catalogue.noun, high)
    everything = begin == end  # a small catalogue may lack the noun
    begin, end = np.where(everything, 0, begin), np.where(everything, len(catalogue.noun), end)
    product = begin + (rng.random(len(query)) * (end - begin)).astype(np.int64)
    once = np.unique(query * len(catalogue.noun) + product)
    return once // len(catalogue.noun), once % len(catalogue.noun)


def _match(catalogue: _Catalogue, product: Array, noun: Array, trait: Array, brand: Array) -> Array:
    """Share of the query's words in the title, [item]; the noun counts twice."""
    matches = 2.0 * (catalogue.noun[product] == noun)
    matches += (catalogue.traits[product] == trait[:, None]).any(axis=1)
    matches += catalogue.brand[product] == brand
    share: Array = matches / (2 + (trait >= 0) + (brand >= 0))
    return share


def _join(*parts: Array) -> pa.Array:
    """Words joined by one space, empty ones left out."""
    words = [pc.if_else(pc.equal(pa.array(part), ""), None, pa.array(part)) for part in parts]
    return pc.binary_join_element_wise(*words, " ", null_handling="skip")


class NumericLists(NamedTuple):
    """Lists of anonymous numeric items: features float32 [item, feature], labels float32 [item], 0 to 4,
    row_splits int64 [list + 1]; list i is query i + 1."""

    features: Array
    labels: Array
    row_splits: Array

    @property
    def group_ids(self) -> Array:
        """int64 [item], from 1."""
        ids: Array = np.repeat(np.arange(1, len(self.row_splits)), np.diff(self.row_splits))
        return ids


def numeric_lists(n_items: int, n_features: int, seed: int = 1, min_list: int = 5, max_list: int = 120) -> NumericLists:
    """`n_items` items in lists of `min_list` to `max_list` (the last one takes what is left), labels learnable.

    Values have four decimals, as LETOR files have, and are the same through text and back.

    >>> numeric_lists(7, 2, min_list=3, max_list=3).row_splits
    array([0, 3, 6, 7])
    """
    if min(n_features, min_list) < 1 or max_list < min_list or n_items < 0:
        raise ValueError(
            f"numeric_lists: expected n_items ≥ 0, n_features ≥ 1, 1 ≤ min_list ≤ max_list; "
            f"got {n_items}, {n_features}, {min_list}, {max_list}."
        )
    rng = np.random.default_rng(seed)
    lengths = rng.integers(min_list, max_list, size=n_items // min_list + 1, endpoint=True)
    ends = np.cumsum(lengths)
    splits = np.concatenate([[0], ends[ends < n_items], [n_items] if n_items else []]).astype(np.int64)
    features = np.round(rng.standard_normal((n_items, n_features), np.float32), 4)
    first, last = features[:, 0], features[:, -1]
    utility = first + np.abs(last) + 0.5 * first * last + 0.3 * rng.standard_normal(n_items)
    labels = np.searchsorted([1.0, 1.8, 2.6, 3.4], utility).astype(np.float32)
    return NumericLists(features, labels, splits)


def numeric_table(lists: NumericLists) -> pa.Table:
    """The lists as rows for CSV and Parquet: group_id, label, f1, f2, …"""
    columns = {"group_id": lists.group_ids, "label": lists.labels}
    columns |= {f"f{i + 1}": lists.features[:, i] for i in range(lists.features.shape[1])}
    return pa.table(columns)


def write_letor(lists: NumericLists, file: pathlib.Path, chunk: int = 20_000) -> None:
    """The lists as LETOR text, `2 qid:1 1:0.5 2:-1.25 …`, every id written; `chunk` rows at a time in memory."""
    ids = lists.group_ids
    with file.open("wb") as output:
        for start in range(0, len(ids), chunk):
            rows = slice(start, start + chunk)
            columns = [_text("", lists.labels[rows].astype(np.int64)), _text("qid:", ids[rows])]
            columns += [_text(f"{i + 1}:", column) for i, column in enumerate(lists.features[rows].T)]
            lines = pc.binary_join_element_wise(*columns, " ")
            output.write("\n".join([*lines.to_pylist(), ""]).encode())


def _text(prefix: str, values: Array) -> pa.Array:
    text = pa.array(np.ascontiguousarray(values)).cast(pa.string())
    return pc.binary_join_element_wise(prefix, text, "") if prefix else text
