"""Hashes are of content: of every array's name, type, shape and bytes; and stay what they were."""

import hashlib

import jax.numpy as jnp
import numpy as np

from avlink_jax.codecs.mel import MelSpec
from avlink_jax.codecs.mel_codec import MelCodec
from avlink_jax.codecs.mel_vae import MelVAE
from avlink_jax.storage.digest import add_tree, key

TREE = {'b': np.arange(6, dtype=np.float32).reshape(2, 3), 'a': [np.float16(1), np.zeros(0)]}


def of(tree, dtype=None):
  digest = hashlib.sha256()
  add_tree(digest, tree, dtype)
  return digest.hexdigest()


def test_names_types_shapes_and_bytes_count():
  assert of(TREE) == of({name: TREE[name] for name in ('a', 'b')})
  others = [{**TREE, 'b': TREE['b'].T}, {**TREE, 'b': TREE['b'].reshape(3, 2)},
            {**TREE, 'b': TREE['b'].astype(np.float64)}, {**TREE, 'b': TREE['b'] + 1},
            {'c': TREE['b'], 'a': TREE['a']}]
  assert len({of(tree) for tree in [TREE, *others]}) == 6


def test_with_a_type_an_arrays_own_does_not_count():
  halved = {'b': TREE['b'].astype(np.float16)}
  assert of(halved, np.float32) == of({'b': jnp.asarray(TREE['b'])}, np.float32)
  assert of(halved) != of({'b': TREE['b']})


def test_what_was_hashed_yesterday_has_the_same_hash_today():
  """Prepared records know their codec by it, and interrupted work what is done."""
  assert key([1, None, 'clip', [0.5]]) == 'bc36e8dd2cab308feb99ede925542171'
  assert of(TREE) == 'a3726921625e4e6a2d676d32f9c746f56c295f06f6bd967608942f8252803e43'
  params = {'encoder': np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}
  codec = MelCodec('audio', MelVAE(width=8), MelSpec(), None)
  assert codec.fingerprint({'params': params, 'std': np.float32(0.5)}) == (
      '4f628ac865e8d54cb13560f3eccdf91f67a5514e22a9b8a95630c1528f337b0e')
