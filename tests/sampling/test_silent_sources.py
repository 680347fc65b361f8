"""A data set of silent videos, such as Movie Gen Bench: sound is made without a reference."""

import numpy as np
import pytest
import runs
from runs import config_of, finished, manifest, parts

from avlink_jax.data.media import decode as media
from avlink_jax.data.media import mux
from avlink_jax.data.media.own_rates import shape_of
from avlink_jax.errors import UserError
from avlink_jax.evaluate import evaluate
from avlink_jax.sample import sample


def test_sampling_needs_what_conditions_alone(tmp_path):
  rng = np.random.default_rng(0)
  for name in 'ab':
    mux.write_mp4(tmp_path / 'films' / f'{name}.mp4', fps=12,
                  frames=rng.integers(0, 256, (24, 180, 320, 3), np.uint8))
  frozen = parts(tmp_path)
  with runs.quickly_compiled():
    config = config_of('v2a', frozen, **{'data.source': str(tmp_path / 'films')})
    out = tmp_path / 'out'
    ids = sample(config, finished(config, tmp_path / 'v2a'), output=out)
    assert sorted(ids) == ['a', 'b'] and len(media.decode(out / 'a.mp4').audio)
    assert manifest(out / 'reference')['a']['files'].keys() == {'video'}
    for folder in (out, out / 'reference'):  # not as the model saw it, 64×36 at 6 frames a second
      assert shape_of(folder / 'a.mp4')[:3] == (180, 320, 12)
    config = config_of('a2v', frozen, **{'data.source': str(tmp_path / 'films')})
    with pytest.raises(UserError, match='no audio'):
      sample(config, finished(config, tmp_path / 'a2v'), output=tmp_path / 'pictures')
  scores = evaluate(str(out), str(out / 'reference'))
  assert scores['onset_f1'] is None and scores['av_align'] is not None
  assert {row['side'] for row in scores['without_sound']} == {'reference'}
