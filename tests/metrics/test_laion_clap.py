"""LAION-CLAP in its own layout gives what `transformers.ClapModel` gives with the same weights.

Random weights at small widths; their names are brought from the one layout into the other here.
"""

import jax
import numpy as np
import pytest
import soundfile
from test_networks import TOLERANCE, noise, off, random_state

from avlink_jax.errors import UserError
from avlink_jax.metrics.networks import htsat, laion_clap, registry, roberta

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
tokenizers = pytest.importorskip('tokenizers')
OUT, WIDTH = 12, 16
WORDS = ['<s>', '<pad>', '</s>', '<unk>', 'a', 'ball', 'drum', 'soft', 'loud']
NAMES = (  # of transformers, of LAION
    ('audio_model.audio_encoder.batch_norm', 'audio_branch.bn0'),
    ('audio_model.audio_encoder.', 'audio_branch.'), ('text_model.', 'text_branch.'),
    ('projection.linear1', 'projection.0'), ('projection.linear2', 'projection.2'))
BLOCK_NAMES = (
    ('attention.self.relative', 'attn.relative'), ('attention.output.dense', 'attn.proj'),
    ('intermediate.dense', 'mlp.fc1'), ('output.dense', 'mlp.fc2'),
    ('layernorm_before', 'norm1'), ('layernorm_after', 'norm2'))


@pytest.fixture(scope='module')
def model():
  return transformers.ClapModel(transformers.ClapConfig(
      text_config=dict(vocab_size=len(WORDS), hidden_size=WIDTH, num_hidden_layers=2,
                       num_attention_heads=2, intermediate_size=32, max_position_embeddings=80,
                       layer_norm_eps=1e-5),
      audio_config=dict(patch_embeds_hidden_size=4, hidden_size=32, depths=[2, 1, 1, 2],
                        num_attention_heads=[1, 2, 2, 4], num_hidden_layers=4),
      projection_dim=OUT)).eval()


@pytest.fixture(scope='module')
def weights(model):
  """The model's random weights under LAION's names."""
  given = random_state(model)
  for name in [name for name in given if 'audio_encoder' in name and '.self.query.' in name]:
    given[name.replace('attention.self.query', 'attn.qkv')] = np.concatenate(
        [given[name.replace('query', part)] for part in ('query', 'key', 'value')])
  renamed = {}
  for name, array in given.items():
    for theirs, ours in (*NAMES, *(BLOCK_NAMES if 'audio_encoder' in name else ())):
      name = name.replace(theirs, ours)
    renamed[name] = array
  return renamed


@pytest.fixture
def folder(weights, tmp_path, monkeypatch):
  """Folder with a checkpoint as LAION's are, and a tokenizer."""
  network = registry.CLAP_BASE
  monkeypatch.setitem(registry.NETWORKS, network.name, network._replace(size=(OUT, 0)))
  monkeypatch.setattr(roberta, 'HEAD', WIDTH // 2)
  torch.save({'epoch': 15, 'state_dict': {f'module.{name}': torch.from_numpy(array)
                                          for name, array in weights.items()}},
             tmp_path / network.file)
  tokens = tokenizers.Tokenizer(tokenizers.models.WordLevel(
      {word: k for k, word in enumerate(WORDS)}, unk_token='<unk>'))
  tokens.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  tokens.post_processor = tokenizers.processors.RobertaProcessing(('</s>', 2), ('<s>', 0))
  (tmp_path / 'roberta-base').mkdir()
  tokens.save(str(tmp_path / 'roberta-base' / 'tokenizer.json'))
  return tmp_path


def test_its_log_mels_are_transformers():
  extractor = transformers.ClapFeatureExtractor(truncation='rand_trunc', frequency_min=50)
  wave = noise(3 * 48000)
  expected = extractor(wave, sampling_rate=48000, return_tensors='np')['input_features'][0]
  found = htsat.prepare(wave)
  assert found.shape == expected.shape == (1, 1001, 64) and off(found, expected) < TOLERANCE
  assert len(htsat.prepare(np.zeros(0))) == 1 and len(htsat.prepare(noise(10 * 48000 + 9))) == 2


def test_stretching_is_torchs_bicubic_interpolation():
  x = noise(1, 1, 1001, 3)
  expected = torch.nn.functional.interpolate(torch.from_numpy(x), (1024, 3), mode='bicubic',
                                             align_corners=True)[0, 0]
  assert off(htsat.stretching(1001, 1024) @ x[0, 0], expected) < 1e-5


def test_audio_and_texts_are_where_transformers_put_them(model, folder, tmp_path):
  clap = laion_clap.LaionClap(registry.NETWORKS['clap_base'], folder)
  wave = noise(2 * 48000)
  soundfile.write(tmp_path / 'a.wav', wave, 48000, subtype='FLOAT')
  prompts = ['a soft ball', 'loud drum', 'a ' * 100]
  ids = [[0, 4, 7, 5, 2], [0, 8, 6, 2], [0, *[4] * 75, 2]]
  padded = torch.tensor([row + [1] * (77 - len(row)) for row in ids])
  with torch.no_grad():
    audio = model.audio_projection(model.audio_model(
        torch.from_numpy(htsat.prepare(wave))[:, None]).pooler_output)
    text = model.text_projection(model.text_model(
        input_ids=padded, attention_mask=(padded != 1).long()).pooler_output)
  found = clap.clip(tmp_path / 'a.wav', 2.0)['embedding'], clap.texts(prompts)
  for made, wanted in zip(found, (audio, text), strict=True):
    wanted = torch.nn.functional.normalize(wanted, dim=-1)
    assert made.shape == wanted.shape and off(made, wanted) < TOLERANCE


def test_full_windows_are_not_shifted_and_opposite_ends_do_not_see_each_other():
  mask = htsat._apart(16, 16, 8, 4)
  assert mask.shape == (4, 64, 64) and not mask[0].any()  # nothing meets in the first window
  assert (mask[3] == htsat.MASKED).mean() == 0.75  # four quarters, each by itself


def test_a_checkpoint_of_audio_alone_is_refused_and_a_missing_tokenizer_is_told(weights, folder):
  network = registry.NETWORKS['clap_base']
  (folder / 'roberta-base' / 'tokenizer.json').unlink()
  with pytest.raises(UserError, match="no tokenizer.json in it: put RoBERTa base's"):
    laion_clap.LaionClap(network, folder)
  audio = {name: torch.from_numpy(array) for name, array in weights.items() if 'audio' in name}
  torch.save(audio, folder / network.file)
  with pytest.raises(UserError, match='not the weights of clap_base'):
    laion_clap.LaionClap(network, folder)


def test_it_takes_any_depth_of_stages(weights):
  fewer = {name: array for name, array in weights.items() if '.layers.0.blocks.1.' not in name}
  found = jax.eval_shape(laion_clap.forward_audio, fewer, np.zeros((2, 1001, 64), np.float32))
  assert found['embedding'].shape == (2, OUT)
