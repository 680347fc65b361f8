"""CLAP: sound and words in one space of 512 numbers. Any Hugging Face folder of LAION's.

Run by `transformers`, with PyTorch: its HTSAT is a Swin transformer with ways of its own to fold a
spectrogram, and is well kept there. Weights are taken from `model.safetensors` alone, so that
nothing is unpickled. Sounds longer than the 10 s that it takes are heard in pieces, one after the
other (the library would choose pieces at random); shorter ones are repeated, as in training.
Source: Wu et al. 2023; `transformers.ClapModel`.
"""

import numpy as np
import safetensors

from avlink_jax.errors import UserError
from avlink_jax.metrics.networks import loading
from avlink_jax.metrics.networks.embedding import read_audio

BATCH = 16  # prompts at a time
# What the library raises where a folder is not what it should be.
MISTAKES = (OSError, ValueError, KeyError, RuntimeError, AttributeError,
            safetensors.SafetensorError)


class Clap:
  """A folder's model; as embedding.Embedder, and `words` besides.

  Raises (at once): UserError where there are no weights, or no library to run them.
  """

  def __init__(self, network, folder=None):
    self.network = network
    self.path = loading.find(network, folder)
    self.checksum = loading.checksum(self.path)
    try:
      import torch
      import transformers
    except ImportError:
      raise UserError('clap needs two libraries: pip install transformers torch') from None
    transformers.logging.disable_progress_bar()
    self._torch, where = torch, str(self.path.parent)
    try:
      self._model = transformers.ClapModel.from_pretrained(
          where, local_files_only=True, use_safetensors=True).eval()
      self._processor = transformers.ClapProcessor.from_pretrained(where, local_files_only=True)
    except MISTAKES as error:
      told = (str(error).split('\n')[0] or type(error).__name__)[:150]
      raise UserError(f'{where}: not a Hugging Face folder of CLAP ({told})') from None

  def clip(self, path, seconds) -> dict:
    """{'embedding': float32 (R, 512)}, a row of length 1 for each 10 s of a clip's first seconds.

    Raises:
      MediaError: it cannot be read, or has no sound.
    """
    wave, ear = read_audio(path, seconds, self.network.rate), self._processor.feature_extractor
    size, rows = ear.nb_max_samples, []
    for first in range(0, max(len(wave), 1), size):
      piece = wave[first:first + size] if len(wave) else np.zeros(size, np.float32)
      # One at a time: of several, the fused model would take one at random for a long one.
      given = ear(piece, sampling_rate=self.network.rate, return_tensors='pt')
      rows.append(self._embedded('audio', given))
    return {'embedding': np.concatenate(rows)}

  def words(self, prompts) -> np.ndarray:
    """[str] -> float32 (P, 512), rows of length 1."""
    rows = []
    for first in range(0, len(prompts), BATCH):
      given = self._processor.tokenizer(prompts[first:first + BATCH], padding=True,
                                        truncation=True, return_tensors='pt')
      rows.append(self._embedded('text', given))
    return np.concatenate(rows)

  def _embedded(self, kind, given):
    model = self._model
    with self._torch.no_grad():
      seen = getattr(model, f'{kind}_model')(**given).pooler_output
      row = getattr(model, f'{kind}_projection')(seen)
      return (row / row.norm(dim=-1, keepdim=True)).numpy()
