"""Chromium without a window, driven through its own pipe: real keys, clicks, downloads."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time

PATH = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'google-chrome', 'chrome'))), None)
PATIENCE = 120.0  # seconds, for whatever is waited for
KEYS = {'Enter': 13, 'Backspace': 8}


class Page:
  """A tab; messages are JSON that ends in a zero byte (Chrome DevTools Protocol)."""

  def __init__(self, send, receive):
    self._send, self._receive, self._count, self._left = send, receive, 0, b''
    self._session = {}
    target = self('Target.createTarget', url='about:blank')['targetId']
    self._session = {'sessionId': self('Target.attachToTarget', targetId=target, flatten=True)[
        'sessionId']}
    self('Page.enable')

  def __call__(self, method, **parameters):
    """The result of a command."""
    self._count += 1
    message = {'id': self._count, 'method': method, 'params': parameters, **self._session}
    os.write(self._send, json.dumps(message).encode() + b'\0')
    while True:
      while b'\0' not in self._left:
        read = os.read(self._receive, 1 << 16)
        assert read, 'Chromium has ended'
        self._left += read
      line, _, self._left = self._left.partition(b'\0')
      answer = json.loads(line)
      if answer.get('id') == self._count:
        assert 'error' not in answer, (method, answer['error'])
        return answer['result']

  def open(self, url):
    self('Page.navigate', url=url)
    self.wait('document.readyState === "complete"')

  def value(self, expression):
    """What JavaScript gives, as JSON would hold it."""
    made = self('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
    assert 'exceptionDetails' not in made, made['exceptionDetails']
    return made['result'].get('value')

  def wait(self, expression):
    limit = time.monotonic() + PATIENCE
    while not self.value(f'Boolean({expression})'):
      assert time.monotonic() < limit, f'{expression} did not come true'
      time.sleep(0.02)

  def press(self, key):
    """A key, down and up, as a keyboard sends it."""
    text = {'text': '\r' if key == 'Enter' else key} if key != 'Backspace' else {}
    code = KEYS.get(key, ord(key.upper()[0]))
    self('Input.dispatchKeyEvent', type='keyDown', key=key, windowsVirtualKeyCode=code, **text)
    self('Input.dispatchKeyEvent', type='keyUp', key=key, windowsVirtualKeyCode=code)

  def click(self, selector):
    """A click into the middle of an element, wherever the page has it."""
    x, y = self.value(f'(e => {{ e.scrollIntoView({{block: "center"}}); const r = '
                      'e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; '
                      f'}})(document.querySelector({json.dumps(selector)}))')
    for kind in ('mousePressed', 'mouseReleased'):
      self('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

  def size(self, width, height, phone):
    self('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1,
         mobile=phone)

  def picture(self, path):
    path.write_bytes(base64.b64decode(self('Page.captureScreenshot')['data']))


@contextlib.contextmanager
def browser(profile):
  """A Page of a browser that keeps what it keeps in the folder `profile`."""
  theirs_in, ours_out = os.pipe()
  ours_in, theirs_out = os.pipe()
  # Chromium reads descriptor 3 and writes 4.
  moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]
  process = subprocess.Popen(
      ['bash', '-c', f'exec "$@" 3<&{moved[0]} 4>&{moved[1]}', 'bash', PATH, '--headless',
       '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
       '--autoplay-policy=no-user-gesture-required', '--mute-audio',
       # A camera that shows a moving pattern, a microphone that beeps; allowed without asking.
       '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
       f'--user-data-dir={profile}', '--remote-debugging-pipe'],
      pass_fds=moved, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  for fd in (theirs_in, theirs_out, *moved):
    os.close(fd)
  try:
    page = Page(ours_out, ours_in)
    yield page
    page._session = {}
    page('Browser.close')  # and not a kill, so that it writes down what it keeps
    process.wait(PATIENCE)
  finally:
    process.kill()
    process.wait()
    os.close(ours_out)
    os.close(ours_in)
