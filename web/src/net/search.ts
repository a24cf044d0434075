/**
 * What is typed into the search box, as filters of the protocol.
 *
 *     plan:scan  scan_id>100  scan_id:100-120  since:24h  until:2026-11-01  status:success  sample:Ni  user.name:kim  words
 *
 * A name without a dot is looked up in the start document; `since` and `until` compare its time.
 */

type Pair = [string, string];

const NAMES: Record<string, string> = {
  plan: 'start.plan_name',
  scan: 'start.scan_id',
  uid: 'start.uid',
  status: 'stop.exit_status',
  exit: 'stop.exit_status',
};
const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400, w: 7 * 86400 };
const TERM = /^([\w.]+)(:|>=|<=|>|<|=)(.+)$/;
const OPERATORS: Record<string, string> = { '>': 'gt', '<': 'lt', '>=': 'ge', '<=': 'le' };

/** Null: the text cannot be understood, with the reason in `errors`. */
export function filtersOf(text: string, now = Date.now() / 1000): { filters: Pair[]; errors: string[] } {
  const filters: Pair[] = [];
  const errors: string[] = [];
  const words: string[] = [];
  for (const part of text.match(/[\w.]+(?::|>=|<=|>|<|=)"[^"]*"|"[^"]*"|\S+/g) ?? []) {
    const term = TERM.exec(part);
    if (!term) {
      words.push(part.replaceAll('"', ''));
      continue;
    }
    const name = term[1]!;
    const operator = term[2]!;
    const value = term[3]!.replaceAll('"', '');
    if (name === 'since' || name === 'until') {
      const time = timeOf(value, now);
      if (Number.isNaN(time)) errors.push(`${name}: a time such as 24h, 7d or 2026-11-01`);
      else compare(filters, name === 'since' ? 'ge' : 'le', 'start.time', String(time));
      continue;
    }
    const key = NAMES[name] ?? (name.includes('.') ? name : `start.${name}`);
    const range = /^(-?[\d.]+)-(-?[\d.]+)$/.exec(value);
    if (operator in OPERATORS) compare(filters, OPERATORS[operator]!, key, jsonOf(value));
    else if (range) {
      compare(filters, 'ge', key, range[1]!);
      compare(filters, 'le', key, range[2]!);
    } else if (key === 'start.uid' || value.includes('*')) {
      filters.push(['filter[like][condition][key]', key]);
      filters.push(['filter[like][condition][pattern]', JSON.stringify(key === 'start.uid' ? `${value}%` : value.replaceAll('*', '%'))]);
    } else {
      filters.push(['filter[eq][condition][key]', key], ['filter[eq][condition][value]', jsonOf(value)]);
    }
  }
  if (words.length) filters.push(['filter[fulltext][condition][text]', words.join(' ')]);
  return { filters, errors };
}

function compare(filters: Pair[], operator: string, key: string, value: string): void {
  filters.push(['filter[comparison][condition][operator]', operator]);
  filters.push(['filter[comparison][condition][key]', key], ['filter[comparison][condition][value]', value]);
}

/** Numbers and booleans as themselves, all else as text. */
function jsonOf(text: string): string {
  return /^(-?\d+(\.\d+)?([eE][-+]?\d+)?|true|false)$/.test(text) ? text : JSON.stringify(text);
}

function timeOf(text: string, now: number): number {
  const ago = /^([\d.]+)([smhdw])$/.exec(text);
  return ago ? now - Number(ago[1]) * UNITS[ago[2]!]! : Date.parse(text.length === 10 ? `${text}T00:00` : text) / 1000;
}
