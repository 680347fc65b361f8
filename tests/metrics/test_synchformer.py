"""Synchformer gives what its layers give, written anew in torch; DeSync is of both ends of a clip.

Random weights at small widths, under the public names. The whole model is compared with the public
code's once, by hand: see avlink_jax/metrics/README.md.
"""

import numpy as np
import pytest
from test_networks import TOLERANCE, noise, off, random_state

from avlink_jax.evaluate import evaluate
from avlink_jax.metrics.networks import registry, synchformer

torch = pytest.importorskip('torch')
nn = torch.nn
WIDTH, HEADS, PATCH, DEPTH = 8, 2, 16, 1
SIDE = 2  # patches of a side of a small frame


def norm(eps):
  return nn.LayerNorm(WIDTH, eps=eps)


def linear(out=WIDTH, given=WIDTH):
  return nn.Linear(given, out)


def parameter(*shape):
  return nn.Parameter(torch.zeros(*shape, WIDTH))


def gathering():
  layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, nn.GELU(), 1e-6,
                                     batch_first=True, norm_first=True)
  layer.cls_token = parameter(1, 1)
  return layer


def mlp():
  return {'fc1': linear(4 * WIDTH), 'fc2': linear(WIDTH, 4 * WIDTH)}


def layers_anew(side=SIDE):
  """The public layout, of torch's own modules."""
  video = nn.ModuleDict({
      'patch_embed_3d': nn.ModuleDict({'proj': nn.Conv3d(3, WIDTH, (2, 16, 16), (2, 16, 16))}),
      'blocks': nn.ModuleList(nn.ModuleDict({
          'norm1': norm(1e-6), 'norm2': norm(1e-6), 'norm3': norm(1e-6),
          'attn': nn.ModuleDict({'qkv': linear(3 * WIDTH), 'proj': linear()}),
          'timeattn': nn.ModuleDict({'qkv': linear(3 * WIDTH), 'proj': linear()}),
          'mlp': nn.ModuleDict(mlp())}) for _ in range(DEPTH)),
      'norm': norm(1e-6), 'spatial_attn_agg': gathering()})
  video.cls_token, video.pos_embed = parameter(1, 1), parameter(1, 1 + side * side)
  video.temp_embed = parameter(1, 8)
  embeddings = nn.ModuleDict({'patch_embeddings': nn.ModuleDict(
      {'projection': nn.Conv2d(1, WIDTH, PATCH, 10)})})
  embeddings.cls_token, embeddings.distillation_token = parameter(1, 1), parameter(1, 1)
  embeddings.position_embeddings = parameter(1, 12 * 6 + 2)
  audio = nn.ModuleDict({
      'ast': nn.ModuleDict({
          'embeddings': embeddings, 'layernorm': norm(1e-12),
          'encoder': nn.ModuleDict({'layer': nn.ModuleList(nn.ModuleDict({
              'attention': nn.ModuleDict({
                  'attention': nn.ModuleDict(
                      {part: linear() for part in ('query', 'key', 'value')}),
                  'output': nn.ModuleDict({'dense': linear()})}),
              'intermediate': nn.ModuleDict({'dense': linear(4 * WIDTH)}),
              'output': nn.ModuleDict({'dense': linear(WIDTH, 4 * WIDTH)}),
              'layernorm_before': norm(1e-12), 'layernorm_after': norm(1e-12)})
              for _ in range(DEPTH))})}),
      'freq_attn_agg': gathering()})
  head = nn.ModuleDict({
      'vis_in_lnorm': norm(1e-5), 'aud_in_lnorm': norm(1e-5), 'ln_f': norm(1e-5),
      'off_head': linear(21),
      'blocks': nn.ModuleList(nn.ModuleDict({
          'ln1': norm(1e-5), 'ln2': norm(1e-5),
          'attn': nn.ModuleDict({part: linear() for part in ('query', 'key', 'value', 'proj')}),
          'mlp': nn.Sequential(linear(4 * WIDTH), nn.GELU(), linear(WIDTH, 4 * WIDTH))})
          for _ in range(DEPTH))})
  head.OFF_tok, head.MOD_tok = parameter(1, 1), parameter(1, 1)
  head.pos_emb_cfg = nn.ParameterDict({'pos_emb': parameter(1, 1 + 14 * 8 + 1 + 14 * 6)})
  return nn.ModuleDict({'vfeat_extractor': video, 'afeat_extractor': audio, 'vproj': linear(),
                        'aproj': linear(), 'transformer': head})


def attended(q, k, v, allowed=None):
  split = lambda x: x.unflatten(-1, (HEADS, -1)).transpose(-2, -3)  # noqa: E731
  found = nn.functional.scaled_dot_product_attention(split(q), split(k), split(v), allowed)
  return found.transpose(-2, -3).flatten(-2)


def gathered(layer, x):
  """x (B, T, N, C): the first of N + 1 vectors after the layer."""
  rows = x.flatten(0, 1)
  rows = layer(torch.cat([layer.cls_token.expand(len(rows), -1, -1), rows], 1))[:, 0]
  return rows.reshape(len(x), -1)


def through_video(model, frames):
  """Attention under masks over all tokens, instead of in groups."""
  x = model['patch_embed_3d']['proj'](frames.permute(0, 4, 1, 2, 3))
  times, places = x.shape[2], x.shape[3] * x.shape[4]
  x = x.flatten(2).transpose(1, 2)
  x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], 1)
  x = x + torch.cat([model.pos_embed[:, :1], model.pos_embed[:, 1:].repeat(1, times, 1)
                     + model.temp_embed.repeat_interleave(places, 1)], 1)
  index = torch.arange(times * places)
  for block in model['blocks']:
    for key, before, group in (('timeattn', 'norm3', index % places),
                               ('attn', 'norm1', index // places)):
      allowed = torch.ones(1 + len(index), 1 + len(index), dtype=torch.bool)
      allowed[1:, 1:] = group[:, None] == group[None]
      q, k, v = block[key]['qkv'](block[before](x)).chunk(3, -1)
      x = x + block[key]['proj'](attended(q, k, v, allowed))
    x = x + block['mlp']['fc2'](nn.functional.gelu(block['mlp']['fc1'](block['norm2'](x))))
  x = model['norm'](x)[:, 1:].unflatten(1, (times, places))
  return gathered(model['spatial_attn_agg'], x)


def through_audio(model, mel):
  ast = model['ast']
  embeddings = ast['embeddings']
  x = embeddings['patch_embeddings']['projection'](mel.transpose(1, 2)[:, None])
  bands, times = x.shape[2:]
  x = torch.cat([embeddings.cls_token.expand(len(x), -1, -1),
                 embeddings.distillation_token.expand(len(x), -1, -1),
                 x.flatten(2).transpose(1, 2)], 1) + embeddings.position_embeddings
  for layer in ast['encoder']['layer']:
    given, inner = layer['layernorm_before'](x), layer['attention']['attention']
    x = x + layer['attention']['output']['dense'](
        attended(*(inner[part](given) for part in ('query', 'key', 'value'))))
    x = x + layer['output']['dense'](nn.functional.gelu(
        layer['intermediate']['dense'](layer['layernorm_after'](x))))
  x = ast['layernorm'](x)[:, 2:].unflatten(1, (bands, times)).transpose(1, 2)
  return gathered(model['freq_attn_agg'], x)


def through_head(model, audio, video):
  head = model['transformer']
  video = head['vis_in_lnorm'](model['vproj'](video.reshape(len(video), -1, WIDTH)))
  audio = head['aud_in_lnorm'](model['aproj'](audio.reshape(len(audio), -1, WIDTH)))
  tokens = [token.expand(len(audio), -1, -1) for token in (head.OFF_tok, head.MOD_tok)]
  x = torch.cat([tokens[0], video, tokens[1], audio], 1) + head.pos_emb_cfg['pos_emb']
  for block in head['blocks']:
    given = block['ln1'](x)
    x = x + block['attn']['proj'](attended(*(
        block['attn'][part](given) for part in ('query', 'key', 'value'))))
    x = x + block['mlp'](block['ln2'](x))
  return head['off_head'](head['ln_f'](x)[:, 0])


@pytest.fixture
def few_heads(monkeypatch):
  monkeypatch.setattr(synchformer, 'HEADS', HEADS)
  monkeypatch.setattr(synchformer, 'COMPARING_HEADS', HEADS)


def test_synchformer_is_its_layers_written_anew(few_heads):
  model = layers_anew()
  weights = random_state(model)
  mel, frames = noise(2, 66, 128), noise(2, 16, 16 * SIDE, 16 * SIDE, 3, low=0, high=255)
  audio, video = noise(2, 14, 6 * WIDTH), noise(2, 14, 8 * WIDTH)
  as_torch = torch.from_numpy
  with torch.no_grad():
    expected = (through_audio(model['afeat_extractor'], as_torch(mel)),
                through_video(model['vfeat_extractor'], as_torch(frames / 127.5 - 1).float()),
                through_head(model, as_torch(audio), as_torch(video)))
  found = (synchformer.forward_audio(weights, mel)['embedding'],
           synchformer.forward_video(weights, frames)['embedding'],
           synchformer.compare(weights, audio, video))
  for made, wanted in zip(found, expected, strict=True):
    assert made.shape == wanted.shape and off(made, wanted) < TOLERANCE


def test_its_log_mels_are_torchs_spectrum_in_htks_bands():
  """A segment of 0.64 s every 0.32 s; the 66th frame is empty before the mean is removed."""
  audio = pytest.importorskip('transformers.audio_utils')
  wave = noise(16000 * 2)
  bands = audio.mel_filter_bank(513, 128, 0.0, 8000.0, 16000, norm=None, mel_scale='htk')
  expected = torch.stft(torch.from_numpy(wave[5120:15360]), 1024, 160, 400, return_complex=True,
                        window=torch.hann_window(400)).abs().numpy() ** 2
  expected = (np.log(expected.T @ bands + 1e-6) + 4.2677393) / (2 * 4.5689974)
  found = synchformer.prepare_audio(wave)
  assert found.shape == (5, 66, 128) and off(found[1, :65], expected) < TOLERANCE
  assert np.allclose(found[:, 65], 4.2677393 / (2 * 4.5689974))


def test_video_is_cut_like_audio_and_cropped_to_its_centre():
  frames = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(90, 1).repeat(160, 2)
  frames = frames.repeat(3, 3)
  frames[:, :, :10] = 255  # outside of the crop
  found = synchformer.prepare_video(frames)
  assert found.shape == (4, 16, 224, 224, 3)
  assert (found == (np.arange(4)[:, None] * 8 + np.arange(16))[..., None, None, None]).all()


def test_desync_is_the_mean_distance_of_both_ends_on_a_grid_of_a_fifth_of_a_second():
  audio, video = np.arange(24.0)[:, None], np.arange(20.0)[:, None]

  def compared(audio, video):
    assert audio[:, 0, 0].tolist() == [0, 10] and video[:, 0, 0].tolist() == [0, 6]
    assert audio.shape == video.shape == (2, 14, 1)
    return np.eye(21)[[7, 20]]  # -0.6 s and 2 s

  assert synchformer.desync(compared, audio, video) == pytest.approx(1.3)
  assert np.allclose(np.diff(synchformer.OFFSETS), 0.2) and synchformer.OFFSETS[10] == 0


def test_evaluate_has_the_desync_of_each_clip_and_of_exchanged_ones(few_heads, tmp_path,
                                                                   monkeypatch):
  from test_network_metrics import clips
  torch.save(layers_anew(side=14).state_dict(), tmp_path / 'synchformer_state_dict.pth')
  for name, times in (('synchformer_audio', 6), ('synchformer_video', 8)):
    network = registry.NETWORKS[name]
    monkeypatch.setitem(registry.NETWORKS, name, network._replace(size=(times * WIDTH, 0)))
  theirs = clips(tmp_path / 'r', 2, seconds=5.0)
  result = evaluate(theirs, theirs, metrics=('desync_synchformer',), networks=str(tmp_path))
  assert result['missing_metrics'] == {} and result['warnings'] == []
  assert 0 <= result['desync_synchformer'] <= 2
  for row in result['per_clip']:
    assert row['desync_synchformer'] == row['reference_desync_synchformer']
    assert row['desync_synchformer'] * 10 == pytest.approx(round(row['desync_synchformer'] * 10))
  short = evaluate(theirs, theirs, metrics=('desync_synchformer',), networks=str(tmp_path),
                   seconds=4.0)
  assert short['desync_synchformer'] is None
  assert 'shorter than synchformer_video needs (4.80 s)' in short['warnings'][0]
