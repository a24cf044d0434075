/**
 * The live plot: the hinted motor against the hinted detectors, until somebody chooses otherwise.
 *
 * What is chosen stands in the address: `x`, `y` (panes divided by ";", series within one by ","), `range`, `ylog`, `pause`
 * (how many rows were there), `ghost`.
 */

import { useSignal } from '@preact/signals';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { Column } from '../data/columns';
import { forget, redraw } from '../data/frames';
import { peakOf, type Peak } from '../data/peak';
import { go, parameter } from '../net/address';
import { entries, isRun, type Entry } from '../net/catalog';
import { defaultX, defaultY, isMinor, unitOf } from '../net/hints';
import { Opened, type Stream } from '../net/opened';
import { Pane, type Line } from './pane';
import { Button, Empty, Select, short, useLive } from './parts';
import { colors, theme } from './theme';

/** 0, 1, 2 …, for whoever plots against the row. */
const index = new Column();

function indexOf(count: number): Column {
  if (index.length < count) index.append(Float64Array.from({ length: Math.max(count, 2 * index.length) - index.length }, (_, i) => i + index.length));
  return index;
}

export interface Chosen {
  x: string;
  panes: string[][];
}

export function chosen(opened: Opened, stream: Stream): Chosen {
  const names = opened.columnNames(stream);
  const entry = opened.entry.value;
  const wantedX = parameter('x').value;
  const x = wantedX !== null && (wantedX === '' || names.includes(wantedX)) ? wantedX : defaultX(entry, stream, names);
  const y = parameter('y').value;
  const panes = y === null ? defaultY(entry, stream, names, x) : (y === '-' ? '' : y).split(';').map((pane) => pane.split(',').filter(Boolean));
  return { x, panes: panes.filter((pane) => pane.length) };
}

const text = (panes: string[][]): string => panes.filter((pane) => pane.length).map((pane) => pane.join(',')).join(';');

/** The run of the list that came before and did the same. */
export function previousOf(entry: Entry | null): Entry | null {
  if (!entry || !isRun(entry)) return null;
  const { plan_name: plan, time, uid } = entry.metadata.start ?? {};
  return (
    entries.value.find((other) => {
      const start = other.metadata.start;
      return isRun(other) && start && start.uid !== uid && start.plan_name === plan && start.time < time;
    }) ?? null
  );
}

export const panesForTests: Pane[] = [];

export function PlotView({ opened, stream }: { opened: Opened; stream: Stream }) {
  const names = useSignal('');
  // Names of columns are known with the first rows; the list is compared, so that the page is not drawn anew with each row.
  useLive(() => {
    for (const feed of opened.feedsOf(stream)) feed.version.value;
    names.value = opened.columnNames(stream).join('\n');
  }, [opened, stream]);
  const known = names.value ? names.value.split('\n') : [];
  const { x, panes } = chosen(opened, stream);
  const pausedAt = parameter('pause').value === null ? null : Number(parameter('pause').value);
  const isLog = parameter('ylog').value === '1';
  const ghost = useGhost(opened, stream);
  const feeds = opened.use(stream, [x, ...panes.flat()]);
  const errors = feeds.map((feed) => feed.error.value).filter(Boolean);
  if (!known.length) {
    if (errors.length) return <Empty title="The data cannot be read">{errors[0]}</Empty>;
    const isWaiting = feeds.some((feed) => ['replaying', 'reading'].includes(feed.state.value));
    if (isWaiting) return <Empty title="Reading …" />;
    return <Empty title={stream.images.length ? 'No columns; see Images' : 'No points yet'}>They are drawn here as they come.</Empty>;
  }
  const axisNames: [string, string][] = [...known.map((name): [string, string] => [name, name]), ['', 'row number']];
  const used = new Set(panes.flat());
  const free = known.filter((name) => !used.has(name)).sort((a, b) => Number(isMinor(a)) - Number(isMinor(b)));
  const add = (name: string): void => {
    if (name.startsWith('pane ')) {
      const [, at, ...rest] = name.split(' ');
      go({ y: text(panes.map((pane, i) => (i === Number(at) ? [...pane, rest.join(' ')] : pane))) });
    } else go({ y: text([...panes, [name]]) });
  };
  const addOptions: [string, string][] = [
    ['', '+ series'],
    ...free.map((name): [string, string] => [name, name]),
    ...panes.flatMap((pane, i) => free.filter((n) => !isMinor(n)).map((name): [string, string] => [`pane ${i} ${name}`, `${name} into the pane of ${pane[0]}`])),
  ];
  const take = (name: string): void => go({ y: text(panes.map((pane) => pane.filter((other) => other !== name))) || '-' });
  return (
    <div class="plot">
      <div class="bar">
        <Select label="x" value={x} options={axisNames} onChange={(value) => go({ x: value, range: null })} />
        <Select label="y" value="" options={addOptions} onChange={(value) => value && add(value)} />
        <Button isOn={isLog} onClick={() => go({ ylog: isLog ? null : '1' })} title="Logarithmic y (l)">
          log
        </Button>
        <Button isOn={ghost.isOn} disabled={!ghost.entry} onClick={() => go({ ghost: ghost.isOn ? null : '1' })} title="The run before of the same plan, faintly (b)">
          previous run
        </Button>
        {parameter('range').value !== null && (
          <Button onClick={() => go({ range: null })} title="Show everything (a, or double click)">
            whole range
          </Button>
        )}
        <span class="grow" />
        {pausedAt === null ? (
          <Button onClick={() => go({ pause: String(countOf(opened, stream, x, panes)) })} title="Freeze the picture (space)">
            ❚❚ pause
          </Button>
        ) : (
          <Paused opened={opened} stream={stream} x={x} panes={panes} at={pausedAt} />
        )}
      </div>
      {errors.length > 0 && <p class="warning">{errors[0]}</p>}
      <div class="panes">
        {panes.map((pane, i) => (
          <PaneView key={`${pane.join()} ${i}`} opened={opened} stream={stream} x={x} names={pane} place={i} ghost={ghost.opened} onTake={take} />
        ))}
        {!panes.length && <Empty title="Nothing chosen">Choose a series above.</Empty>}
      </div>
    </div>
  );
}

function Paused({ opened, stream, x, panes, at }: { opened: Opened; stream: Stream; x: string; panes: string[][]; at: number }) {
  for (const feed of opened.feedsOf(stream)) feed.version.value;
  const fresh = Math.max(0, countOf(opened, stream, x, panes) - at);
  return (
    <Button isOn onClick={() => go({ pause: null })} title="Follow again (space)">
      ▶ {fresh ? `${fresh} new points — follow` : 'follow'}
    </Button>
  );
}

function countOf(opened: Opened, stream: Stream, x: string, panes: string[][]): number {
  const columns = [...(x ? [x] : []), ...panes.flat()].map((name) => opened.column(stream, name)).filter((c) => c !== undefined);
  return columns.length ? Math.min(...columns.map(({ length }) => length)) : 0;
}

function useGhost(opened: Opened, stream: Stream): { isOn: boolean; entry: Entry | null; opened: { opened: Opened; stream: Stream } | null } {
  const entry = previousOf(opened.entry.value);
  const isOn = parameter('ghost').value === '1' && entry !== null;
  const name = isOn ? entry.path.join('/') : '';
  const other = useMemo(() => (name ? new Opened(name.split('/')) : null), [name]);
  useEffect(() => () => other?.close(), [other]);
  const found = other?.streams.value.find((candidate) => candidate.name === stream.name);
  return { isOn, entry, opened: other && found ? { opened: other, stream: found } : null };
}

function PaneView(props: {
  opened: Opened;
  stream: Stream;
  x: string;
  names: string[];
  place: number;
  ghost: { opened: Opened; stream: Stream } | null;
  onTake: (name: string) => void;
}) {
  const { opened, stream, x, names, place, ghost } = props;
  const host = useRef<HTMLDivElement>(null);
  const pane = useRef<Pane | null>(null);
  const cursor = useSignal<number | null>(null);
  const peaks = useSignal<(Peak | null)[]>([]);
  const shown = useSignal<{ lines: Line[] }>({ lines: [] });

  useEffect(() => {
    const made = new Pane(host.current!, {
      onZoom: (range) => go({ range: range && range.map((n) => Number(n.toPrecision(10))).join() }),
      onCursor: (row) => (cursor.value = row),
    });
    pane.current = made;
    panesForTests.push(made);
    return () => {
      panesForTests.splice(panesForTests.indexOf(made), 1);
      made.destroy();
    };
  }, []);

  const draw = useRef(() => {});
  const lastPeaks = useRef(0);
  draw.current = () => {
    const lines = linesOf(opened, stream, x, names, place, false);
    const all = ghost ? [...linesOf(ghost.opened, ghost.stream, x, names, place, true), ...lines] : lines;
    const range = parameter('range').peek();
    const unit = names.length === 1 ? unitOf(stream, names[0]!) : '';
    const xUnit = unitOf(stream, x);
    pane.current?.draw({
      lines: all,
      range: range ? (range.split(',').map(Number) as [number, number]) : null,
      isLog: parameter('ylog').peek() === '1',
      isTime: x === 'time' || x.startsWith('ts_'),
      isLive: opened.feedsOf(stream).some((feed) => feed.state.peek() === 'live') && !opened.entry.peek()?.metadata.stop,
      xLabel: x === '' ? 'row' : x === 'time' ? '' : xUnit ? `${x} (${xUnit})` : x,
      yLabel: names.length === 1 ? (unit ? `${names[0]} (${unit})` : names[0]!) : unit,
    });
    shown.value = { lines };
    if (performance.now() - lastPeaks.current > 250) {
      lastPeaks.current = performance.now();
      peaks.value = lines.map((line) => (x === 'time' || x === '' || x === 'seq_num' ? null : peakOf(line.x.values, line.y.values, line.count)));
    }
  };
  const run = useMemo(() => () => draw.current(), []);
  useLive(() => {
    for (const feed of opened.use(stream, [x, ...names])) {
      feed.version.value;
      feed.state.value;
    }
    ghost?.opened.use(ghost.stream, [x, ...names]).forEach((feed) => feed.version.value);
    for (const name of ['range', 'ylog', 'pause', 'x', 'y']) parameter(name).value;
    theme.value;
    redraw(run);
  }, [opened, stream, ghost?.stream, x, names.join('\n')]);
  useEffect(() => {
    redraw(run);
    const observer = new ResizeObserver(() => redraw(run));
    observer.observe(host.current!);
    return () => {
      observer.disconnect();
      forget(run);
    };
  }, []);
  useEffect(() => redraw(run));

  const row = cursor.value;
  return (
    <section class="pane" aria-label={`Plot of ${names.join(', ')} against ${x || 'row'}`}>
      <ul class="legend">
        {shown.value.lines.map((line, i) => {
          const at = row !== null && row < line.count ? row : line.count - 1;
          const peak = peaks.value[i];
          return (
            <li key={line.label}>
              <svg class="swatch" viewBox="0 0 12 12" aria-hidden="true">
                <circle cx="6" cy="6" r="5" fill={line.color} />
              </svg>
              <b>{line.label}</b>
              <output>
                {at >= 0 && short(line.y.values[at])}
                <i>{at >= 0 && ` at ${x || 'row'} ${x === 'time' ? new Date(line.x.values[at]! * 1000).toLocaleTimeString() : short(line.x.values[at])}`}</i>
              </output>
              {peak && (
                <span class="peak">
                  max <b>{short(peak.max, 4)}</b> at <b>{short(peak.at, 4)}</b>
                  {Number.isFinite(peak.cen) && (
                    <>
                      {' '}
                      · cen <b>{short(peak.cen, 4)}</b> · FWHM <b>{short(peak.fwhm, 4)}</b>
                    </>
                  )}{' '}
                  · com <b>{short(peak.com, 4)}</b>
                </span>
              )}
              <button type="button" class="take" aria-label={`Remove ${line.label}`} title="Remove" onClick={() => props.onTake(line.label)}>
                ×
              </button>
            </li>
          );
        })}
      </ul>
      <div class="canvas" ref={host} />
    </section>
  );
}

function linesOf(opened: Opened, stream: Stream, x: string, names: string[], place: number, isGhost: boolean): Line[] {
  const pause = parameter('pause').peek();
  const palette = colors();
  return names.flatMap((name, i) => {
    const y = opened.column(stream, name);
    const along = x ? opened.column(stream, x) : y && indexOf(y.length);
    if (!y || !along) return [];
    const length = Math.min(y.length, along.length);
    const count = isGhost || pause === null ? length : Math.min(length, Number(pause));
    return [{ label: name, x: along, y, color: palette[(place + i) % palette.length]!, count, isGhost }];
  });
}
