"""The page itself (Gradio): a tab a task, each with its upload, settings, and takes to compare."""

import functools
import html
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import gradio as gr
from ml_collections import ConfigDict

from avlink_jax.cli.presets import PRESETS
from avlink_jax.demo import jobs
from avlink_jax.errors import UserError

KEPT = 3600  # seconds that uploads and results stay for their visitor
CANCELLED = 'Cancelled.'
WAITING = 16  # jobs that wait or run at a time; more stand in Gradio's queue
LOOK = 0.2  # seconds between two looks of a waiting job at whether it is still wanted
TITLES = {'v2a': 'Sound for a video', 'a2v': 'Video for a sound', 'joint': 'Joint model'}
TOWARD = {'v2a': ('audio',), 'a2v': ('video',), 'joint': ('audio', 'video')}
OTHER = {'audio': 'video', 'video': 'audio'}
PLACEHOLDERS = {'audio': 'a hammer strikes metal', 'video': 'a ball bounces on a floor'}
FONT = ('system-ui', 'sans-serif')  # of this machine: the page fetches nothing from elsewhere


def build(load: Callable[[str, str, str], Any], configs: dict[str, ConfigDict], first: str,
          folder: pathlib.Path) -> gr.Blocks:
  """The page, which is not served yet.

  Args:
    load: gives the model of (task, what is generated, preset).
    configs: {task: its config}, for each tab that the page has.
    first: task whose tab is open.
    folder: for the files of a job until Gradio has copied them.
  """
  running = Running()
  with gr.Blocks(title='AV-Link', analytics_enabled=False, delete_cache=(60, KEPT)) as page:
    gr.Markdown(
        '# AV-Link\nSound for a video, or video for a sound. Files are at most '
        f'{jobs.MAX_BYTES >> 20} MiB and {jobs.MAX_SECONDS:g} s; they are deleted after an hour.')
    with gr.Tabs(selected=first):
      for task, config in configs.items():
        with gr.Tab(TITLES[task], id=task):
          _tab(task, config.sample, functools.partial(load, task), folder, running)
    page.unload(running.leave)
  return page.queue(max_size=WAITING, default_concurrency_limit=WAITING)


def serve(page: gr.Blocks, host: str, port: int | None) -> str:
  """Serves the page in a thread of its own; returns its address."""
  _, address, _ = page.launch(
      server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
      max_file_size=jobs.MAX_BYTES, run_history=False, footer_links=[], enable_monitoring=False,
      ssr_mode=False, mcp_server=False, theme=gr.themes.Default(font=FONT, font_mono='monospace'))
  return address


class Running:
  """Jobs that run, one at a time, or wait for that one, so that visitors can stop their own.

  Gradio's own cancelling forgets a function that runs but lets it go on, and its button is dead
  from then on: so jobs wait here and not in Gradio's queue.
  """

  def __init__(self):
    self._stops, self._one = {}, threading.Lock()

  def __call__(self, session, task, job, waits):
    """What `job`, a function of the event that stops it, gives, once no other job is running;
    `waits` is called where one is. Raises jobs.Stopped."""
    stop = self._stops[session, task] = threading.Event()
    try:
      if not self._one.acquire(blocking=False):
        waits()
        while not self._one.acquire(timeout=LOOK):
          if stop.is_set():
            raise jobs.Stopped
      try:
        return job(stop)
      finally:
        self._one.release()
    finally:
      if self._stops.get((session, task)) is stop:
        del self._stops[session, task]

  def stop(self, session, task):
    """Stops a visitor's job of a tab; returns whether there is one."""
    if (stop := self._stops.get((session, task))) is not None:
      stop.set()
    return stop is not None

  def leave(self, request: gr.Request):
    """Stops all jobs of a visitor who has closed the page."""
    for session, task in list(self._stops):
      if session == request.session_hash:
        self.stop(session, task)


def _conditions(generated):
  """Which modality the visitor gives: {name: bool}."""
  return {name: name == OTHER[generated] for name in OTHER}


def _tab(task, settings, load, folder, running):
  """Adds what a tab shows, and what its button does. Presets are shown where they differ."""
  toward = TOWARD[task]
  shown = _conditions(toward[0])
  with gr.Row():
    with gr.Column(scale=2, min_width=300):
      choice = gr.Radio([('sound for a video', 'audio'), ('video for a sound', 'video')],
                        value=toward[0], label='Generate', visible=len(toward) > 1,
                        elem_id=f'{task}-direction')
      video = gr.Video(label='Video: drop one or record one', sources=['upload', 'webcam'],
                       buttons=[], visible=shown['video'], elem_id=f'{task}-video')
      audio = gr.Audio(label='Sound: drop one or record one', sources=['upload', 'microphone'],
                       type='filepath', buttons=[], visible=shown['audio'],
                       elem_id=f'{task}-audio')
      prompt = gr.Textbox(label='Prompt', placeholder=PLACEHOLDERS[toward[0]],
                          elem_id=f'{task}-prompt')
      negative = gr.Textbox(label='Negative prompt', placeholder='what not to generate',
                            elem_id=f'{task}-negative')
      with gr.Row():
        takes = gr.Slider(1, jobs.MAX_TAKES, value=1, step=1, label='Takes',
                          elem_id=f'{task}-takes')
        seed = gr.Number(value=0, precision=0, minimum=0, label='Seed', elem_id=f'{task}-seed')
      quality = gr.Radio(list(PRESETS), value=settings.preset, label='Preset',
                         visible=bool(settings.fast), elem_id=f'{task}-preset')
      with gr.Row():
        button = gr.Button('Generate', variant='primary', scale=3, elem_id=f'{task}-generate')
        cancel = gr.Button('Cancel', min_width=80, elem_id=f'{task}-cancel')
    with gr.Column(scale=3, min_width=320):
      state = gr.Markdown('Takes appear here.', elem_id=f'{task}-state', min_height=120)
      slots = [_slot(f'{task}-take-{i + 1}') for i in range(jobs.MAX_TAKES)]
  if len(toward) > 1:
    choice.change(
        lambda generated: (*(gr.update(visible=_conditions(generated)[name])
                             for name in ('video', 'audio')),
                           gr.update(placeholder=PLACEHOLDERS[generated])),
        choice, [video, audio, prompt], queue=False, api_visibility='private')

  def run(generated, video, audio, prompt, negative, takes, quality, seed, request: gr.Request,
          progress=gr.Progress()):  # noqa: B008  # how Gradio hands it over
    condition = OTHER[generated]
    job = jobs.Job({'video': video, 'audio': audio}[condition], prompt or '', negative or '',
                   takes, quality, seed)

    def begun(stop):
      progress(0, desc='Loading and compiling; the first time takes longest')
      return jobs.generate(
          functools.partial(load, generated), condition, job, folder,
          lambda done, count: progress((done, count), desc='Generating', unit='steps'), stop)

    try:
      made = running(request.session_hash, task, begun,
                     lambda: progress(0, desc='Waiting for another job'))
    except jobs.Stopped:
      return [CANCELLED, *(gr.skip() for slot in slots for _ in slot)]
    except UserError as error:
      raise gr.Error(html.escape(str(error), quote=False), title='Not generated',
                     print_exception=False) from None
    shown = [each for one in made for each in _shown(one)]
    hidden = [each for _ in slots[len(made):] for each in _hidden()]
    return [f'{len(made)} take{"" if len(made) == 1 else "s"}, seed {int(seed)}', *shown, *hidden]

  def stopped(request: gr.Request):
    return 'Cancelling …' if running.stop(request.session_hash, task) else gr.skip()

  button.click(
      run, [choice, video, audio, prompt, negative, takes, quality, seed],
      [state, *(part for slot in slots for part in slot)], concurrency_limit=WAITING,
      concurrency_id='model', show_progress_on=state, api_visibility='private')
  cancel.click(stopped, None, state, queue=False, show_progress='hidden',
               api_visibility='private')


def _slot(name):
  """Place for a take: (group, title, video, spectrogram, wav, mp4), hidden until there is one."""
  with gr.Group(visible=False, elem_id=name) as group:
    title = gr.Markdown(padding=True)
    video = gr.Video(show_label=False, interactive=False, height=288, buttons=[])
    spectrogram = gr.Image(show_label=False, interactive=False, buttons=[], height=140)
    with gr.Row():
      wav = gr.DownloadButton('Download wav', size='sm', elem_id=f'{name}-wav')
      mp4 = gr.DownloadButton('Download mp4', size='sm', elem_id=f'{name}-mp4')
  return group, title, video, spectrogram, wav, mp4


def _shown(take):
  """Values of a slot with a take."""
  picture = take.spectrogram and str(take.spectrogram)
  return (gr.update(visible=True), f'**{html.escape(take.name)}** · {take.note}', str(take.video),
          gr.update(value=picture, visible=picture is not None),
          gr.update(value=take.wav and str(take.wav), visible=take.wav is not None),
          gr.update(value=str(take.video)))


def _hidden():
  """Values of an empty slot."""
  return (gr.update(visible=False), '', None, None, gr.update(value=None), gr.update(value=None))
