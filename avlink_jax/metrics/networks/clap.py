"""CLAP: audio and text in one space of 512 dimensions, from a Hugging Face folder of LAION's.

Run by `transformers`, with PyTorch: its HTSAT is a Swin transformer that folds a spectrogram in its
own way, and is maintained there. Weights are read from `model.safetensors` alone, so that nothing
is unpickled. Audio longer than the 10 s that it takes is split into pieces (the library would
choose pieces at random); shorter audio is repeated, as in training.
Source: Wu et al. 2023; `transformers.ClapModel`.
"""

import numpy as np
import safetensors

from avlink_jax.errors import UserError
from avlink_jax.metrics.networks import loading
from avlink_jax.metrics.networks.embedding import read_audio

BATCH = 16  # prompts at a time
# What the library raises for a folder of something else.
MISTAKES = (OSError, ValueError, KeyError, RuntimeError, AttributeError,
            safetensors.SafetensorError)


class Clap:
  """CLAP of a folder; embedding.Embedder's interface, and `texts`.

  Raises UserError where there are no weights, or no library to run them.
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
    self._torch, directory = torch, str(self.path.parent)
    try:
      self._model = transformers.ClapModel.from_pretrained(
          directory, local_files_only=True, use_safetensors=True).eval()
      self._processor = transformers.ClapProcessor.from_pretrained(directory, local_files_only=True)
    except MISTAKES as error:
      reason = (str(error).split('\n')[0] or type(error).__name__)[:150]
      raise UserError(f'{directory}: not a Hugging Face folder of CLAP ({reason})') from None

  def clip(self, path, seconds, view=None) -> dict:
    """Embeds a clip's first seconds: {'embedding': float32 (R, 512)}, a unit row for each 10 s.

    Raises:
      MediaError: it cannot be read, or has no audio.
    """
    del view  # of video
    wave = read_audio(path, seconds, self.network.rate)
    extractor = self._processor.feature_extractor
    size, rows = extractor.nb_max_samples, []
    for first in range(0, max(len(wave), 1), size):
      piece = wave[first:first + size] if len(wave) else np.zeros(size, np.float32)
      # One at a time: of several, the fused model would take one at random for a long one.
      inputs = extractor(piece, sampling_rate=self.network.rate, return_tensors='pt')
      rows.append(self._embedded('audio', inputs))
    return {'embedding': np.concatenate(rows)}

  def texts(self, prompts) -> np.ndarray:
    """Embeds prompts: float32 (P, 512), rows of length 1."""
    rows = []
    for first in range(0, len(prompts), BATCH):
      inputs = self._processor.tokenizer(prompts[first:first + BATCH], padding=True,
                                        truncation=True, return_tensors='pt')
      rows.append(self._embedded('text', inputs))
    return np.concatenate(rows)

  def _embedded(self, kind, inputs):
    model = self._model
    with self._torch.no_grad():
      pooled = getattr(model, f'{kind}_model')(**inputs).pooler_output
      row = getattr(model, f'{kind}_projection')(pooled)
      return (row / row.norm(dim=-1, keepdim=True)).numpy()
