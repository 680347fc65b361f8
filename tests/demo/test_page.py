"""The page in a browser: upload or record, generate, play, download; a broken file; cancelling; two
visitors at once."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from avlink_jax.cli import config_files
from avlink_jax.data.media import decode, mux
from avlink_jax.demo import __main__ as demo
from tests import chromium
from tests.demo.stand_in import StandIn

pytest.importorskip('gradio', reason='Gradio, the extra [demo], is not installed')
ROOT = pathlib.Path(__file__).parents[2]
in_browser = pytest.mark.skipif(chromium.PATH is None, reason='Chromium is not installed')


class Models:
  """Gives stand-ins; counts how many generate at once. `pause` holds them up, before their first
  step or, with `in_steps`, after it.

  uploads: files that they were given. steps: taken by the last one.
  """

  def __init__(self):
    self.pause, self.now, self.most, self.count = threading.Event(), 0, 0, 0
    self.pause.set()
    self.uploads, self.steps, self.in_steps = [], 0, False

  def __call__(self, task, generated, preset):
    model = StandIn(generated)

    def generate(*, on_step, **given):
      self.now, self.count, self.steps = self.now + 1, self.count + 1, 0
      self.most = max(self.most, self.now)
      self.uploads += [value for name, value in given.items() if name in ('video', 'audio')]
      assert self.in_steps or self.pause.wait(chromium.PATIENCE)

      def step(done, count):
        self.steps = done
        on_step(done, count)
        assert self.pause.wait(chromium.PATIENCE)

      try:
        return model(on_step=step, **given)
      finally:
        self.now -= 1

    return generate


@pytest.fixture(scope='module')
def models():
  return Models()


@pytest.fixture(scope='module')
def address(models, tmp_path_factory):
  folder = tmp_path_factory.mktemp('page')
  with pytest.MonkeyPatch.context() as patch:
    for name in ('GRADIO_TEMP_DIR', 'GRADIO_ANALYTICS_ENABLED'):
      patch.setenv(name, '')  # so that it is put back
    demo.private(folder / 'gradio')
    page = demo.library()
    blocks = page.build(models, {task: config_files.load(file) for task, file in demo.configs(
        'configs/v2a.py:nano').items()}, 'v2a', folder / 'job')
    yield page.serve(blocks, '127.0.0.1', None)
    blocks.close(verbose=False)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  with chromium.browser(tmp_path_factory.mktemp('profile')) as page:
    yield page


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('files')
  mux.write_mp4(folder / 'ball.mp4', frames=np.zeros((12, 72, 128, 3), np.uint8), fps=6)
  mux.write_wav(folder / 'click.wav', np.ones(16000, np.float32) / 2, 16000)
  (folder / 'bad.mp4').write_bytes(b'no video at all' * 50)
  return folder


def opened(browser, address):
  browser.open(address)
  browser.wait('document.querySelector("#v2a-video input[type=file]") && '
               'document.querySelector("#v2a-generate")')
  return browser


def upload(page, place, path):
  page.wait(f'document.querySelector("{place} input[type=file]")')
  root = page('DOM.getDocument')['root']['nodeId']
  node = page('DOM.querySelector', nodeId=root, selector=f'{place} input[type=file]')['nodeId']
  page('DOM.setFileInputFiles', nodeId=node, files=[str(path)])
  page.wait(f'(e => e && !e.querySelector("input[type=file]"))(document.querySelector("{place}"))')


@in_browser
@pytest.mark.slow
def test_a_video_that_is_dropped_gets_sound_that_plays_and_can_be_downloaded(
    browser, address, files, tmp_path):
  page = opened(browser, address)
  upload(page, '#v2a-video', files / 'ball.mp4')
  page.click('#v2a-generate')
  page.wait('(v => v && v.readyState >= 2)(document.querySelector("#v2a-take-1 video"))')
  page.value('document.querySelector("#v2a-take-1 video").play()')
  page.wait('(v => v.currentTime > 0.2 && v.webkitAudioDecodedByteCount > 0)'
            '(document.querySelector("#v2a-take-1 video"))')
  page.wait('document.querySelector("#v2a-take-1 img").naturalWidth > 100')
  assert '2 onsets' in page.value('document.querySelector("#v2a-take-1").innerText')
  page('Page.setDownloadBehavior', behavior='allow', downloadPath=str(tmp_path))
  for kind in ('wav', 'mp4'):
    page.click(f'#v2a-take-1-{kind}')
    limit = time.monotonic() + chromium.PATIENCE
    while not (tmp_path / f'ball.{kind}').is_file():
      assert time.monotonic() < limit, list(tmp_path.iterdir())
      time.sleep(0.05)
  assert soundfile.info(tmp_path / 'ball.wav').duration == 2
  assert decode.decode(tmp_path / 'ball.mp4').audio.any()
  hosts = page.value('[...new Set(performance.getEntriesByType("resource").map('
                     'e => new URL(e.name).hostname))]')
  assert hosts == ['127.0.0.1']


def press(page, place, label):
  """Clicks the button with this label, once it is there."""
  button = (f'[...document.querySelectorAll("{place} button")].find(b => !b.disabled && '
            f'[b.ariaLabel, b.title, b.innerText].some(text => /{label}/i.test(text)))')
  page.wait(button)
  page.value(f'{button}.click()')


def tab(page, title):
  page.value('[...document.querySelectorAll("button[role=tab]")].find('
             f'b => b.innerText.includes("{title}")).click()')


@in_browser
@pytest.mark.slow
def test_a_video_that_the_camera_records_gets_sound(browser, address, models):
  src = 'document.querySelector("#v2a-video video")?.src'
  for seconds in (2, 4, 8):  # a busy machine's browser has recorded nothing after a few
    page = opened(browser, address)
    press(page, '#v2a-video', 'Capture from camera')
    press(page, '#v2a-video', 'Access Webcam')
    page.wait('document.querySelector("#v2a-video video")?.videoWidth > 0')
    press(page, '#v2a-video', 'start recording')
    time.sleep(seconds)
    press(page, '#v2a-video', '^Stop$')
    page.wait(f'/^http/.test({src})')
    if page.value(f'fetch({src}).then(got => got.blob()).then(blob => blob.size)') > 5000:
      break
  else:
    pytest.skip('this machine is too busy for its browser to record')
  page.click('#v2a-generate')
  page.wait('(v => v && v.readyState >= 2)(document.querySelector("#v2a-take-1 video"))')
  recorded = decode.decode(models.uploads[-1], need_audio=False)
  assert len(recorded.frames) > 5 and recorded.duration > 0.5


@in_browser
@pytest.mark.slow
def test_a_sound_that_the_microphone_records_gets_video(browser, address, models):
  page = opened(browser, address)
  tab(page, 'Video for a sound')
  press(page, '#a2v-audio', 'Record audio')
  press(page, '#a2v-audio', '^Record$')
  time.sleep(2.5)
  press(page, '#a2v-audio', '^Stop$')
  page.wait('/0:0[1-9]/.test(document.querySelector("#a2v-audio").innerText)')
  for _ in range(3):  # a busy machine's browser has not uploaded it yet
    page.click('#a2v-generate')
    limit = time.monotonic() + 30
    while not page.value('Boolean(document.querySelector("#a2v-take-1 video"))'):
      if time.monotonic() > limit:
        break
      time.sleep(0.1)
    else:
      break
  page.wait('document.querySelector("#a2v-take-1 video")')
  assert decode.decode(models.uploads[-1], need_video=False).duration > 0.5


@in_browser
@pytest.mark.slow
def test_cancel_ends_a_job_at_its_next_step_and_the_next_one_begins(
    browser, address, files, models):
  page = opened(browser, address)
  upload(page, '#v2a-video', files / 'ball.mp4')
  models.in_steps, before = True, models.count
  models.pause.clear()
  try:
    page.click('#v2a-generate')
    page.wait('document.querySelector("#v2a-state").innerText.includes("1/3 steps")')
    page.click('#v2a-cancel')
    page.wait('document.querySelector("#v2a-state").innerText.includes("Cancelling")')
  finally:
    models.in_steps = False
    models.pause.set()
  page.wait('document.querySelector("#v2a-state").innerText.includes("Cancelled")')
  assert models.steps == 2 and models.count == before + 1  # of 3
  page.click('#v2a-generate')
  page.wait('document.querySelector("#v2a-take-1 video")')
  assert models.count == before + 2


@in_browser
@pytest.mark.slow
def test_a_broken_file_is_a_line_without_a_path(browser, address, files):
  page = opened(browser, address)
  upload(page, '#v2a-video', files / 'bad.mp4')
  page.click('#v2a-generate')
  page.wait('document.body.innerText.includes("bad.mp4: not a media file")')
  assert '/bad.mp4' not in page.value('document.body.innerText')


@in_browser
@pytest.mark.slow
def test_two_visitors_get_their_takes_one_after_the_other(browser, address, files, models):
  models.pause.clear()
  models.most, before = 0, models.count
  visitors = [opened(browser, address),
              opened(chromium.Page(browser._send, browser._receive), address)]
  for page, task, file in zip(visitors, ('v2a', 'a2v'), ('ball.mp4', 'click.wav'), strict=True):
    if task == 'a2v':
      tab(page, 'Video for a sound')
    upload(page, f'#{task}-{"video" if task == "v2a" else "audio"}', files / file)
    page('Page.bringToFront')  # a tab behind another does not scroll to what is clicked
    page.click(f'#{task}-generate')
  visitors[0].wait('document.querySelector("#v2a-state").innerText.includes("Loading")')
  visitors[1].wait('document.querySelector("#a2v-state").innerText.includes("Waiting")')
  visitors[1].click('#a2v-cancel')  # a job that waits
  visitors[1].wait('document.querySelector("#a2v-state").innerText.includes("Cancelled")')
  visitors[1].click('#a2v-generate')
  visitors[1].wait('document.querySelector("#a2v-state").innerText.includes("Waiting")')
  models.pause.set()
  for page, task in zip(visitors, ('v2a', 'a2v'), strict=True):
    page.wait(f'document.querySelector("#{task}-take-1 video")')
  assert models.most == 1 and models.count == before + 2
  assert 'click' in visitors[1].value('document.querySelector("#a2v-take-1").innerText')


@pytest.mark.slow
def test_ctrl_c_ends_the_page_and_deletes_its_files(tmp_path):
  process = subprocess.Popen(
      [sys.executable, '-m', 'avlink_jax.demo'], cwd=ROOT, text=True, stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, env=os.environ | {'TMPDIR': str(tmp_path), 'JAX_PLATFORMS': 'cpu'})
  try:
    assert process.stdout.readline().startswith('http://127.0.0.1:')
    assert list(tmp_path.glob('avlink_jax-demo-*'))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=chromium.PATIENCE)
  finally:
    process.kill()
  assert process.returncode == 130 and 'Traceback' not in error
  assert not list(tmp_path.glob('avlink_jax-demo-*'))
