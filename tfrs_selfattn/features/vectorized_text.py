"""Text as a Keras `TextVectorization` layer splits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy.typing as npt

from tfrs_selfattn._checks import check_choice, check_positive_int
from tfrs_selfattn.features._vocabulary import look_up, vocabulary_state
from tfrs_selfattn.features.feature import Encoded, Feature, nothing

_ROWS = 4096  # Texts taken at a time when fitting.
_LONGEST = 256
# What Keras strips, of both its versions.
_PUNCTUATION = r"""[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']"""
_STANDARDIZE = ("lower_and_strip_punctuation", "lower", "strip_punctuation", None)
_SPLIT = ("whitespace", "character")


@dataclass(frozen=True)
class VectorizedText(Feature):
    """Text as a bag of the tokens of a Keras `TextVectorization` layer.

    `of` takes the layer, adapted, by what it does to text: how it standardizes, how it
    splits, and its vocabulary. A model is trained and served by this package's own
    operations, which give the same tokens; the layer is not needed any more. Tokens
    that are not in the vocabulary share one vector. The sum of n vectors is divided by
    √n.

    Args:
        name: str. Of the feature and of its column.
        vocabulary: tuple of str. The tokens with a vector of their own.
        standardize: str or None, as of the layer. Defaults to
            `"lower_and_strip_punctuation"`.
        split: str, `"whitespace"` or `"character"`. Defaults to `"whitespace"`.
        ngrams: tuple of int. Tokens in a row that make one; `()` for the tokens
            themselves. Defaults to `()`.
        max_tokens: int. Tokens of a text that count, the first. Defaults to `256`.
        has_unknown: bool, or None before `fit`. Whether training showed tokens that are
            not in the vocabulary; else they add nothing. Defaults to `None`.

    Example:

    >>> titles = VectorizedText("title", ("tea", "red"))  # or .of("title", layer)
    >>> titles = titles.fit(np.array([b"Red tea!", b"Green tea"], object), "here")
    >>> encoded = FeatureEncoder(FeatureSet((titles,)))({"title": tf.constant(["Red"])})
    >>> encoded.tokens.numpy(), encoded.weights.numpy()
    (array([[2]], dtype=int32), array([[1.]], dtype=float32))
    """

    kind: ClassVar[str] = "vectorized"

    vocabulary: tuple[str, ...]
    standardize: str | None = "lower_and_strip_punctuation"
    split: str = "whitespace"
    ngrams: tuple[int, ...] = ()
    max_tokens: int = _LONGEST
    has_unknown: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("vocabulary", "ngrams"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.standardize is not None:
            check_choice("standardize", self.standardize, _STANDARDIZE[:-1])
        check_choice("split", self.split, _SPLIT)
        check_positive_int("max_tokens", self.max_tokens)
        for width in self.ngrams:
            check_positive_int("ngrams", width)
        if not self.vocabulary:
            raise ValueError(
                "`vocabulary` must hold at least one token. Received: none. Adapt the "
                "layer to texts first."
            )

    @classmethod
    def of(cls, name: str, layer: Any) -> VectorizedText:
        """The feature that does to text what a layer does.

        Args:
            name: str. Of the feature and of its column.
            layer: `keras.layers.TextVectorization` of either Keras, adapted or with a
                vocabulary. What it makes of tokens, its `output_mode`, plays no part.

        Raises:
            ValueError: when it standardizes or splits by a function of its own, or has
                no vocabulary.
        """
        config = layer.get_config()
        for part, known in (("standardize", _STANDARDIZE), ("split", _SPLIT)):
            if config[part] not in known:
                shown = ", ".join(repr(each) for each in known)
                raise ValueError(
                    f"`layer` must have one of these as {part}: {shown}. Received: "
                    f"{config[part]!r}. A served model holds none of the functions of "
                    "others: change the text before it becomes a feature."
                )
        ngrams = config["ngrams"] or ()
        if isinstance(ngrams, int):
            ngrams = range(1, ngrams + 1)
        return cls(
            name,
            tuple(map(str, layer.get_vocabulary(include_special_tokens=False))),
            standardize=config["standardize"],
            split=config["split"],
            ngrams=tuple(ngrams),
            max_tokens=config["output_sequence_length"] or _LONGEST,
        )

    @property
    def fitted(self) -> bool:
        return self.has_unknown is not None

    @property
    def num_tokens(self) -> int:
        return 1 + len(self.vocabulary)  # 0 is what is not in it

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return dict(vocabulary_state(self.vocabulary, f"Feature {self.name!r}"))

    def fit(self, values: npt.NDArray[Any], place: str) -> VectorizedText:
        state, unknown = self.state(), False
        for start in range(0, len(values), _ROWS):
            tokens = self._tokens(values[start : start + _ROWS].tolist())
            found = look_up(tokens.flat_values, state).numpy()
            unknown |= bool((found < 0).any())
        return replace(self, has_unknown=unknown)

    def encode(self, values: Any, state: Mapping[str, Any]) -> Encoded:
        import tensorflow as tf

        texts = self._tokens(values)
        found = texts.with_flat_values(look_up(texts.flat_values, state) + 1)
        counting = found.flat_values > 0
        if self.has_unknown:
            counting = tf.ones_like(counting)
        counts = found.with_flat_values(tf.cast(counting, tf.float32))
        total = tf.maximum(tf.reduce_sum(counts, axis=1, keepdims=True), 1.0)
        weights = counts.to_tensor() * tf.math.rsqrt(total)
        return Encoded(found.to_tensor(), weights, nothing(values)[2])

    def _tokens(self, values: Any) -> Any:
        """The tokens of each of `[n]` texts: string ragged `[n, (tokens)]`."""
        import tensorflow as tf

        texts = tf.convert_to_tensor(values, tf.string)
        if self.standardize in ("lower", "lower_and_strip_punctuation"):
            texts = tf.strings.lower(texts)
        if self.standardize in ("strip_punctuation", "lower_and_strip_punctuation"):
            texts = tf.strings.regex_replace(texts, _PUNCTUATION, "")
        if self.split == "whitespace":
            tokens = tf.strings.split(texts)
        else:
            tokens = tf.strings.unicode_split(texts, "UTF-8")
        if self.ngrams:
            tokens = tf.strings.ngrams(tokens, self.ngrams, separator=" ")
        return tokens[:, : self.max_tokens]
