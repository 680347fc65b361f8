"""A job of the page: bounds, files, and errors in words without a path of the machine."""

import io
import threading

import numpy as np
import pytest
import soundfile
from PIL import Image

from avlink_jax.data.media import decode, mux
from avlink_jax.demo import __main__ as demo
from avlink_jax.demo import jobs
from avlink_jax.errors import MISTAKE, UserError
from tests.demo.stand_in import StandIn

FPS = 6


def video(path, seconds=2):
  mux.write_mp4(path, frames=np.zeros((seconds * FPS, 36, 64, 3), np.uint8), fps=FPS)
  return str(path)


def refusal(folder, job, condition='video', model=None):
  with pytest.raises(UserError) as caught:
    jobs.generate(lambda _: model or StandIn('audio'), condition, job, folder / 'job')
  assert str(folder) not in str(caught.value) and '\n' not in str(caught.value)
  return str(caught.value)


def test_a_take_is_a_video_its_sound_and_its_spectrogram(tmp_path):
  model, told = StandIn('audio'), []
  job = jobs.Job(video(tmp_path / 'my clip.mp4'), ' a ball ', '', 2, 'fast', 7)
  takes = jobs.generate(lambda preset: model, 'video', job, tmp_path / 'job',
                        lambda *done: told.append(done))
  assert model.calls == [dict(prompt='a ball', negative_prompt=None, seed=7, takes=2)]
  assert [take.name for take in takes] == ['my clip_2', 'my clip_1']  # by AV-Align
  assert told == [(1, 3), (2, 3), (3, 3)]
  for take in takes:
    clip = decode.decode(take.video, sample_rate=16000)
    assert clip.audio.any() and len(clip.frames) == 2 * FPS
    assert soundfile.info(take.wav).duration == 2
    assert Image.open(io.BytesIO(take.spectrogram.read_bytes())).width > 100
  assert [take.note for take in takes] == ['2.0 s, 2 onsets, AV-Align 0.50',
                                           '2.0 s, 2 onsets, AV-Align 0.00']


@pytest.mark.parametrize('after', [0, 1])
def test_a_job_that_is_stopped_ends_at_its_next_step(tmp_path, after):
  model, stop = StandIn('audio'), threading.Event()
  if not after:
    stop.set()
  with pytest.raises(jobs.Stopped):
    jobs.generate(lambda _: model, 'video', jobs.Job(video(tmp_path / 'a.mp4')), tmp_path / 'job',
                  lambda done, count: stop.set(), stop)
  assert model.steps == after and not list((tmp_path / 'job').iterdir())


def test_of_generated_video_there_is_no_wav(tmp_path):
  mux.write_wav(tmp_path / 'a.wav', np.zeros(8000, np.float32), 16000)
  take, = jobs.generate(lambda _: StandIn('video'), 'audio', jobs.Job(str(tmp_path / 'a.wav')),
                        tmp_path / 'job')
  assert take.wav is None and take.video.is_file()


def test_a_job_deletes_the_files_of_the_one_before(tmp_path):
  for name in ('a', 'b'):
    jobs.generate(lambda _: StandIn('audio'), 'video', jobs.Job(video(tmp_path / f'{name}.mp4')),
                  tmp_path / 'job')
  assert {path.stem for path in (tmp_path / 'job').iterdir()} == {'b'}


@pytest.mark.parametrize('changes, message', [
    ({'upload': None}, 'no video yet'),
    ({'upload': '/gone.mp4'}, 'was deleted in the meantime'),
    ({'takes': 5}, 'takes: give 1 to 4'),
    ({'takes': None}, 'takes: give 1 to 4'),
    ({'seed': -1}, 'seed: give a whole number'),
    ({'seed': None}, 'seed: give a whole number'),
    ({'preset': 'slow'}, 'choose paper or fast')])
def test_a_job_out_of_bounds_is_refused_before_a_model_is_loaded(tmp_path, changes, message):
  upload = video(tmp_path / 'a.mp4')
  said = refusal(tmp_path, jobs.Job(**{'upload': upload} | changes), model='none')
  assert message in said


def test_an_upload_of_too_many_bytes_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(jobs, 'MAX_BYTES', 100)
  assert 'give a smaller file' in refusal(tmp_path, jobs.Job(video(tmp_path / 'a.mp4')))


@pytest.mark.parametrize('limit, refused', [(2.0, False), (1.5, True)])
def test_an_upload_is_bounded_in_seconds(tmp_path, monkeypatch, limit, refused):
  monkeypatch.setattr(jobs, 'MAX_SECONDS', limit)
  job = jobs.Job(video(tmp_path / 'a.mp4'))
  if refused:
    assert refusal(tmp_path, job) == 'a.mp4 is longer than 1.5 s: give a shorter one'
  else:
    jobs.generate(lambda _: StandIn('audio'), 'video', job, tmp_path / 'job')


def test_a_broken_file_is_named_without_its_folder(tmp_path):
  (tmp_path / 'bad.mp4').write_bytes(b'no video at all' * 50)
  assert refusal(tmp_path, jobs.Job(str(tmp_path / 'bad.mp4'))) == 'bad.mp4: not a media file'


def test_what_a_model_refuses_is_told_without_paths(tmp_path):
  said = refusal(tmp_path, jobs.Job(video(tmp_path / 'a b.mp4'), 'fail'))
  assert said == 'a b.mp4: refused; see nano.safetensors'


def test_a_config_gives_the_other_tabs_its_scale():
  assert demo.configs('configs/joint.py:nano') == {
      'v2a': 'configs/v2a.py:nano', 'a2v': 'configs/a2v.py:nano', 'joint': 'configs/joint.py:nano'}


@pytest.mark.parametrize('config, message', [
    ('configs/t2a.py:nano', 'the page is for v2a, a2v, joint'),
    ('configs/none.py', 'no such config')])
def test_a_config_without_a_tab_is_refused(config, message):
  with pytest.raises(UserError, match=message):
    demo.configs(config)


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys):
  monkeypatch.setitem(demo.sys.modules, 'gradio', None)
  monkeypatch.delitem(demo.sys.modules, 'avlink_jax.demo.page', raising=False)
  monkeypatch.delattr(demo.sys.modules['avlink_jax.demo'], 'page', raising=False)
  monkeypatch.setattr(demo, 'private', lambda folder: None)
  monkeypatch.setattr(demo.signal, 'signal', lambda *_: None)
  assert demo.main(['--config=configs/v2a.py:nano']) == MISTAKE
  said = capsys.readouterr().err
  assert said == 'avlink_jax: the page needs Gradio: pip install avlink_jax[demo]\n'
