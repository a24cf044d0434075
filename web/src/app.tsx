/** The whole page: list, what is open, strip. */

import { useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { go, parameter } from './net/address';
import { Opened, type Stream } from './net/opened';
import { SignIn, Help, isHelpOpen } from './view/dialogs';
import { ImageView, shownFrames } from './view/image';
import { MetaView } from './view/meta';
import { CopyButton, Empty, moment } from './view/parts';
import { PlotView } from './view/plot';
import { asPython } from './view/python';
import { Badge, openPath, Runs, step } from './view/runs';
import { linkWords, Status } from './view/status';
import { TableView } from './view/table';
import { switchTheme, theme } from './view/theme';
import { link } from './wire/client';

const TABS = ['plot', 'image', 'table', 'meta'] as const;
type Tab = (typeof TABS)[number];
const TITLES: Record<Tab, string> = { plot: 'Plot', image: 'Images', table: 'Table', meta: 'Metadata' };

/** What is open, for tests and for the keyboard. */
export const current: { opened: Opened | null; stream: Stream | null } = { opened: null, stream: null };

function tabOf(opened: Opened, stream: Stream | null): Tab {
  const wanted = parameter('tab').value as Tab | null;
  if (wanted && TABS.includes(wanted)) return wanted;
  if (!stream) return opened.entry.value && opened.entry.value.family !== 'container' ? 'meta' : 'plot';
  return stream.tables.length || stream.traces.length ? 'plot' : 'image';
}

export function App({ version }: { version: string }) {
  const opened = useSignal<Opened | null>(null);
  useSignalEffect(() => {
    const path = openPath.value;
    const before = opened.peek();
    if (before?.path.join('/') === (path ?? '')) return;
    before?.close();
    opened.value = path ? new Opened(path.split('/')) : null;
  });
  const streams = opened.value?.streams.value ?? [];
  const stream = streams.find(({ name }) => name === parameter('stream').value) ?? streams[0] ?? null;
  const tab = opened.value ? tabOf(opened.value, stream) : 'plot';
  current.opened = opened.value;
  current.stream = stream;
  const python = useRef<() => string>(() => '');
  python.current = () => (opened.value ? asPython(opened.value, stream, tab) : '');
  useKeys(tab);
  const entry = opened.value?.entry.value;
  useEffect(() => {
    const start = entry?.metadata.start;
    document.title = entry ? `${start?.scan_id !== undefined ? `#${start.scan_id} ${start.plan_name ?? ''}` : entry.key} — tiled_stream` : 'tiled_stream';
  }, [entry]);
  return (
    <div class="page">
      <header class="top">
        <a class="brand" href="?" onClick={(event) => (event.preventDefault(), home())}>
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M3 4h8v7H3zM13 4h8v7h-8zM3 13h8v7H3z" />
            <path class="wave" d="M13 17q2-5 4 0t4 0" />
          </svg>
          tiled_stream
        </a>
        <span class="grow" />
        <span class={`state ${link.value.state}`} title={link.value.detail}>
          {linkWords.value}
        </span>
        <button type="button" class="button plain" onClick={switchTheme} title="Dark or light (d)" aria-label={`Switch to ${theme.value === 'dark' ? 'light' : 'dark'}`}>
          {theme.value === 'dark' ? '☀' : '☾'}
        </button>
        <button type="button" class="button plain" onClick={() => (isHelpOpen.value = true)} title="Keys (?)" aria-label="Keys">
          ?
        </button>
      </header>
      <Runs />
      <main>
        {opened.value ? (
          <Open opened={opened.value} stream={stream} streams={streams} tab={tab} python={() => python.current()} />
        ) : (
          <Empty title="No run yet">The next one opens here by itself. Other things can be chosen from the list.</Empty>
        )}
      </main>
      <Status opened={opened.value} stream={stream} version={version} />
      <SignIn />
      <Help />
    </div>
  );
}

function home(): void {
  go(Object.fromEntries(['at', 'run', 'q', 'tab', 'stream', 'x', 'y', 'range', 'pause', 'frame', 'roi', 'levels', 'img'].map((name) => [name, null])), true);
}

function Open(props: { opened: Opened; stream: Stream | null; streams: Stream[]; tab: Tab; python: () => string }) {
  const { opened, stream, streams, tab, python } = props;
  const entry = opened.entry.value;
  if (opened.error.value) return <Empty title="It cannot be opened">{opened.error.value}</Empty>;
  if (!entry) return <Empty title="Reading …" />;
  const start = entry.metadata.start;
  const name = opened.path.join('/');
  const View = { plot: PlotView, image: ImageView, table: TableView }[tab as 'plot'] as typeof PlotView | undefined;
  return (
    <>
      <div class="title">
        <h1>{start?.scan_id !== undefined ? `#${start.scan_id} ${start.plan_name ?? ''}` : entry.key}</h1>
        <LiveBadge opened={opened} />
        {start?.time && <time>{moment(start.time)}</time>}
        <code class="uid" title={name}>
          {name.length > 40 ? `…${name.slice(-36)}` : name}
        </code>
        <span class="grow" />
        <CopyButton text={python} title="Copy what is seen as Python (c)">
          copy as Python
        </CopyButton>
        <CopyButton text={() => location.href} title="Copy a link to exactly this view">
          copy link
        </CopyButton>
      </div>
      <div class="tabs">
        <div role="tablist" aria-label="Views">
          {TABS.map((key) => (
            <button type="button" role="tab" key={key} aria-selected={key === tab} onClick={() => go({ tab: key })}>
              {TITLES[key]}
              {key === 'image' && stream && stream.images.length > 0 && <span class="count">{stream.images.length}</span>}
            </button>
          ))}
        </div>
        {streams.length > 1 && tab !== 'meta' && (
          <div class="streams" role="group" aria-label="Streams">
            {streams.map((other) => (
              <button type="button" key={other.name} aria-pressed={other === stream} onClick={() => go({ stream: other.name, x: null, y: null, range: null, pause: null })}>
                {other.name}
              </button>
            ))}
          </div>
        )}
      </div>
      {tab === 'meta' ? (
        <MetaView opened={opened} />
      ) : stream && View ? (
        <View key={`${name} ${stream.path.join('/')}`} opened={opened} stream={stream} />
      ) : (
        <Empty title={entry.family === 'container' ? 'No data yet' : `Nothing to draw in a node of family ${entry.family}`}>
          {entry.family === 'container' ? 'Streams appear here as soon as they are declared.' : 'See its metadata.'}
        </Empty>
      )}
    </>
  );
}

function LiveBadge({ opened }: { opened: Opened }) {
  const entry = opened.entry.value;
  return entry ? <Badge entry={entry} /> : null;
}

function useKeys(tab: Tab): void {
  const now = useRef(tab);
  now.current = tab;
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (target.matches('input, select, textarea') && event.key !== 'Escape') return;
      if (document.querySelector('dialog[open]')) return;
      if (event.key === ' ' && target.matches('button, summary, [role=region]')) return;
      const action = actions(now.current)[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
}

const flip = (name: string): void => go({ [name]: parameter(name).peek() === null ? '1' : null });

function actions(tab: Tab): Record<string, () => void> {
  return {
    '/': () => document.getElementById('search')?.focus(),
    j: () => step(1),
    k: () => step(-1),
    n: () => go({ run: null }),
    1: () => go({ tab: 'plot' }),
    2: () => go({ tab: 'image' }),
    3: () => go({ tab: 'table' }),
    4: () => go({ tab: 'meta' }),
    l: () => flip(tab === 'image' ? 'ilog' : 'ylog'),
    a: () => go({ range: null, levels: null }),
    b: () => flip('ghost'),
    i: () => flip('invert'),
    d: switchTheme,
    c: () => document.querySelector<HTMLButtonElement>('.title .button')?.click(),
    '?': () => (isHelpOpen.value = true),
    Escape: () => (document.activeElement as HTMLElement | null)?.blur(),
    ' ': () => document.querySelector<HTMLButtonElement>('.bar > .grow + .button')?.click(),
    '[': () => moveFrame(-1),
    ']': () => moveFrame(1),
  };
}

function moveFrame(by: number): void {
  const frames = shownFrames.current;
  const index = frames?.picture.peek()?.index;
  if (!frames || !index?.length) return;
  const last = frames.leading.length - 1;
  go({ frame: index.map((at, axis) => (axis === last ? Math.max(0, Math.min(frames.leading[last]! - 1, at + by)) : at)).join() });
}
