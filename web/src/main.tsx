/** Begins everything; tells the tests what the page knows. */

import './style.css';
import 'uplot/dist/uPlot.min.css';
import { effect } from '@preact/signals';
import { render } from 'preact';
import { App, current } from './app';
import { frameStats } from './data/frames';
import { API } from './net/address';
import { entries, startCatalog } from './net/catalog';
import { activities, startLive } from './net/live';
import { credentials, refreshed, signIn } from './net/rest';
import { shownFrames } from './view/image';
import { panesForTests } from './view/plot';
import { connect, link, traffic } from './wire/client';

const host = document.getElementById('page')!;
const version = host.dataset.version ?? '';

render(<App version={version} />, host);
connect(API, credentials());
startCatalog();
startLive();

/** A socket refuses a token that has run out: then a new one is asked for, once a minute at most. */
let renewed = -Infinity;
effect(() => {
  const { state, detail } = link.value;
  if (state !== 'refused') return;
  const isEarly = performance.now() - renewed < 60_000;
  renewed = performance.now();
  (isEarly ? Promise.resolve(false) : refreshed()).then((isNew) => {
    if (isNew) connect(API, credentials());
    else signIn.value ??= detail;
  });
});
addEventListener('online', () => connect(API, credentials()));

/** Read-only, for tests and for the curious. */
Object.assign(window, {
  __tiled_stream__: {
    get runs() {
      return entries.value.map(({ path, metadata, fresh }) => ({ path: path.join('/'), scan_id: metadata.start?.scan_id, fresh, stop: !!metadata.stop }));
    },
    get link() {
      return link.value.state;
    },
    get traffic() {
      return { ...traffic };
    },
    get frames() {
      return { ...frameStats };
    },
    /** Figures of drawing begin anew: what the browser does once (shaders, fonts) is not asked about. */
    beginFigures: () => void Object.assign(frameStats, { frames: 0, drawMs: 0, longestDrawMs: 0, longestGapMs: 0 }),
    get rates() {
      return Object.fromEntries(activities.value);
    },
    get open() {
      return current.opened?.path.join('/') ?? null;
    },
    get streams() {
      return (current.opened?.streams.value ?? []).map(({ name }) => name);
    },
    get feeds() {
      const { opened, stream } = current;
      return opened && stream ? opened.feedsOf(stream).map((feed) => ({ path: feed.path.join('/'), state: feed.state.value, at: feed.at, gaps: feed.gaps, error: feed.error.value })) : [];
    },
    column(name: string): number[] | null {
      const { opened, stream } = current;
      const found = opened && stream && opened.column(stream, name);
      return found ? Array.from(found.view()) : null;
    },
    length(name: string): number {
      const { opened, stream } = current;
      return (opened && stream && opened.column(stream, name)?.length) || 0;
    },
    get panes() {
      return panesForTests.map((pane) => pane.drawn);
    },
    pixelOf: (pane: number, x: number, y: number) => panesForTests[pane]?.pixelOf(x, y) ?? null,
    get image() {
      const shown = shownFrames.current;
      const picture = shown?.picture.value;
      return shown && picture
        ? { index: picture.index, width: picture.width, height: picture.height, shown: shown.shown, skipped: shown.skipped, painter: shownFrames.painter?.kind, shape: shown.shape.value }
        : null;
    },
    pixel: (x: number, y: number) => {
      const picture = shownFrames.current?.picture.value;
      return picture ? picture.cells[y * picture.width + x] : null;
    },
  },
});
