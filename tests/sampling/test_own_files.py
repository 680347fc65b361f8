"""Outputs are never inputs, and nothing foreign is overwritten."""

import numpy as np
import pytest
import runs
from runs import config_of, finished, manifest, parts

from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.sample import sample
from avlink_jax.samples.folder import write_sample
from avlink_jax.sampling import sampler
from avlink_jax.storage import digest

FRAMES = np.random.default_rng(0).integers(0, 256, (12, 36, 64, 3), np.uint8)


def test_an_output_within_the_input_is_no_input_the_second_time(tmp_path, capsys, monkeypatch):
  drawn = []  # what noise is drawn from: the file itself, both times
  noise_of = sampler.noise_of
  monkeypatch.setattr(sampler, 'noise_of', lambda identity, *args: (
      drawn.append(identity) or noise_of(identity, *args)))
  films = tmp_path / 'films'
  mux.write_mp4(films / 'a.mp4', frames=FRAMES, fps=6)
  with runs.quickly_compiled():
    config = config_of('v2a', parts(tmp_path))
    workdir = finished(config, tmp_path / 'run')
    for seed in (0, 1):
      ids = sample(config, workdir, input_path=str(films), output=films / 'out', seed=seed)
      assert ids == ['a'] and list(manifest(films / 'out')) == ['a']
  assert set(drawn) == {f'a {digest.of_file(films / "a.mp4")}'}
  assert '1 files in ' in capsys.readouterr().err
  with pytest.raises(UserError, match='no media files in it but those of .*, the output'):
    (films / 'a.mp4').unlink()
    sample(config, workdir, input_path=str(films), output=films / 'out')


def test_a_foreign_file_of_the_same_name_is_not_overwritten(tmp_path):
  (tmp_path / 'a.mp4').write_bytes(b'mine')
  with pytest.raises(UserError, match='a.mp4 is no sample of ours and would be overwritten'):
    write_sample(tmp_path, 'a', frames=FRAMES, fps=6)
  assert (tmp_path / 'a.mp4').read_bytes() == b'mine'
  write_sample(tmp_path, 'b', frames=FRAMES, fps=6)


def test_what_an_interrupted_writer_left_is_replaced(tmp_path, monkeypatch):
  monkeypatch.setattr(mux, 'write_wav', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
  arguments = dict(frames=FRAMES, fps=6, audio=np.zeros(32_000, np.float32), sample_rate=16_000)
  with pytest.raises(KeyboardInterrupt):
    write_sample(tmp_path, 'a', **arguments)
  (tmp_path / 'a.mp4').write_bytes(b'half')  # as a kill a little later might have left
  monkeypatch.undo()
  row = write_sample(tmp_path, 'a', **arguments)
  assert row['files'].keys() == {'video', 'audio'} and (tmp_path / 'a.mp4').stat().st_size > 100
