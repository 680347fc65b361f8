"""Pretrained text encoders: prompts to embeddings by T5 (App. C), umT5 (Wan) or Qwen3 (MOSS), with
the interface of codecs/text.py.

They are not part of the training step: each caption is embedded once on the host and cached in
memory and on disk, and the step gets arrays.
"""

import collections
import dataclasses
import hashlib
import threading
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs import qwen3, t5, text_files
from avlink_jax.codecs.text_cache import EmbeddingCache
from avlink_jax.codecs.text_habits import Habits
from avlink_jax.errors import UserError
from avlink_jax.storage.console import say

ROWS = 8  # captions embedded at a time, always: another shape might round differently
SHORTEST = 16  # tokens; captions are padded to powers of two, at least this
KEPT = 2 << 30  # bytes; larger weights leave an accelerator after use, for the sake of the towers


class Kind(typing.NamedTuple):
  """A pretrained encoder's kind.

  Attributes:
    module: reads its files and runs it: FOLDER, read_config, read_weights, read_tokenizer, embed.
    model: class of the model, of a config.
    title: its name, for messages.
    habits: what is done to a prompt before.
    ending: number of last tokens that a prompt which is cut keeps.
  """
  module: types.ModuleType
  model: type
  title: str
  habits: Habits
  ending: int


# By config.texts.NAME.encoder, which is also the model_type of the files. A new one also needs a
# line in codecs/text.KINDS.
KINDS = {
    't5': Kind(t5, t5.T5, 'T5', Habits(), ending=1),
    # Wan's pipelines: 512 places, all of them attended to.
    'umt5': Kind(t5, t5.T5, 'umT5', Habits(clean=True, unmasked=True, places=512), ending=1),
    # MOSS-SoundEffect's: the same, and the prompt tells the clip's length. Its tokenizer adds
    # nothing, so that all 512 places of the empty prompt are zeros.
    'qwen3': Kind(qwen3, qwen3.Qwen3, 'Qwen3',
                  Habits(clean=True, duration=True, unmasked=True, places=512), ending=0),
}


@dataclasses.dataclass(eq=False)
class Encoder:
  """Pretrained text encoder, never trained here.

  Attributes:
    kind: key of KINDS.
    model, params: the model and its weights.
    tokenize: text -> ids.
    fingerprint: hash of everything that an embedding depends on besides the text that is read and
      `max_tokens`.
    max_tokens: places of a prompt.
    dtype: of matrix products.
    cache: EmbeddingCache.
    seconds: length of the clips, which some kinds tell the model.
    cut: the prompts that were cut to `max_tokens`, as keys in order.
  """
  kind: str
  model: typing.Any
  params: dict
  tokenize: collections.abc.Callable
  fingerprint: str
  max_tokens: int
  dtype: str
  cache: EmbeddingCache
  seconds: float | None = None
  cut: dict = dataclasses.field(default_factory=dict)
  _computing: threading.Lock = dataclasses.field(default_factory=threading.Lock)

  @property
  def width(self):
    return self.model.width

  def init(self, key):
    """Trainable parameters: none."""
    return {}

  def check(self, prompt):
    """Raises UserError if a prompt is longer than `max_tokens`."""
    if (count := len(self.tokenize(self._text(prompt)))) > self.max_tokens:
      end = f' ({t5.EOS} is one of them)' if KINDS[self.kind].ending else ''
      raise UserError(f'the prompt is {count:,} tokens long: this model reads at most '
                      f'{self.max_tokens}{end}')

  def prepare(self, prompts):
    """Prompts -> {'embedding': (B, max_tokens, width), 'mask': bool (B, max_tokens)}, on the host.

    Each distinct prompt is embedded once and cached; of T5 '' is </s> alone, of Qwen3 nothing; a
    prompt that is too long is cut, of T5 before its </s>. Padding is zero. Raises UserError: the
    cache cannot be read or written, or the weights give values that are not finite.
    """
    return padded(self.rows(prompts), prompts, self.max_tokens, self.width)

  def rows(self, prompts):
    """Mapping {prompt: (n, width)}, a row per token, of distinct prompts; raises as `prepare`."""
    rows = {prompt: self.cache.get(self._key(prompt)) for prompt in dict.fromkeys(prompts)}
    if missing := [prompt for prompt, row in rows.items() if row is None]:
      # In a jitted function (the null prompt) this must be computed, not traced.
      with self._computing, jax.ensure_compile_time_eval():
        # Another thread may have computed some of them meanwhile.
        rows |= {prompt: self.cache.get(self._key(prompt)) for prompt in missing}
        for prompt, row in self._compute([p for p in missing if rows[p] is None]):
          self.cache.put(self._key(prompt), row)
          rows[prompt] = row
    return rows

  def encode(self, params, prepared):
    """Embeddings float32 (B, L, width) and mask (B, L) of `prepare`'s result."""
    del params
    return encode(self.kind, prepared)

  def _text(self, prompt):
    return KINDS[self.kind].habits.text(prompt, self.seconds)

  def _key(self, prompt):
    content = f'{self.fingerprint} {self.max_tokens} '.encode()
    return hashlib.sha256(
        content + self._text(prompt).encode(errors='surrogatepass')).hexdigest()

  def _ids(self, prompt):
    """Token ids of a prompt, cut to fit; the first that is cut is told."""
    ids, ending = self.tokenize(self._text(prompt)), KINDS[self.kind].ending
    if len(ids) > self.max_tokens:
      if not self.cut:
        say(f'text: {prompt[:60]!r} is {len(ids):,} tokens long: such prompts are cut to '
            f'{self.max_tokens}')
      self.cut[prompt] = len(ids)
      ids = ids[:self.max_tokens - ending] + ids[len(ids) - ending:]
    return ids

  def _weights(self):
    """Weights on the device; large ones stay there only as long as the caller holds them."""
    params, size = jax.device_put(self.params), sum(x.nbytes for x in jax.tree.leaves(self.params))
    if size <= KEPT or jax.default_backend() == 'cpu':
      self.params = params
    return params

  def _compute(self, prompts):
    """Yields (prompt, rows (n, width)) of each prompt, in float16, or float32 if that overflows.

    The padded length depends on the prompt alone, so rounding does not depend on the batch."""
    groups = collections.defaultdict(list)
    for prompt in prompts:
      if not (ids := self._ids(prompt)):
        yield prompt, np.zeros((0, self.width), np.float16)
        continue
      length = min(self.max_tokens, max(SHORTEST, 1 << (len(ids) - 1).bit_length()))
      groups[length].append((prompt, ids))
    params = self._weights() if groups else None
    for length, part in ((n, group[i:i + ROWS]) for n, group in groups.items()
                         for i in range(0, len(group), ROWS)):
      tokens, mask = np.zeros((ROWS, length), np.int32), np.zeros((ROWS, length), bool)
      for i, (_, ids) in enumerate(part):
        tokens[i, :len(ids)], mask[i, :len(ids)] = ids, True
      # The null prompt is embedded while a step is traced, where training guards transfers.
      with jax.transfer_guard('allow'):
        embedded = jax.device_get(KINDS[self.kind].module.embed(
            self.model, params, *jax.device_put((tokens, mask)), self.dtype))
      for (prompt, ids), rows in zip(part, embedded, strict=False):
        if not np.isfinite(largest := np.abs(rows).max()):
          raise UserError(f'{KINDS[self.kind].title} makes no finite numbers of {prompt[:60]!r}: '
                          'fetch its weights again')
        fits = largest <= np.finfo(np.float16).max
        yield prompt, rows[:len(ids)].astype(np.float16 if fits else np.float32)


def padded(rows, prompts, max_tokens, width):
  """Pads {prompt: rows (n, width)} to `prepare`'s result for a list of prompts."""
  # Always float32, so that a row which overflows float16 does not cause a recompilation.
  embedding = np.zeros((len(prompts), max_tokens, width), np.float32)
  mask = np.arange(max_tokens) < np.array([len(rows[text]) for text in prompts])[:, None]
  for i, text in enumerate(prompts):
    embedding[i, mask[i]] = rows[text]
  return {'embedding': embedding, 'mask': mask}


def encode(kind, prepared):
  """Embeddings float32 (B, L, width) and mask (B, L) of the places that are attended to."""
  mask = prepared['mask']
  if KINDS[kind].habits.unmasked:
    mask = jnp.ones_like(mask)
  return prepared['embedding'].astype(jnp.float32), mask


def load(source, cache_dir=None, max_tokens=77, dtype='float32', kind=None, seconds=None):
  """Loads an Encoder from a local Hugging Face folder or, with a network, by its hub name.

  Args:
    source: the folder or name; the model may be in its `text_encoder/`.
    cache_dir: folder of cached embeddings.
    max_tokens: length of `prepare`'s arrays; None: the kind's places.
    dtype: of matrix products.
    kind: key of KINDS that the files must be of; None: what they are.
    seconds: length of the clips.
  Raises UserError: something is missing or unusable.
  """
  if max_tokens is not None and max_tokens < 1 or dtype not in ('float32', 'bfloat16'):
    raise UserError(f'max_tokens={max_tokens}, dtype={dtype!r}: a text encoder takes 1 token or '
                    'more, and computes in float32 or bfloat16')
  folders = text_files.find(source, remedy(kind))
  kind, config = read_config(folders, kind)
  about, module = KINDS[kind], KINDS[kind].module
  tokenize, tokenizer_digest = module.read_tokenizer(folders.tokenizer, config)
  params, weights_digest = module.read_weights(folders.model, config, jnp.dtype(dtype))
  content = repr((config, dtype, tokenizer_digest, weights_digest)).encode()
  return Encoder(kind, about.model(config), params, tokenize, hashlib.sha256(content).hexdigest(),
                 max_tokens or about.habits.places, dtype, EmbeddingCache(cache_dir), seconds)


def remedy(kind):
  """End of a message: what to give instead of a folder that cannot be used."""
  return KINDS[kind].module.FOLDER if kind else (
      f"{t5.FOLDER}, or a pipeline's with umT5 or Qwen3 in text_encoder/")


def read_config(folders, kind=None):
  """Reads an encoder's config: (kind, config). Raises UserError: it is not of this `kind`, or of
  none in KINDS."""
  path = folders.model / 'config.json'
  stands = text_files.read_json(path, remedy(kind)).get('model_type')
  if kind is None and stands not in KINDS:
    raise UserError(f'{path}: model_type is {stands!r}: {remedy(None)}')
  if kind and stands != kind:
    raise UserError(f'{path}: model_type is {stands!r}: give a {KINDS[kind].title} (model_type '
                    f'{kind})')
  return stands, KINDS[stands].module.read_config(path)


def build(kind, config, context):
  """Builder of the kinds in KINDS (codecs/text.KINDS). Raises UserError: no size is known."""
  own = 'folder' in config  # a section of config.texts
  key = f'{context.section}.{"folder" if own else "t5"}'
  tower = context.folder if text_files.is_pipeline(context.folder) else ''
  source = (config.folder or tower) if own else config.t5
  max_tokens = config.max_tokens or KINDS[kind].habits.places
  seconds = context.seconds if KINDS[kind].habits.duration else None
  prepared = context.prepared(kind, config.width, max_tokens, seconds)
  # Of an encoder that nothing names no width is known, nor is it needed until it is used.
  width = config.width or (prepared.width if prepared else source and width_of(source, kind) or 0)
  dtype = 'float32'
  if own:  # prompts that were not prepared are embedded like those that were
    dtype = config.dtype or (prepared.dtype if prepared else jnp.dtype(context.dtype).name)
  return Pretrained(source, width, max_tokens, config.cache or None, dtype, kind, seconds, key,
                    prepared)


def width_of(source, kind):
  """Width of an encoder's embeddings, from its config alone. Raises UserError."""
  folders = text_files.find(source, remedy(kind), config_only=True)
  return KINDS[kind].model(read_config(folders, kind)[1]).width


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Encoder loaded at the first prompt, so that models can be built without its weights.

  Attributes: `load`'s arguments; `width` must match the weights. `prepared` has rows of captions
  that were embedded earlier, `get(text)` -> (n, width) or None, and the `fingerprint` of their
  encoder (data/prepare/embeddings.py); if it has all captions, the encoder is not loaded. `key` is
  the config key of the source, whose neighbour is the width's.
  """
  source: str
  width: int
  max_tokens: int
  cache_dir: str | None = None
  dtype: str = 'float32'
  kind: str = 't5'
  seconds: float | None = None
  key: str = 'text.t5'
  prepared: typing.Any = None
  _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, compare=False)
  _loaded: list = dataclasses.field(default_factory=list, compare=False)

  @property
  def encoder(self):
    """Loaded Encoder. Raises UserError: unavailable, or of another width."""
    with self._lock:
      if not self._loaded:
        title, (section, _, _) = KINDS[self.kind].title, self.key.rpartition('.')
        if not self.source:  # as a path, '' would be the current folder
          raise UserError(f'--config.{self.key} is not set: {remedy(self.kind)}')
        encoder = load(self.source, self.cache_dir, self.max_tokens, self.dtype, self.kind,
                       self.seconds)
        if encoder.width != self.width:
          raise UserError(f'{self.source} makes embeddings of {encoder.width} numbers: set '
                          f'--config.{section}.width={encoder.width}')
        if self.prepared and self.prepared.fingerprint != encoder.fingerprint:
          raise UserError(f'{self.source} is not the {title} that made the embeddings in '
                          f'{self.prepared.folder}: set --config.{self.key} to that one')
        self._loaded.append(encoder)
    return self._loaded[0]

  @property
  def shapes_only(self):
    """Copy of this encoder for shapes only: its weights are never read."""
    return ShapesOnly(self.source, self.width, self.max_tokens, kind=self.kind)

  def init(self, key):
    """Trainable parameters: none."""
    del key
    return {}

  def prepare(self, prompts):
    """Equivalent of `Encoder.prepare` that uses `prepared` rows where they exist."""
    known = {text: self._known(text) for text in dict.fromkeys(prompts)}
    if missing := [text for text, rows in known.items() if rows is None]:
      known |= self.encoder.rows(missing)
    return padded(known, prompts, self.max_tokens, self.width)

  def shapes(self, size):
    """Shapes of `prepare`'s result for `size` prompts; needs no weights."""
    return {'embedding': jax.ShapeDtypeStruct((size, self.max_tokens, self.width), jnp.float32),
            'mask': jax.ShapeDtypeStruct((size, self.max_tokens), jnp.bool_)}

  def check(self, prompt):
    """Raises UserError if a prompt is too long, or the encoder unavailable."""
    if self._known(prompt) is None:
      self.encoder.check(prompt)

  def _known(self, text):
    return self.prepared.get(text) if self.prepared else None

  def encode(self, params, prepared):
    """Embeddings float32 (B, L, width) and mask (B, L) of `prepare`'s result."""
    del params
    return encode(self.kind, prepared)


class ShapesOnly(Pretrained):
  """Pretrained encoder whose weights are never read: its embeddings only have the right shape.

  The null prompt is a constant of the compiled program, so it needs some value.
  """

  def prepare(self, prompts):
    return jax.tree.map(lambda x: np.ones(x.shape, x.dtype), self.shapes(len(prompts)))

  def check(self, prompt):
    """Accepts any prompt."""
