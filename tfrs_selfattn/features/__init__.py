"""What is known of items, users and events beside their ids.

A feature is declared in a line of Python or on the command line, fitted to training
data in NumPy and Polars, and kept as JSON. What turns raw values into numbers is one
piece of TensorFlow, stock operations only: training and a SavedModel both run it.

| kind | values | becomes |
|---|---|---|
| `Category` | one string | a vector of the category |
| `MultiCategory` | strings between separators | the sum of theirs, scaled |
| `Number` | a number | its normalized value, or a vector of its bucket |
| `Text` | text | the sum of the vectors of its hashed words, scaled |
| `VectorizedText` | text | likewise, by the tokens of a Keras `TextVectorization` |
| `Vector` | numbers, as a language model gives them | a linear image of them |

A value that is missing (`""`, NaN, a row of zeros) has a place of its own when training
data had some, else it adds nothing; so does a category that training never showed.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "Category": "category",
    "Encoded": "feature",
    "Feature": "feature",
    "FeatureEncoder": "encoder",
    "FeatureSet": "feature_set",
    "FeatureTable": "table",
    "MultiCategory": "multi_category",
    "Number": "number",
    "Text": "text",
    "Vector": "vector",
    "VectorizedText": "vectorized_text",
    "column_readers": "columns",
    "find_feature_table": "movielens",
    "parse_features": "parsing",
    "read_feature_table": "table",
    "table_of_events": "events",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
