"""Mode `evaluate` through networks: figures, intervals, what is missing, going on, odd clips.

The networks are tiny ones made here, with weights on disk as real ones have them; one test of the
real ones on real clips runs where both are.
"""

import json
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import soxr
from timed_clips import clicks, moves

from avlink_jax import evaluate as evaluation
from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.evaluate import evaluate, summary
from avlink_jax.metrics import network_metrics
from avlink_jax.metrics.families import FAMILIES
from avlink_jax.metrics.networks import embedding, registry

RATE = 16000
HEARS, SEES = 'fad_ear', 'fid_eye'
METRICS = (HEARS, 'is_ear', 'kl_ear', SEES)


def forward(weights, x):
  return {'embedding': x.reshape(len(x), -1) @ weights['in'],
          'logits': x.reshape(len(x), -1) @ weights['out']}


def loudness(wave):
  """(S,) -> (R, 8): spectrum of every half second, in eight bands."""
  rows = np.resize(wave, (max(1, len(wave) // 4000), 4000))
  bands = np.abs(np.fft.rfft(rows))[:, 1:2001].reshape(len(rows), 8, 250).mean(-1)
  return np.log(bands + 0.1).astype(np.float32)


def grid(frames):
  """(N, H, W, 3) -> (N, 4, 4): brightness."""
  n, height, width, _ = frames.shape
  frames = frames[:, :height // 4 * 4, :width // 4 * 4].astype(np.float32).mean(-1) / 255
  return frames.reshape(n, 4, height // 4, 4, width // 4).mean((2, 4))


def network(name, sees, prepare, numbers):
  return registry.Network(
      name, sees, 4 if sees else 8000, (3, 2), 0.0, prepare, forward, f'{name}.npz', '',
      f'make {name}.npz', 'none', lambda arrays: {k: arrays[k] for k in ('in', 'out')})


@pytest.fixture
def networks(tmp_path, monkeypatch):
  """Folder with the weights of two tiny networks that metrics know."""
  folder = tmp_path / 'weights'
  folder.mkdir()
  for name, sees, prepare, given in (('ear', False, loudness, 8), ('eye', True, grid, 16)):
    rng = np.random.default_rng(given)
    tree = {'in': rng.standard_normal((given, 3)).astype(np.float32),
            'out': rng.standard_normal((given, 2)).astype(np.float32)}
    np.savez(folder / f'{name}.npz', **tree)
    monkeypatch.setitem(registry.NETWORKS, name, network(name, sees, prepare, given))
  for name in METRICS:
    kind = {'fad': 'frechet', 'fid': 'frechet', 'is': 'score', 'kl': 'divergence'}
    monkeypatch.setitem(network_metrics.METRICS, name,
                        (kind[name.split('_')[0]], name.split('_')[1]))
  return str(folder)


def times(k):
  return [0.2 + 0.13 * k % 1.1, 1.4 + 0.07 * k % 0.5]


def clips(folder, count=9, change=None, fps=12, seconds=2.0, rate=RATE):
  """Clips with picture and sound, no two alike; `change` is done to each sound."""
  folder.mkdir(parents=True, exist_ok=True)
  for k in range(count):
    rng = np.random.default_rng(k)
    sound = clicks(times(k), seconds) + rng.normal(0, 0.01 * (1 + k % 3), int(seconds * RATE))
    frames = np.clip(moves(times(k), seconds, fps).astype(int) + 9 * k, 0, 255).astype(np.uint8)
    mux.write_mp4(folder / f'{k}.mp4', frames=frames, fps=fps)
    sound = sound if change is None else change(sound, rng)
    sound = soxr.resample(np.clip(sound, -1, 1), RATE, rate)
    soundfile.write(folder / f'{k}.wav', sound, rate, subtype='FLOAT')
  return str(folder)


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
  return clips(tmp_path_factory.mktemp('reference'))


def test_a_folder_is_at_no_distance_from_itself(reference, networks, tmp_path):
  result = evaluate(reference, reference, str(tmp_path / 's.json'), metrics=METRICS,
                    networks=networks)
  for name in (HEARS, SEES):
    assert result[name] == pytest.approx(0, abs=1e-6)
    assert result[f'{name}_infinity'] == pytest.approx(0, abs=1e-6)
    assert result['intervals'][name] == pytest.approx([0, 0], abs=1e-5)
  assert result['kl_ear'] == pytest.approx(0, abs=1e-9) and result['control_kl_ear'] > 0
  assert 1 <= result['is_ear'] <= 2
  assert result['networks']['ear']['rows'] == {'generated': 36, 'reference': 36}
  assert result['networks']['eye']['rows'] == {'generated': 72, 'reference': 72}
  assert result['missing_metrics'] == {} and result['warnings'] == []
  assert json.loads((tmp_path / 's.json').read_text()) == result
  assert sorted(path.name for path in tmp_path.glob('s.json*')) == ['s.json']


def test_it_gets_worse_with_noise_and_says_how_sure_it_is(reference, networks, tmp_path):
  found = []
  for level in (0.02, 0.1, 0.5):
    ours = clips(tmp_path / f'{level}', change=lambda sound, rng, level=level: (
        sound + level * rng.standard_normal(len(sound))))
    found.append(evaluate(ours, reference, metrics=METRICS, networks=networks))
  for name in (HEARS, 'kl_ear'):
    values = [result[name] for result in found]
    assert values == sorted(values) and values[0] > 0
    for result in found:
      low, high = result['intervals'][name]
      assert low <= result[name] <= high and high > low
  assert [result[SEES] for result in found] == pytest.approx([0, 0, 0], abs=1e-6)
  assert found[2]['kl_ear'] == pytest.approx(
      np.mean([row['kl_ear'] for row in found[2]['per_clip']]))


def test_missing_weights_are_told_and_the_others_are_computed(reference, networks, tmp_path):
  (tmp_path / 'weights' / 'ear.npz').unlink()
  result = evaluate(reference, reference, metrics=METRICS, networks=networks)
  assert result['missing_metrics'].keys() == {HEARS, 'is_ear', 'kl_ear'}
  assert HEARS not in result and result[SEES] == pytest.approx(0, abs=1e-6)
  told, = [line for line in summary(result).split('\n') if line.startswith('not computed')]
  assert f'{HEARS}, is_ear, kl_ear' in told and 'make ear.npz' in told


def test_weights_that_are_damaged_are_told_too(reference, networks, tmp_path):
  (tmp_path / 'weights' / 'ear.npz').write_bytes(b'\x80\x04 words')
  result = evaluate(reference, reference, metrics=METRICS, networks=networks)
  assert 'not the weights of ear' in result['missing_metrics'][HEARS] and SEES in result


def test_few_clips_have_no_interval_and_a_warning(networks, tmp_path):
  theirs = clips(tmp_path / 'r', 3)
  result = evaluate(theirs, theirs, metrics=METRICS, networks=networks)
  assert result['intervals'][HEARS] is None and result[f'{HEARS}_infinity'] is None
  assert any('3 clips are too few for 3 dimensions' in line for line in result['warnings'])
  assert 'warning: fad_ear' in summary(result)
  one = clips(tmp_path / 'one', 1)
  result = evaluate(one, one, metrics=METRICS, networks=networks)
  assert result[HEARS] is None and result['kl_ear'] == pytest.approx(0, abs=1e-9)


def test_a_clip_that_a_network_cannot_see_is_left_out_and_listed(reference, networks, tmp_path):
  ours = clips(tmp_path / 'g')
  (tmp_path / 'g' / '4.mp4').unlink()
  result = evaluate(ours, reference, metrics=METRICS, networks=networks)
  assert result['networks']['eye']['clips'] == 8 and result['networks']['ear']['clips'] == 9
  left, = result['networks']['eye']['left_out']
  assert left['id'] == '4' and 'no picture (generated)' in left['reason']
  assert any('1 of 9 clips left out' in line for line in result['warnings'])


def test_only_the_first_seconds_count_where_that_is_asked(networks, tmp_path):
  def other_end(sound, rng):
    sound[RATE:] = rng.standard_normal(len(sound) - RATE)
    return sound
  theirs, ours = clips(tmp_path / 'r'), clips(tmp_path / 'g', change=other_end)
  whole = evaluate(ours, theirs, metrics=METRICS, networks=networks)
  first = evaluate(ours, theirs, metrics=METRICS, networks=networks, seconds=1.0)
  assert whole[HEARS] > 10 and first[HEARS] < 0.1  # the resampler hears a little beyond
  assert first['onset_f1'] == 1.0 and {row['duration'] for row in first['per_clip']} == {1.0}
  assert first['networks']['eye']['rows']['generated'] == 9 * 4
  assert first['protocol']['seconds'] == 1.0


@pytest.mark.parametrize('fps, rate, seconds', [(Fraction(30000, 1001), 44100, 3.1),
                                                (25, 8000, 1.9), (7, 22050, 2.0)])
def test_anybodys_clips_of_any_rates_and_lengths_give_a_row_of_the_tables(
    fps, rate, seconds, reference, networks, tmp_path):
  ours = clips(tmp_path / 'g', fps=float(fps), rate=rate, seconds=seconds)
  result = evaluate(ours, reference, metrics=METRICS, networks=networks)
  assert result['clips'] == 9 and result['unreadable'] == []
  assert result[HEARS] >= 0 and result[SEES] >= 0 and result['kl_ear'] >= 0
  assert all(row['duration'] == pytest.approx(min(2.0, seconds), abs=0.1)
             for row in result['per_clip'])


def test_the_summary_has_the_papers_columns_in_their_order(reference, networks, monkeypatch):
  monkeypatch.setitem(evaluation.TABLES, 'V2A', {
      'FAD': (HEARS,), 'FD': ('fd_nobody',), 'IS': ('is_ear',), 'Onset ACC': ('onset_accuracy',)})
  result = evaluate(reference, reference, metrics=METRICS, networks=networks)
  row, = [line for line in summary(result).split('\n') if line.startswith('V2A, 9 clips')]
  assert [cell.split()[0] for cell in row.split(' | ')[1:]] == [
      HEARS, 'FD', 'is_ear', 'onset_accuracy']
  assert 'V2A' not in summary(evaluate(reference, reference))


def test_an_interrupted_evaluation_does_not_look_twice(reference, networks, tmp_path, monkeypatch):
  ours = clips(tmp_path / 'g', change=lambda sound, rng: sound * 0.5)
  alone = evaluate(ours, reference, str(tmp_path / 'alone.json'), metrics=METRICS,
                   networks=networks)
  looked, stop, look = [], [7], embedding.Embedder.clip

  def looking(self, path, seconds, view):
    if len(looked) == stop[0]:
      raise KeyboardInterrupt
    looked.append((self.network.name, path))
    return look(self, path, seconds, view)

  monkeypatch.setattr(embedding.Embedder, 'clip', looking)
  output = tmp_path / 's.json'
  with pytest.raises(KeyboardInterrupt):
    evaluate(ours, reference, str(output), metrics=METRICS, networks=networks)
  assert len(list((tmp_path / 's.json.embedded').iterdir())) == 7 and not output.exists()
  torn, stop[0] = sorted((tmp_path / 's.json.embedded').iterdir())[0], None
  torn.write_bytes(torn.read_bytes()[:50])
  looked.clear()
  assert evaluate(ours, reference, str(output), metrics=METRICS, networks=networks) == alone
  assert len(looked) == 2 * 18 - 7 + 1
  assert not (tmp_path / 's.json.embedded').exists()


def test_without_metrics_no_network_is_asked(reference, monkeypatch):
  monkeypatch.setattr(network_metrics, 'Embedder', None)
  result = evaluate(reference, reference)
  assert not {'networks', 'missing_metrics'} & result.keys() and result['warnings'] == []


def test_metrics_are_chosen_by_name(networks):
  assert network_metrics.choose('') == ()
  assert network_metrics.choose(' kl_yamnet,fad_yamnet,kl_yamnet') == ('kl_yamnet', 'fad_yamnet')
  assert network_metrics.choose('all') == tuple(network_metrics.METRICS)
  assert network_metrics.choose('kl_panns,paper,kl_panns') == (
      'kl_panns', *network_metrics.SETS['paper'])
  assert all(set(names) <= set(network_metrics.METRICS) for names in network_metrics.SETS.values())
  with pytest.raises(UserError, match='--metrics=fad: no such metric; there are fad_vggish'):
    network_metrics.choose('fad_yamnet,fad')


@pytest.mark.parametrize('given, expected', [
    ({'networks': 'nowhere'}, '--networks=nowhere: no such folder'),
    ({'seconds': 0.0}, '--seconds=0.0'), ({'seconds': float('nan')}, '--seconds=nan')])
def test_mistakes_are_one_line_before_the_work(given, expected, reference, monkeypatch):
  monkeypatch.setattr('avlink_jax.evaluation.pairs.measure_pairs', None)
  with pytest.raises(UserError, match=expected):
    evaluate(reference, reference, **given)


def test_every_metric_names_a_network_that_there_is():
  said = {'clap_laion': 'clap', 'clap_laion_base': 'clap_base',
          'desync_synchformer': 'synchformer_video',
          **dict.fromkeys(('ib_ai', 'ib_av', 'ib_score'), 'imagebind_audio')}
  for name, (_, *networks) in network_metrics.METRICS.items():
    assert set(networks) <= registry.NETWORKS.keys()
    assert name.endswith(networks[0]) or said[name] == networks[0]
    assert name.startswith(FAMILIES)
