"""Human ratings of review sentences: the preferences that the demonstrations are trained on."""

from jaxalign.data.ratings.load import Ratings, load_ratings
from jaxalign.data.ratings.splits import SPLITS

__all__ = ["SPLITS", "Ratings", "load_ratings"]
