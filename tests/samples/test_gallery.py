"""A samples folder: files anyone can open, a manifest, and a page that is safe and whole."""

import html.parser
import io
import json
import urllib.parse

import numpy as np
import pytest
import soundfile
from PIL import Image

from avlink_jax.data.media import decode as media
from avlink_jax.data.media import mux
from avlink_jax.errors import UserError
from avlink_jax.evaluate import evaluate
from avlink_jax.samples import spectrogram
from avlink_jax.samples.folder import FIELDS, enlarge, file_stem, read_manifest, write_sample
from avlink_jax.samples.gallery import write_gallery
from avlink_jax.samples.spectrogram import spectrogram_frames, spectrogram_image, spectrogram_png

RATE = 16000
EVIL = '<script>alert("x")</script> & \'quoted\' {scale} {0}'


def picture(count=12):
  return np.random.default_rng(0).integers(0, 256, (count, 36, 64, 3), dtype=np.uint8)


def clicks(times, duration=2.0):
  wave = np.zeros(int(duration * RATE), np.float32)
  for time in times:
    at = int(time * RATE)
    wave[at:at + 800] = np.linspace(0.7, 0, 800) * np.random.default_rng(0).uniform(-1, 1, 800)
  return wave


def sample(folder, id, times=(0.5, 1.2), **record):
  return write_sample(folder, id, frames=picture(), fps=6, audio=clicks(times), sample_rate=RATE,
                      record={'task': 'v2a', 'prompt': 'a ball', 'seed': 3, 'steps': 64,
                              'guidance': 5.0, **record})


class Page(html.parser.HTMLParser):
  """Every tag of a page, with its attributes, and its text."""

  def __init__(self, path):
    super().__init__()
    self.tags, self.text = [], []
    self.feed(path.read_text(encoding='utf-8'))

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))

  def handle_data(self, data):
    self.text.append(data)

  def links(self):
    return [value for _, attributes in self.tags for name, value in attributes.items()
            if name in ('src', 'href', 'poster', 'data', 'action')]


# --- export --------------------------------------------------------------------------------------

def test_sample_has_picture_and_sound_of_the_same_length_and_a_row(tmp_path):
  row = sample(tmp_path, 'one', events=np.array([0.5, 1.2]))
  clip = media.decode(tmp_path / 'one.mp4')
  assert clip.frames.shape == (12, 144, 256, 3)
  assert abs(len(clip.audio) / clip.sample_rate - clip.duration) <= 1 / 6
  assert media.decode(tmp_path / 'one.wav', need_video=False).duration == 2.0
  assert read_manifest(tmp_path) == [json.loads(json.dumps(row, default=np.ndarray.tolist))]
  assert set(FIELDS) <= row.keys()
  assert row['files'] == {'video': 'one.mp4', 'audio': 'one.wav'} and row['duration'] == 2.0


def test_same_id_replaces_its_row_and_files(tmp_path):
  sample(tmp_path, 'one')
  sample(tmp_path, 'two')
  write_sample(tmp_path, 'one', frames=picture(), fps=6, record={'seed': 9})
  rows = read_manifest(tmp_path)
  assert [row['id'] for row in rows] == ['one', 'two'] and rows[0]['seed'] == 9
  assert not (tmp_path / 'one.wav').exists() and (tmp_path / 'two.wav').exists()


def test_sound_goes_under_the_sources_own_picture(tmp_path):
  sample(tmp_path / 'in', 'clip', times=[1.5])
  write_sample(tmp_path / 'out', 'clip', audio=clicks([0.5]), sample_rate=RATE,
               source_video=tmp_path / 'in' / 'clip.mp4')
  was, now = (media.decode(tmp_path / side / 'clip.mp4') for side in ('in', 'out'))
  np.testing.assert_array_equal(now.frames, was.frames)
  assert np.abs(now.audio).argmax() < 0.6 * RATE


def test_input_is_never_overwritten(tmp_path):
  sample(tmp_path, 'clip')
  before = (tmp_path / 'clip.mp4').read_bytes()
  with pytest.raises(UserError, match='input itself'):
    write_sample(tmp_path, 'clip', audio=clicks([]), sample_rate=RATE,
                 source_video=tmp_path / 'clip.mp4')
  assert (tmp_path / 'clip.mp4').read_bytes() == before


def test_a_made_picture_gets_the_given_sound_as_it_is_and_no_wav(tmp_path):
  wave = np.stack([clicks([0.5]), clicks([1.5])], axis=1)  # left, right
  soundfile.write(tmp_path / 'given.wav', wave, RATE)
  row = write_sample(tmp_path / 'out', 'one', frames=picture(9), fps=6, audio=clicks([0.1]),
                     sample_rate=RATE, source_audio=tmp_path / 'given.wav', generated=('video',))
  assert row['files'] == {'video': 'one.mp4'} and row['made'] == ['video']
  assert row['duration'] == 1.5 and not (tmp_path / 'out' / 'one.wav').exists()
  sound = media.decode_audio(tmp_path / 'out' / 'one.mp4', sample_rate=RATE)
  assert sound.shape == (1.5 * RATE, 2)
  assert abs(np.abs(sound[:, 0]).argmax() / RATE - 0.5) < 0.01
  assert np.abs(sound[:int(1.4 * RATE), 1]).max() < 0.02


def test_given_sound_is_in_the_mp4_and_made_sound_in_a_wav_too(tmp_path):
  made = {'video': ('given',), 'audio': ('made',)}
  for kind, (id,) in made.items():
    write_sample(tmp_path, id, frames=picture(), fps=6, audio=clicks([0.5]), sample_rate=RATE,
                 generated=(kind,))
    assert np.abs(media.decode(tmp_path / f'{id}.mp4').audio).argmax() < 0.6 * RATE
  assert not (tmp_path / 'given.wav').exists() and (tmp_path / 'made.wav').exists()


def test_sound_alone_is_shown_as_its_spectrogram(tmp_path):
  row = write_sample(tmp_path, 'one', audio=clicks([0.5], 2.1), sample_rate=RATE,
                     generated=('audio',))
  assert row['files'] == {'audio': 'one.wav', 'video': 'one.mp4'}
  assert row['picture'] == 'spectrogram' and row['duration'] == 2.1
  clip = media.decode(tmp_path / 'one.mp4')
  assert clip.frames.shape == (13, 144, 256, 3) and abs(clip.duration - 2.1) < 1 / 6
  light = clip.frames[-1].sum(axis=(0, 2))
  assert abs(light.argmax() / 256 * 2.1 - 0.5) < 0.1  # the click is where it sounds
  assert np.abs(clip.frames[0].astype(int) - clip.frames[-1]).mean() < 3


def test_picture_alone_is_silent(tmp_path):
  row = write_sample(tmp_path, 'one', frames=picture(), fps=6, generated=('video',))
  assert row['files'] == {'video': 'one.mp4'} and 'picture' not in row
  assert len(media.decode(tmp_path / 'one.mp4', need_audio=False).audio) == 0


@pytest.mark.parametrize('name', ['clip.mp4', 'clip.wav'])
def test_given_sound_is_never_overwritten_nor_removed(tmp_path, name):
  sample(tmp_path, 'clip')
  before = (tmp_path / name).read_bytes()
  with pytest.raises(UserError, match='input itself'):
    write_sample(tmp_path, 'clip', frames=picture(), fps=6, source_audio=tmp_path / name)
  assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize('id', ['a', 'x_split_00001', 'with space & (brackets) #1', 'ünï', 'a..b'])
def test_harmless_ids_are_file_names_as_they_are(id):
  assert file_stem(id) == id


def test_any_id_gives_a_file_inside_the_folder_and_no_two_share_one(tmp_path):
  ids = ['', '.', '..', '../up', '/etc/passwd', 'a/b', 'a\\b', 'a\x00b', 'a\nb', '\ud800',
         'é' * 300, 'é' * 301, '.hidden', 'a_b', 'x' * 5000]
  stems = [file_stem(id) for id in ids]
  assert len(set(stems)) == len(ids)
  for stem in stems:
    path = tmp_path / f'{stem}.wav'
    path.touch()
    assert path.resolve().parent == tmp_path.resolve() and not stem.startswith('.')


def test_small_pictures_are_enlarged_by_a_whole_factor():
  frames = picture(2)
  large = enlarge(frames)
  assert large.shape == (2, 144, 256, 3)
  np.testing.assert_array_equal(large[:, ::4, ::4], frames)
  np.testing.assert_array_equal(enlarge(large), large)


def test_folder_that_cannot_be_written_is_the_users_mistake(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write'):
    sample(tmp_path / 'file', 'one')
  with pytest.raises(UserError, match='cannot write'):
    write_gallery(tmp_path / 'file')


# --- pictures of sound ---------------------------------------------------------------------------

def test_loud_is_light_and_silence_is_dark():
  log_mel = np.full((50, 64), np.log(1e-5))
  assert spectrogram_image(log_mel).max() <= 4
  log_mel[25, 10] = 0.0
  image = spectrogram_image(log_mel)
  assert image.shape == (128, 100, 3) and image.dtype == np.uint8
  brightest = np.unravel_index(image.sum(axis=2).argmax(), image.shape[:2])
  assert brightest == (2 * (63 - 10), 50)  # low pitch at the foot, time to the right


def test_onsets_and_events_stand_at_their_times():
  sound = np.random.default_rng(0).normal(size=2 * RATE) * 0.1
  image = np.asarray(Image.open(io.BytesIO(
    spectrogram_png(sound, RATE, onsets=[0.5, 2.0], events=[1.5]))).convert('RGB'))
  scale = image.shape[1] / 2.0
  cyan = (image[0] == spectrogram.ONSET_COLOUR).all(axis=1).nonzero()[0]
  white = (image[-1] == spectrogram.EVENT_COLOUR).all(axis=1).nonzero()[0]
  assert abs(cyan[0] - 0.5 * scale) <= 1 and cyan[-1] == image.shape[1] - 1
  assert abs(white[0] - 1.5 * scale) <= 1
  assert not (image[0] == spectrogram.EVENT_COLOUR).all(axis=1).any()


@pytest.mark.parametrize('samples', [0, 1, 100, 90 * RATE])
def test_any_length_of_sound_has_a_picture(samples):
  image = Image.open(io.BytesIO(spectrogram_png(np.zeros(samples), RATE)))
  assert image.height == 192 and 1 <= image.width <= 4100


@pytest.mark.parametrize('seconds, count', [(0, 1), (0.01, 1), (1.0, 6), (5.16, 31), (5.2, 32)])
def test_a_sounds_frames_hold_all_of_it(seconds, count):
  frames = spectrogram_frames(np.zeros(round(seconds * RATE), np.float32), RATE)
  assert frames.shape == (count, 144, 256, 3) and frames.dtype == np.uint8


# --- the page ------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path):
  """Two samples with odd names and captions, their references, and the page."""
  out = tmp_path / 'out <b>'
  for id in ('plain', 'odd #1 "&" %41 ?x'):
    sample(out, id, prompt=EVIL)
    sample(out / 'reference', id, times=[0.5, 1.0], events=[0.5, 1.0])
  scores = evaluate(str(out), str(out / 'reference'))
  write_gallery(out, out / 'reference', scores)
  return out


def test_captions_are_text_and_not_markup(folder):
  page = Page(folder / 'index.html')
  assert [tag for tag, _ in page.tags].count('script') == 1  # the page's own
  assert page.text.count(EVIL) == 2
  assert '<script>alert' not in (folder / 'index.html').read_text()
  assert not [name for _, attributes in page.tags for name in attributes if name.startswith('on')]


def test_every_address_is_a_file_that_is_there(folder):
  page = Page(folder / 'index.html')
  links = page.links()
  assert len([tag for tag, _ in page.tags if tag == 'video']) == 4
  assert len([tag for tag, _ in page.tags if tag == 'img']) == 8  # spectrograms, waveforms
  for link in links:
    parts = urllib.parse.urlsplit(link)
    assert not (parts.scheme or parts.netloc or parts.query or parts.fragment)
    assert (folder / urllib.parse.unquote(link)).is_file()


def test_nothing_comes_from_the_network(folder):
  text = (folder / 'index.html').read_text()
  for outside in ('http:', 'https:', '//cdn', '@import', 'url('):
    assert outside not in text


def test_page_tells_how_each_clip_was_made_and_how_it_scored(folder):
  text = ' '.join(' '.join(Page(folder / 'index.html').text).split())
  for told in ('seed 3', 'steps 64', 'guidance 5', 'duration 2 s', '2 onsets', '2 events',
               'mean over 2 clips', 'control: against other clips', 'Reference'):
    assert told in text


def test_reference_folder_needs_no_manifest(folder):
  (folder / 'reference' / 'manifest.jsonl').unlink()
  page = Page(write_gallery(folder, folder / 'reference'))
  assert len([tag for tag, _ in page.tags if tag == 'video']) == 4


def test_an_overview_stands_above_the_clips_as_it_is(folder):
  about = '<p>{7} clips</p>'
  page = write_gallery(folder, overview=about).read_text()
  assert 0 < page.index(about) < page.index('<article ')


def test_clips_with_sound_or_picture_alone_have_their_place(tmp_path):
  write_sample(tmp_path, 'heard', audio=clicks([0.5]), sample_rate=RATE)
  write_sample(tmp_path, 'seen', frames=picture(), fps=6)
  page = Page(write_gallery(tmp_path))
  tags = [tag for tag, _ in page.tags]
  assert tags.count('audio') == 1 and tags.count('video') == 1
  assert 'no sound' in page.text


@pytest.mark.parametrize('made, told, strips', [
  (('audio',), 'Generated sound', 0), (('video',), 'Generated picture', 2),
  (('video', 'audio'), 'Generated picture and sound', 2), (None, 'Generated', 0)])
def test_made_pictures_are_shown_as_frames_in_a_row(tmp_path, made, told, strips):
  for folder, which in ((tmp_path, made), (tmp_path / 'reference', None)):
    write_sample(folder, 'one', frames=picture(), fps=6, audio=clicks([0.5]), sample_rate=RATE,
                 record={'prompt': 'a ball'}, generated=which)
  page = Page(write_gallery(tmp_path, tmp_path / 'reference'))
  images = [attributes for tag, attributes in page.tags if tag == 'img'
            and attributes.get('class') != 'wave']
  assert [image.get('alt') for image in images].count('Frames') == strips
  assert len(images) == 2 + strips and told in [text.strip() for text in page.text]
  assert 'a ball' in page.text
  for image in images:
    if image['alt'] == 'Frames':
      assert Image.open(tmp_path / image['src']).size == (12 * 128, 72)


@pytest.mark.parametrize('made', [3, 'video', {'video': 1}, ['x', 3]])
def test_a_row_that_tells_nonsense_is_a_row_that_tells_nothing(tmp_path, made):
  sample(tmp_path, 'one', generated=made)
  assert 'Generated' in [text.strip() for text in Page(write_gallery(tmp_path)).text]


def test_scores_of_the_picture_stand_on_the_page(tmp_path):
  out = tmp_path / 'out'
  for id in ('a', 'b'):
    for folder, made in ((out, ('video',)), (out / 'reference', None)):
      write_sample(folder, id, frames=picture(), fps=6, audio=clicks([0.5, 1.0]),
                   sample_rate=RATE, record={'events': [0.5, 1.0]}, generated=made)
  scores = evaluate(str(out), str(out / 'reference'))
  text = ' '.join(Page(write_gallery(out, out / 'reference', scores)).text)
  assert 'av align' in text and 'motion event recall' in text
  # The given sound against itself would be 1 by its making: no such table.
  assert 'against the onsets of the reference' not in text


def enlarged(folder, id='big'):
  """A sample whose picture was enlarged, with the one it was made from beside it."""
  write_sample(folder, id, frames=picture(48), fps=24, audio=clicks([0.5]), sample_rate=RATE,
               generated=('video',))
  mux.write_mp4(folder / f'{id}_low.mp4', frames=enlarge(picture()), fps=6)
  rows = read_manifest(folder)
  rows[-1]['files']['low'] = f'{id}_low.mp4'
  (folder / 'manifest.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n')


def test_the_low_resolution_version_stands_beside_what_was_made_of_it(tmp_path):
  enlarged(tmp_path)
  page = Page(write_gallery(tmp_path))
  players = [attributes['src'] for tag, attributes in page.tags if tag == 'video']
  assert players == ['big.mp4', 'big_low.mp4']
  assert 'Low resolution' in ''.join(page.text)
  strips = [attributes['src'] for tag, attributes in page.tags
            if tag == 'img' and attributes.get('class') == 'strip']
  assert strips == ['figures/big.frames.jpg', 'figures/big.low.frames.jpg']
  for link in page.links():
    assert (tmp_path / link).is_file()
  (tmp_path / 'big_low.mp4').unlink()
  assert 'file missing' in Page(write_gallery(tmp_path)).text


def test_missing_and_broken_files_are_told_in_their_place(folder):
  (folder / 'plain.mp4').write_bytes(b'words, not a clip ' * 9)
  (folder / 'reference' / 'plain.mp4').unlink()
  text = Page(write_gallery(folder, folder / 'reference')).text
  assert 'not a media file' in text and 'file missing' in text


def test_manifest_cannot_point_outside_its_folder(tmp_path):
  sample(tmp_path, 'secret')
  inside = tmp_path / 'out'
  sample(inside, 'one')
  rows = read_manifest(inside)
  for name in ('../secret.mp4', 'javascript:alert(1)', '//host/clip.mp4', '/etc/passwd'):
    rows[0]['files'] = {'video': name, 'audio': name}
    (inside / 'manifest.jsonl').write_text(json.dumps(rows[0]))
    assert Page(write_gallery(inside)).links() == []


def test_empty_folder_has_a_page_too(tmp_path):
  assert 'No clip has been written here yet.' in Page(write_gallery(tmp_path / 'new')).text
