/**
 * What is open: a run, a stream, a plain array or table; the nodes below it as they appear, and feeds of those that are shown.
 *
 * A stream is a container that holds tables or arrays; a plain node is a stream of its own. Topology comes by one subscription of
 * the subtree without data; data by one subscription for each node that is visible.
 */

import { effect, signal } from '@preact/signals';
import type { Column } from '../data/columns';
import { subscribe } from '../wire/client';
import { isNumeric } from '../wire/cells';
import type { BlockEvent, NodeLevelEvent, Spec } from '../wire/messages';
import { urlOf } from './address';
import { edited, entryOf, type Entry } from './catalog';
import { ArrayFeed, TableFeed, type Feed } from './feeds';
import { getJson } from './rest';

export interface Known {
  path: string[];
  key: string;
  family: string;
  specs: Spec[];
  metadata: Record<string, any>;
  structure: any;
}

export interface Stream {
  name: string;
  path: string[];
  metadata: Record<string, any>;
  tables: Known[];
  /** One-dimensional, numeric. */
  traces: Known[];
  /** Two dimensions or more, numeric. */
  images: Known[];
}

export class Opened {
  readonly entry = signal<Entry | null>(null);
  readonly error = signal('');
  readonly streams = signal<Stream[]>([]);
  readonly isOver = signal(false);
  readonly nodes = new Map<string, Known>();
  private feeds = new Map<string, Feed>();
  private leave: () => void = () => {};
  private isClosed = false;
  private planned = 0;
  /** The stop document of a run is an edit that its parent tells of. */
  private unlisten = effect(() => {
    const edit = edited.value;
    const entry = this.entry.peek();
    if (entry && edit?.path === this.path.join('/')) this.entry.value = { ...entry, metadata: edit.metadata, specs: edit.specs };
  });

  constructor(readonly path: string[]) {
    this.open().catch((error: Error) => (this.error.value = error.message));
  }

  private async open(): Promise<void> {
    const { data } = await getJson(`/metadata/${urlOf(this.path)}`);
    if (this.isClosed) return;
    const entry = entryOf(data.id, this.path.slice(0, -1), data.attributes);
    this.entry.value = entry;
    this.note(entry);
    if (entry.family === 'container') {
      this.leave = subscribe(this.path, { start: null, subtree: true, payload: false }, (event) => this.heard(event));
    }
  }

  close(): void {
    this.isClosed = true;
    this.leave();
    this.unlisten();
    for (const feed of this.feeds.values()) feed.stop();
    this.feeds.clear();
  }

  /** The parent may not be the container that is listed: what it was told at the end is asked for. */
  private finish(): void {
    this.isOver.value = true;
    if (this.entry.peek()?.metadata.stop) return;
    getJson(`/metadata/${urlOf(this.path)}`).then(
      ({ data }) => (this.entry.value = entryOf(data.id, this.path.slice(0, -1), data.attributes)),
      () => {}, // deleted
    );
  }

  private heard(event: NodeLevelEvent): void {
    switch (event.kind) {
      case 'node':
        return this.note({ ...event, path: event.path.split('/'), key: event.path.split('/').at(-1)! });
      case 'child': {
        const known = this.nodes.get(`${event.path}/${event.key}`);
        if (!event.created && known) this.note({ ...known, metadata: event.metadata, specs: event.specs });
        return;
      }
      case 'block':
        return this.grow(event);
      case 'ended':
      case 'deleted':
        if (event.path === this.path.join('/')) this.finish();
    }
  }

  /** The shape of an array after an update of which only the header came. */
  private grow(event: BlockEvent): void {
    const known = this.nodes.get(event.path);
    if (!known?.structure?.shape) return;
    const shape: number[] = event.full ?? shapeAfter(known.structure.shape, event);
    if (shape.join() === known.structure.shape.join()) return;
    known.structure = { ...known.structure, shape };
    this.plan();
  }

  private note(known: Known): void {
    this.nodes.set(known.path.join('/'), known);
    this.plan();
  }

  private plan(): void {
    this.planned ||= setTimeout(() => {
      this.planned = 0;
      this.streams.value = this.arranged();
    }, 0) as unknown as number;
  }

  private arranged(): Stream[] {
    const found = new Map<string, Stream>();
    for (const node of this.nodes.values()) {
      const shape: number[] | undefined = node.structure?.shape;
      const isCells = node.family === 'array' && isNumeric(node.structure?.data_type);
      if (node.family !== 'table' && !isCells) continue;
      // Only what a stream holds belongs together: rows of other containers have nothing to do with each other.
      const parent = this.nodes.get(node.path.slice(0, -1).join('/'));
      const isItself = !parent?.specs.some(({ name }) => name === 'BlueskyEventStream');
      const path = isItself ? node.path : node.path.slice(0, -1);
      const stream = found.get(path.join('/')) ?? {
        name: path.slice(this.path.length).join('/') || path.at(-1) || '/',
        path,
        metadata: this.nodes.get(path.join('/'))?.metadata ?? {},
        tables: [],
        traces: [],
        images: [],
      };
      found.set(path.join('/'), stream);
      if (node.family === 'table') stream.tables.push(node);
      else if (shape && shape.length > 1) stream.images.push(node);
      else if (shape?.length === 1) stream.traces.push(node);
    }
    const order = (stream: Stream): number => ['primary', 'baseline'].indexOf(stream.name) >>> 0;
    return [...found.values()].sort((a, b) => (a.name === 'primary' ? -1 : b.name === 'primary' ? 1 : order(a) - order(b)));
  }

  /** The feed of a table or a trace; begins with the first who asks. */
  feed(node: Known): Feed {
    const name = node.path.join('/');
    let feed = this.feeds.get(name);
    if (!feed) {
      feed = node.family === 'table' ? new TableFeed(node.path) : new ArrayFeed(node.path, node.structure);
      this.feeds.set(name, feed);
    }
    return feed;
  }

  /** Feeds of the tables of a stream, and of those traces that somebody looks at. */
  feedsOf(stream: Stream): Feed[] {
    const traces = stream.traces.flatMap((node) => this.feeds.get(node.path.join('/')) ?? []);
    return [...this.tablesOf(stream), ...traces];
  }

  /** Somebody looks at these columns: traces among them are fed from now on. */
  use(stream: Stream, names: string[]): Feed[] {
    for (const node of stream.traces) if (names.includes(node.key)) this.feed(node);
    return this.feedsOf(stream);
  }

  tablesOf(stream: Stream): TableFeed[] {
    return stream.tables.map((node) => this.feed(node) as TableFeed);
  }

  /** A numeric column of a stream, from whichever node has it. */
  column(stream: Stream, name: string): Column | undefined {
    for (const table of this.tablesOf(stream)) {
      const found = table.rows.numbers.get(name);
      if (found) return found;
    }
    const trace = stream.traces.find(({ key }) => key === name);
    return trace && (this.feeds.get(trace.path.join('/')) as ArrayFeed | undefined)?.column;
  }

  /** Names of the numeric columns that are known by now, in their order. */
  columnNames(stream: Stream): string[] {
    const names = this.tablesOf(stream).flatMap(({ rows }) => rows.names.filter((name) => rows.numbers.has(name)));
    return [...new Set([...names, ...stream.traces.map(({ key }) => key)])];
  }
}

/** The shape of an array that something was written to. */
export function shapeAfter(shape: number[], { offset, shape: written, block }: Pick<BlockEvent, 'offset' | 'shape' | 'block'>): number[] {
  if (block) return shape;
  if (!offset) return written.length === shape.length ? written : shape;
  return shape.map((length, axis) => Math.max(length, (offset[axis] ?? 0) + (written[axis] ?? 0)));
}
