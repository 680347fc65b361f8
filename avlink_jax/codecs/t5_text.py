"""Text encoder: prompts to embeddings by T5 (App. C), with the interface of codecs/text.py.

T5 is not part of the training step: each caption is embedded once on the host and cached in memory
and on disk, and the step gets arrays.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib
import io
import pathlib
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs import t5
from avlink_jax.codecs.t5 import as_user_error
from avlink_jax.errors import UserError
from avlink_jax.storage.atomic import write_bytes

ROWS = 8  # captions embedded at a time, always: another shape might round differently
SHORTEST = 16  # tokens; captions are padded to powers of two, at least this


class EmbeddingCache:
  """Cache of rows (n, width) by key: the latest in memory and, if there is a folder, all on disk.

  Threads and processes may share it: a file (.npy, followed by its sha256) is written atomically,
  and a damaged one is ignored."""

  def __init__(self, folder=None, max_bytes=256 << 20):
    self._folder, self._max_bytes, self._bytes = folder and pathlib.Path(folder), max_bytes, 0
    self._lock, self._rows = threading.Lock(), collections.OrderedDict()

  def get(self, key):
    """Cached rows, or None."""
    with self._lock:
      if key in self._rows:
        self._rows.move_to_end(key)
        return self._rows[key]
    with as_user_error(self._folder, 'give a text cache folder that can be read', OSError):
      path = self._folder and self._folder / f'{key}.npy'
      blob = path.read_bytes() if path and path.exists() else b''
    intact = hashlib.sha256(blob[:-32]).digest() == blob[-32:]
    with contextlib.suppress(ValueError):  # an array of objects is refused
      return self._remember(key, np.load(io.BytesIO(blob), allow_pickle=False)) if intact else None

  def put(self, key, rows):
    """Stores rows. Raises UserError: the folder cannot be written."""
    self._remember(key, rows)
    if self._folder:
      np.save(file := io.BytesIO(), rows)
      blob = file.getvalue()
      write_bytes(self._folder / f'{key}.npy', blob + hashlib.sha256(blob).digest())

  def _remember(self, key, rows):
    with self._lock:
      self._bytes += rows.nbytes - getattr(self._rows.pop(key, None), 'nbytes', 0)
      self._rows[key] = rows
      while self._bytes > self._max_bytes:
        self._bytes -= self._rows.popitem(last=False)[1].nbytes
    return rows


@dataclasses.dataclass(eq=False)
class T5Encoder:
  """Pretrained text encoder, never trained here.

  tokenize: text -> ids ending with </s>. fingerprint: hash of everything that an embedding depends
  on besides the caption and `max_tokens`."""
  model: t5.T5
  params: dict
  tokenize: collections.abc.Callable
  fingerprint: str
  max_tokens: int
  dtype: str
  cache: EmbeddingCache
  _computing: threading.Lock = dataclasses.field(default_factory=threading.Lock)

  @property
  def width(self):
    return self.model.config.d_model

  def init(self, key):
    """Trainable parameters: none."""
    return {}

  def check(self, prompt):
    """Raises UserError if a prompt is longer than `max_tokens`."""
    if (count := len(self.tokenize(prompt))) > self.max_tokens:
      raise UserError(f'the prompt is {count:,} tokens long: this model reads at most '
                      f'{self.max_tokens} ({t5.EOS} is one of them)')

  def prepare(self, prompts):
    """Prompts -> {'embedding': (B, max_tokens, width), 'mask': bool (B, max_tokens)}, on the host.

    Each distinct prompt is embedded once and cached; '' is </s> alone; a prompt that is too long is
    cut and ends with </s>. Padding is zero. Raises UserError: the cache cannot be read or written,
    or the weights give values that are not finite.
    """
    return padded(self.rows(prompts), prompts, self.max_tokens, self.width)

  def rows(self, prompts):
    """Mapping {prompt: (n, width)}, a row per token, of distinct prompts; raises as `prepare`."""
    rows = {text: self.cache.get(self._key(text)) for text in dict.fromkeys(prompts)}
    if missing := [text for text, row in rows.items() if row is None]:
      # In a jitted function (the null prompt) this must be computed, not traced.
      with self._computing, jax.ensure_compile_time_eval():
        # Another thread may have computed some of them meanwhile.
        rows |= {text: self.cache.get(self._key(text)) for text in missing}
        for text, row in self._compute([text for text in missing if rows[text] is None]):
          self.cache.put(self._key(text), row)
          rows[text] = row
    return rows

  def encode(self, params, prepared):
    """Embeddings float32 (B, L, width) and mask (B, L) of `prepare`'s result."""
    return prepared['embedding'].astype(jnp.float32), prepared['mask']

  def _key(self, text):
    content = f'{self.fingerprint} {self.max_tokens} '.encode()
    return hashlib.sha256(content + text.encode(errors='surrogatepass')).hexdigest()

  def _compute(self, texts):
    """Yields (text, rows (n, width)) of each text, in float16, or float32 if that overflows.

    The padded length depends on the caption alone, so rounding does not depend on the batch."""
    groups = collections.defaultdict(list)
    for text in texts:
      *ids, eos = self.tokenize(text)
      ids = [*ids[:self.max_tokens - 1], eos]
      length = min(self.max_tokens, max(SHORTEST, 1 << (len(ids) - 1).bit_length()))
      groups[length].append((text, ids))
    for length, part in ((n, group[i:i + ROWS]) for n, group in groups.items()
                         for i in range(0, len(group), ROWS)):
      tokens, mask = np.zeros((ROWS, length), np.int32), np.zeros((ROWS, length), bool)
      for i, (_, ids) in enumerate(part):
        tokens[i, :len(ids)], mask[i, :len(ids)] = ids, True
      self.params = jax.device_put(self.params)  # only once there is a caption to embed
      embedded = t5.embed(self.model, self.params, *jax.device_put((tokens, mask)), self.dtype)
      for (text, ids), rows in zip(part, jax.device_get(embedded), strict=False):
        if not np.isfinite(largest := np.abs(rows).max()):
          raise UserError(f'T5 makes no finite numbers of {text[:60]!r}: fetch its weights again')
        fits = largest <= np.finfo(np.float16).max
        yield text, rows[:len(ids)].astype(np.float16 if fits else np.float32)


def padded(rows, prompts, max_tokens, width):
  """Pads {prompt: rows (n, width)} to `prepare`'s result for a list of prompts."""
  # Always float32, so that a row which overflows float16 does not cause a recompilation.
  embedding = np.zeros((len(prompts), max_tokens, width), np.float32)
  mask = np.arange(max_tokens) < np.array([len(rows[text]) for text in prompts])[:, None]
  for i, text in enumerate(prompts):
    embedding[i, mask[i]] = rows[text]
  return {'embedding': embedding, 'mask': mask}


def load(source, cache_dir=None, max_tokens=77, dtype='float32'):
  """Loads a T5Encoder from a local Hugging Face folder or, with a network, by its hub name.

  cache_dir: folder of cached embeddings. max_tokens: length of `prepare`'s arrays, including </s>.
  dtype: of matrix products. Raises UserError: something is missing or unusable.
  """
  if max_tokens < 1 or dtype not in ('float32', 'bfloat16'):
    raise UserError(f'max_tokens={max_tokens}, dtype={dtype!r}: T5 takes 1 token or more, and '
                    'computes in float32 or bfloat16')
  folder, where = pathlib.Path(source).expanduser(), f'{source}: no such folder'
  if not folder.is_dir():
    if folder.exists() or not re.fullmatch(r'\w[\w.-]*(/\w[\w.-]*)?', str(source)):
      raise UserError(f'{where}: {t5.FOLDER}')
    with as_user_error(where, 'pip install huggingface_hub, or ' + t5.FOLDER, ImportError):
      hub = importlib.import_module('huggingface_hub')
    with as_user_error(  # HTTP's, the disk's, ...
        f'{where}, nor to be had from the hub', t5.FOLDER, Exception):
      folder = pathlib.Path(hub.snapshot_download(str(source), allow_patterns=[
          'config.json', 'model-*.safetensors', *t5.WEIGHTS, *t5.TOKENIZERS]))
  config = t5.read_config(folder / 'config.json')
  tokenize, tokenizer_digest = t5.read_tokenizer(folder, config.vocab_size)
  params, weights_digest = t5.read_weights(folder, config, jnp.dtype(dtype))
  about = repr((config, dtype, tokenizer_digest, weights_digest)).encode()
  return T5Encoder(t5.T5(config), params, tokenize, hashlib.sha256(about).hexdigest(), max_tokens,
                   dtype, EmbeddingCache(cache_dir))


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """T5Encoder loaded at the first prompt, so that models can be built without its weights.

  Attributes: `load`'s arguments; `width` must match the weights. `prepared` has rows of captions
  that were embedded earlier, `get(text)` -> (n, width) or None, and the `fingerprint` of their T5
  (data/prepare/embeddings.py); if it has all captions, T5 is not loaded.
  """
  source: str
  width: int
  max_tokens: int
  cache_dir: str | None = None
  dtype: str = 'float32'
  prepared: object = dataclasses.field(default=None, compare=False)
  _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, compare=False)
  _loaded: list = dataclasses.field(default_factory=list, compare=False)

  @property
  def encoder(self):
    """Loaded T5Encoder. Raises UserError: unavailable, or of another width."""
    with self._lock:
      if not self._loaded:
        if not self.source:  # as a path, '' would be the current folder
          raise UserError(f'--config.text.t5 is not set: {t5.FOLDER}')
        encoder = load(self.source, self.cache_dir, self.max_tokens, self.dtype)
        if encoder.width != self.width:
          raise UserError(f'{self.source} makes embeddings of {encoder.width} numbers: set '
                          f'--config.text.width={encoder.width}')
        if self.prepared and self.prepared.fingerprint != encoder.fingerprint:
          raise UserError(f'{self.source} is not the T5 that made the embeddings in '
                          f'{self.prepared.folder}: set --config.text.t5 to that one')
        self._loaded.append(encoder)
    return self._loaded[0]

  @property
  def shapes_only(self):
    """Copy of this encoder for shapes only: its weights are never read."""
    return ShapesOnly(self.source, self.width, self.max_tokens)

  def init(self, key):
    """Trainable parameters: none."""
    del key
    return {}

  def prepare(self, prompts):
    """Equivalent of `T5Encoder.prepare` that uses `prepared` rows where they exist."""
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
    return prepared['embedding'].astype(jnp.float32), prepared['mask']


class ShapesOnly(Pretrained):
  """Pretrained encoder whose weights are never read: its embeddings only have the right shape.

  The null prompt is a constant of the compiled program, so it needs some value.
  """

  def prepare(self, prompts):
    return jax.tree.map(lambda x: np.ones(x.shape, x.dtype), self.shapes(len(prompts)))

  def check(self, prompt):
    """Accepts any prompt."""
