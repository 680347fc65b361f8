"""Prompts to embeddings through T5 (App. C), with the seam of codecs/text.py.

T5 is no part of the training step: a caption is embedded once, before, and kept in memory and on
disk; what the step sees is an array.
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
from avlink_jax.codecs.t5 import told
from avlink_jax.errors import UserError
from avlink_jax.storage.atomic import write_bytes

ROWS = 8  # captions embedded at a time, always: another shape might round another way
SHORTEST = 16  # tokens; a caption is padded to a power of two from here on


class EmbeddingCache:
  """Rows (n, width) by key: the latest used in memory, all of them on disk if there is a folder.
  Threads and processes may share it: a file, an .npy with its sha256 behind, appears whole or not
  at all, and a damaged one counts as none."""

  def __init__(self, folder=None, max_bytes=256 << 20):
    self._folder, self._max_bytes, self._bytes = folder and pathlib.Path(folder), max_bytes, 0
    self._lock, self._rows = threading.Lock(), collections.OrderedDict()

  def get(self, key):
    """The rows, or None."""
    with self._lock:
      if key in self._rows:
        self._rows.move_to_end(key)
        return self._rows[key]
    with told(self._folder, 'give a text cache folder that can be read', OSError):
      path = self._folder and self._folder / f'{key}.npy'
      blob = path.read_bytes() if path and path.exists() else b''
    whole = hashlib.sha256(blob[:-32]).digest() == blob[-32:]
    with contextlib.suppress(ValueError):  # of objects: not ours, whatever its sum
      return self._remember(key, np.load(io.BytesIO(blob), allow_pickle=False)) if whole else None

  def put(self, key, rows):
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
  """A text encoder that is never trained. `tokenize` makes ids of a text, </s> last; `fingerprint`
  is of all that an embedding depends on but the caption and `max_tokens`."""
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
    """Nothing to train."""
    return {}

  def check(self, prompt):
    """Raises UserError for a prompt that is longer than `max_tokens`."""
    if (count := len(self.tokenize(prompt))) > self.max_tokens:
      raise UserError(f'the prompt is {count:,} tokens long: this model reads at most '
                      f'{self.max_tokens} ({t5.EOS} is one of them)')

  def prepare(self, prompts):
    """Prompts -> {'embedding': (B, max_tokens, width), 'mask': bool (B, max_tokens)}, on the host.

    Each distinct prompt is embedded once and kept; '' is </s> alone; a longer one than fits is cut,
    </s> last. Padding is zero. Raises
    UserError: the cache cannot be read or written, the weights give no finite numbers.
    """
    return padded(self.rows(prompts), prompts, self.max_tokens, self.width)

  def rows(self, prompts):
    """{prompt: (n, width), one a token} of each distinct prompt; raises as `prepare` does."""
    rows = {text: self.cache.get(self._key(text)) for text in dict.fromkeys(prompts)}
    if missing := [text for text, row in rows.items() if row is None]:
      # Inside a jitted function (the null prompt), computing must still mean computing.
      with self._computing, jax.ensure_compile_time_eval():
        # Another thread may have made some of them meanwhile.
        rows |= {text: self.cache.get(self._key(text)) for text in missing}
        for text, row in self._compute([text for text in missing if rows[text] is None]):
          self.cache.put(self._key(text), row)
          rows[text] = row
    return rows

  def encode(self, params, prepared):
    """What `prepare` gave -> embeddings float32 (B, L, width), mask (B, L)."""
    return prepared['embedding'].astype(jnp.float32), prepared['mask']

  def _key(self, text):
    said = f'{self.fingerprint} {self.max_tokens} '.encode() + text.encode(errors='surrogatepass')
    return hashlib.sha256(said).hexdigest()

  def _compute(self, texts):
    """Yields (text, rows (n, width) in float16, or float32 where that overflows) of each.
    Lengths depend on the caption alone, so that it rounds the same in any company."""
    groups = collections.defaultdict(list)
    for text in texts:
      *said, eos = self.tokenize(text)
      said = [*said[:self.max_tokens - 1], eos]
      padded = min(self.max_tokens, max(SHORTEST, 1 << (len(said) - 1).bit_length()))
      groups[padded].append((text, said))
    for padded, part in ((n, group[i:i + ROWS]) for n, group in groups.items()
                         for i in range(0, len(group), ROWS)):
      tokens, mask = np.zeros((ROWS, padded), np.int32), np.zeros((ROWS, padded), bool)
      for i, (_, said) in enumerate(part):
        tokens[i, :len(said)], mask[i, :len(said)] = said, True
      self.params = jax.device_put(self.params)  # not before there is a caption to embed
      made = t5.embed(self.model, self.params, *jax.device_put((tokens, mask)), self.dtype)
      for (text, said), rows in zip(part, jax.device_get(made), strict=False):
        if not np.isfinite(largest := np.abs(rows).max()):
          raise UserError(f'T5 makes no finite numbers of {text[:60]!r}: fetch its weights again')
        fits = largest <= np.finfo(np.float16).max
        yield text, rows[:len(said)].astype(np.float16 if fits else np.float32)


def padded(rows, prompts, max_tokens, width):
  """{prompt: (n, width)} -> what `prepare` gives for a list of prompts."""
  # Always float32: a batch with one row that float16 cannot hold is no reason to compile anew.
  embedding = np.zeros((len(prompts), max_tokens, width), np.float32)
  mask = np.arange(max_tokens) < np.array([len(rows[text]) for text in prompts])[:, None]
  for i, text in enumerate(prompts):
    embedding[i, mask[i]] = rows[text]
  return {'embedding': embedding, 'mask': mask}


def load(source, cache_dir=None, max_tokens=77, dtype='float32'):
  """A T5Encoder from a local Hugging Face folder, or a hub name where there is a network.

  `cache_dir` keeps embeddings for good; `max_tokens` is the length of what `prepare` gives, </s>
  included; `dtype` that of the matrix products. UserError for whatever is missing or unusable.
  """
  if max_tokens < 1 or dtype not in ('float32', 'bfloat16'):
    raise UserError(f'max_tokens={max_tokens}, dtype={dtype!r}: T5 takes 1 token or more, and '
                    'computes in float32 or bfloat16')
  folder, where = pathlib.Path(source).expanduser(), f'{source}: no such folder'
  if not folder.is_dir():
    if folder.exists() or not re.fullmatch(r'\w[\w.-]*(/\w[\w.-]*)?', str(source)):
      raise UserError(f'{where}: {t5.FOLDER}')
    with told(where, 'pip install huggingface_hub, or ' + t5.FOLDER, ImportError):
      hub = importlib.import_module('huggingface_hub')
    with told(f'{where}, nor to be had from the hub', t5.FOLDER, Exception):  # HTTP's, disk's, ...
      folder = pathlib.Path(hub.snapshot_download(str(source), allow_patterns=[
          'config.json', 'model-*.safetensors', *t5.WEIGHTS, *t5.TOKENIZERS]))
  config = t5.read_config(folder / 'config.json')
  tokenize, of_tokenizer = t5.read_tokenizer(folder, config.vocab_size)
  params, of_weights = t5.read_weights(folder, config, jnp.dtype(dtype))
  about = repr((config, dtype, of_tokenizer, of_weights)).encode()
  return T5Encoder(t5.T5(config), params, tokenize, hashlib.sha256(about).hexdigest(), max_tokens,
                   dtype, EmbeddingCache(cache_dir))


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """`load`, when the first prompt comes: a config can be built, and looked at, without weights.

  Attributes: as `load`'s arguments; `width` must be that of the weights. `prepared` holds rows of
  captions that were embedded beforehand, `get(text)` -> (n, width) or None, and the `fingerprint`
  of the T5 that made them (data/prepare/embeddings.py): with all captions there, no T5 is needed.
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
    """The T5Encoder; UserError where it cannot be had or is of another width."""
    with self._lock:
      if not self._loaded:
        if not self.source:  # as a path it would be the folder one happens to be in
          raise UserError(f'--config.text.t5 is not set: {t5.FOLDER}')
        made = load(self.source, self.cache_dir, self.max_tokens, self.dtype)
        if made.width != self.width:
          raise UserError(f'{self.source} makes embeddings of {made.width} numbers: set '
                          f'--config.text.width={made.width}')
        if self.prepared and self.prepared.fingerprint != made.fingerprint:
          raise UserError(f'{self.source} is not the T5 that made the embeddings in '
                          f'{self.prepared.folder}: set --config.text.t5 to that one')
        self._loaded.append(made)
    return self._loaded[0]

  @property
  def unread(self):
    """The encoder for shapes alone: its weights are not asked for."""
    return Unread(self.source, self.width, self.max_tokens)

  def init(self, key):
    """Nothing to train."""
    del key
    return {}

  def prepare(self, prompts):
    """As T5Encoder's."""
    known = {text: self._known(text) for text in dict.fromkeys(prompts)}
    if missing := [text for text, rows in known.items() if rows is None]:
      known |= self.encoder.rows(missing)
    return padded(known, prompts, self.max_tokens, self.width)

  def shapes(self, size):
    """Of what `prepare` gives for `size` prompts; needs no weights."""
    return {'embedding': jax.ShapeDtypeStruct((size, self.max_tokens, self.width), jnp.float32),
            'mask': jax.ShapeDtypeStruct((size, self.max_tokens), jnp.bool_)}

  def check(self, prompt):
    if self._known(prompt) is None:
      self.encoder.check(prompt)

  def _known(self, text):
    return self.prepared.get(text) if self.prepared else None

  def encode(self, params, prepared):
    """What `prepare` gave -> embeddings float32 (B, L, width), mask (B, L)."""
    del params
    return prepared['embedding'].astype(jnp.float32), prepared['mask']


class Unread(Pretrained):
  """A pretrained encoder that is never read: its embeddings have the right shape and no meaning.

  The null prompt is a constant of the program, so there has to be something in its place.
  """

  def prepare(self, prompts):
    return jax.tree.map(lambda x: np.ones(x.shape, x.dtype), self.shapes(len(prompts)))

  def check(self, prompt):
    """Takes any prompt."""
