"""Numbers of a config that cannot be meant are refused before anything is built of them."""

import pytest
import runs

from avlink_jax.cli.config_files import TASKS
from avlink_jax.errors import UserError
from avlink_jax.storage.config_bounds import check


@pytest.mark.parametrize('task', TASKS)
def test_every_shipped_config_is_within_bounds(task):
  check(runs.shipped(task))


@pytest.mark.parametrize('key, value, told', [
    ('train.steps', -1, 'at least 1'), ('train.log_every', 0, 'at least 1'),
    ('checkpoint.every', 0, 'at least 1'), ('train.decay_steps', -5, 'at least 0'),
    ('seed', -1, 'at least 0'), ('sample.steps', 0, 'at least 1'), ('data.fps', 0.0, 'at least'),
    ('train.learning_rate', float('nan'), 'a finite number'),
    ('flow.drop_generated', 2.0, 'at most'), ('train.clip_norm', float('inf'), 'a finite number'),
    ('towers.video.patch', (1, 0, 2), 'at least 1'),
    ('data.source', 's3://bucket/clips', 'mount the bucket .* or a text file'),
    ('frozen.audio', 'https://x/y', 'mount the bucket'),
    ('train.only', 'head(', 'no regular expression'),
    ('train.transfer_guard', 'no', 'disallow')])
def test_a_value_that_cannot_be_meant_is_named(key, value, told):
  config = runs.shipped('v2a')
  config.update_from_flattened_dict({key: value})
  with pytest.raises(UserError, match=f'^{key}=.*{told}'):
    check(config)


def test_addresses_are_taken_where_they_are_read():
  config = runs.shipped('v2a')
  config.compile_cache, config.data.tfds_dir = 'gs://b/cache', 'gs://b/tfds'
  check(config)
