"""ImageBind and CLAP give what their public implementations give, and evaluate tells it.

Random weights at small widths, in the public layouts. ImageBind is compared with its layers written
anew in torch, and with Meta's own where the package `imagebind-unofficial` is installed (0.1.1,
`pip install --no-deps`: these trunks need nothing of what it asks for).
"""

import contextlib
import importlib.util
import json
import sys
import types

import av
import numpy as np
import pytest
from test_network_metrics import clips
from test_networks import TOLERANCE, channels_first, noise, off, random_state

from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.evaluate import evaluate, summary
from avlink_jax.evaluation import common
from avlink_jax.metrics import network_metrics
from avlink_jax.metrics.networks import embedding, imagebind, kaldi_mel, registry
from avlink_jax.metrics.networks.clap import Clap

torch = pytest.importorskip('torch')
nn = torch.nn
WIDTH, OUT, HEADS, DEPTH = 24, 16, 2, 2


# -- ImageBind

def block(bias_kv):
  norm = lambda: nn.LayerNorm(WIDTH, eps=1e-6)  # noqa: E731
  return nn.ModuleDict({
      'attn': nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=bias_kv, batch_first=True),
      'norm_1': norm(), 'norm_2': norm(),
      'mlp': nn.ModuleDict({'fc1': nn.Linear(WIDTH, 4 * WIDTH),
                            'fc2': nn.Linear(4 * WIDTH, WIDTH)})})


def entrance(stem, tokens):
  module = nn.ModuleDict({'rgbt_stem': nn.ModuleDict(stem)})
  module.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
  module.pos_embedding_helper = nn.ParameterDict(
      {'pos_embed': nn.Parameter(torch.zeros(1, 1 + tokens, WIDTH))})
  return module


def layers_anew():
  """The public layout, of torch's own modules."""
  kinds = ('vision', 'audio')
  head = lambda: nn.Sequential(nn.LayerNorm(WIDTH, eps=1e-6), nn.Identity(),  # noqa: E731
                               nn.Linear(WIDTH, OUT, bias=False))
  trunks = {kind: nn.ModuleDict({'blocks': nn.ModuleList(
      block(kind == 'audio') for _ in range(DEPTH))}) for kind in kinds}
  trunks['vision']['pre_transformer_layer'] = nn.Sequential(nn.LayerNorm(WIDTH, eps=1e-6))
  return nn.ModuleDict({
      'modality_preprocessors': nn.ModuleDict({
          'vision': entrance({'proj': nn.Sequential(nn.Identity(), nn.Conv3d(
              3, WIDTH, (2, 14, 14), (2, 14, 14), bias=False))}, 256),
          'audio': entrance({'proj': nn.Conv2d(1, WIDTH, 16, 10, bias=False),
                             'norm_layer': nn.LayerNorm(WIDTH)}, 228)}),
      'modality_trunks': nn.ModuleDict(trunks),
      'modality_heads': nn.ModuleDict({kind: head() for kind in kinds})})


def through(model, kind, x):
  """x channels first."""
  entry, trunk = model['modality_preprocessors'][kind], model['modality_trunks'][kind]
  x = entry['rgbt_stem']['proj'](x).flatten(2).transpose(1, 2)
  if 'norm_layer' in entry['rgbt_stem']:
    x = entry['rgbt_stem']['norm_layer'](x)
  x = torch.cat([entry.cls_token.expand(len(x), -1, -1), x], 1)
  x = x + entry.pos_embedding_helper['pos_embed']
  if 'pre_transformer_layer' in trunk:
    x = trunk['pre_transformer_layer'](x)
  for layer in trunk['blocks']:
    given = layer['norm_1'](x)
    x = x + layer['attn'](given, given, given, need_weights=False)[0]
    x = x + layer['mlp']['fc2'](nn.functional.gelu(layer['mlp']['fc1'](layer['norm_2'](x))))
  return nn.functional.normalize(model['modality_heads'][kind](x[:, :1])[:, 0], dim=-1)


@pytest.fixture
def few_heads(monkeypatch):
  monkeypatch.setattr(imagebind, 'HEADS', {'vision': HEADS, 'audio': HEADS})


def inputs():
  return {'vision': noise(2, 2, 224, 224, 3), 'audio': noise(2, 128, 204, 1)}


def test_imagebind_is_its_layers_written_anew(few_heads):
  model = layers_anew()
  weights = random_state(model)
  for kind, x in inputs().items():
    with torch.no_grad():
      expected = through(model, kind, channels_first(x)).numpy()
    made = getattr(imagebind, f'forward_{kind}')(weights, x)['embedding']
    assert off(made, expected) < TOLERANCE and np.ptp(expected) > 0.1


def test_imagebind_is_metas(few_heads, monkeypatch):
  spec = importlib.util.find_spec('imagebind')
  if spec is None:
    pytest.skip('imagebind is not installed')
  shell = types.ModuleType('imagebind')  # all of it would need torchvision and torchaudio
  shell.__path__ = spec.submodule_search_locations
  monkeypatch.setitem(sys.modules, 'imagebind', shell)
  for name, content in {  # of what it imports, what these two trunks use
      'ftfy': {}, 'timm': {}, 'timm.layers': {
          'DropPath': lambda rate: nn.Identity(), 'trunc_normal_': nn.init.trunc_normal_},
      'iopath': {}, 'iopath.common': {}, 'iopath.common.file_io': {'g_pathmgr': None}}.items():
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    vars(sys.modules[name]).update(content)
  package = importlib.import_module('imagebind.models.imagebind_model')
  kinds = ('vision', 'audio', 'text', 'depth', 'thermal', 'imu')
  sizes = {f'{kind}_{size}': value for kind in kinds for size, value in (
      ('embed_dim', WIDTH), ('num_blocks', DEPTH), ('num_heads', HEADS))}
  model = package.ImageBindModel(out_embed_dim=OUT, **sizes)
  weights = random_state(model)
  for kind, x in inputs().items():
    with torch.no_grad():
      expected = model({kind: channels_first(x)[:, None]})[kind]  # clips of one piece
    expected = nn.functional.normalize(expected, dim=-1).numpy()  # sound's are 20 long there
    made = getattr(imagebind, f'forward_{kind}')(weights, x)['embedding']
    assert off(made, expected) < TOLERANCE


def test_its_log_mels_are_kaldis():
  """As `transformers` computes them for AST where torchaudio is missing."""
  audio = pytest.importorskip('transformers.audio_utils')
  wave = noise(16000).astype(np.float64) + 0.3
  filters = audio.mel_filter_bank(
      num_frequency_bins=257, num_mel_filters=128, min_frequency=20, max_frequency=8000,
      sampling_rate=16000, norm=None, mel_scale='kaldi', triangularize_in_mel_space=True)
  expected = audio.spectrogram(
      wave - wave.mean(), audio.window_function(400, 'hann', periodic=False), frame_length=400,
      hop_length=160, fft_length=512, power=2.0, center=False, preemphasis=0.97,
      mel_filters=filters, log_mel='log', mel_floor=kaldi_mel.FLOOR, remove_dc_offset=True).T
  made = kaldi_mel.log_mel(wave, 128)
  assert made.shape == expected.shape == (98, 128) and off(made, expected) < TOLERANCE


@pytest.mark.parametrize('seconds, count, first', [(5.0, 3, [0, 1.5, 3]), (2.0, 3, [0]),
                                                   (1.2, 5, [0]), (10.0, 5, [0, 2, 4, 6, 8])])
def test_pieces_lie_evenly_from_the_first_to_the_last(seconds, count, first):
  assert imagebind.starts(seconds, count) == pytest.approx(first)
  heard = imagebind.prepare_audio(noise(int(seconds * 16000)))
  assert heard.shape == (len(imagebind.starts(seconds, 3)), 128, 204, 1)
  missing = heard[0, :, round(min(seconds, 2) * 100):]
  assert np.allclose(missing, -imagebind.MEL_MEAN / imagebind.MEL_STD)


@pytest.mark.parametrize('height, width', [(90, 160), (160, 90), (300, 300)])
def test_video_is_seen_in_three_crops_of_the_first_and_last_frame(height, width):
  frames = np.random.default_rng(0).integers(0, 256, (30, height, width, 3), np.uint8)
  seen = imagebind.prepare_video(frames)
  assert seen.shape == (15, 2, 224, 224, 3)
  scale = 224 / min(height, width)
  whole = torch.nn.functional.interpolate(
      channels_first(frames[[0, 23]] / np.float32(255)),
      (int(height * scale), int(width * scale)), mode='bilinear').numpy()
  for row, place in zip(seen[:3], (0.0, 0.5, 1.0), strict=True):
    top, left = (int(np.ceil((side - 224) * place)) for side in whole.shape[2:])
    expected = whole[:, :, top:top + 224, left:left + 224]
    expected = (np.moveaxis(expected, 1, -1) - imagebind.MEAN) / imagebind.STD
    assert np.abs(row - expected).max() < 0.02
  images = imagebind.prepare_images(frames[:2])
  assert images.shape == (2, 2, 224, 224, 3) and np.array_equal(images[:, 0], images[:, 1])


@pytest.mark.parametrize('height, width', [(90, 160), (300, 250)])
def test_pairs_are_of_neighbours_resized_as_torchvision_resizes(height, width):
  """torchvision hands uint8 frames to torch's smoothed bicubic interpolation."""
  frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
  scale = 224 / min(height, width)
  whole = torch.nn.functional.interpolate(
      channels_first(frames), (int(height * scale), int(width * scale)), mode='bicubic',
      antialias=True).numpy()
  whole = (np.moveaxis(whole, 1, -1) / 255 - imagebind.MEAN) / imagebind.STD
  top, left = (int(np.ceil((side - 224) / 2)) for side in whole.shape[1:3])
  middle = whole[:, top:top + 224, left:left + 224]
  pairs = imagebind.prepare_pairs(frames)
  assert pairs.shape == (6, 2, 224, 224, 3)
  difference = np.abs(pairs[[1, 4]] - np.stack([middle[:2], middle[1:]]))
  assert difference.max() < 0.04 and difference.mean() < 1e-3  # of few pixels, two levels of 255


@pytest.mark.parametrize('fps', [24, 50])
@pytest.mark.parametrize('rate', [0.5, 25])
def test_frames_in_the_middle_are_those_of_ffmpegs_fps(fps, rate, tmp_path):
  shades = np.arange(5 * fps) * 16 % 240  # neighbours differ by more than the codec errs
  frames = np.tile(shades[:, None, None, None], (1, 32, 32, 3)).astype(np.uint8)
  mux.write_mp4(tmp_path / 'a.mp4', frames=frames, fps=fps)
  expected, graph = [], av.filter.Graph()
  with av.open(tmp_path / 'a.mp4') as container:
    graph.link_nodes(graph.add_buffer(template=container.streams.video[0]),
                     graph.add('fps', str(rate)), graph.add('buffersink')).configure()
    for frame in [*container.decode(video=0), None]:
      graph.push(frame)
      with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
          expected.append(graph.pull().to_ndarray(format='rgb24').mean())
  made = embedding.read_frames(tmp_path / 'a.mp4', 4.0, rate, middle=True).mean((1, 2, 3))
  assert len(made) == 4 * rate and np.allclose(made, expected[:len(made)], atol=5)
  seen = common.View(32, 32, fps)  # its own size and rate
  viewed = embedding.read_frames(tmp_path / 'a.mp4', 4.0, rate, seen, middle=True)
  assert np.allclose(viewed.mean((1, 2, 3)), made, atol=1)


# -- CLAP

@pytest.fixture(scope='module')
def clap_folder(tmp_path_factory):
  """A folder as Hugging Face has them, of a small random model; {'folder', 'model'}."""
  transformers, tokenizers = (pytest.importorskip(name) for name in ('transformers', 'tokenizers'))
  root = tmp_path_factory.mktemp('weights')
  words = ['<s>', '<pad>', '</s>', '<unk>', '<mask>', 'a', 'ball', 'drum', 'soft', 'loud']
  tokens = tokenizers.Tokenizer(tokenizers.models.WordLevel(
      {word: k for k, word in enumerate(words)}, unk_token='<unk>'))
  tokens.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  tokens.post_processor = tokenizers.processors.RobertaProcessing(('</s>', 2), ('<s>', 0))
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=tokens, bos_token='<s>', eos_token='</s>', pad_token='<pad>',
      unk_token='<unk>', mask_token='<mask>', model_max_length=30)
  torch.manual_seed(0)
  model = transformers.ClapModel(transformers.ClapConfig(
      text_config=dict(vocab_size=len(words), hidden_size=16, num_hidden_layers=2,
                       num_attention_heads=2, intermediate_size=32, max_position_embeddings=40),
      audio_config=dict(patch_embeds_hidden_size=8, hidden_size=32, depths=[1, 1, 1],
                        num_attention_heads=[1, 1, 1], num_hidden_layers=3),
      projection_dim=12)).eval()
  model.save_pretrained(root / 'clap')
  transformers.ClapFeatureExtractor(truncation='rand_trunc').save_pretrained(root / 'clap')
  tokenizer.save_pretrained(root / 'clap')
  return {'folder': root, 'model': model, 'tokenizer': tokenizer}


@pytest.fixture
def clap(clap_folder, monkeypatch):
  monkeypatch.setitem(registry.NETWORKS, 'clap', registry.CLAP._replace(size=(12, 0)))
  return Clap(registry.NETWORKS['clap'], clap_folder['folder'])


def test_clap_is_transformers(clap, clap_folder, tmp_path):
  clips(tmp_path / 'c', 1, rate=48000)
  sound = clap.clip(tmp_path / 'c' / '0.wav', 2.0)['embedding']
  words = clap.texts(['a soft ball', 'loud drum', 'a drum'])
  import soundfile
  wave, _ = soundfile.read(tmp_path / 'c' / '0.wav', dtype='float32')
  import transformers
  given = transformers.ClapFeatureExtractor.from_pretrained(clap_folder['folder'] / 'clap')(
      wave, sampling_rate=48000, return_tensors='pt')
  said = clap_folder['tokenizer'](['a soft ball', 'loud drum', 'a drum'], padding=True,
                                  return_tensors='pt')
  with torch.no_grad():
    out = clap_folder['model'](**given, input_ids=said.input_ids,
                               attention_mask=said.attention_mask)
  expected = out.logits_per_audio / clap_folder['model'].logit_scale_a.exp().detach()
  assert sound.shape == (1, 12) and words.shape == (3, 12)
  assert off(sound @ words.T, expected) < TOLERANCE


def test_long_sounds_are_heard_whole_and_alike_each_time(clap, tmp_path):
  import soundfile
  soundfile.write(tmp_path / 'a.wav', noise(12 * 48000), 48000)
  rows = [clap.clip(tmp_path / 'a.wav', 12.0)['embedding'] for _ in range(2)]
  assert rows[0].shape == (2, 12) and np.array_equal(*rows)


def test_a_folder_that_is_none_of_clap_is_told_in_a_line(tmp_path):
  pytest.importorskip('transformers')
  (tmp_path / 'clap').mkdir()
  (tmp_path / 'clap' / 'model.safetensors').write_bytes(b'no weights')
  with pytest.raises(UserError, match='not a Hugging Face folder of CLAP') as caught:
    Clap(registry.CLAP, tmp_path)
  assert '\n' not in str(caught.value)


# -- evaluate

@pytest.fixture
def weights(clap, clap_folder, few_heads, monkeypatch):
  """The folder of small networks: CLAP's, and an ImageBind checkpoint in the public layout."""
  model = layers_anew()
  random_state(model)
  torch.save(model.state_dict(), clap_folder['folder'] / 'imagebind_huge.pth')
  for kind in ('audio', 'image', 'video'):
    name = f'imagebind_{kind}'
    monkeypatch.setitem(registry.NETWORKS, name, registry.NETWORKS[name]._replace(size=(OUT, 0)))
  return str(clap_folder['folder'])


PROMPTS = ('a soft ball', 'loud drum', 'a ball', '')
METRICS = ('clap_laion', 'ib_ai', 'ib_av')


def samples(folder, **row):
  clips(folder, 4)
  with (folder / 'manifest.jsonl').open('w') as file:
    for k, prompt in enumerate(PROMPTS):
      file.write(json.dumps({'id': str(k), 'prompt': prompt, 'seed': 3, 'guidance': 5.0,
                             'files': {'audio': f'{k}.wav', 'video': f'{k}.mp4'}, **row}) + '\n')
  return str(folder)


@pytest.mark.slow
def test_a_sound_is_beside_its_prompt_and_its_picture(weights, tmp_path):
  theirs, ours = clips(tmp_path / 'r', 4), samples(tmp_path / 'g', made=['audio'])
  result = evaluate(ours, theirs, metrics=METRICS, networks=weights)
  assert result['missing_metrics'] == {} and result['warnings'] == []
  for name in METRICS:
    assert -1 <= result[name] <= 1 and result['intervals'][name][0] <= result[name]
    assert result[f'control_{name}'] != result[name]
    # The same clips stand in both folders.
    assert result[f'reference_{name}'] == pytest.approx(result[name], abs=1e-5)
  assert [row['clap_laion'] is None for row in result['per_clip']] == [False] * 3 + [True]
  protocol = {name: value for name, value in result['protocol'].items()
              if name not in ('pictures', 'sample_rates')}
  assert protocol == {'seconds': None, 'prompts': 'some', 'clips_with_prompt': 3,
                      'condition_prompts': 'unknown', 'negative_prompts': [],
                      'seeds': [3], 'guidances': [5.0]}
  row, = [line for line in summary(result).split('\n') if line.startswith('V2A, 4 clips')]
  assert all(name in row for name in METRICS)
  assert 'made with prompts: 3 of 4 clips; seeds: [3]' in summary(result)

  # Of a picture that was made for a sound a prompt says nothing of the sound.
  ours = samples(tmp_path / 'a2v', made=['video'])
  for path in (tmp_path / 'a2v').glob('*.wav'):
    path.unlink()
  silent = evaluate(ours, theirs, metrics=METRICS, networks=weights)
  assert list(silent['missing_metrics']) == ['clap_laion']
  assert 'no clip has a prompt' in silent['missing_metrics']['clap_laion']
  assert silent['ib_av'] == pytest.approx(result['ib_av'], abs=1e-5)  # the reference's sound
  assert silent['protocol']['prompts'] == 'some'

  # Of a sound alone, the reference's picture; and its prompt, where there is no other.
  samples(tmp_path / 'r2')
  ours = clips(tmp_path / 'sounds', 4)
  for path in (tmp_path / 'sounds').glob('*.mp4'):
    path.unlink()
  alone = evaluate(ours, str(tmp_path / 'r2'), metrics=METRICS, networks=weights)
  for name in METRICS:
    assert alone[name] == pytest.approx(result[name], abs=1e-5)
  assert alone['protocol']['seeds'] == []


def test_without_weights_each_says_in_a_line_how_to_get_them(tmp_path):
  ours = samples(tmp_path / 'g')
  result = evaluate(ours, ours, metrics=METRICS, networks=str(tmp_path))
  assert list(result['missing_metrics']) == list(METRICS) and result['onset_f1'] == 1.0
  for name, file in (('clap_laion', 'clap/model.safetensors'), ('ib_av', 'imagebind_huge.pth')):
    assert file in result['missing_metrics'][name] and '\n' not in result['missing_metrics'][name]
  assert network_metrics.missing(METRICS, tmp_path) == result['missing_metrics']


@pytest.mark.parametrize('prompts, told', [((None,) * 4, 'unknown'), (('',) * 4, 'without'),
                                           (('a',) * 4, 'with')])
def test_what_was_said_is_told(prompts, told, tmp_path):
  clips(tmp_path / 'g', 4)
  rows = [{'id': str(k), 'prompt': said} for k, said in enumerate(prompts)]
  (tmp_path / 'g' / 'manifest.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  result = evaluate(str(tmp_path / 'g'), str(tmp_path / 'g'))
  assert result['protocol']['prompts'] == told
