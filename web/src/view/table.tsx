/**
 * Rows as they come: the newest at the bottom, and the view stays with them until somebody scrolls up.
 *
 * Only the rows that are seen exist in the document.
 */

import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { redraw } from '../data/frames';
import { go, parameter, urlOf } from '../net/address';
import type { ArrayFeed, TableFeed } from '../net/feeds';
import type { Opened, Stream } from '../net/opened';
import { download } from '../net/rest';
import { isMinor } from '../net/hints';
import { Button, Empty, Select, short, useLive } from './parts';

const HEIGHT = 26;
const MOST_TRACES = 20;
/** Beyond this many pixels browsers lose count. */
const TALLEST = 8_000_000;
const FORMATS: [string, string][] = [
  ['csv', 'CSV'],
  ['parquet', 'Parquet'],
  ['arrow', 'Arrow'],
  ['json', 'JSON'],
  ['xlsx', 'Excel'],
];

interface Shown {
  count: number;
  names: string[];
  value(name: string, row: number): unknown;
  forgotten: number;
}

function shownOf(opened: Opened, stream: Stream): Shown {
  const tables = opened.tablesOf(stream);
  opened.use(
    stream,
    stream.traces.slice(0, MOST_TRACES).map(({ key }) => key),
  );
  const traces = stream.traces.slice(0, MOST_TRACES).map((node) => ({ key: node.key, column: (opened.feed(node) as ArrayFeed).column }));
  const counts = [...tables.map(({ rows }) => rows.count), ...traces.map(({ column }) => column.length)];
  const owners = new Map<string, TableFeed>();
  for (const table of tables) for (const name of table.rows.names) if (!owners.has(name)) owners.set(name, table);
  const names = [...owners.keys(), ...traces.map(({ key }) => key).filter((key) => !owners.has(key))];
  return {
    count: Math.max(0, ...counts),
    names,
    forgotten: tables[0]?.rows.forgotten ?? 0,
    value: (name, row) => owners.get(name)?.rows.value(name, row) ?? traces.find(({ key }) => key === name)?.column.values[row],
  };
}

export function TableView({ opened, stream }: { opened: Opened; stream: Stream }) {
  const tick = useSignal(0);
  const scroller = useRef<HTMLDivElement>(null);
  const isTail = useRef(true);
  const top = useSignal(0);
  const seen = useSignal(600);
  useLive(() => {
    for (const feed of opened.feedsOf(stream)) feed.version.value;
    redraw(bump.current);
  }, [opened, stream]);
  const bump = useRef(() => {});
  bump.current = () => (tick.value += 1);
  tick.value;
  const shown = shownOf(opened, stream);
  const isAll = parameter('cols').value === 'all';
  const names = isAll ? shown.names : shown.names.filter((name) => !name.startsWith('ts_'));
  useEffect(() => {
    const element = scroller.current;
    if (element && isTail.current) element.scrollTop = element.scrollHeight;
  });
  useEffect(() => {
    if (!scroller.current) return undefined;
    const observer = new ResizeObserver(() => (seen.value = scroller.current?.clientHeight ?? 600));
    observer.observe(scroller.current);
    return () => observer.disconnect();
  }, [shown.count > 0]);
  const errors = opened.feedsOf(stream).map((feed) => feed.error.value).filter(Boolean);
  if (!shown.count) return <Empty title={errors[0] ? 'The data cannot be read' : 'No rows yet'}>{errors[0] ?? 'They are shown here as they come.'}</Empty>;
  const tall = Math.min(TALLEST, shown.count * HEIGHT);
  const room = Math.max(1, tall - seen.value);
  const visible = Math.ceil(seen.value / HEIGHT) + 2;
  // A table taller than browsers can is scrolled by share.
  const first = Math.max(0, Math.min(shown.count - visible + 2, tall === TALLEST ? Math.round((top.value / room) * (shown.count - visible + 2)) : Math.floor(top.value / HEIGHT)));
  const isByShare = tall === TALLEST;
  const rows = Array.from({ length: Math.min(visible, shown.count - first) }, (_, i) => first + i);
  const above = isByShare ? Math.min(top.value, tall - rows.length * HEIGHT) : first * HEIGHT;
  const onScroll = (event: Event): void => {
    const element = event.currentTarget as HTMLDivElement;
    top.value = element.scrollTop;
    isTail.current = element.scrollTop + element.clientHeight >= element.scrollHeight - HEIGHT;
  };
  const save = (format: string): void => {
    for (const table of stream.tables) {
      const name = `${[...table.path.slice(-3, -1), table.key].join('_')}.${format}`;
      download(`/table/full/${urlOf(table.path)}?format=${format}`, name).catch((error: Error) => alert(error.message));
    }
  };
  return (
    <div class="plot">
      <div class="bar">
        <span class="note">
          {shown.count + shown.forgotten} rows{shown.forgotten > 0 && `, the last ${shown.count} here`}
        </span>
        {shown.names.some((name) => name.startsWith('ts_')) && (
          <Button isOn={isAll} onClick={() => go({ cols: isAll ? null : 'all' })} title="Show the columns of time stamps, too">
            ts_ columns
          </Button>
        )}
        <span class="grow" />
        {stream.tables.length > 0 && (
          <Select label="download" value="" options={[['', 'as …'], ...FORMATS]} onChange={(value) => value && save(value)} />
        )}
      </div>
      <div class="rows" ref={scroller} onScroll={onScroll} tabIndex={0} role="region" aria-label="Rows">
        <table>
          <thead>
            <tr>
              <th>#</th>
              {names.map((name) => (
                <th key={name} class={isMinor(name) ? 'minor' : ''}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            <tr class="filler" style={{ height: `${above}px` }} />
            {rows.map((row) => (
              <tr key={row} class={row === shown.count - 1 ? 'last' : ''}>
                <td>{row + shown.forgotten}</td>
                {names.map((name) => (
                  <td key={name}>{cell(name, shown.value(name, row))}</td>
                ))}
              </tr>
            ))}
            <tr class="filler" style={{ height: `${Math.max(0, tall - above - rows.length * HEIGHT)}px` }} />
          </tbody>
        </table>
      </div>
    </div>
  );
}

function cell(name: string, value: unknown): string {
  if (typeof value === 'number' && (name === 'time' || name.startsWith('ts_')) && value > 1e8) {
    return new Date(value * 1000).toISOString().slice(11, 23);
  }
  return typeof value === 'number' && Number.isNaN(value) ? '' : short(value, 6);
}
