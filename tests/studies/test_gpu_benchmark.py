"""The GPU script: its parts run on a CPU at tiny sizes, and none that fails loses the others."""

import json
import subprocess
import sys

import pytest
import runs

from tests.benchmarks import gpu, gpu_parts, public_sizes

PROGRAM = '''
import json, pathlib, sys, time
part, out, *flags = sys.argv[1:]
out = pathlib.Path(out)
with (out / 'begun').open('a') as file:
  print(part, *flags, file=file)
results = {'seconds': [2.0, 1.0], 'flops': 5e12}
if part == 'machine':
  results = {'chip': 'a chip', 'versions': {'jax': '1'},
             'matrix_rate': {'JAX': 1e13, 'PyTorch': 9e12}}
if part.endswith('-torch'):
  results = {'seconds': [4.0]}
(out / f'{part}.json').write_text(json.dumps({'results': results}))
if part == 'attention' and not (out / 'mended').exists():
  sys.exit('a kernel is missing')
if part == 'small-t2v':
  time.sleep(60)
'''
NAMES = ['machine', 'attention', 'paper-train', 'small-t2v', 'paper-train-torch']


@pytest.fixture
def script(tmp_path, monkeypatch):
  """Function of further words -> exit status of the script, whose parts are PROGRAM's."""
  monkeypatch.setattr(gpu, 'PARTS', ('-c', PROGRAM))
  monkeypatch.setattr(gpu, 'LIMITS', gpu.LIMITS | {'small-t2v': 1})

  def call(*words):
    monkeypatch.setattr(sys, 'argv', ['gpu', str(tmp_path), '--dry', *words])
    with pytest.raises(SystemExit) as ended:
      gpu.main()
    return ended.value.code

  return call


def test_parts_that_fail_or_are_late_lose_the_others_nothing_and_are_tried_again(
    script, tmp_path, capsys):
  assert script(*NAMES) == 1
  said = capsys.readouterr().out
  assert 'a kernel is missing' in said and 'not done: attention, small-t2v' in said
  found = json.loads((tmp_path / 'results.json').read_text())
  assert {name: row['status'] for name, row in found['parts'].items()} == dict(zip(
      NAMES, ['done', 'failed', 'done', 'out of time', 'done'], strict=True))
  assert found['parts']['small-t2v']['results']['seconds']  # what it had written by then
  assert found['chip'] == 'a chip' and found['versions'] == {'jax': '1'} and found['dry']
  assert 'gpu' in found['command']

  (tmp_path / 'mended').touch()
  assert script(*NAMES) == gpu.UNFINISHED
  begun = (tmp_path / 'begun').read_text().split('\n')
  assert begun[:5] == [f'{name} --dry' for name in NAMES]
  assert begun[5:] == ['attention --dry', 'small-t2v --dry', '']


def test_times_are_told_as_shares_of_the_matrix_rate_and_beside_jax(script, tmp_path, capsys):
  assert script('machine', 'paper-train', 'paper-train-torch') == 0
  rows = json.loads((tmp_path / 'results.json').read_text())['parts']
  assert rows['paper-train']['results']['share'] == pytest.approx(0.5)
  torch = rows['paper-train-torch']['results']
  assert (torch['share'], torch['against_jax']) == (pytest.approx(0.125), 4.0)
  assert '50% of the matrix rate' in capsys.readouterr().out


def test_what_does_not_fit_into_the_time_is_not_begun(script, tmp_path):
  assert script('--minutes=0.1', 'machine') == gpu.UNFINISHED
  assert not (tmp_path / 'begun').exists()


def test_the_command_refuses_what_is_no_part(tmp_path):
  done = subprocess.run(
      ['bash', 'tests/benchmarks/gpu.sh', tmp_path, 'nothing', '--dry'], cwd=runs.ROOT, text=True,
      capture_output=True, env=runs.environment(tmp_path, PYTHON=sys.executable))
  assert done.returncode == 2 and 'nothing: no such part' in done.stderr


def dry(part, out):
  """Results of a part at tiny sizes, in this process."""
  found = {}
  with runs.quickly_compiled():
    gpu_parts.parts(out, True, found.update)[part]()
  return found


def test_the_kernel_is_compared_with_the_reference_forward_and_backward(tmp_path):
  found = dry('attention', tmp_path)
  assert found['by_shape'].keys() == gpu_parts.TINY_SHAPES.keys()
  assert 0 < found['worst'] < gpu_parts.TOLERANCE
  assert all(row['off'].keys() == {'out', 'dq', 'dk', 'dv'} for row in found['by_shape'].values())


@pytest.mark.slow
@pytest.mark.parametrize('part', ['paper-sample-fast', 'public-train'])
def test_steps_of_full_size_run_at_tiny_sizes(part, tmp_path):
  found = dry(part, tmp_path)
  assert min(found['seconds']) > 0 and found['flops'] > 0 and found['program_bytes'] > 0
  if 'train' in part:
    assert found['loss'] > 0


@pytest.mark.slow
def test_training_in_parts_leaves_its_losses(tmp_path):
  found = dry('small-t2a', tmp_path)
  assert [step for step, _ in found['losses']] == [1, 2, 3, 4] and found['bad_steps'] == 0
  assert [step for step, _ in found['validation']] == [2, 4]
  assert (tmp_path / 'small/t2a/weights.safetensors').exists()


def test_the_public_models_sizes_are_those_that_are_published(tmp_path):
  """1.419 and 1.416 billion parameters; the 1.49 GB of the DAC."""
  import jax

  from avlink_jax import build
  config = runs.shipped('v2a', 'public')
  public_sizes.use(config, tmp_path)
  models = build.build(config).modalities
  count = {name: sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(
      modality.tower.init, jax.random.key(0)))) for name, modality in models.items()}
  assert count['video'] / 1e9 == pytest.approx(1.419, abs=5e-4)
  assert count['audio'] / 1e9 == pytest.approx(1.416, abs=5e-4)
  dac = jax.eval_shape(models['audio'].codec.init, jax.random.key(0))['params']
  assert 4 * sum(leaf.size for leaf in jax.tree.leaves(dac)) / 1e9 == pytest.approx(1.49, abs=5e-3)
