"""A Cloud Storage of this machine, as far as TensorStore, gcsfs and a run need one.

    with served() as (objects, environment): ...    {'bucket/name': bytes}, for a process's own

TensorStore's own driver for gs:// talks to it, through TENSORSTORE_GCS_HTTP_URL, and gcsfs where
it is installed, through STORAGE_EMULATOR_HOST. Where it is not, `FakeGcs` stands in for it.
Objects appear whole, and nothing appends, renames or locks.
"""

import contextlib
import http.server
import io
import json
import os
import re
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import fsspec
from etils import epath
from fsspec.registry import _registry as registry


class Server(http.server.ThreadingHTTPServer):
  """`objects`: name -> content, generation. `refuse`: what to answer instead, an HTTP status."""

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), Handler)
    self.objects, self.generations, self.refuse, self.lock = {}, {}, None, threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
  """The few calls of the JSON API."""

  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def answer(self, status, content=b'', **headers):
    if not isinstance(content, bytes):
      content, headers['Content-Type'] = json.dumps(content).encode(), 'application/json'
    self.send_response(status)
    for name, value in {**headers, 'Content-Length': len(content)}.items():
      self.send_header(name.replace('_', '-'), str(value))
    self.end_headers()
    self.wfile.write(content)

  def handle_call(self):
    url = urllib.parse.urlsplit(self.path)
    asked = dict(urllib.parse.parse_qsl(url.query))
    body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
    if self.server.refuse:
      return self.answer(self.server.refuse, {'error': {'message': 'no entry'}})
    bucket, name = re.search(r'/b/([^/]+)(?:/o(?:/(.*))?)?$', url.path).groups()
    with self.server.lock:
      return self.call(bucket, urllib.parse.unquote(name or ''), asked, body, url.path)

  do_GET = do_POST = do_DELETE = handle_call

  def about(self, key):
    bucket, name = key.split('/', 1)
    return {'kind': 'storage#object', 'bucket': bucket, 'name': name, 'id': key,
            'size': str(len(self.server.objects[key])),
            'generation': str(self.server.generations[key]), 'metageneration': '1',
            'updated': '2026-01-01T00:00:00Z', 'timeCreated': '2026-01-01T00:00:00Z'}

  def call(self, bucket, name, asked, body, path):
    objects, generations = self.server.objects, self.server.generations
    key = f'{bucket}/{name or asked.get("name")}'
    now = generations.get(key, 0) if key in objects else 0
    wanted = asked.get('ifGenerationMatch')
    if wanted is not None and int(wanted) != now:
      return self.answer(412)
    if '/rewriteTo/b/' in name:
      source, target = name.split('/rewriteTo/b/')
      key = target.replace('/o/', '/', 1)
      objects[key], generations[key] = objects[f'{bucket}/{source}'], generations.get(key, 0) + 1
      return self.answer(200, {'done': True, 'resource': self.about(key)})
    if self.command == 'POST':
      if asked['uploadType'] == 'multipart':  # gcsfs's: what it is, then the content
        parts = body.split(b'--==0==')
        named = json.loads(parts[1].split(b'\n\n', 1)[1])
        key = f'{bucket}/{named["name"]}'
        body = parts[2].split(b'\n\n', 1)[1].removesuffix(b'\n')
      if asked['uploadType'] == 'resumable':  # gcsfs's for files: where to send the content to
        host, name = self.headers['Host'], urllib.parse.quote(json.loads(body)['name'], safe='')
        return self.answer(200, Location=f'http://{host}{path}?uploadType=media&name={name}')
      objects[key], generations[key] = body, generations.get(key, 0) + 1
      return self.answer(200, self.about(key))
    if path.endswith(f'/b/{bucket}'):
      return self.answer(200, {'kind': 'storage#bucket', 'name': bucket})
    if path.endswith('/o'):
      return self.answer(200, self.listed(bucket, asked))
    if key not in objects:
      return self.answer(404)
    if self.command == 'DELETE':
      del objects[key]
      return self.answer(204)
    if asked.get('alt') != 'media':
      return self.answer(200, self.about(key))
    content, told = objects[key], {'x_goog_generation': now, 'x_goog_stored_content_length': len(
        objects[key])}
    if span := re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range') or ''):
      first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
      return self.answer(206, content[first:last + 1], **told,
                         Content_Range=f'bytes {first}-{last}/{len(content)}')
    return self.answer(200, content, **told)

  def listed(self, bucket, asked):
    """Objects, and with a delimiter what stands before it, as folders."""
    prefix, items, folders = asked.get('prefix', ''), [], set()
    for key in sorted(self.server.objects):
      name = key.removeprefix(f'{bucket}/')
      if name == key or not name.startswith(prefix) or name < asked.get('startOffset', '') or (
          asked.get('endOffset') and name >= asked['endOffset']):
        continue
      head, slash, _ = name[len(prefix):].partition(asked.get('delimiter') or '\0')
      if slash:
        folders.add(prefix + head + slash)
      else:
        items.append(self.about(key))
    return {'kind': 'storage#objects', 'items': items, 'prefixes': sorted(folders)}


@contextlib.contextmanager
def served():
  """(the Server, what its users need in their environment)."""
  server = Server()
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  address = f'http://127.0.0.1:{server.server_port}'
  try:
    yield server, {'TENSORSTORE_GCS_HTTP_URL': address, 'STORAGE_EMULATOR_HOST': address,
                   'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'a token', 'FAKE_GCS': address,
                   'NO_PROXY': '127.0.0.1', 'no_proxy': '127.0.0.1'}
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


class FakeGcs(fsspec.AbstractFileSystem):
  """gcsfs in small, on the Server at `address`; what it lacks, append and rename, raises."""

  protocol = ('gs', 'gcs')
  cachable = False
  address = None

  def __init__(self, **_):
    super().__init__()

  def ask(self, method, path, body=None, **asked):
    url = f'{self.address}{path}?{urllib.parse.urlencode(asked)}'
    try:
      with urllib.request.urlopen(urllib.request.Request(url, body, method=method)) as got:
        return got.read()
    except urllib.error.HTTPError as error:
      if error.code == 404:
        raise FileNotFoundError(path) from None
      raise PermissionError(f'HTTP {error.code}') from None

  def where(self, path):
    bucket, _, name = self._strip_protocol(path).partition('/')
    return bucket, name

  def object(self, path):
    bucket, name = self.where(path)
    return f'/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe="")}'

  def ls(self, path, detail=True, **_):
    bucket, name = self.where(path)
    prefix = f'{name}/' if name else ''
    got = json.loads(self.ask('GET', f'/storage/v1/b/{bucket}/o', prefix=prefix, delimiter='/'))
    rows = [{'name': f'{bucket}/{item["name"]}', 'size': int(item['size']), 'type': 'file'}
            for item in got['items']]
    rows += [{'name': f'{bucket}/{folder.rstrip("/")}', 'size': 0, 'type': 'directory'}
             for folder in got['prefixes']]
    if not rows:
      rows = [self.info(path)]
    return rows if detail else [row['name'] for row in rows]

  def find(self, path, **asked):
    if asked:
      return super().find(path, **asked)
    bucket, name = self.where(path)
    got = json.loads(self.ask('GET', f'/storage/v1/b/{bucket}/o', prefix=name))
    found = [f'{bucket}/{item["name"]}' for item in got['items']]
    return [one for one in found if one == f'{bucket}/{name}' or
            one.startswith(f'{bucket}/{name}/')]

  def info(self, path, **_):
    bucket, name = self.where(path)
    with contextlib.suppress(FileNotFoundError):
      got = json.loads(self.ask('GET', self.object(path)))
      return {'name': f'{bucket}/{name}', 'size': int(got['size']), 'type': 'file'}
    got = json.loads(self.ask('GET', f'/storage/v1/b/{bucket}/o', prefix=f'{name}/'))
    if not got['items']:
      raise FileNotFoundError(path)
    return {'name': f'{bucket}/{name}', 'size': 0, 'type': 'directory'}

  def mkdir(self, path, create_parents=True, **_):
    pass

  makedirs = mkdir

  def rm(self, path, recursive=False, **_):
    for name in self.find(path) if recursive else [path]:
      self.ask('DELETE', self.object(name))

  def rmdir(self, path):
    pass

  def cp_file(self, path1, path2, **_):
    self.pipe_file(path2, self.cat_file(path1))

  def cat_file(self, path, start=None, end=None, **_):
    return self.ask('GET', self.object(path), alt='media')[start:end]

  def pipe_file(self, path, value, **_):
    bucket, name = self.where(path)
    self.ask('POST', f'/upload/storage/v1/b/{bucket}/o', value, uploadType='media', name=name)

  def _open(self, path, mode='rb', **_):
    if mode == 'rb':
      return io.BytesIO(self.cat_file(path))
    if mode != 'wb':
      raise NotImplementedError(f'{path}: objects are not opened with {mode}')
    return Written(self, path)


class Written(io.BytesIO):
  """An object that appears when it is closed."""

  def __init__(self, system, path):
    super().__init__()
    self._system, self._path = system, path

  def close(self):
    if not self.closed:
      self._system.pipe_file(self._path, self.getvalue())
    super().close()

  def __exit__(self, kind, *_):
    if kind is None:
      self.close()


@contextlib.contextmanager
def stood_in(address):
  """FakeGcs in gcsfs's place in this process."""
  FakeGcs.address = address
  backend = epath.backend.fsspec_backend
  for name in FakeGcs.protocol:
    fsspec.register_implementation(name, FakeGcs, clobber=True)
  backend._get_filesystem.cache_clear()
  try:
    yield
  finally:
    for name in FakeGcs.protocol:
      registry.pop(name)
    backend._get_filesystem.cache_clear()


if __name__ == '__main__':  # python fake_bucket.py FLAG…: avlink_jax.main on the bucket in FAKE_GCS
  from avlink_jax import main
  with stood_in(os.environ['FAKE_GCS']):
    sys.exit(main.main(sys.argv))
