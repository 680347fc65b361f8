"""Many clips in a gallery, several takes of each: cards, their order, posters, waveforms."""

import io
import json
import urllib.parse

import numpy as np
import pytest
from PIL import Image
from test_gallery import EVIL, Page, sample

from avlink_jax.samples import spectrogram
from avlink_jax.samples.gallery import add_scores, write_gallery


def test_takes_of_a_clip_stand_side_by_side_the_best_first(tmp_path):
  for take, score in ((1, 0.2), (2, 0.7), (3, None)):
    sample(tmp_path, f'ball_{take}', clip='ball', take=take, av_align=score)
  page = Page(write_gallery(tmp_path))
  assert sum(tag == 'article' for tag, _ in page.tags) == 1
  heads = [text for text in page.text if 'take' in text and 'Generated' in text]
  assert [head.split('take ')[1].strip() for head in heads] == [
      '2 (AV-Align 0.700)', '1 (AV-Align 0.200)', '3']


def test_players_have_posters_and_sounds_a_waveform(tmp_path):
  sample(tmp_path, 'a')
  page = Page(write_gallery(tmp_path))
  videos = [attributes for tag, attributes in page.tags if tag == 'video']
  assert videos and all((tmp_path / urllib.parse.unquote(each['poster'])).is_file()
                        for each in videos)
  waves = [attributes for tag, attributes in page.tags if attributes.get('class') == 'wave']
  assert waves


def test_cards_can_be_filtered_and_sorted_by_what_is_known(tmp_path):
  for name, peak in (('a', 0.5), ('b', 0.9)):
    sample(tmp_path, name, level={'peak': peak})
  page = Page(write_gallery(tmp_path))
  cards = [attributes for tag, attributes in page.tags if tag == 'article']
  assert [card['data-name'] for card in cards] == ['a a ball', 'b a ball']
  assert [card['data-peak'] for card in cards] == ['0.5', '0.9']
  assert {'peak', 'duration'} <= {each.get('value') for tag, each in page.tags if tag == 'option'}


def test_a_gallery_gets_scores_where_there_is_one(tmp_path):
  ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
  for folder in (ours, theirs):
    sample(folder, 'a')
  scores = {'clips': 1, 'onset_f1': 0.25, 'per_clip': [{'id': 'a', 'onset_f1': 0.25}]}
  add_scores(ours, theirs, scores)
  assert not (ours / 'index.html').exists()
  write_gallery(ours)
  add_scores(ours, theirs, scores)
  page = Page(ours / 'index.html')
  assert 'Reference' in ''.join(page.text) and '0.250' in page.text
  card, = (attributes for tag, attributes in page.tags if tag == 'article')
  assert card['data-onset-f1'] == '0.25'


def test_clips_that_were_left_out_are_listed_with_the_reason(tmp_path):
  sample(tmp_path, 'a')
  (tmp_path / 'skipped.json').write_text(json.dumps([['b.mp4', EVIL]]))
  page = write_gallery(tmp_path)
  assert f'b.mp4: {EVIL}' in ''.join(Page(page).text) and EVIL not in page.read_text()
  (tmp_path / 'skipped.json').write_text('{nonsense')
  write_gallery(tmp_path)


@pytest.mark.parametrize('samples', [0, 1, 799, 50_000])
def test_a_waveform_shows_the_range_of_its_samples(samples):
  wave = np.linspace(-1, 1, samples, dtype=np.float32) if samples else np.zeros(0, np.float32)
  image = np.asarray(Image.open(io.BytesIO(spectrogram.waveform_png(wave))).convert('L'))
  assert image.shape == (40, 800)
  if samples == 50_000:
    assert image[-1, 0] and not image[0, 0] and image[0, -1] and not image[-1, -1]
