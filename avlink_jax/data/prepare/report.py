"""Summary of a preparation: counts, and what was skipped and why (from shards.py's reports)."""

from avlink_jax.storage.console import hms

TWICE = 'an id that another record has: both kept'


def skipped(reports):
  """Rows {shard, clip, reason} of skipped clips, and of ids that several records share."""
  rows = [{'shard': name, 'clip': clip, 'reason': reason}
          for name, report in reports.items() for clip, reason in report['skipped']]
  known = set()
  for name, report in reports.items():
    for id in report['ids']:
      split_id = (name.split('-')[0], id)
      if split_id in known:
        rows.append({'shard': name, 'clip': id, 'reason': TWICE})
      known.add(split_id)
  return rows


def summary(reports) -> str:
  """Counts by split and by reason, a line each."""
  lines, reasons = [], {}
  for split in dict.fromkeys(name.split('-')[0] for name in reports):
    of = [report for name, report in reports.items() if name.startswith(f'{split}-')]
    total = {key: sum(report[key] for report in of) for key in (
        'clips', 'records', 'seconds', 'left', 'bytes')}
    lines.append(
        f'{split}: {total["records"]} records ({hms(total["seconds"])}, '
        f'{total["bytes"] / 2**20:.1f} MiB) of {total["clips"]} clips; '
        f'{total["left"]:.0f} s in no window')
    if silent := sum(report.get('silent', 0) for report in of):
      lines.append(f'{split}: {silent} records of silence, or with little sound: --drop_silent '
                   'leaves them out')
  for row in skipped(reports):
    reasons[row['reason']] = reasons.get(row['reason'], 0) + 1
  lines += [f'{"" if reason == TWICE else "skipped: "}{count} × {reason}'
            for reason, count in sorted(reasons.items(), key=lambda item: -item[1])]
  return '\n'.join(lines)
